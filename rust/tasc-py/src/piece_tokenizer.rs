//! A Python tokenizer as the core's `PieceTokenizer`.
use std::path::Path;
use std::sync::Arc;

use pyo3::prelude::*;
use tasc_core::format::Fingerprint;
use tasc_core::text::PieceTokenizer;
use tasc_core::{Error, Result, TokenId};

use crate::error::{InputError, Raise};

/// Calls `tokenizer.spell(pieces)`, (N,) text → N lists of ids. The exception that it raises goes to the caller alone.
pub(crate) struct PyPieceTokenizer(Py<PyAny>);

impl PyPieceTokenizer {
    /// A tokenizer, once it is clear that it is the one that made `of`.
    ///
    /// # Errors
    /// `TokenizerMismatchError` when it says that it is another one; those that know nothing of fingerprints pass.
    /// `InputError` for an object that cannot spell, such as a tokenizer that was not loaded with `load_tokenizer`.
    pub(crate) fn matching(py: Python<'_>, tokenizer: Py<PyAny>, of: &Fingerprint, path: &Path) -> PyResult<Arc<Self>> {
        let object = tokenizer.bind(py);
        if !object.hasattr("spell")? {
            let kind = object.get_type().name()?;
            return Err(InputError::new_err(format!("tokenizer is {kind}; give tasc.load_tokenizer(tokenizer)")));
        }
        let said = tokenizer.getattr(py, "fingerprint").and_then(|f| f.extract::<String>(py));
        if let Some(wanted) = said.ok().and_then(|hex| Fingerprint::from_hex(&hex)).filter(|f| f != of) {
            return Err(Error::Fingerprint { path: path.into(), found: *of, wanted }).raise();
        }
        Ok(Arc::new(Self(tokenizer)))
    }
}

impl PieceTokenizer for PyPieceTokenizer {
    fn tokenize_pieces(&self, pieces: &[&str]) -> Result<Vec<Vec<TokenId>>> {
        let spelled = Python::attach(|py| {
            self.0.call_method1(py, "spell", (pieces,)).and_then(|ids| ids.extract::<Vec<Vec<TokenId>>>(py))
        });
        spelled.map_err(|error| Error::Tokenizer(error.into()))
    }
}
