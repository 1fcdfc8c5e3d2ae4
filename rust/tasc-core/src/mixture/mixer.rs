//! The log-linear mixture: one distribution from the evidence of all sources.
//!
//! score(candidate) = (w + Σ offset of each group's state) · features(candidate), softmax over the candidates and one
//! more, "something else".

use super::features::{FEATURES, NO_INPUT_COLUMNS};
use crate::{Error, Result};

const NO_INPUT_FEATURES: usize = NO_INPUT_COLUMNS.len();

/// Most features a candidate may have.
pub const MAX_FEATURES: usize = 32;

/// A weight vector that is a sum: what is common to all, and for each group of states an offset.
///
/// Sums need a row per state where a table of all combinations needs a row per combination, so that each is fitted
/// from many tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    features: usize,
    /// Number of states of each group.
    groups: Vec<usize>,
    /// The common row, then for each group in order a row per state.
    table: Vec<f32>,
}

impl Weights {
    /// `table` holds rows of `features` weights: the common one, then for each group in order one per state.
    ///
    /// # Errors
    /// [`Error::Weights`] when `features` is 0 or above [`MAX_FEATURES`], a group has no state, the table's length is
    /// not (1 + all states) × `features`, or a weight is not finite.
    pub fn new(features: usize, groups: Vec<usize>, table: Vec<f32>) -> Result<Self> {
        if !(1..=MAX_FEATURES).contains(&features) {
            return Err(Error::Weights { why: format!("{features} features; give 1 to {MAX_FEATURES}") });
        }
        if let Some(g) = groups.iter().position(|&n| n == 0) {
            return Err(Error::Weights { why: format!("group {g} has no states; give it one or leave it out") });
        }
        let rows = groups.iter().try_fold(1usize, |sum, &n| sum.checked_add(n));
        if rows.and_then(|r| r.checked_mul(features)) != Some(table.len()) {
            let n = table.len();
            let why = format!("{n} weights do not make rows of {features}: one and one per state of groups {groups:?}");
            return Err(Error::Weights { why });
        }
        if let Some(w) = table.iter().find(|w| !w.is_finite()) {
            return Err(Error::Weights { why: format!("a weight is {w}") });
        }
        Ok(Self { features, groups, table })
    }

    /// Features per candidate.
    #[must_use]
    pub fn features(&self) -> usize {
        self.features
    }

    /// The weights of these columns alone, in this order; a column that is none weighs nothing.
    #[must_use]
    pub fn columns(&self, columns: &[usize]) -> Self {
        let rows = self.table.chunks_exact(self.features);
        let picked = rows.flat_map(|row| columns.iter().map(|&c| row.get(c).copied().unwrap_or(0.0)));
        Self { features: columns.len(), groups: self.groups.clone(), table: picked.collect() }
    }

    /// The same weights for more features and more groups, which all get weight 0; `None` when these groups do not begin
    /// with the weights' own, or there are fewer features.
    ///
    /// # Complexity
    /// O(weights), a copy.
    #[must_use]
    pub fn padded(&self, features: usize, groups: &[usize]) -> Option<Self> {
        if features < self.features || !groups.starts_with(&self.groups) {
            return None;
        }
        let mut padded = self.columns(&(0..features).collect::<Vec<_>>());
        padded.groups = groups.to_vec();
        padded.table.resize((1 + groups.iter().sum::<usize>()) * features, 0.0);
        Some(padded)
    }

    /// Number of states of each group.
    #[must_use]
    pub fn groups(&self) -> &[usize] {
        &self.groups
    }

    /// All rows: the common one, then for each group in order one per state.
    #[must_use]
    pub fn table(&self) -> &[f32] {
        &self.table
    }

    /// The weights at these states, one per group; zeros past [`Weights::features`].
    ///
    /// A state past a group's last counts as the last; a group that no state is given for adds nothing.
    ///
    /// # Complexity
    /// O(features × groups).
    #[must_use]
    pub fn vector(&self, states: &[u8]) -> [f32; MAX_FEATURES] {
        let mut vector = [0.0; MAX_FEATURES];
        for row in rows_at(&self.groups, states) {
            for (v, w) in vector.iter_mut().zip(&self.table[row * self.features..][..self.features]) {
                *v += w;
            }
        }
        vector
    }
}

