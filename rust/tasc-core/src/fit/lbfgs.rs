//! Weights from samples: the log-linear mixture that is most probable given a prior (maximum a posteriori).
//!
//! Minimised is Σ weightᵢ · −ln pᵢ(truthᵢ) / Σ weightᵢ + Σ penaltyₖ · (wₖ − priorₖ)², a convex function, with L-BFGS and
//! the line search of Moré and Thuente (Nocedal and Wright, Numerical Optimization, 2006, chapters 3 and 7).

use std::cell::RefCell;

use argmin::core::{CostFunction, Error as Stop, Executor, Gradient, State};
use argmin::solver::{linesearch::MoreThuenteLineSearch, quasinewton::LBFGS};

use super::objective::{FitOptions, Objective, Value};
use super::samples::Samples;
use crate::mixture::mixer::Weights;
use crate::{Error, Result};

/// Pairs of steps that L-BFGS remembers.
const MEMORY: usize = 10;

/// Fitting ends when an iteration gains less than this many nats per token: no draft would be longer for it.
const MIN_GAIN: f64 = 3e-6;

/// Fitting ends when the gradient, for weights of curvature 1, is shorter than this: half its square is about what is
/// left to gain.
const MIN_GRADIENT: f64 = 1e-5;

/// Fitted weights and how well they fit.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The weights.
    pub weights: Weights,
    /// Mean nats per token of the prior on the samples.
    pub nats_before: f64,
    /// The same of the fitted weights.
    pub nats: f64,
    /// Iterations made.
    pub iterations: u64,
}

/// The weights that fit the samples best without going far from the prior.
///
/// Runs in rayon's current thread pool; the result has the same bits for any number of threads. When the optimiser
/// stops early, for lack of iterations or of precision, the result is the best point it saw, at worst the prior.
///
/// # Complexity
/// O(iterations × (values of all samples + samples × groups × features)) time, O(weights × samples / 512) memory.
///
/// # Errors
/// [`Error::Samples`] when there are no samples, they weigh nothing, they have other features or groups than the
/// prior, or an option is negative or not finite.
pub fn fit(samples: &Samples, prior: &Weights, options: &FitOptions) -> Result<Fit> {
    let objective = Objective::new(samples, prior, options)?;
    let search = Search::new(objective, options.iterations)?;
    let nats_before = search.seen.borrow().last.1.nats;
    let iterations = search.run();
    let Evaluations { best, .. } = search.seen.into_inner();
    let table = best.0.iter().map(|&w| w as f32).collect();
    let weights = Weights::new(prior.features(), prior.groups().to_vec(), table)?;
    Ok(Fit { weights, nats_before, nats: best.1.nats, iterations })
}

/// The objective and its gradient at `table`, which has the layout of [`Weights::table`]: mean nats per token plus the
/// penalties.
///
/// # Complexity
/// O(values of all samples + samples × groups × features), split over the threads of rayon's current pool.
///
/// # Errors
/// As [`fit`], and [`Error::Weights`] when `table` is not as long as the prior's.
pub fn loss(samples: &Samples, table: &[f64], prior: &Weights, options: &FitOptions) -> Result<(f64, Vec<f64>)> {
    let objective = Objective::new(samples, prior, options)?;
    if table.len() != objective.prior().len() {
        let why = format!("there are {}; give {}, as in the prior", table.len(), objective.prior().len());
        return Err(Error::Weights { why });
    }
    let Value { value, gradient, .. } = objective.at(table);
    Ok((value, gradient))
}

/// What the optimiser works on. It asks for value and gradient one by one, and drops its problem when a line search
/// fails; so it is lent this, which remembers. What it varies are the distances from the prior, each on the scale of
/// its curvature: log-probabilities, flags and penalties differ by orders of magnitude.
struct Search<'a> {
    objective: Objective<'a>,
    scales: Vec<f64>,
    max_iterations: u64,
    seen: RefCell<Evaluations>,
}

struct Evaluations {
    /// Distances, and the value there with the gradient along them.
    last: (Vec<f64>, Value),
    /// A table and its value, without gradient.
    best: (Vec<f64>, Value),
    evaluations: u64,
}

impl<'a> Search<'a> {
    fn new(objective: Objective<'a>, max_iterations: u64) -> Result<Self> {
        let prior = objective.prior().to_vec();
        let value = objective.at(&prior);
        if !value.value.is_finite() {
            let why = format!("the prior gives {} nats per token; scale the features down", value.value);
            return Err(Error::Samples { why });
        }
        let scale = |c: f64| if c > 0.0 { 1.0 / c.sqrt() } else { 1.0 };
        let scales: Vec<f64> = objective.curvature().into_iter().map(scale).collect();
        let best = Value { gradient: Vec::new(), ..value };
        let seen =
            Evaluations { last: (vec![0.0; prior.len()], along(&scales, value)), best: (prior, best), evaluations: 0 };
        Ok(Self { objective, scales, max_iterations, seen: RefCell::new(seen) })
    }

    /// The number of iterations made.
    fn run(&self) -> u64 {
        let solver = LBFGS::new(MoreThuenteLineSearch::new(), MEMORY)
            .with_tolerance_grad(MIN_GRADIENT)
            .and_then(|s| s.with_tolerance_cost(MIN_GAIN));
        let Ok(solver) = solver else { return 0 };
        let start = vec![0.0; self.scales.len()];
        let run = Executor::new(self, solver).configure(|s| s.param(start).max_iters(self.max_iterations)).run();
        run.map_or(0, |r| r.state.get_iter())
    }

    /// What `f` takes from the value at these distances.
    fn at<T>(&self, distances: &[f64], f: impl Fn(&Value) -> T) -> std::result::Result<T, Stop> {
        let mut seen = self.seen.borrow_mut();
        if seen.last.0 != distances {
            if seen.evaluations > self.max_iterations.saturating_mul(2).saturating_add(20) {
                return Err(Stop::msg("no evaluations left"));
            }
            seen.evaluations += 1;
            let steps = distances.iter().zip(&self.scales).map(|(d, s)| d * s);
            let table: Vec<f64> = self.objective.prior().iter().zip(steps).map(|(w, step)| w + step).collect();
            let value = self.objective.at(&table);
            if !value.value.is_finite() {
                return Err(Stop::msg("not finite"));
            }
            if value.value < seen.best.1.value {
                seen.best = (table, Value { gradient: Vec::new(), ..value });
            }
            seen.last = (distances.to_vec(), along(&self.scales, value));
        }
        Ok(f(&seen.last.1))
    }
}

/// With the gradient along distances on these scales.
fn along(scales: &[f64], mut value: Value) -> Value {
    value.gradient.iter_mut().zip(scales).for_each(|(g, s)| *g *= s);
    value
}

impl CostFunction for &Search<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, distances: &Vec<f64>) -> std::result::Result<f64, Stop> {
        self.at(distances, |v| v.value)
    }
}

impl Gradient for &Search<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, distances: &Vec<f64>) -> std::result::Result<Vec<f64>, Stop> {
        self.at(distances, |v| v.gradient.clone())
    }
}
