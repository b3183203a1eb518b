//! Compiled steps of the record path (docs/adr/0005). They take over what plain Python would do in just the same way and
//! hand back, untouched and with no effect, every record that is in any way unusual: a refusal is never decided here.
//!
//! `accept` holds steps 1 to 7 and 9 of one input partition, `protect` steps 10 and 11 of one bundle, `seal` what an
//! agent does before that, `released` what a reader does behind it, `record` what the audit consumer makes of the hops,
//! `tree` hashes of Merkle trees. Which agent may do what is Python's to say: a sender and its profile are known here only
//! after Python accepted a record of theirs.

mod accept;
mod accepted;
mod framing;
mod protect;
mod record;
mod released;
mod seal;
mod tree;

use pyo3::prelude::*;

#[pymodule]
fn sealbus_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<accept::Acceptor>()?;
    module.add_class::<accepted::Accepted>()?;
    module.add_class::<protect::Cipher>()?;
    module.add_class::<record::DayRecorder>()?;
    module.add_class::<seal::Sealer>()?;
    module.add_function(wrap_pyfunction!(tree::path_root, module)?)?;
    module.add_function(wrap_pyfunction!(tree::tree_root, module)?)?;
    module.add_function(wrap_pyfunction!(record::postings, module)?)?;
    module.add_function(wrap_pyfunction!(released::released, module)?)?;
    Ok(())
}
