//! Hops of an opened hop block to entries of the ledger, for constant runs that Python decoded before
//! (`consumers.audit.recorder`), and the rows of the search index over entries (`bus.ledger.postings`).

use std::collections::HashMap;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyTuple, PyType};
use ring::{aead, digest, hmac};

use crate::framing;
use crate::protect::aes_256_gcm;

/// Bytes of a hop before its correlation id, as `bus.wire.hop.encode_hop` writes them.
const FIXED: usize = 150;
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const HEX: &[u8; 16] = b"0123456789abcdef";
const TOKEN: usize = 16;

/// What is known of a hop's constant run: whether it is an event's, and the tokens that stand between those of decision
/// and correlation.
struct Tail {
    topic: String,
    event: bool,
    tokens: Vec<Py<PyBytes>>,
}

/// Keys of one audit day, and the constant runs of hops that Python decoded.
#[pyclass(module = "sealbus_native")]
pub struct DayRecorder {
    hops: hmac::Key,
    decision: hmac::Context,
    correlation: hmac::Context,
    message: hmac::Context,
    limit: usize,
    tails: HashMap<Vec<u8>, Tail>,
    entry: Py<PyType>,
    make: Py<PyAny>,
}

/// Where the parts of a hop stand.
struct Parts<'a> {
    session: &'a [u8],
    causes: &'a [u8],
    tail: &'a [u8],
}

#[pymethods]
impl DayRecorder {
    /// `hops`, `search`: the day's keys; `decision`, `correlation`, `message`: what stands before a value of that field
    /// in a token's preimage; `limit`: constant runs held, beyond which all are forgotten; `entry`: the named tuple made.
    #[new]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>, hops: &[u8], search: &[u8], decision: &[u8], correlation: &[u8], message: &[u8], limit: usize,
        entry: Py<PyType>,
    ) -> PyResult<Self> {
        let search = hmac::Key::new(hmac::HMAC_SHA256, search);
        let before = |prefix: &[u8]| {
            let mut context = hmac::Context::with_key(&search);
            context.update(prefix);
            context
        };
        Ok(Self {
            hops: hmac::Key::new(hmac::HMAC_SHA256, hops),
            decision: before(decision),
            correlation: before(correlation),
            message: before(message),
            limit,
            tails: HashMap::new(),
            entry,
            make: py.get_type::<PyTuple>().getattr("__new__")?.unbind(),
        })
    }

    fn __repr__(&self) -> &'static str {
        "DayRecorder()"
    }

    fn __len__(&self) -> usize {
        self.tails.len()
    }

    /// Take over a constant run that Python decoded; `tokens`: of its verdict, code, agent and domain.
    fn learn(&mut self, tail: &[u8], topic: String, event: bool, tokens: Vec<Py<PyBytes>>) {
        if self.tails.len() >= self.limit {
            self.tails.clear();
        }
        self.tails.insert(tail.to_vec(), Tail { topic, event, tokens });
    }

    /// The entries of a block's `count` hops; None where Python must judge it. `first`, `upto`: the block's interval of
    /// `topic` and `partition`; `key_place`, `place`: what stands before the index in the message of k and in a position.
    #[allow(clippy::too_many_arguments)]
    fn record<'py>(
        &self,
        py: Python<'py>,
        opened: &[u8],
        count: usize,
        topic: &str,
        partition: u32,
        first: u64,
        upto: u64,
        key_place: &[u8],
        place: &[u8],
        day: Bound<'py, PyInt>,
        offset: Bound<'py, PyInt>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let made = PyList::empty(py);
        let make = self.make.bind(py);
        let (mut at, mut next, mut index) = (0, first, 0u32);
        let mut position = place.to_vec();
        let mut sealed = Vec::new();
        while at < opened.len() {
            let Some(size) = opened.get(at..at + 4) else { return Ok(None) };
            let start = at + 4;
            at = start + u32::from_be_bytes(size.try_into().expect("4 bytes")) as usize;
            let Some(hop) = opened.get(start..at) else { return Ok(None) };
            let Some(parts) = split(hop) else { return Ok(None) };
            let Some(tail) = self.tails.get(parts.tail) else { return Ok(None) };
            let stands = u64::from_be_bytes(hop[118..126].try_into().expect("8 bytes"));
            if hop[..10] != hop[10..20] || tail.topic != topic || hop[114..118] != partition.to_be_bytes() {
                return Ok(None);
            }
            if tail.event {
                if stands < first || stands > upto {
                    return Ok(None);
                }
            } else {
                if stands < next || stands >= upto {
                    return Ok(None);
                }
                next = stands + 1;
            }
            position.truncate(place.len());
            position.extend_from_slice(&index.to_be_bytes());
            let mut key = hmac::Context::with_key(&self.hops);
            key.update(key_place);
            key.update(&index.to_be_bytes());
            let key = key.sign();
            sealed.clear();
            sealed.extend_from_slice(hop);
            // k seals one plaintext (docs/wire-format.md, section 14).
            let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
            aes_256_gcm(key.as_ref())?
                .seal_in_place_append_tag(nonce, aead::Aad::from(&position), &mut sealed)
                .map_err(|_| PyValueError::new_err("hop: too long to seal"))?;
            let disclosure = sha256(&[key.as_ref(), hop]);
            let leaf = sha256(&[&[0], &position, sha256(&[&sealed]).as_ref(), disclosure.as_ref()]);
            let fields: [Bound<'py, PyAny>; 7] = [
                day.clone().into_any(),
                offset.clone().into_any(),
                index.into_pyobject(py)?.into_any(),
                PyBytes::new(py, &sealed).into_any(),
                PyBytes::new(py, disclosure.as_ref()).into_any(),
                PyBytes::new(py, leaf.as_ref()).into_any(),
                self.tokens(py, hop, &parts, tail)?.into_any(),
            ];
            made.append(make.call1((self.entry.bind(py), PyTuple::new(py, fields)?))?)?;
            index += 1;
        }
        Ok((made.len() == count).then_some(made))
    }
}

