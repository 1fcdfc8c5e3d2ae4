//! Binding of `tasc_core::format::scratch`.
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use tasc_core::format::scratch;

use crate::error::Raise;

/// A hidden folder beside `target` for a file or folder that is being written; `close` removes it.
#[pyclass(frozen, module = "tasc._core")]
pub(crate) struct ScratchFolder {
    /// Where it is.
    #[pyo3(get)]
    path: PathBuf,
    open: Mutex<Option<scratch::ScratchFolder>>,
}

#[pymethods]
impl ScratchFolder {
    #[new]
    #[pyo3(signature = (target, *, exclusive))]
    fn create(py: Python<'_>, target: PathBuf, exclusive: bool) -> PyResult<Self> {
        let folder = py.detach(|| match exclusive {
            true => scratch::ScratchFolder::exclusive(&target),
            false => scratch::ScratchFolder::beside(&target)
                .map_err(|source| tasc_core::Error::Io { path: target.clone(), source }),
        });
        let folder = folder.raise()?;
        Ok(Self { path: folder.path().into(), open: Mutex::new(Some(folder)) })
    }

    /// Remove the folder and what is in it.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.open.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }
}
