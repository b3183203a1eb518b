//! A record that goes on: what `consumers.enforcer.pipeline.Accepted` is in plain Python, field by field.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// One accepted record. `plaintext` = uint32 length | Released | zeros.
#[pyclass(frozen, module = "sealbus_native")]
pub struct Accepted {
    pub digest: [u8; 32],
    #[pyo3(get)]
    pub key: Py<PyAny>,
    #[pyo3(get)]
    pub decided: Py<PyAny>,
    pub plaintext: Vec<u8>,
    pub message_id: [u8; 16],
    pub instance_sequence: [u8; 24],
    #[pyo3(get)]
    pub offset: i64,
    #[pyo3(get)]
    pub append_time: i64,
    #[pyo3(get)]
    pub gap: u64,
    #[pyo3(get)]
    pub size: u32,
    pub session: Box<[u8]>,
    pub causes: Box<[u8]>,
    /// Where the payload's length stands in `plaintext`; 0 in those that Python made.
    #[pyo3(get)]
    pub payload: usize,
}

#[pymethods]
impl Accepted {
    #[new]
    #[allow(clippy::too_many_arguments)]
    fn new(
        digest: [u8; 32],
        key: Py<PyAny>,
        decided: Py<PyAny>,
        plaintext: &[u8],
        message_id: [u8; 16],
        instance_sequence: [u8; 24],
        offset: i64,
        append_time: i64,
        gap: u64,
        size: u32,
        session: &[u8],
        causes: &[u8],
    ) -> Self {
        let (plaintext, session, causes) = (plaintext.to_vec(), session.into(), causes.into());
        Self {
            digest, key, decided, plaintext, message_id, instance_sequence, offset, append_time, gap, size, session,
            causes, payload: 0,
        }
    }

    /// The same record with another decision and, where it is given, another plaintext.
    #[pyo3(signature = (decided, plaintext=None))]
    fn variant(&self, py: Python<'_>, decided: Py<PyAny>, plaintext: Option<&[u8]>) -> Self {
        Self {
            digest: self.digest,
            key: self.key.clone_ref(py),
            decided,
            plaintext: plaintext.map_or_else(|| self.plaintext.clone(), <[u8]>::to_vec),
            message_id: self.message_id,
            instance_sequence: self.instance_sequence,
            offset: self.offset,
            append_time: self.append_time,
            gap: self.gap,
            size: self.size,
            session: self.session.clone(),
            causes: self.causes.clone(),
            payload: 0,
        }
    }

    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.digest)
    }

    #[getter]
    fn plaintext<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.plaintext)
    }

    #[getter]
    fn message_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message_id)
    }

    #[getter]
    fn instance_sequence<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.instance_sequence)
    }

    #[getter]
    fn session<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.session)
    }

    #[getter]
    fn causes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.causes)
    }

    /// Bytes of `plaintext`, without a copy of it.
    #[getter]
    fn length(&self) -> usize {
        self.plaintext.len()
    }

    fn __repr__(&self) -> String {
        format!("Accepted(offset={}, size={})", self.offset, self.size)
    }
}
