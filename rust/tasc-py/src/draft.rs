//! Binding of `tasc_core::draft`.
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tasc_core::Error;
use tasc_core::corpus::OnlineRow;
use tasc_core::corpus::online_log::LOG_BYTES;
use tasc_core::draft::drafter::Explained;
use tasc_core::draft::{self, CostCurve, DrafterOptions};
use tasc_core::fork::work;
use tasc_core::mixture::features::{FEATURES, GROUPS};
use tasc_core::mixture::{MixtureWeights, Source, SourceMask, Weights};
use tasc_core::online::adapt::OnlineCalibration;
use tasc_core::online::served::SERVED_BYTES;
use tasc_core::pool;
use tasc_core::text::PieceTokenizer;

use crate::arrays::with_ids;
use crate::error::{InputError, Raise, at_least};
use crate::fork;
use crate::index::TaskIndex;
use crate::piece_tokenizer::PyPieceTokenizer;

/// Features of a candidate, and number of states of each group that picks weights.
pub(crate) fn mixture_shape(py: Python<'_>) -> PyResult<(usize, Bound<'_, PyTuple>)> {
    Ok((FEATURES, PyTuple::new(py, GROUPS)?))
}

/// A chain of drafted tokens with their probabilities and sources.
#[pyclass(frozen, module = "tasc._core")]
pub(crate) struct Draft(draft::Draft);

#[pymethods]
impl Draft {
    /// Empty: every token is a point mass.
    #[getter]
    fn dists<'py>(&self, py: Python<'py>) -> Bound<'py, PyTuple> {
        PyTuple::empty(py)
    }

    /// (K,) uint32 drafted token ids.
    #[getter]
    fn tokens<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        PyArray1::from_slice(py, &self.0.tokens)
    }

    /// (K,) float32 probability that each token is accepted, given that all tokens before it are.
    #[getter]
    fn probs<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        PyArray1::from_slice(py, &self.0.probabilities)
    }

    /// (K,) uint8 main source of each token, an index into `tasc.drafting.protocol.SOURCES`.
    #[getter]
    fn sources<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u8>> {
        PyArray1::from_slice(py, &self.0.sources)
    }

    /// Number of drafted tokens.
    fn __len__(&self) -> usize {
        self.0.tokens.len()
    }

    fn __repr__(&self) -> String {
        format!("Draft(tokens={:?}, probs={:.3?}, sources={:?})", self.0.tokens, self.0.probabilities, self.0.sources)
    }
}

/// Drafts from a task's index, the request's input and its running context, combined in a log-linear mixture.
#[pyclass(frozen, module = "tasc._core")]
pub(crate) struct NgramDrafter {
    drafter: Arc<draft::Drafter>,
    index: Option<Py<TaskIndex>>,
    tokenizer: Option<Arc<PyPieceTokenizer>>,
    threads: usize,
}

