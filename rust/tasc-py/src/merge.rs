//! Binding of `tasc_core::merge`.
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use numpy::{IntoPyArray, PyArray1};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tasc_core::TokenId;
use tasc_core::merge::{self, LearnOptions, Merger, MergerOptions};

use crate::arrays::with_ids;
use crate::detach::interruptible;
use crate::error::Raise;
use crate::store::Store;

/// (T,) uint32
type Ids<'py> = Bound<'py, PyArray1<u32>>;

fn ids(ids: &Bound<'_, PyAny>) -> PyResult<Vec<TokenId>> {
    with_ids(ids, <[TokenId]>::to_vec)
}

fn sequences(sequences: &[Bound<'_, PyAny>]) -> PyResult<Vec<Vec<TokenId>>> {
    sequences.iter().map(ids).collect()
}

/// Return the first merges of a store's outputs before pruning: (expansion (n,) uint32, tokens saved) each.
#[pyfunction]
#[pyo3(signature = (store, number, *, min_count=10, min_documents=5, max_length=64, barriers=vec![]))]
pub(crate) fn merges<'py>(
    py: Python<'py>,
    store: &Store,
    number: usize,
    min_count: u64,
    min_documents: u64,
    max_length: u32,
    barriers: Vec<TokenId>,
) -> PyResult<Vec<(Ids<'py>, u64)>> {
    let options = MergerOptions { min_count, min_documents, max_length, barriers };
    let merger = interruptible(py, |check| {
        let mut merger = Merger::of_store(&store.0, &options)?;
        while merger.merges().len() < number && merger.step().is_some() {
            check(&|_| Ok(()))?;
        }
        Ok(merger)
    })?;
    Ok(merger.merges().iter().map(|m| (PyArray1::from_slice(py, &m.expansion), m.count)).collect())
}

/// Task vocabulary: new tokens with ids from `base_vocab_size` on, each for an *expansion* of two or more base ids.
#[pyclass(frozen, module = "tasc._core")]
pub(crate) struct MergePlan(Arc<merge::MergePlan>);

