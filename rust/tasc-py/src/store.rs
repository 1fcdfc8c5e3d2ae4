//! Binding of `tasc_core::corpus`.
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tasc_core::corpus::{
    self,
    store::{Notes, StoreMeta},
};
use tasc_core::format::Fingerprint;

use crate::detach::interruptible;
use crate::error::Raise;

pub(crate) fn fingerprint(hex: &str) -> PyResult<Fingerprint> {
    let wrong = || PyValueError::new_err(format!("fingerprint {hex:?} is not 64 hexadecimal digits"));
    Fingerprint::from_hex(hex).ok_or_else(wrong)
}

/// Distinct outputs of a task with their weights, and the inputs, mapped from one file.
#[pyclass(frozen, module = "tasc._core", subclass)]
pub(crate) struct Store(pub(crate) Arc<corpus::Store>);

#[pymethods]
impl Store {
    #[new]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| corpus::Store::open(&path)).raise().map(|s| Self(Arc::new(s)))
    }

    /// Read the whole file, compare its checksums, and prove that documents and inputs do not overlap.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        interruptible(py, |check| self.0.verify_with(|| check(&|_| Ok(()))))
    }

    /// Path that the store was opened from.
    #[getter]
    fn path(&self) -> PathBuf {
        self.0.file().path().into()
    }

    /// Fingerprint of the tokenizer that made the ids: 64 hexadecimal digits.
    #[getter]
    fn fingerprint(&self) -> String {
        self.0.file().fingerprint().to_string()
    }

    /// Name of that tokenizer, for people.
    #[getter]
    fn tokenizer(&self) -> &str {
        &self.0.meta().tokenizer
    }

    /// Size of the vocabulary: all ids are smaller.
    #[getter]
    fn vocab_size(&self) -> u32 {
        self.0.meta().vocab_size
    }

    /// Id of the end token of every document; None if no end token was appended.
    #[getter]
    fn eos_id(&self) -> Option<u32> {
        self.0.meta().eos_id
    }

    /// Number of tokens in all documents; each document counts once.
    #[getter]
    fn num_tokens(&self) -> usize {
        self.0.num_tokens()
    }

    /// Number of distinct rows that have an input.
    #[getter]
    fn num_inputs(&self) -> usize {
        self.0.num_inputs()
    }

    /// Number of documents, that is, of distinct outputs.
    fn __len__(&self) -> usize {
        self.0.num_documents()
    }

    /// What is known of the rows' prompts, as `StoreWriter.set_notes` was given it.
    #[getter]
    fn notes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        notes(py, &self.0.meta().notes)
    }

    /// Return the (T,) uint32 ids of a document with its end token.
    fn document<'py>(&self, py: Python<'py>, index: i64) -> PyResult<Bound<'py, PyArray1<u32>>> {
        Ok(PyArray1::from_slice(py, self.0.document(place("document", index)?).raise()?))
    }

    /// Return how often a document occurred.
    fn weight(&self, index: i64) -> PyResult<u64> {
        self.0.weight(place("document", index)?).raise()
    }

    /// Return (text, document, count) of a distinct row that has an input.
    fn input(&self, index: i64) -> PyResult<(&str, u32, u64)> {
        let input = self.0.input(place("input", index)?).raise()?;
        Ok((input.text, input.document, input.weight))
    }
}

/// Notes of a store or an index as a dictionary.
pub(crate) fn notes<'py>(py: Python<'py>, notes: &Notes) -> PyResult<Bound<'py, PyAny>> {
    let text = serde_json::to_string(notes).map_err(|e| PyValueError::new_err(e.to_string()))?;
    py.import("json")?.call_method1("loads", (text,))
}

/// Python's integers may be negative.
fn place(what: &str, index: i64) -> PyResult<usize> {
    usize::try_from(index)
        .map_err(|_| PyIndexError::new_err(format!("{what} {index} is out of range: the first is {what} 0")))
}

/// Writes rows to a store file; `tasc.data.TokenStore.build` and `.append` use it.
#[pyclass(frozen, module = "tasc._core")]
pub(crate) struct StoreWriter(Mutex<Option<corpus::StoreWriter>>);

impl StoreWriter {
    fn with<R>(&self, f: impl FnOnce(&mut Option<corpus::StoreWriter>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl StoreWriter {
    /// Start a new store.
    #[staticmethod]
    #[pyo3(signature = (path, *, fingerprint, tokenizer="", vocab_size=0, eos_id=None))]
    fn create(
        path: PathBuf,
        fingerprint: &str,
        tokenizer: &str,
        vocab_size: u32,
        eos_id: Option<u32>,
    ) -> PyResult<Self> {
        let meta = StoreMeta {
            writer: env!("CARGO_PKG_VERSION").into(),
            tokenizer: tokenizer.into(),
            vocab_size,
            eos_id,
            notes: Notes::default(),
        };
        let writer = corpus::StoreWriter::create(&path, &self::fingerprint(fingerprint)?, meta).raise()?;
        Ok(Self(Mutex::new(Some(writer))))
    }

    /// Start a store that continues the store at this path and then replaces it.
    #[staticmethod]
    fn append(py: Python<'_>, path: PathBuf, fingerprint: &str) -> PyResult<Self> {
        let fingerprint = self::fingerprint(fingerprint)?;
        let writer =
            interruptible(py, |check| corpus::StoreWriter::append(&path, &fingerprint, || check(&|_| Ok(()))))?;
        Ok(Self(Mutex::new(Some(writer))))
    }

    /// Add R rows.
    fn push(
        &self,
        py: Python<'_>,
        ids: PyReadonlyArray1<'_, u32>,
        ends: PyReadonlyArray1<'_, u64>,
        inputs: Vec<Option<String>>,
    ) -> PyResult<()> {
        let (ids, ends) = (ids.as_slice()?, ends.as_slice()?);
        if ends.len() != inputs.len() {
            return Err(PyValueError::new_err(format!("{} outputs but {} inputs", ends.len(), inputs.len())));
        }
        let push = |writer: &mut corpus::StoreWriter| {
            let mut start = 0;
            for (&end, input) in ends.iter().zip(&inputs) {
                let end = usize::try_from(end).unwrap_or(usize::MAX);
                let output = ids.get(start..end);
                let output = output.ok_or(tasc_core::Error::OutOfRange { what: "id", index: end, limit: ids.len() })?;
                writer.push(output, input.as_deref(), 1)?;
                start = end;
            }
            Ok(())
        };
        let done = py.detach(|| self.with(|writer| writer.as_mut().map(push)));
        done.ok_or_else(finished)?.raise()
    }

    /// Replace the notes that the store will hold: a dictionary that JSON can hold.
    fn set_notes(&self, notes: &Bound<'_, PyDict>) -> PyResult<()> {
        let text: String = notes.py().import("json")?.call_method1("dumps", (notes,))?.extract()?;
        let notes: Notes = serde_json::from_str(&text).map_err(|e| PyValueError::new_err(e.to_string()))?;
        self.with(|writer| writer.as_mut().map(|writer| writer.set_notes(notes))).ok_or_else(finished)
    }

    /// Write the rest and give the file its name.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let writer = self.with(Option::take).ok_or_else(finished)?;
        py.detach(|| writer.finish()).raise()
    }

    /// Discard the rows: no file is written.
    fn discard(&self) {
        drop(self.with(Option::take));
    }
}

fn finished() -> PyErr {
    PyValueError::new_err("this writer is finished; begin another one")
}
