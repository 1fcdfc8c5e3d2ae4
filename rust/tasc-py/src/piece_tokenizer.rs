//! A Python tokenizer as the core's `PieceTokenizer`.
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use tasc_core::format::Fingerprint;
use tasc_core::text::PieceTokenizer;
use tasc_core::{Error, Result, TokenId};

use crate::error::Raise;

/// Calls `tokenizer.spell(pieces)`, (N,) text → N lists of ids; keeps the exception that it raises.
pub(crate) struct PyPieceTokenizer {
    tokenizer: Py<PyAny>,
    raised: Mutex<Option<PyErr>>,
}

impl PyPieceTokenizer {
    fn new(tokenizer: Py<PyAny>) -> Arc<Self> {
        Arc::new(Self { tokenizer, raised: Mutex::new(None) })
    }

    /// The same, once it is clear that the tokenizer is the one that made `of`.
    ///
    /// # Errors
    /// `TokenizerMismatchError` when it says that it is another one; those that know nothing of fingerprints pass.
    pub(crate) fn matching(py: Python<'_>, tokenizer: Py<PyAny>, of: &Fingerprint, path: &Path) -> PyResult<Arc<Self>> {
        let said = tokenizer.getattr(py, "fingerprint").and_then(|f| f.extract::<String>(py));
        if let Some(wanted) = said.ok().and_then(|hex| Fingerprint::from_hex(&hex)).filter(|f| f != of) {
            return Err(Error::Fingerprint { path: path.into(), found: *of, wanted }).raise();
        }
        Ok(Self::new(tokenizer))
    }

    /// The exception that the tokenizer raised since the last time.
    pub(crate) fn raised(&self) -> Option<PyErr> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl PieceTokenizer for PyPieceTokenizer {
    fn tokenize_pieces(&self, pieces: &[&str]) -> Result<Vec<Vec<TokenId>>> {
        let spelled = Python::attach(|py| {
            self.tokenizer.call_method1(py, "spell", (pieces,)).and_then(|ids| ids.extract::<Vec<Vec<TokenId>>>(py))
        });
        spelled.map_err(|error| {
            *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            Error::Stopped
        })
    }
}
