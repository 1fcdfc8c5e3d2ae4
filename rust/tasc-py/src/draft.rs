//! Binding of `tasc_core::draft`.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use tasc_core::draft::{self, CostCurve, DrafterOptions, Weights};

#[pyclass(frozen, module = "tasc._core")]
pub(crate) struct Draft(draft::Draft);

#[pymethods]
impl Draft {
    #[getter]
    fn tokens<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        self.0.tokens.clone().into_pyarray(py)
    }
    #[getter]
    fn probs<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        self.0.probabilities.clone().into_pyarray(py)
    }
    #[getter]
    fn sources<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u8>> {
        self.0.sources.clone().into_pyarray(py)
    }
    fn __len__(&self) -> usize {
        self.0.tokens.len()
    }
}

struct Mem(tasc_core::index::OwnedNgrams);
impl draft::drafter::AsNgrams for Mem {
    fn ngrams(&self) -> tasc_core::index::Ngrams<'_> {
        self.0.view()
    }
}

#[pyclass(frozen, module = "tasc._core")]
pub(crate) struct NgramDrafter(Arc<draft::Drafter>);

#[pyclass(frozen, module = "tasc._core")]
pub(crate) struct Request {
    drafter: Arc<draft::Drafter>,
    state: Mutex<draft::Request>,
}

fn curve(costs: Option<PyReadonlyArray1<'_, f64>>) -> PyResult<CostCurve> {
    let e = |e: tasc_core::Error| pyo3::exceptions::PyValueError::new_err(e.to_string());
    match costs {
        None => CostCurve::linear(0.02).map_err(e),
        Some(c) => CostCurve::new(c.as_slice()?.to_vec()).map_err(e),
    }
}

impl Request {
    fn lock(&self) -> MutexGuard<'_, draft::Request> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl NgramDrafter {
    #[new]
    #[pyo3(signature = (docs, weights=None, learn=true))]
    fn new(docs: Option<Vec<Vec<u32>>>, weights: Option<Vec<f32>>, learn: bool) -> PyResult<Self> {
        let e = |e: tasc_core::Error| pyo3::exceptions::PyValueError::new_err(e.to_string());
        let index: Option<Arc<dyn draft::drafter::AsNgrams>> = match docs {
            None => None,
            Some(docs) => {
                let mut b = tasc_core::index::NgramsBuilder::new();
                let mut seen: std::collections::HashMap<&Vec<u32>, u64> = Default::default();
                for d in &docs {
                    *seen.entry(d).or_default() += 1;
                }
                for d in &docs {
                    if let Some(w) = seen.remove(d) {
                        b.push(d, w).map_err(e)?;
                    }
                }
                Some(Arc::new(Mem(b.build(|_| Ok(())).map_err(e)?)))
            }
        };
        let weights =
            weights.map(|w| Weights::new(draft::features::FEATURES, w)).transpose().map_err(e)?;
        let d = draft::Drafter::new(index, DrafterOptions { weights, learn }).map_err(e)?;
        Ok(Self(Arc::new(d)))
    }
    fn start(&self, prompt: Vec<u32>) -> Request {
        Request { state: Mutex::new(self.0.start(&prompt)), drafter: self.0.clone() }
    }
    fn learnt(&self) -> String {
        format!("{:?}", self.0.learnt())
    }
}

#[pymethods]
impl Request {
    #[pyo3(signature = (max_tokens, costs=None))]
    fn draft(&self, max_tokens: usize, costs: Option<PyReadonlyArray1<'_, f64>>) -> PyResult<Draft> {
        let c = curve(costs)?;
        Ok(Draft(self.drafter.draft(&mut self.lock(), max_tokens, &c).clone()))
    }
    fn update(&self, ids: Vec<u32>) {
        self.drafter.update(&mut self.lock(), &ids);
    }
    fn candidates<'py>(&self, py: Python<'py>) -> (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<f32>>, usize) {
        let mut g = self.lock();
        let c = self.drafter.candidates(&mut g);
        (c.tokens.clone().into_pyarray(py), c.rows.clone().into_pyarray(py), c.state)
    }
}