/// A finished request: input, output and perhaps a key.
#[derive(FromPyObject)]
enum ServedRow<'py> {
    Plain((Option<String>, Bound<'py, PyAny>)),
    Keyed((Option<String>, Bound<'py, PyAny>, Option<String>)),
}

/// Requests of a batch for which another thread is started: they take several times as long as that does.
const EACH: usize = 4;

/// One running request of an `NgramDrafter`; see `tasc.drafting.protocol.Request`.
#[pyclass(frozen, module = "tasc._core")]
pub(crate) struct NgramRequest {
    drafter: Arc<draft::Drafter>,
    state: Mutex<draft::Request>,
}

impl NgramRequest {
    /// Calls `f` with the request's state. It must not need the interpreter. Whoever holds that works already.
    fn with<R>(&self, f: impl FnOnce(&mut draft::Request) -> R) -> R {
        let _work = work();
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn propose(&self, max_tokens: usize, costs: &CostCurve) -> Draft {
        self.with(|request| Draft(self.drafter.draft(request, max_tokens, costs).clone()))
    }
}

fn curve(costs: Option<PyReadonlyArray1<'_, f64>>) -> PyResult<CostCurve> {
    match costs {
        None => CostCurve::linear(0.02).raise(),
        Some(costs) => CostCurve::new(costs.as_array().to_vec()).raise(),
    }
}

#[pymethods]
impl NgramDrafter {
    #[new]
    #[pyo3(signature = (index=None, *, tokenizer=None, served=None, served_bytes=SERVED_BYTES as i64,
        log_bytes=LOG_BYTES as i64, log_days=None, weights=None, without=None, learn=true,
        num_threads=None))]
    #[allow(clippy::too_many_arguments)] // keywords of one constructor
    fn new(
        py: Python<'_>,
        index: Option<Py<TaskIndex>>,
        tokenizer: Option<Py<PyAny>>,
        served: Option<PathBuf>,
        served_bytes: i64,
        log_bytes: i64,
        log_days: Option<i64>,
        weights: Option<PyReadonlyArray1<'_, f32>>,
        without: Option<Vec<String>>,
        learn: bool,
        num_threads: Option<i64>,
    ) -> PyResult<Self> {
        let table = weights.map(|w| Weights::new(FEATURES, GROUPS.to_vec(), w.as_array().to_vec())).transpose();
        let weights = table.raise()?.map(|w| MixtureWeights::single(&w)).transpose().raise()?;
        let without = without.unwrap_or_default().iter().map(|s| source(s)).collect::<PyResult<SourceMask>>()?;
        let file = index.as_ref().map(|i| i.get().file());
        let matching = |t| file.map(|f| PyPieceTokenizer::matching(py, t, &f.fingerprint(), f.path())).transpose();
        let tokenizer = tokenizer.map_or(Ok(None), matching)?; // without an index there is nothing to spell for
        let options = DrafterOptions {
            weights,
            fixed: !learn,
            without,
            tokenizer: tokenizer.clone().map(|s| s as Arc<dyn PieceTokenizer>),
            served_bytes: at_least("served_bytes", served_bytes, LEAST_BYTES)?,
            log_bytes: at_least("log_bytes", log_bytes, LEAST_BYTES)?,
            log_days: log_days.map(|days| at_least("log_days", days, 1)).transpose()?,
        };
        let threads = num_threads.map_or(Ok(pool::cores()), |n| at_least("num_threads", n, 1))?;
        let task = index.as_ref().map(|i| i.get().task());
        if served.is_some() && index.is_none() {
            return Err(InputError::new_err("served= needs an index: the log belongs to its tokenizer; give index="));
        }
        let drafter = py.detach(|| {
            let drafter = draft::Drafter::new(task, options)?;
            if let (Some(log), Some(file)) = (&served, file) {
                drafter.keep_served(log, &file.fingerprint())?;
            }
            Ok(drafter)
        });
        let drafter = drafter.raise()?;
        Ok(Self { drafter: Arc::new(drafter), index, tokenizer, threads })
    }

    /// Name in reports: "tasc".
    #[getter]
    fn name(&self) -> &'static str {
        "tasc"
    }

    /// True: drafting takes almost no time; see `tasc.drafting.protocol.Drafter`.
    #[getter]
    #[allow(clippy::unused_self)] // of all of them
    fn negligible_cost(&self) -> bool {
        true
    }

    /// Index that it drafts from.
    #[getter]
    fn fixed_length(&self) -> bool {
        false
    }

    /// Accept any vocabulary: ids that the target lacks are cut from drafts.
    #[pyo3(signature = (vocab_size, tokenizer=None))]
    fn check_vocabulary(&self, vocab_size: i64, tokenizer: Option<&Bound<'_, PyAny>>) {
        let _ = (vocab_size, tokenizer);
    }

    #[getter]
    fn index(&self, py: Python<'_>) -> Option<Py<TaskIndex>> {
        self.index.as_ref().map(|i| i.clone_ref(py))
    }

    /// (calibration scale, calibration shift, tokens per unit of cost).
    #[getter]
    fn learnt(&self, py: Python<'_>) -> (f64, f64, f64) {
        let _work = fork::work(py);
        let online = self.drafter.calibration();
        (online.scale(), online.shift(), online.rate())
    }

    /// Start a request whose output follows the prompt.
    #[pyo3(signature = (prompt_ids, input_text=None))]
    fn start(&self, py: Python<'_>, prompt_ids: &Bound<'_, PyAny>, input_text: Option<&str>) -> PyResult<NgramRequest> {
        let ids = with_ids(prompt_ids, <[u32]>::to_vec)?;
        let state = py.detach(|| self.drafter.start(&ids, input_text)).raise()?;
        Ok(NgramRequest { drafter: self.drafter.clone(), state: Mutex::new(state) })
    }

    /// Add online rows: requests that start afterwards count and retrieve them.
    fn serve(&self, py: Python<'_>, rows: Vec<ServedRow<'_>>) -> PyResult<()> {
        let read = |row: ServedRow<'_>| {
            let (input, ids, key) = match row {
                ServedRow::Plain((input, ids)) => (input, ids, None),
                ServedRow::Keyed(row) => row,
            };
            let output = with_ids(&ids, <[u32]>::to_vec)?;
            Ok(OnlineRow { input: input.unwrap_or_default(), output, key: key.unwrap_or_default() })
        };
        let rows = rows.into_iter().map(read).collect::<PyResult<Vec<_>>>()?;
        // an id that the index cannot hold would keep its log from ever being compacted
        let limit = self.index.as_ref().map_or(u32::MAX, |index| index.get().vocab_size());
        let count = rows.len();
        let known: Vec<_> = rows.into_iter().filter(|row| row.output.iter().all(|&id| id < limit)).collect();
        py.detach(|| self.drafter.serve(&known)).raise()?;
        match count - known.len() {
            0 => Ok(()),
            unknown => Err(InputError::new_err(format!(
                "{unknown} of {count} rows hold an id of {limit} or above, which the index's vocabulary lacks; they were \
                 left out, the others were added"
            ))),
        }
    }

    /// Number of online rows in memory.
    #[getter]
    fn num_served(&self, py: Python<'_>) -> usize {
        let _work = fork::work(py);
        self.drafter.num_served()
    }

    /// Bytes of the online rows in memory, with their spare capacity; at most `served_bytes`.
    #[getter]
    fn served_memory(&self, py: Python<'_>) -> usize {
        let _work = fork::work(py);
        self.drafter.served_memory()
    }

    /// Create a drafter over another index of the same tokenizer; this drafter stays usable.
    fn with_index(&self, py: Python<'_>, index: Py<TaskIndex>) -> PyResult<Self> {
        let Some(old) = &self.index else {
            return Err(InputError::new_err("a drafter without an index cannot change to another; make a new one"));
        };
        let (found, wanted) = (index.get().file().fingerprint(), old.get().file().fingerprint());
        if found != wanted {
            return Err(Error::Fingerprint { path: index.get().file().path().into(), found, wanted }).raise();
        }
        let task = index.get().task();
        let drafter = py.detach(|| self.drafter.with_index(task)).raise()?;
        let (tokenizer, threads) = (self.tokenizer.clone(), self.threads);
        Ok(Self { drafter: Arc::new(drafter), index: Some(index), tokenizer, threads })
    }

    /// Draft for several requests in one call, on several threads; see `NgramRequest.draft`.
    #[pyo3(signature = (requests, max_tokens, costs=None))]
    fn propose_batch(
        &self,
        py: Python<'_>,
        requests: Vec<Py<NgramRequest>>,
        max_tokens: usize,
        costs: Option<PyReadonlyArray1<'_, f64>>,
    ) -> PyResult<Vec<Draft>> {
        let costs = curve(costs)?;
        let threads = self.threads.min(requests.len() / EACH);
        Ok(py.detach(|| pool::map(&requests, threads, |r| r.get().propose(max_tokens, &costs))))
    }
}

