//! `tasc._core`: one thin file per core module.
use pyo3::prelude::*;

mod activations;
mod arrays;
mod count;
mod detach;
mod draft;
mod error;
mod files;
mod fork;
mod index;
mod merge;
mod piece_tokenizer;
mod store;

/// The compiled half of tasc.
#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    error::adopt_panics(m.py())?;
    fork::pause_at_forks(m.py())?;
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add("MIXTURE_SHAPE", draft::mixture_shape(m.py())?)?;
    m.add_function(wrap_pyfunction!(activations::activation_bytes, m)?)?;
    m.add_class::<files::ScratchFolder>()?;
    m.add_class::<store::Store>()?;
    m.add_class::<store::StoreWriter>()?;
    m.add_class::<count::NgramTable>()?;
    m.add_class::<count::NgramBatches>()?;
    m.add_function(wrap_pyfunction!(count::count_ngrams, m)?)?;
    m.add_function(wrap_pyfunction!(count::merge_ngrams, m)?)?;
    m.add_class::<index::TaskIndex>()?;
    m.add_function(wrap_pyfunction!(merge::merges, m)?)?;
    m.add_class::<merge::MergePlan>()?;
    m.add_class::<merge::PlanStream>()?;
    m.add_class::<draft::Calibration>()?;
    m.add_class::<draft::Draft>()?;
    m.add_class::<draft::NgramDrafter>()?;
    m.add_class::<draft::NgramRequest>()?;
    Ok(())
}
