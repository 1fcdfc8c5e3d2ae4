//! The log-linear mixture: one distribution from the evidence of all sources.
//!
//! score(candidate) = w\[state\] · features(candidate), softmax over the candidates and one more, "something else".

use crate::{Error, Result};

/// A weight vector per state.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    features: usize,
    table: Vec<f32>,
}

impl Weights {
    /// `table` holds `features` weights for each state.
    ///
    /// # Errors
    /// [`Error::Weights`] when the table's length is not a positive multiple of `features`, or a weight is not finite.
    pub fn new(features: usize, table: Vec<f32>) -> Result<Self> {
        if features == 0 || table.is_empty() || !table.len().is_multiple_of(features) {
            return Err(Error::Weights { why: format!("{} weights do not make rows of {features}", table.len()) });
        }
        if let Some(w) = table.iter().find(|w| !w.is_finite()) {
            return Err(Error::Weights { why: format!("a weight is {w}") });
        }
        Ok(Self { features, table })
    }

    /// Features per candidate.
    #[must_use]
    pub fn features(&self) -> usize {
        self.features
    }

    /// Number of states.
    #[must_use]
    pub fn states(&self) -> usize {
        self.table.len() / self.features
    }
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

    /// Its weights.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Probabilities of the candidates whose feature rows are given one after the other; they sum to 1.
    /// A state past the last counts as the last.
    pub fn mix(&self, rows: &[f32], state: usize, probabilities: &mut Vec<f32>) {
        let f = self.weights.features;
        let state = state.min(self.weights.states() - 1);
        let w = &self.weights.table[state * f..][..f];
        probabilities.clear();
        probabilities.extend(rows.chunks_exact(f).map(|row| row.iter().zip(w).map(|(x, w)| x * w).sum::<f32>()));
        let top = probabilities.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for p in probabilities.iter_mut() {
            *p = (*p - top).exp();
            sum += *p;
        }
        for p in probabilities.iter_mut() {
            *p /= sum;
        }
    }
}
