//! A Python tokenizer as the core's `Speller`.
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use tasc_core::input::Speller;
use tasc_core::{Error, Result, TokenId};

/// Calls `tokenizer.spell(pieces)`, (N,) text → N lists of ids; keeps the exception that it raises.
pub(crate) struct PySpeller {
    tokenizer: Py<PyAny>,
    raised: Mutex<Option<PyErr>>,
}

impl PySpeller {
    pub(crate) fn new(tokenizer: Py<PyAny>) -> Arc<Self> {
        Arc::new(Self { tokenizer, raised: Mutex::new(None) })
    }

    /// The exception that the tokenizer raised since the last time.
    pub(crate) fn raised(&self) -> Option<PyErr> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Speller for PySpeller {
    fn spell(&self, pieces: &[&str]) -> Result<Vec<Vec<TokenId>>> {
        let spelled = Python::attach(|py| {
            self.tokenizer.call_method1(py, "spell", (pieces,)).and_then(|ids| ids.extract::<Vec<Vec<TokenId>>>(py))
        });
        spelled.map_err(|error| {
            *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            Error::Stopped
        })
    }
}
