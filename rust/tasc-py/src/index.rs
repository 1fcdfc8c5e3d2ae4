//! Binding of `tasc_core::task`.
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tasc_core::corpus::{OnlineRow, online_log};
use tasc_core::format::File;
use tasc_core::index::{Cursor, Successors};
use tasc_core::mixture::TaskData;
use tasc_core::task::remove::Removal;
use tasc_core::task::train::TrainOptions;
use tasc_core::task::{self, BuildOptions, IndexMeta};
use tasc_core::text::PieceTokenizer;

use crate::arrays::with_ids;
use crate::detach::interruptible;
use crate::error::{InputError, Raise, at_least};
use crate::piece_tokenizer::PyPieceTokenizer;
use crate::store::{Store, notes};

/// What the fit of an index found, `None` when it was not fitted.
fn fit<'py>(py: Python<'py>, meta: &IndexMeta) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(figures) = &meta.fit else { return Ok(None) };
    let fit = PyDict::new(py);
    fit.set_item("rows", figures.rows)?;
    fit.set_item("tokens", figures.tokens)?;
    fit.set_item("nats", figures.nats)?;
    fit.set_item("tau", figures.tau)?;
    fit.set_item("speedup", figures.speedup)?;
    fit.set_item("without", figures.without.clone())?;
    fit.set_item("reliability", figures.reliability.clone())?;
    fit.set_item("calibration_error", figures.calibration_error)?;
    Ok(Some(fit))
}

/// What surrounds the input in prompts, `None` where inputs were no whole prompts.
fn template<'py>(py: Python<'py>, meta: &IndexMeta) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(found) = &meta.input_template else { return Ok(None) };
    let template = PyDict::new(py);
    template.set_item("before", &found.before)?;
    template.set_item("after", &found.after)?;
    template.set_item("repeated", found.repeated)?;
    Ok(Some(template))
}

/// One write-ahead log, or several.
#[derive(FromPyObject)]
enum Logs {
    One(PathBuf),
    Several(Vec<PathBuf>),
}

impl Logs {
    fn paths(self) -> Vec<PathBuf> {
        match self {
            Self::One(log) => vec![log],
            Self::Several(logs) => logs,
        }
    }
}

/// Input, if any, and output of a row.
type AskedRow<'py> = (Option<String>, Bound<'py, PyArray1<u32>>);

fn asked<'py>(py: Python<'py>, rows: &[OnlineRow]) -> Vec<AskedRow<'py>> {
    let input = |row: &OnlineRow| (!row.input.is_empty()).then(|| row.input.clone());
    rows.iter().map(|row| (input(row), PyArray1::from_slice(py, &row.output))).collect()
}

/// Asks `picks` which of some rows it picks.
fn pick(py: Python<'_>, picks: &Py<PyAny>, rows: &[OnlineRow]) -> PyResult<Vec<bool>> {
    let picked: Vec<bool> = picks.call1(py, (asked(py, rows),))?.extract(py)?;
    if picked.len() == rows.len() {
        return Ok(picked);
    }
    Err(InputError::new_err(format!(
        "picks returned {} answers about {} rows; return one each",
        picked.len(),
        rows.len()
    )))
}

/// Index of a task's past rows, mapped from one file or read into memory.
#[pyclass(frozen, weakref, module = "tasc._core")]
pub(crate) struct TaskIndex(Arc<task::TaskIndex>);

impl TaskIndex {
    pub(crate) fn file(&self) -> &File {
        self.0.file()
    }

    pub(crate) fn task(&self) -> Arc<dyn TaskData> {
        self.0.clone()
    }

    /// Ids are below this.
    pub(crate) fn vocab_size(&self) -> u32 {
        self.0.meta().vocab_size
    }
}

#[pymethods]
impl TaskIndex {
    /// Map an index in constant time, without reading its contents (see `verify`), or read it into memory.
    #[staticmethod]
    #[pyo3(signature = (path, *, memory_bytes=0))]
    fn open(py: Python<'_>, path: PathBuf, memory_bytes: i64) -> PyResult<Self> {
        let memory = at_least("memory_bytes", memory_bytes, 0)?;
        py.detach(|| task::TaskIndex::open_within(&path, memory)).raise().map(|i| Self(Arc::new(i)))
    }

