//! Merkle trees of RFC 6962: the root over leaf hashes, and the root that an inclusion proof leads to.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use ring::digest;

type Hash = [u8; 32];

fn hash(value: &Bound<'_, PyAny>) -> PyResult<Hash> {
    let bytes = value.cast::<PyBytes>()?.as_bytes();
    bytes.try_into().map_err(|_| PyValueError::new_err("hash: expected 32 bytes"))
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut data = [1; 65];
    data[1..33].copy_from_slice(left);
    data[33..].copy_from_slice(right);
    digest::digest(&digest::SHA256, &data).as_ref().try_into().expect("32 bytes")
}

/// Root over leaf hashes (RFC 6962, section 2.1).
#[pyfunction]
pub fn tree_root<'py>(py: Python<'py>, leaves: &Bound<'py, PyList>) -> PyResult<Bound<'py, PyBytes>> {
    let mut level = leaves.iter().map(|each| hash(&each)).collect::<PyResult<Vec<_>>>()?;
    if level.is_empty() {
        return Ok(PyBytes::new(py, digest::digest(&digest::SHA256, b"").as_ref()));
    }
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| if let [left, right] = pair { node(left, right) } else { pair[0] }).collect();
    }
    Ok(PyBytes::new(py, &level[0]))
}

/// The root that `path` leads to from leaf `index` of `size` (RFC 9162, section 2.1.3.2), or None where it leads nowhere.
#[pyfunction]
pub fn path_root<'py>(
    py: Python<'py>, leaf: &Bound<'py, PyAny>, index: u64, size: u64, path: Vec<Bound<'py, PyAny>>,
) -> Option<Bound<'py, PyBytes>> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut value) = (index, size - 1, hash(leaf).ok()?);
    for sibling in &path {
        if last == 0 {
            return None;
        }
        let sibling = hash(sibling).ok()?;
        if at & 1 == 1 || at == last {
            value = node(&sibling, &value);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            value = node(&value, &sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then(|| PyBytes::new(py, &value))
}
