//! Steps 1 to 7 and 9 of consecutive records of one partition, for senders and profiles that Python accepted before.

use std::collections::HashMap;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use ring::{aead, digest, hmac};
use subtle::ConstantTimeEq;

use crate::accepted::Accepted;
use crate::framing::{self, HEADER, MAC_END, TAG};

/// A profile behind its length, how it is masked, and Python's decision.
struct Profile {
    prefixed: Vec<u8>,
    masked: Vec<u8>,
    decided: Py<PyAny>,
}

/// One sending process of one agent in one epoch. Times in ms since 1970.
struct Sender {
    mac: hmac::Context,
    aead: aead::LessSafeKey,
    opens: i64,
    closes: i64,
    name: Py<PyBytes>,
    key: Py<PyAny>,
    profiles: HashMap<Vec<u8>, usize>,
    held: Vec<Profile>,
    last: usize,
}

/// What is known of one input partition.
#[pyclass(module = "sealbus_native")]
pub struct Acceptor {
    head: Vec<u8>,
    mark: Vec<u8>,
    aad: Vec<u8>,
    mac_prefix: Vec<u8>,
    partition: [u8; 4],
    skew: i64,
    limit: usize,
    cell: usize,
    held: usize,
    senders: HashMap<[u8; 32], Sender>,
    plain: Vec<u8>,
}

/// A record that passed every check but the window, which comes last here because nothing may follow it that refuses.
struct Candidate {
    digest: [u8; 32],
    plaintext: Vec<u8>,
    message_id: [u8; 16],
    session: Box<[u8]>,
    causes: Box<[u8]>,
    payload: usize,
    profile: usize,
}

#[pymethods]
impl Acceptor {
    /// `head`: marker and suite of a Sealed; `mark`: marker of an envelope; `aad`, `mac_prefix`: preimages of the place;
    /// `skew`: ms; `limit`: senders and profiles held, beyond which all are forgotten.
    #[new]
    fn new(
        head: &[u8], mark: &[u8], aad: &[u8], mac_prefix: &[u8], partition: u32, skew: i64, limit: usize,
    ) -> Self {
        Self {
            head: head.to_vec(),
            mark: mark.to_vec(),
            aad: aad.to_vec(),
            mac_prefix: mac_prefix.to_vec(),
            partition: partition.to_be_bytes(),
            skew,
            limit,
            cell: 0,
            held: 0,
            senders: HashMap::new(),
            plain: Vec::new(),
        }
    }

    /// Forget every sender and profile: keys or policy changed. Plaintexts are filled with zeros to a multiple of
    /// `cell` bytes from now on; 0 leaves them as they are.
    fn clear(&mut self, cell: usize) {
        self.cell = cell;
        self.forget();
    }

    fn __len__(&self) -> usize {
        self.held
    }

    /// Take over a sender (key id | instance) and a profile, as of a record that Python accepted.
    #[allow(clippy::too_many_arguments)]
    fn learn(
        &mut self,
        py: Python<'_>,
        name: [u8; 32],
        key: Py<PyAny>,
        mac_key: &[u8],
        seal_key: &[u8],
        opens: i64,
        closes: i64,
        prefixed: &[u8],
        masked: &[u8],
        decided: Py<PyAny>,
    ) -> PyResult<()> {
        if self.held >= self.limit {
            self.forget();
        }
        if !self.senders.contains_key(&name) {
            let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, mac_key));
            mac.update(&self.mac_prefix);
            self.senders.insert(name, Sender {
                mac,
                aead: crate::protect::aes_256_gcm(seal_key)?,
                opens,
                closes,
                name: PyBytes::new(py, &name).unbind(),
                key,
                profiles: HashMap::new(),
                held: Vec::new(),
                last: 0,
            });
            self.held += 1;
        }
        let sender = self.senders.get_mut(&name).expect("it was inserted");
        if !sender.profiles.contains_key(prefixed) {
            sender.profiles.insert(prefixed.to_vec(), sender.held.len());
            sender.held.push(Profile { prefixed: prefixed.to_vec(), masked: masked.to_vec(), decided });
            self.held += 1;
        }
        sender.last = sender.profiles[prefixed];
        Ok(())
    }

    /// Accept records `at` up to `stop` into `outcomes`; returns the place of the first that Python must judge.
    #[allow(clippy::too_many_arguments)]
    fn accept<'py>(
        &mut self,
        py: Python<'py>,
        values: &Bound<'py, PyList>,
        times: &Bound<'py, PyList>,
        offsets: &Bound<'py, PyList>,
        at: usize,
        stop: usize,
        windows: &Bound<'py, PyAny>,
        outcomes: &Bound<'py, PyList>,
    ) -> PyResult<usize> {
        let before: i64 = windows.getattr(intern!(py, "highest_time"))?.extract()?;
        let take = windows.getattr(intern!(py, "accept"))?;
        let mut highest = before;
        let mut place = at;
        while place < stop {
            let item = values.get_item(place)?;
            let value = item.cast::<PyBytes>()?.as_bytes();
            let time: i64 = times.get_item(place)?.extract()?;
            let Some(effective) = self.effective(time, highest) else { break };
            let Some(name) = value.get(12..44).and_then(|each| <[u8; 32]>::try_from(each).ok()) else { break };
            let Some(sender) = self.senders.get_mut(&name) else { break };
            let candidate = sender.judge(value, &self.head, &self.mark, &self.aad, self.partition, effective,
                                         self.skew, self.cell, &mut self.plain);
            let Some(made) = candidate else { break };
            let mut instance_sequence = [0; 24];
            instance_sequence.copy_from_slice(&value[28..52]);
            let sequence = u64::from_be_bytes(value[44..52].try_into().expect("8 bytes"));
            let gap: i128 = take.call1((sender.name.bind(py), sequence))?.extract()?;
            let Ok(gap) = u64::try_from(gap) else { break }; // refused without an effect: Python says why
            highest = effective;
            sender.last = made.profile;
            outcomes.append(Accepted {
                digest: made.digest,
                key: sender.key.clone_ref(py),
                decided: sender.held[made.profile].decided.clone_ref(py),
                plaintext: made.plaintext,
                message_id: made.message_id,
                instance_sequence,
                offset: offsets.get_item(place)?.extract()?,
                append_time: time,
                gap,
                size: value.len() as u32,
                session: made.session,
                causes: made.causes,
                payload: made.payload,
            })?;
            place += 1;
        }
        if highest != before {
            windows.setattr(intern!(py, "highest_time"), highest)?;
        }
        Ok(place)
    }
}