    /// Build an index of a store's rows and open it.
    #[staticmethod]
    #[allow(clippy::too_many_arguments, reason = "keywords in Python")]
    #[pyo3(signature = (store, path, *, tokenizer=None, inputs=true, fit=true, num_threads=None, progress=None))]
    fn build(
        py: Python<'_>,
        store: &Store,
        path: PathBuf,
        tokenizer: Option<Py<PyAny>>,
        inputs: bool,
        fit: bool,
        num_threads: Option<i64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let file = store.0.file();
        let matching = |t| PyPieceTokenizer::matching(py, t, &file.fingerprint(), file.path());
        let tokenizer = tokenizer.map(matching).transpose()?;
        let num_threads = num_threads.map(|n| at_least("num_threads", n, 1)).transpose()?;
        let train = TrainOptions { num_threads, ..TrainOptions::default() };
        let built = interruptible(py, |check| {
            let options = BuildOptions {
                no_inputs: !inputs,
                train: fit.then_some(&train),
                tokenizer: tokenizer.as_ref().map(|s| s.as_ref() as &dyn PieceTokenizer),
            };
            task::TaskIndex::build(&store.0, &path, &options, |done| {
                check(&|py| progress.as_ref().map_or(Ok(()), |p| p.call1(py, (done,)).map(drop)))
            })
        });
        built.map(|index| Self(Arc::new(index)))
    }

