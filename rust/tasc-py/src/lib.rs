//! `tasc._core`: one thin file per core module.
use pyo3::prelude::*;

mod draft;

/// The compiled half of tasc.
#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add_class::<draft::Draft>()?;
    m.add_class::<draft::NgramDrafter>()?;
    m.add_class::<draft::Request>()?;
    Ok(())
}