impl DayRecorder {
    /// Blind tokens in the order of `bus.ledger.leaf.search_terms`.
    fn tokens<'py>(&self, py: Python<'py>, hop: &[u8], parts: &Parts, tail: &Tail) -> PyResult<Bound<'py, PyTuple>> {
        let mut made = Vec::with_capacity(tail.tokens.len() + 3 + parts.causes.len() / 16);
        made.push(token(py, &self.decision, &base32(&hop[..10])));
        made.extend(tail.tokens.iter().map(|each| each.bind(py).clone()));
        if !parts.session.is_empty() {
            made.push(token(py, &self.correlation, parts.session));
        }
        let message = &hop[74..90];
        if message.iter().any(|&each| each != 0) {
            made.push(token(py, &self.message, &hex(message)));
        }
        made.extend(parts.causes.chunks_exact(16).map(|each| token(py, &self.message, &hex(each))));
        PyTuple::new(py, made)
    }
}

/// The parts of a hop whose session and number of causes are each behind one byte, as `encode_hop` writes them.
fn split(hop: &[u8]) -> Option<Parts<'_>> {
    let size = *hop.get(FIXED)?;
    if size & 0x81 != 0 {
        return None;
    }
    let start = FIXED + 1 + usize::from(size >> 1);
    let session = hop.get(FIXED + 1..start)?;
    std::str::from_utf8(session).ok()?;
    let count = *hop.get(start)?;
    if count & 0x81 != 0 {
        return None;
    }
    let end = start + 1 + 8 * usize::from(count);
    let causes = hop.get(start + 1..end)?;
    if count == 0 {
        return Some(Parts { session, causes, tail: &hop[end..] });
    }
    (*hop.get(end)? == 0).then(|| Parts { session, causes, tail: &hop[end + 1..] })
}

fn sha256(parts: &[&[u8]]) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for each in parts {
        context.update(each);
    }
    context.finish()
}

/// `value` has fewer than 2^16 bytes.
fn token<'py>(py: Python<'py>, before: &hmac::Context, value: &[u8]) -> Bound<'py, PyBytes> {
    let mut context = before.clone();
    context.update(&(value.len() as u16).to_be_bytes());
    context.update(value);
    PyBytes::new(py, &context.sign().as_ref()[..TOKEN])
}