    /// Build a new index of the rows of this index and the rows of write-ahead logs that it does not hold yet.
    #[allow(clippy::too_many_arguments, reason = "keywords in Python")]
    #[pyo3(signature = (path, *, served=None, tokenizer=None, fit=true, num_threads=None, progress=None))]
    fn compact(
        &self,
        py: Python<'_>,
        path: PathBuf,
        served: Option<Logs>,
        tokenizer: Option<Py<PyAny>>,
        fit: bool,
        num_threads: Option<i64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(Self, u64)> {
        let index = &self.0;
        let logs = served.map_or_else(Vec::new, Logs::paths);
        let matching = |t| PyPieceTokenizer::matching(py, t, &index.file().fingerprint(), index.file().path());
        let tokenizer = tokenizer.map(matching).transpose()?;
        let num_threads = num_threads.map(|n| at_least("num_threads", n, 1)).transpose()?;
        let train = TrainOptions { num_threads, ..TrainOptions::default() };
        let built = interruptible(py, |check| {
            let options = BuildOptions {
                no_inputs: false,
                train: fit.then_some(&train),
                tokenizer: tokenizer.as_ref().map(|s| s.as_ref() as &dyn PieceTokenizer),
            };
            index.compact(&logs, &path, &options, |done| {
                check(&|py| progress.as_ref().map_or(Ok(()), |p| p.call1(py, (done,)).map(drop)))
            })
        });
        built.map(|(index, rows)| (Self(Arc::new(index)), rows))
    }

    /// Write this index and its logs anew without some rows; this object keeps the old file.
    #[allow(clippy::too_many_arguments, reason = "keywords in Python")]
    #[pyo3(signature = (picks=None, *, keys=Vec::new(), before=None, served=None, tokenizer=None, fit=true,
        num_threads=None, progress=None))]
    fn remove(
        &self,
        py: Python<'_>,
        picks: Option<Py<PyAny>>,
        keys: Vec<String>,
        before: Option<i64>,
        served: Option<Logs>,
        tokenizer: Option<Py<PyAny>>,
        fit: bool,
        num_threads: Option<i64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(u64, u64, u64)> {
        let file = self.0.file();
        let matching = |t| PyPieceTokenizer::matching(py, t, &file.fingerprint(), file.path());
        let tokenizer = tokenizer.map(matching).transpose()?;
        let num_threads = num_threads.map(|n| at_least("num_threads", n, 1)).transpose()?;
        let before = before.map(|t| at_least("before", t, 0)).transpose()?;
        let train = TrainOptions { num_threads, ..TrainOptions::default() };
        let logs = served.map_or_else(Vec::new, Logs::paths);
        let removed = interruptible(py, |check| {
            let options = BuildOptions {
                no_inputs: false,
                train: fit.then_some(&train),
                tokenizer: tokenizer.as_ref().map(|s| s.as_ref() as &dyn PieceTokenizer),
            };
            let check = RefCell::new(check);
            let mut asked = |rows: &[OnlineRow]| {
                let answer = RefCell::new(vec![false; rows.len()]);
                let Some(picks) = &picks else { return Ok(answer.into_inner()) };
                (check.borrow_mut())(&|py| {
                    *answer.borrow_mut() = pick(py, picks, rows)?;
                    Ok(())
                })?;
                Ok(answer.into_inner())
            };
            let mut removal = Removal { picks: &mut asked, keys: &keys, before };
            self.0.remove(&logs, &mut removal, &options, |done| {
                (check.borrow_mut())(&|py| progress.as_ref().map_or(Ok(()), |p| p.call1(py, (done,)).map(drop)))
            })
        })?;
        Ok((removed.from_index, removed.from_logs, removed.untimed))
    }

    /// Return the rows of a log in the order in which they were added: (input or None, (T,) uint32 output ids) each.
    fn read_log<'py>(&self, py: Python<'py>, path: PathBuf) -> PyResult<Vec<AskedRow<'py>>> {
        let rows = py.detach(|| online_log::read(&path, &self.0.file().fingerprint())).raise()?;
        Ok(asked(py, &rows))
    }

    /// Delete a log that nobody writes to, if it exists.
    fn delete_log(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| online_log::delete(&path, &self.0.file().fingerprint())).raise()
    }

    /// Write a store from which this index could be built: its outputs with weights, and its rows' inputs.
    fn to_store(&self, py: Python<'_>, path: PathBuf) -> PyResult<Store> {
        interruptible(py, |check| self.0.to_store(&path, &[], || check(&|_| Ok(()))))
            .map(|store| Store(Arc::new(store)))
    }

    /// Read the whole file, compare its checksums, and prove that it is safe to use, whoever wrote it.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        interruptible(py, |check| self.0.verify_with(|| check(&|_| Ok(()))))
    }

    /// Whether the bytes are in memory, where no change of the file reaches them.
    #[getter]
    fn in_memory(&self) -> bool {
        self.0.file().in_memory()
    }

    /// Fingerprint of the tokenizer that made the ids: 64 hexadecimal digits.
    #[getter]
    fn fingerprint(&self) -> String {
        self.0.file().fingerprint().to_string()
    }

    /// Path that the index was opened from.
    #[getter]
    fn path(&self) -> PathBuf {
        self.0.file().path().into()
    }

    /// What surrounds the input in whole prompts; None if the rows' inputs were no whole prompts.
    #[getter]
    fn input_template<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        template(py, self.0.meta())
    }

    /// Return the input of a whole prompt; None if the prompt does not match the index's template of prompts.
    fn find_input<'t>(&self, prompt: &'t str) -> Option<&'t str> {
        self.0.meta().input_template.as_ref()?.find(prompt)
    }

    /// Return facts about the index.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (meta, file) = (self.0.meta(), self.0.file());
        let info = PyDict::new(py);
        info.set_item("path", file.path())?;
        info.set_item("format", format!("{}.{}", file.version().0, file.version().1))?;
        info.set_item("writer", &meta.writer)?;
        info.set_item("tokenizer", &meta.tokenizer)?;
        info.set_item("fingerprint", self.fingerprint())?;
        info.set_item("vocab_size", meta.vocab_size)?;
        info.set_item("eos_id", meta.eos_id)?;
        info.set_item("documents", meta.documents)?;
        info.set_item("weight", meta.weight)?;
        info.set_item("tokens", meta.tokens)?;
        info.set_item("inputs", meta.inputs)?;
        info.set_item("input_template", template(py, meta)?)?;
        info.set_item("notes", notes(py, &meta.notes)?)?;
        info.set_item("fit", fit(py, meta)?)?;
        info.set_item("distinct_tokens", self.0.ngrams().tokens.len())?;
        info.set_item("bytes", file.bytes().len())?;
        info.set_item("sections", file.sections().collect::<Vec<_>>())?;
        Ok(info)
    }

    /// Return the tokens that follow the longest suffix of a context that occurs in the task's outputs.
    #[pyo3(signature = (context, limit=8, *, from_start=true))]
    #[allow(clippy::type_complexity)]
    fn successors<'py>(
        &self,
        py: Python<'py>,
        context: &Bound<'_, PyAny>,
        limit: usize,
        from_start: bool,
    ) -> PyResult<(Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<u64>>, u32, u64)> {
        let ngrams = self.0.ngrams();
        let mut cursor = with_ids(context, |ids| {
            let mut cursor = if from_start { Cursor::at_start(&ngrams) } else { Cursor::anywhere(&ngrams) };
            ids.iter().for_each(|&id| cursor.advance(&ngrams, ngrams.symbol(id)));
            cursor
        })?;
        let mut found = Successors::default();
        if let Some(run) = cursor.runs().first() {
            ngrams.successors(run.interval, &mut found);
        }
        found.entries.sort_by(|a, b| b.weight.cmp(&a.weight).then(a.symbol.cmp(&b.symbol)));
        found.entries.truncate(limit);
        let tokens: Vec<i64> = found.entries.iter().map(|e| ngrams.token(e.symbol).map_or(-1, i64::from)).collect();
        let counts: Vec<u64> = found.entries.iter().map(|e| e.weight).collect();
        Ok((tokens.into_pyarray(py), counts.into_pyarray(py), cursor.order(&ngrams), found.total))
    }
}
