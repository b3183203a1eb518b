//! What a reader takes of a released plaintext, as `bus.client.opening` slices it.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::framing::{content, read_length, split_at};

const ORIGIN_END: usize = 14;

/// Profile behind its length, message id, two times, session, causes, reply_to, part of a message, payload; `None` for
/// all that has a ticket or is in any way unusual, which Python reads.
#[pyfunction]
pub fn released<'py>(py: Python<'py>, plain: &[u8], mark: &[u8]) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let Some(plain) = content(plain) else {
        return Ok(None);
    };
    if plain.get(ORIGIN_END) != Some(&0) {
        return Ok(None);
    }
    let Some((size, begin)) = read_length(plain, ORIGIN_END + 1) else {
        return Ok(None);
    };
    if begin.checked_add(size) != Some(plain.len()) {
        return Ok(None);
    }
    let Some(found) = split_at(plain, begin, mark, &[]) else {
        return Ok(None);
    };
    let Some((_, payload)) = read_length(plain, found.payload) else {
        return Ok(None);
    };
    let (Ok(session), Ok(reply_to)) = (
        std::str::from_utf8(&plain[found.session.0..found.session.1]),
        std::str::from_utf8(&plain[found.reply_to.0..found.reply_to.1]),
    ) else {
        return Ok(None);
    };
    let number = |at: usize| u64::from_be_bytes(plain[at..at + 8].try_into().unwrap_or_default());
    let half = |at: usize| u32::from_be_bytes(plain[at..at + 4].try_into().unwrap_or_default());
    let (first, last) = found.causes;
    let causes = if last > first + 1 { &plain[first + 1..last - 1] } else { &[] };
    let chunk = match found.chunk {
        None => py.None().into_bound(py),
        Some(at) => (PyBytes::new(py, &plain[at..at + 16]), half(at + 16), half(at + 20)).into_pyobject(py)?.into_any(),
    };
    let message = found.message;
    let parts = (
        PyBytes::new(py, &plain[found.profile.0..found.profile.1]),
        PyBytes::new(py, &plain[message..message + 16]),
        number(message + 16),
        number(message + 24),
        PyString::new(py, session),
        PyBytes::new(py, causes),
        PyString::new(py, reply_to),
        chunk,
        PyBytes::new(py, &plain[payload..]),
    );
    Ok(Some(parts.into_pyobject(py)?))
}
