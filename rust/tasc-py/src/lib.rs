//! `tasc._core`: one thin file per core module.
use pyo3::prelude::*;

/// The compiled half of tasc.
#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
