//! Sealing of an agent's records: what `bus.crypto.seal.Sealer.seal` does for one partition.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ring::{aead, hmac};

use crate::framing::{self, HEADER, MAC_END, TAG};
use crate::protect::aes_256_gcm;

/// Keys and preimages of one sending process on one partition; its owner counts the sequences.
#[pyclass(frozen, module = "sealbus_native")]
pub struct Sealer {
    mac: hmac::Context,
    aead: aead::LessSafeKey,
    aad: Vec<u8>,
    header: [u8; 44],
    partition: [u8; 4],
}

#[pymethods]
impl Sealer {
    /// `header`: marker, suite, key id and instance.
    #[new]
    fn new(
        mac_key: &[u8], mac_prefix: &[u8], seal_key: &[u8], aad: &[u8], header: [u8; 44], partition: u32,
    ) -> PyResult<Self> {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, mac_key));
        mac.update(mac_prefix);
        Ok(Self { mac, aead: aes_256_gcm(seal_key)?, aad: aad.to_vec(), header, partition: partition.to_be_bytes() })
    }

    fn __repr__(&self) -> &'static str {
        "Sealer()"
    }

    /// A Sealed of `plaintext`.
    fn seal<'py>(&self, py: Python<'py>, sequence: u64, plaintext: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let sequence = sequence.to_be_bytes();
        let mut value = Vec::with_capacity(MAC_END + 5 + plaintext.len() + TAG);
        value.extend_from_slice(&self.header);
        value.extend_from_slice(&sequence);
        value.extend_from_slice(&[0; 32]);
        framing::push_length(&mut value, plaintext.len() + TAG);
        let body = value.len();
        value.extend_from_slice(plaintext);
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.partition);
        nonce[4..].copy_from_slice(&sequence);
        let mut covered = Vec::with_capacity(self.aad.len() + HEADER);
        covered.extend_from_slice(&self.aad);
        covered.extend_from_slice(&value[..HEADER]);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let tag = self
            .aead
            .seal_in_place_separate_tag(nonce, aead::Aad::from(&covered), &mut value[body..])
            .map_err(|_| PyValueError::new_err("body: too long to seal"))?;
        value.extend_from_slice(tag.as_ref());
        let mut mac = self.mac.clone();
        mac.update(&value[..HEADER]);
        mac.update(&value[MAC_END..]);
        value[HEADER..MAC_END].copy_from_slice(mac.sign().as_ref());
        Ok(PyBytes::new(py, &value))
    }
}