/// Ten bytes as a printed decision id.
fn base32(data: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    for (five, eight) in data.chunks_exact(5).zip(out.chunks_exact_mut(8)) {
        let bits = five.iter().fold(0u64, |bits, &each| bits << 8 | u64::from(each));
        for (place, each) in eight.iter_mut().enumerate() {
            *each = BASE32[(bits >> (35 - 5 * place) & 31) as usize];
        }
    }
    out
}

fn hex(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (&byte, pair) in data.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    out
}

/// The leaves of one block that a token finds: the first, the end of its newest run, and what is written of the others.
struct Finding<'py> {
    token: Bound<'py, PyBytes>,
    first: u64,
    last: u64,
    run: usize,
    others: Vec<u8>,
}

/// Rows of the search index over `entries`, the first of which stands at `place`: `bus.ledger.postings.plain_rows`.
#[pyfunction]
pub fn postings<'py>(
    py: Python<'py>, entries: &Bound<'py, PyList>, place: u64, segment_bits: u32, bucket_bits: u32, max_block: u64,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let mut index = Index { several: PyList::empty(py), single: PyList::empty(py), segment_bits, bucket_bits };
    let mut findings: Vec<Finding<'py>> = Vec::new();
    let mut known: HashMap<Box<[u8]>, usize> = HashMap::new();
    let (mut block, mut start): (Option<u64>, u64) = (None, place);
    for (at, entry) in (place..).zip(entries.iter()) {
        let entry = entry.cast::<PyTuple>()?;
        let offset = Some(entry.get_borrowed_item(1)?.extract()?);
        if offset != block || at - start == max_block {
            index.add(py, start, &mut findings)?;
            known.clear();
            (block, start) = (offset, at);
        }
        let tokens = entry.get_borrowed_item(6)?;
        for token in tokens.cast::<PyTuple>()?.iter() {
            let token = token.cast_into::<PyBytes>()?;
            let number = known.get(token.as_bytes()).copied();
            match number.map(|number| &mut findings[number]) {
                None => {
                    if token.as_bytes().len() != TOKEN {
                        return Err(PyValueError::new_err("token: expected 16 bytes"));
                    }
                    known.insert(token.as_bytes().into(), findings.len());
                    findings.push(Finding { token, first: at, last: at, run: 0, others: Vec::new() });
                }
                Some(each) if each.last == at => {}
                Some(each) if each.last + 1 == at => {
                    each.last = at;
                    each.run += 1;
                }
                Some(each) => {
                    framing::push_length(&mut each.others, each.run);
                    framing::push_length(&mut each.others, (at - each.last - 2) as usize);
                    each.last = at;
                    each.run = 0;
                }
            }
        }
    }
    index.add(py, start, &mut findings)?;
    Ok((index.several, index.single))
}

struct Index<'py> {
    several: Bound<'py, PyList>,
    single: Bound<'py, PyList>,
    segment_bits: u32,
    bucket_bits: u32,
}

impl<'py> Index<'py> {
    /// The rows of a block whose first leaf stands at `start`.
    fn add(&mut self, py: Python<'py>, start: u64, findings: &mut Vec<Finding<'py>>) -> PyResult<()> {
        let mut buckets = vec![Vec::new(); 1 << self.bucket_bits];
        for mut each in findings.drain(..) {
            if each.last == each.first {
                let token = each.token.as_bytes();
                let bucket: &mut Vec<u8> = &mut buckets[usize::from(token[0] >> (8 - self.bucket_bits))];
                bucket.extend_from_slice(token);
                bucket.extend_from_slice(&((each.first - start) as u16).to_be_bytes());
            } else {
                framing::push_length(&mut each.others, each.run);
                let others = PyBytes::new(py, &each.others);
                self.several.append((each.first >> self.segment_bits, each.token, each.first, others))?;
            }
        }
        for (number, bucket) in buckets.iter().enumerate().filter(|(_, bucket)| !bucket.is_empty()) {
            self.single.append((start >> self.segment_bits, number, start, PyBytes::new(py, bucket)))?;
        }
        Ok(())
    }
}