#[pymethods]
impl MergePlan {
    /// Learn a plan from a store's outputs, write it and open it.
    #[staticmethod]
    #[pyo3(signature = (store, path, *, size=256, min_count=10, min_documents=5, max_length=64, barriers=vec![],
                        held_out=0.1, forbidden=vec![], progress=None))]
    #[allow(clippy::too_many_arguments)]
    fn learn(
        py: Python<'_>,
        store: &Store,
        path: PathBuf,
        size: usize,
        min_count: u64,
        min_documents: u64,
        max_length: u32,
        barriers: Vec<TokenId>,
        held_out: f64,
        forbidden: Vec<Bound<'_, PyAny>>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let merger = MergerOptions { min_count, min_documents, max_length, barriers };
        let options = LearnOptions { size, merger, held_out, forbidden: sequences(&forbidden)? };
        let store = &store.0;
        let learnt = interruptible(py, |check| {
            merge::MergePlan::learn(store, &path, &options, |done| {
                check(&|py| progress.as_ref().map_or(Ok(()), |p| p.call1(py, (done,)).map(drop)))
            })
        });
        learnt.map(|plan| Self(Arc::new(plan)))
    }

    /// Open a plan and check all of it except the checksums (see `verify`).
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| merge::MergePlan::open(&path)).raise().map(|plan| Self(Arc::new(plan)))
    }

    /// Read the whole file and compare its checksums.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.verify()).raise()
    }

    /// Write and open a plan of only these new tokens, in this order.
    fn keep(&self, py: Python<'_>, indices: Vec<i64>, path: PathBuf) -> PyResult<Self> {
        let indices = indices.into_iter().map(place).collect::<PyResult<Vec<_>>>()?;
        py.detach(|| self.0.keep(&indices, &path)).raise().map(|plan| Self(Arc::new(plan)))
    }

    /// Number of new tokens.
    fn __len__(&self) -> usize {
        self.0.segmenter().len()
    }

    /// Path that the plan was opened from.
    #[getter]
    fn path(&self) -> PathBuf {
        self.0.file().path().into()
    }

    /// Fingerprint of the base tokenizer: 64 hexadecimal digits.
    #[getter]
    fn fingerprint(&self) -> String {
        self.0.file().fingerprint().to_string()
    }

    /// Name of the base tokenizer, for people.
    #[getter]
    fn tokenizer(&self) -> &str {
        &self.0.meta().tokenizer
    }

    /// Id of the first new token; all base ids are smaller.
    #[getter]
    fn base_vocab_size(&self) -> u32 {
        self.0.base_vocab_size()
    }

    /// Return the (n,) uint32 base ids of a new token, n ≥ 2.
    fn expansion<'py>(&self, py: Python<'py>, index: i64) -> PyResult<Ids<'py>> {
        Ok(PyArray1::from_slice(py, self.0.segmenter().expansion(place(index)?).raise()?))
    }

    /// (N,) uint64: uses of each new token in the store's outputs, weighted by the documents' weights.
    #[getter]
    fn counts<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        PyArray1::from_slice(py, self.0.counts())
    }

    /// (N,) uint64: rows that use each new token.
    #[getter]
    fn documents<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        PyArray1::from_slice(py, self.0.documents())
    }

    /// (new tokens, share of tokens saved on the training rows, on the held-out rows), by ascending size.
    #[getter]
    fn curve(&self) -> Vec<(u64, f64, f64)> {
        self.0.curve().iter().map(|p| (p.size, p.train, p.held_out)).collect()
    }

    /// Return facts about the plan.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (meta, file) = (self.0.meta(), self.0.file());
        let info = PyDict::new(py);
        info.set_item("path", file.path())?;
        info.set_item("format", format!("{}.{}", file.version().0, file.version().1))?;
        info.set_item("writer", &meta.writer)?;
        info.set_item("tokenizer", &meta.tokenizer)?;
        info.set_item("fingerprint", self.fingerprint())?;
        info.set_item("base_vocab_size", meta.base_vocab_size)?;
        info.set_item("size", self.__len__())?;
        info.set_item("wanted", meta.wanted)?;
        info.set_item("stopped_by", &meta.stopped_by)?;
        info.set_item("tokens", meta.tokens)?;
        info.set_item("tokens_after", meta.tokens_after)?;
        info.set_item("bytes", file.bytes().len())?;
        Ok(info)
    }

    /// Return the (n,) uint32 shortest sequence of tokens that expands to (T,) base ids.
    fn segment<'py>(&self, py: Python<'py>, ids: &Bound<'_, PyAny>) -> PyResult<Ids<'py>> {
        let ids = self::ids(ids)?;
        Ok(py.detach(|| self.0.segmenter().segment(&ids)).raise()?.into_pyarray(py))
    }

    /// Segment several sequences on `num_threads` threads; see `segment`.
    #[pyo3(signature = (ids, *, num_threads=1))]
    fn segment_batch<'py>(
        &self,
        py: Python<'py>,
        ids: Vec<Bound<'_, PyAny>>,
        num_threads: usize,
    ) -> PyResult<Vec<Ids<'py>>> {
        let ids = sequences(&ids)?;
        let segmented = py.detach(|| self.0.segmenter().segment_batch(&ids, num_threads)).raise()?;
        Ok(segmented.into_iter().map(|ids| ids.into_pyarray(py)).collect())
    }

    /// Return the (m,) uint32 base ids of (T,) base and new ids.
    fn expand<'py>(&self, py: Python<'py>, ids: &Bound<'_, PyAny>) -> PyResult<Ids<'py>> {
        let ids = self::ids(ids)?;
        Ok(py.detach(|| self.0.segmenter().expand(&ids)).raise()?.into_pyarray(py))
    }

    /// Expand several sequences; see `expand`.
    fn expand_batch<'py>(&self, py: Python<'py>, ids: Vec<Bound<'_, PyAny>>) -> PyResult<Vec<Ids<'py>>> {
        let ids = sequences(&ids)?;
        let expand = || ids.iter().map(|ids| self.0.segmenter().expand(ids)).collect::<Result<Vec<_>, _>>();
        Ok(py.detach(expand).raise()?.into_iter().map(|ids| ids.into_pyarray(py)).collect())
    }

    /// Return an incremental segmenter.
    fn stream(&self) -> PlanStream {
        PlanStream(Mutex::new(merge::SegmentStream::new(self.0.segmenter().clone())))
    }
}

/// Incremental segmenter, from `MergePlan.stream()`: its outputs, concatenated, equal `segment` of all ids.
#[pyclass(frozen, module = "tasc._core")]
pub(crate) struct PlanStream(Mutex<merge::SegmentStream>);

#[pymethods]
impl PlanStream {
    /// Add (T,) base ids; return the (n,) uint32 tokens that no later id can change.
    fn push<'py>(&self, py: Python<'py>, ids: &Bound<'_, PyAny>) -> PyResult<Ids<'py>> {
        let ids = self::ids(ids)?;
        let push = || self.0.lock().unwrap_or_else(PoisonError::into_inner).push(&ids);
        Ok(py.detach(push).raise()?.into_pyarray(py))
    }

    /// Return the (n,) uint32 remaining tokens; the stream is then ready for another document.
    fn finish<'py>(&self, py: Python<'py>) -> Ids<'py> {
        py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).finish()).into_pyarray(py)
    }
}

/// Python's integers may be negative.
fn place(index: i64) -> PyResult<usize> {
    usize::try_from(index)
        .map_err(|_| PyIndexError::new_err(format!("new token {index} is out of range: the first is new token 0")))
}