impl Acceptor {
    fn forget(&mut self) {
        self.senders.clear();
        self.held = 0;
    }

    /// The effective time with a record appended at `time`; None where the broker's clock went back too far.
    fn effective(&self, time: i64, highest: i64) -> Option<i64> {
        match time {
            ..0 => None,
            _ if time > highest => Some(time),
            _ if time.checked_add(self.skew)? < highest => None,
            _ => Some(highest),
        }
    }
}

impl Sender {
    #[allow(clippy::too_many_arguments)]
    fn judge(
        &self, value: &[u8], head: &[u8], mark: &[u8], aad: &[u8], partition: [u8; 4], effective: i64, skew: i64,
        cell: usize, plain: &mut Vec<u8>,
    ) -> Option<Candidate> {
        let body = framing::sealed_body(value, head)?;
        let mut mac = self.mac.clone();
        mac.update(&value[..HEADER]);
        mac.update(&value[MAC_END..]);
        if !bool::from(mac.sign().as_ref().ct_eq(&value[HEADER..MAC_END])) {
            return None;
        }
        if !(self.opens..=self.closes).contains(&effective) {
            return None;
        }
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&partition);
        nonce[4..].copy_from_slice(&value[44..HEADER]);
        // One buffer for AAD and body: the AAD of a place is some 100 bytes.
        plain.clear();
        plain.extend_from_slice(aad);
        plain.extend_from_slice(&value[..HEADER]);
        plain.extend_from_slice(&value[body..]);
        let (covered, sealed) = plain.split_at_mut(aad.len() + HEADER);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let opened: &[u8] = self.aead.open_in_place(nonce, aead::Aad::from(&*covered), sealed).ok()?;
        debug_assert_eq!(opened.len(), value.len() - body - TAG);
        let known = self.held.get(self.last).map_or(&[][..], |each| &each.prefixed);
        let parts = framing::split(opened, mark, known)?;
        let told = &opened[parts.profile.0..parts.profile.1];
        let profile = if told == known { self.last } else { *self.profiles.get(told)? };
        let at = parts.message;
        let number = |from: usize| u64::from_be_bytes(opened[from..from + 8].try_into().expect("8 bytes"));
        let (created_at, expires_at) = (i128::from(number(at + 16)), i128::from(number(at + 24)));
        if expires_at < i128::from(effective) || created_at > i128::from(effective) + i128::from(skew) {
            return None;
        }
        let digest: [u8; 32] = digest::digest(&digest::SHA256, value).as_ref().try_into().expect("32 bytes");
        let (masked, rest) = (&self.held[profile].masked, &opened[at..parts.end]);
        let mut plaintext = Vec::with_capacity(4 + 10 + 1 + 5 + mark.len() + masked.len() + rest.len());
        plaintext.extend_from_slice(&[0; 4]);
        plaintext.extend_from_slice(&digest[..10]);
        plaintext.push(0);
        framing::push_length(&mut plaintext, mark.len() + masked.len() + rest.len());
        let payload = plaintext.len() + mark.len() + masked.len() + parts.payload - at;
        for part in [mark, masked, rest] {
            plaintext.extend_from_slice(part);
        }
        let size = (plaintext.len() - 4) as u32;
        plaintext[..4].copy_from_slice(&size.to_be_bytes());
        if cell > 0 {
            plaintext.resize(plaintext.len().next_multiple_of(cell), 0);
        }
        Some(Candidate {
            digest,
            plaintext,
            message_id: rest[..16].try_into().expect("16 bytes"),
            session: opened[parts.session.0..parts.session.1].into(),
            causes: opened[parts.causes.0..parts.causes.1].into(),
            payload,
            profile,
        })
    }
}
