//! Binding of `tasc_core::count`.
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyArray1, PyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tasc_core::count::{self, CountOptions, Minimum, Ngram, Place};
use tasc_core::{Result, TokenId};

use crate::arrays::with_ids;
use crate::detach::interruptible;
use crate::error::Raise;
use crate::store::Store;

/// (B, n) ids, (B,) counts, (B,) documents.
type Arrays<'py> = (Bound<'py, PyArray2<u32>>, Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u64>>);

/// (n,) ids, count, documents.
type Ranked<'py> = (Bound<'py, PyArray1<u32>>, u64, u64);

/// Calls `progress(fraction)`, if there is one.
fn tell(py: Python<'_>, progress: Option<&Py<PyAny>>, done: f64) -> PyResult<()> {
    progress.map_or(Ok(()), |p| p.call1(py, (done,)).map(drop))
}

/// Exact weighted counts of n-grams, mapped from one file; `tasc.data.NgramTable` adds counting and merging.
#[pyclass(frozen, module = "tasc._core", subclass)]
pub(crate) struct NgramTable(Arc<count::NgramTable>);

#[pymethods]
impl NgramTable {
    #[new]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| count::NgramTable::open(&path)).raise().map(|t| Self(Arc::new(t)))
    }

    /// Read the whole file and check its checksums and the order and number of the n-grams.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        interruptible(py, |check| self.0.verify_with(|| check(&|_| Ok(()))))
    }

    /// Path that the table was opened from.
    #[getter]
    fn path(&self) -> PathBuf {
        self.0.file().path().into()
    }

    /// Fingerprint of the tokenizer that made the ids: 64 hexadecimal digits.
    #[getter]
    fn fingerprint(&self) -> String {
        self.0.file().fingerprint().to_string()
    }

    /// Length of the longest n-grams, in tokens.
    #[getter]
    fn max_length(&self) -> usize {
        self.0.max_length()
    }

    /// Number of n-grams by length, from 1 to `max_length`.
    #[getter]
    fn sizes(&self) -> Vec<u64> {
        self.0.meta().ngrams.clone()
    }

    /// Return facts about the file.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (file, meta) = (self.0.file(), self.0.meta());
        let info = PyDict::new(py);
        info.set_item("path", self.path())?;
        info.set_item("format", file.version())?;
        info.set_item("writer", &meta.writer)?;
        info.set_item("tokenizer", &meta.tokenizer)?;
        info.set_item("fingerprint", self.fingerprint())?;
        info.set_item("vocab_size", meta.vocab_size)?;
        info.set_item("eos_id", meta.eos_id)?;
        info.set_item("documents", meta.documents)?;
        info.set_item("weight", meta.weight)?;
        info.set_item("tokens", meta.tokens)?;
        info.set_item("min_count", meta.min_count)?;
        info.set_item("min_documents", meta.min_documents)?;
        info.set_item("ngrams", self.sizes())?;
        info.set_item("bytes", file.bytes().len())?;
        Ok(info)
    }

    /// Return (count, documents) of an n-gram of (n,) ids; zeros if the table does not contain it.
    fn lookup(&self, ids: &Bound<'_, PyAny>) -> PyResult<(u64, u64)> {
        with_ids(ids, |ids| self.0.lookup(ids))?.raise()
    }

    /// Return the k most frequent n-grams of some lengths: (ids (n,) uint32, count, documents) each.
    fn top<'py>(&self, py: Python<'py>, k: usize, lengths: Vec<usize>) -> PyResult<Vec<Ranked<'py>>> {
        let best = interruptible(py, |check| self.0.top(k, lengths, || check(&|_| Ok(()))))?;
        Ok(best.into_iter().map(|Ngram { ids, count, documents }| (ids.into_pyarray(py), count, documents)).collect())
    }

    /// Return an iterator over the n-grams of one length, `size` at a time.
    fn batches(&self, length: usize, size: usize) -> PyResult<NgramBatches> {
        if size == 0 {
            return Err(PyValueError::new_err("size is 0, a batch has at least 1 n-gram"));
        }
        Ok(NgramBatches { table: self.0.clone(), length, size, place: Mutex::new(Place::new(length)) })
    }
}

/// Iterator over the n-grams of one length in batches, in ascending order of their ids.
#[pyclass(frozen, module = "tasc._core")]
pub(crate) struct NgramBatches {
    table: Arc<count::NgramTable>,
    length: usize,
    size: usize,
    place: Mutex<Place>,
}

impl NgramBatches {
    fn read(&self) -> Result<(Vec<TokenId>, Vec<u64>, Vec<u64>)> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut all, mut counts, mut documents) = (Vec::new(), Vec::new(), Vec::new());
        while counts.len() < self.size
            && let Some((ids, count, holding)) = place.next(&self.table)?
        {
            all.extend_from_slice(ids);
            counts.push(count);
            documents.push(holding);
        }
        Ok((all, counts, documents))
    }
}

#[pymethods]
impl NgramBatches {
    /// Return the iterator itself.
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    /// Return ids (B, n) uint32, counts (B,) uint64 and documents (B,) uint64.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Arrays<'py>>> {
        let (ids, counts, documents) = py.detach(|| self.read()).raise()?;
        if counts.is_empty() {
            return Ok(None);
        }
        let ids = Array2::from_shape_vec((counts.len(), self.length), ids);
        let ids = ids.map_err(|e| PyValueError::new_err(e.to_string()))?;
        Ok(Some((ids.into_pyarray(py), counts.into_pyarray(py), documents.into_pyarray(py))))
    }
}

/// Count the n-grams of a store and write a table; `tasc.data.NgramTable.count` describes the arguments.
#[pyfunction]
#[pyo3(signature = (store, path, *, max_length, memory_limit, num_threads, min_count=1, min_documents=1, progress=None))]
#[allow(clippy::too_many_arguments, reason = "keywords in Python")]
pub(crate) fn count_ngrams(
    py: Python<'_>,
    store: &Store,
    path: PathBuf,
    max_length: usize,
    memory_limit: usize,
    num_threads: usize,
    min_count: u64,
    min_documents: u64,
    progress: Option<Py<PyAny>>,
) -> PyResult<usize> {
    let minimum = Minimum { count: min_count, documents: min_documents };
    let options = CountOptions { max_length, memory_limit, num_threads, minimum };
    let counted = interruptible(py, |check| {
        count::count(&store.0, &path, &options, |done| check(&|py| tell(py, progress.as_ref(), done)))
    })?;
    Ok(counted.runs)
}

/// Add the counts of several tables; `tasc.data.NgramTable.merge` describes the arguments.
#[pyfunction]
#[pyo3(signature = (tables, path, *, num_threads, min_count=1, min_documents=1, progress=None))]
pub(crate) fn merge_ngrams(
    py: Python<'_>,
    tables: Vec<PyRef<'_, NgramTable>>,
    path: PathBuf,
    num_threads: usize,
    min_count: u64,
    min_documents: u64,
    progress: Option<Py<PyAny>>,
) -> PyResult<()> {
    let minimum = Minimum { count: min_count, documents: min_documents };
    let tables: Vec<_> = tables.iter().map(|t| t.0.clone()).collect();
    interruptible(py, |check| {
        let tables: Vec<_> = tables.iter().map(Arc::as_ref).collect();
        count::merge_tables(&tables, &path, minimum, num_threads, |done| check(&|py| tell(py, progress.as_ref(), done)))
    })
}
