//! Steps 10 and 11 for the records of one decision in one bundle of tier RETRIEVAL, and its opening.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ring::{aead, digest};

use crate::accepted::Accepted;
use crate::framing;

const MAX_GAP: u64 = u32::MAX as u64;

pub fn aes_256_gcm(key: &[u8]) -> PyResult<aead::LessSafeKey> {
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, key);
    Ok(aead::LessSafeKey::new(key.map_err(|_| PyValueError::new_err("AES-256: expected a key of 32 bytes"))?))
}

/// AES-256-GCM under one DEK; its owner counts the nonces.
#[pyclass(frozen, module = "sealbus_native")]
pub struct Cipher {
    key: aead::LessSafeKey,
}

#[pymethods]
impl Cipher {
    #[new]
    fn new(key: &[u8]) -> PyResult<Self> {
        Ok(Self { key: aes_256_gcm(key)? })
    }

    fn __repr__(&self) -> &'static str {
        "Cipher()"
    }

    /// (bundle entry, leaf hash, hop) of each of `outcomes`, sealed with counters from `counter` on.
    ///
    /// `head`: the bundle's; `aad`: what covers a body before its record id; `set_number`: uint16; `record_ids`: 16 bytes
    /// each; `tail`: the constant run of their hops; `full`: whether causation ids are told.
    #[allow(clippy::too_many_arguments)]
    fn protect<'py>(
        &self,
        py: Python<'py>,
        outcomes: Vec<PyRef<'py, Accepted>>,
        counter: u64,
        head: &[u8],
        aad: &[u8],
        set_number: [u8; 2],
        record_ids: &[u8],
        partition: u32,
        decided_at: i64,
        tail: &[u8],
        full: bool,
    ) -> PyResult<Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>)>> {
        if record_ids.len() != 16 * outcomes.len() {
            return Err(PyValueError::new_err("record ids: expected 16 bytes for each outcome"));
        }
        let mut covered = aad.to_vec();
        let mut made = Vec::with_capacity(outcomes.len());
        for (number, outcome) in outcomes.iter().enumerate() {
            let record_id = &record_ids[16 * number..16 * number + 16];
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&(counter + number as u64).to_be_bytes());
            covered.truncate(aad.len());
            covered.extend_from_slice(record_id);
            // record id | set | counter | length | body, in one buffer
            let size = outcome.plaintext.len() + framing::TAG;
            let mut entry = Vec::with_capacity(26 + 5 + size);
            entry.extend_from_slice(record_id);
            entry.extend_from_slice(&set_number);
            entry.extend_from_slice(&nonce[4..]);
            framing::push_length(&mut entry, size);
            let body = entry.len();
            entry.extend_from_slice(&outcome.plaintext);
            let nonce = aead::Nonce::assume_unique_for_key(nonce);
            let tag = self
                .key
                .seal_in_place_separate_tag(nonce, aead::Aad::from(&covered), &mut entry[body..])
                .map_err(|_| PyValueError::new_err("body: too long to seal"))?;
            entry.extend_from_slice(tag.as_ref());
            let mut leaf = digest::Context::new(&digest::SHA256);
            leaf.update(&[0]);
            leaf.update(head);
            leaf.update(&entry[..26]);
            leaf.update(&entry[body..]);
            let leaf = leaf.finish();
            let hop = hop(outcome, leaf.as_ref(), partition, decided_at, tail, full);
            made.push((PyBytes::new(py, &entry), PyBytes::new(py, leaf.as_ref()), PyBytes::new(py, &hop)));
        }
        Ok(made)
    }

    /// The plaintext of `body`; `None` where its tag does not hold, which Python refuses.
    fn open<'py>(&self, py: Python<'py>, nonce: [u8; 12], body: &[u8], aad: &[u8]) -> Option<Bound<'py, PyBytes>> {
        self.opened(py, nonce, body, aad, &mut Vec::with_capacity(body.len()))
    }

    /// As `open`, of a bundle's entries (record id and more, set, counter, body); `covered`: what covers a body before
    /// its record id.
    fn open_entries<'py>(
        &self,
        py: Python<'py>,
        covered: &[u8],
        entries: Vec<(Bound<'py, PyBytes>, u64, u64, Bound<'py, PyBytes>)>,
    ) -> Vec<Option<Bound<'py, PyBytes>>> {
        let mut aad = covered.to_vec();
        let mut scratch = Vec::new();
        let mut made = Vec::with_capacity(entries.len());
        for (fixed, _, counter, body) in &entries {
            let Some(record_id) = fixed.as_bytes().get(..16) else {
                made.push(None);
                continue;
            };
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&counter.to_be_bytes());
            aad.truncate(covered.len());
            aad.extend_from_slice(record_id);
            made.push(self.opened(py, nonce, body.as_bytes(), &aad, &mut scratch));
        }
        made
    }
}

impl Cipher {
    fn opened<'py>(
        &self, py: Python<'py>, nonce: [u8; 12], body: &[u8], aad: &[u8], scratch: &mut Vec<u8>,
    ) -> Option<Bound<'py, PyBytes>> {
        scratch.clear();
        scratch.extend_from_slice(body);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let plain: &[u8] = self.key.open_in_place(nonce, aead::Aad::from(aad), scratch).ok()?;
        Some(PyBytes::new(py, plain))
    }
}

/// A hop, as `bus.wire.hop.encode_hop` writes it.
fn hop(outcome: &Accepted, output: &[u8], partition: u32, decided_at: i64, tail: &[u8], full: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(152 + outcome.session.len() + outcome.causes.len() + tail.len());
    out.extend_from_slice(&outcome.digest[..10]);
    out.extend_from_slice(&outcome.digest);
    out.extend_from_slice(output);
    out.extend_from_slice(&outcome.message_id);
    out.extend_from_slice(&outcome.instance_sequence);
    out.extend_from_slice(&partition.to_be_bytes());
    for number in [outcome.offset, outcome.append_time, decided_at] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&(outcome.gap.min(MAX_GAP) as u32).to_be_bytes());
    out.extend_from_slice(&outcome.size.to_be_bytes());
    out.push((outcome.session.len() << 1) as u8);
    out.extend_from_slice(&outcome.session);
    out.extend_from_slice(if full { &outcome.causes } else { &[0] });
    out.extend_from_slice(tail);
    out
}