#[pymethods]
impl NgramRequest {
    /// Ignore the request's parameters: an n-gram draft needs none of them.
    fn configure(&self, params: &Bound<'_, PyAny>) {
        let _ = params;
    }

    /// Draft the next tokens; the draft is empty if drafting costs more than it saves.
    #[pyo3(signature = (max_tokens, costs=None))]
    fn draft(&self, py: Python<'_>, max_tokens: usize, costs: Option<PyReadonlyArray1<'_, f64>>) -> PyResult<Draft> {
        let costs = curve(costs)?;
        Ok(py.detach(|| self.propose(max_tokens, &costs)))
    }

    /// Append the (T,) tokens that verification has emitted since the last draft, and learn from them.
    fn update(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<()> {
        with_ids(ids, |ids| {
            let _work = fork::work(py);
            self.with(|request| self.drafter.update(request, ids));
        })
    }

    /// Make the draft that `draft` would make, with the evidence for each token.
    #[pyo3(signature = (max_tokens, costs=None))]
    fn explain<'py>(
        &self,
        py: Python<'py>,
        max_tokens: usize,
        costs: Option<PyReadonlyArray1<'_, f64>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let costs = curve(costs)?;
        let explained = py.detach(|| self.with(|request| self.drafter.explain(request, max_tokens, &costs)));
        explained.into_iter().map(|token| to_dict(py, token)).collect()
    }

    /// Return the mixer's input at this position, for fitting weights.
    #[allow(clippy::type_complexity)]
    fn candidates<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyArray1<u32>>, Bound<'py, PyAny>, Bound<'py, PyArray1<u8>>)> {
        let seen = {
            let _work = fork::work(py);
            self.with(|request| self.drafter.candidates(request))
        };
        let rows = seen.rows.clone().into_pyarray(py).call_method1("reshape", (-1, FEATURES))?;
        Ok((PyArray1::from_slice(py, &seen.tokens), rows, PyArray1::from_slice(py, &seen.states)))
    }
}

fn to_dict(py: Python<'_>, of: Explained) -> PyResult<Bound<'_, PyDict>> {
    let sources = PyDict::new(py);
    for (source, probability) in Source::ALL.into_iter().zip(of.sources) {
        sources.set_item(source.name(), probability)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("token", of.token)?;
    dict.set_item("prob", of.probability)?;
    dict.set_item("sources", sources)?;
    dict.set_item("candidates", of.candidates)?;
    Ok(dict)
}

/// Fewest bytes that served rows, or their log, can be given.
const LEAST_BYTES: i64 = 1 << 16;

fn source(name: &str) -> PyResult<Source> {
    let known = Source::ALL.map(Source::name).join(", ");
    let found = Source::ALL.into_iter().find(|s| s.name() == name);
    found.ok_or_else(|| InputError::new_err(format!("there is no source {name:?}; choose from {known}")))
}

/// Online calibration of probabilities: p' = σ(a·logit p + b); every verified token moves a and b.
#[pyclass(frozen, module = "tasc._core")]
pub(crate) struct Calibration(Mutex<OnlineCalibration>);

#[pymethods]
impl Calibration {
    #[new]
    fn new() -> Self {
        Self(Mutex::default())
    }

    /// Return the calibrated probability.
    fn __call__(&self, p: f64) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).calibrate(p)
    }

    /// Take a verified token of probability `p`.
    fn learn(&self, p: f64, right: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).record_token(p, right);
    }
}