/// Numbers of the table's rows that add up at `states`: the common one, then one of each group.
pub(crate) fn rows_at(groups: &[usize], states: &[u8]) -> impl Iterator<Item = usize> {
    let offsets = groups.iter().zip(states).scan(1, |first, (&n, &state)| {
        let row = *first + usize::from(state).min(n - 1);
        *first += n;
        Some(row)
    });
    std::iter::once(0).chain(offsets)
}

impl Weights {
    /// Moves the weights down the gradient of −ln p(truth) at one sample, each by its own step size (AdaGrad: Duchi,
    /// Hazan and Singer, 2011): `squares`, as long as the table, holds the sums of squared gradients.
    ///
    /// # Complexity
    /// O(features × (rows + groups)).
    pub fn descend(&mut self, sample: &Sample<'_>, rate: f32, squares: &mut [f32]) {
        let mut gradient = [0.0f32; MAX_FEATURES];
        for (k, (row, p)) in sample.rows.chunks_exact(self.features).zip(sample.probabilities).enumerate() {
            let error = p - f32::from(u8::from(k == sample.truth));
            gradient.iter_mut().zip(row).for_each(|(g, x)| *g += error * x);
        }
        for row in rows_at(&self.groups, sample.states) {
            let range = row * self.features..(row + 1) * self.features;
            let (Some(weights), Some(squares)) = (self.table.get_mut(range.clone()), squares.get_mut(range)) else {
                continue;
            };
            for ((w, s), g) in weights.iter_mut().zip(squares).zip(&gradient) {
                *s += g * g;
                *w -= rate * g / s.sqrt().max(f32::MIN_POSITIVE);
            }
        }
    }
}

/// What the mixer saw at one token, what it made of it, and the truth.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Feature rows one after the other.
    pub rows: &'a [f32],
    /// The mixture's probability of each row.
    pub probabilities: &'a [f32],
    /// The state of each group.
    pub states: &'a [u8],
    /// The row that was right.
    pub truth: usize,
}

/// Turns feature rows into probabilities.
#[derive(Clone, Debug)]
pub struct Mixer {
    weights: Weights,
}

impl Mixer {
    /// A mixture with these weights.
    #[must_use]
    pub fn new(weights: Weights) -> Self {
        Self { weights }
    }

    /// Its weights, to be changed.
    pub fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// Its weights.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Probabilities of the candidates whose feature rows are given one after the other; they sum to 1.
    /// States as in [`Weights::vector`].
    ///
    /// # Complexity
    /// O(features × (candidates + groups)).
    pub fn mix(&self, rows: &[f32], states: &[u8], probabilities: &mut Vec<f32>) {
        probabilities.clear();
        // where the length of a row is known when compiled, its loops are unrolled
        match self.weights.features {
            FEATURES => self.score::<FEATURES>(rows, states, probabilities),
            NO_INPUT_FEATURES => self.score::<NO_INPUT_FEATURES>(rows, states, probabilities),
            f => {
                let w = &self.weights.vector(states)[..f];
                probabilities.extend(rows.chunks_exact(f).map(|row| dot(row, w)));
            }
        }
        softmax(probabilities);
    }

    fn score<const F: usize>(&self, rows: &[f32], states: &[u8], scores: &mut Vec<f32>) {
        let table = self.weights.table.as_chunks::<F>().0;
        let mut w = [0.0; F];
        for row in rows_at(&self.weights.groups, states) {
            w.iter_mut().zip(&table[row]).for_each(|(w, offset)| *w += offset);
        }
        scores.extend(rows.as_chunks::<F>().0.iter().map(|row| dot(row, &w)));
    }
}

/// Sum of products, in eight lanes where there are as many: the same bits on every machine.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    if a.len() < 8 {
        return a.iter().zip(b).map(|(x, y)| x * y).sum();
    }
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut lanes = [0.0f32; 8];
    for (a, b) in a.iter().zip(b) {
        for ((lane, x), y) in lanes.iter_mut().zip(a).zip(b) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}

/// Turns scores into probabilities; the logarithm of what they were divided by.
pub(crate) fn softmax(scores: &mut [f32]) -> f64 {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for p in scores.iter_mut() {
        *p = (*p - top).exp();
        sum += *p;
    }
    for p in scores.iter_mut() {
        *p /= sum;
    }
    f64::from(top) + f64::from(sum).ln()
}
