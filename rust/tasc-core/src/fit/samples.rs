//! What weights are fitted to: the rows the mixer saw at many tokens, and which of them was the truth.

use crate::mixture::mixer::MAX_FEATURES;
use crate::{Error, Result};

/// Rows are padded with zeros to a multiple of this, the lanes of one vector register.
pub(super) const LANES: usize = 4;

/// What the mixer saw at many tokens, and which row was the truth.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    features: usize,
    groups: usize,
    /// `stride` values per row.
    rows: Vec<f32>,
    /// Number of values in `rows` up to and with each sample.
    ends: Vec<usize>,
    truths: Vec<usize>,
    /// `groups` per sample.
    states: Vec<u8>,
    weights: Vec<f32>,
}

/// One of the samples.
pub(super) struct SampleView<'a> {
    pub(super) rows: &'a [f32],
    pub(super) truth: usize,
    pub(super) states: &'a [u8],
    pub(super) weight: f32,
}

impl Samples {
    /// No samples yet; each will have rows of `features` values and `groups` states.
    #[must_use]
    pub fn new(features: usize, groups: usize) -> Self {
        Self { features, groups, ..Self::default() }
    }

    /// Features per row.
    #[must_use]
    pub fn features(&self) -> usize {
        self.features
    }

    /// States per sample.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes held in memory.
    #[must_use]
    pub fn memory_usage(&self) -> usize {
        size_of_val(&*self.rows)
            + size_of_val(&*self.ends)
            + size_of_val(&*self.truths)
            + size_of_val(&*self.weights)
            + self.states.len()
    }

    /// Adds a sample: its rows one after the other, the number of the true one, a state per group, and how much the
    /// sample counts.
    ///
    /// # Complexity
    /// O(rows × features), a copy.
    ///
    /// # Errors
    /// [`Error::Samples`], and nothing is added, when rows or states have another shape than announced, a value is not
    /// finite, the truth is none of the rows, or the weight is negative or not finite.
    pub fn push(&mut self, rows: &[f32], truth: usize, states: &[u8], weight: f32) -> Result<()> {
        self.check(rows, truth, states, weight).map_err(|why| {
            let sample = self.len();
            Error::Samples { why: format!("sample {sample} {why}") }
        })?;
        for row in rows.chunks_exact(self.features) {
            self.rows.extend(row);
            self.rows.resize(self.rows.len() + self.stride() - self.features, 0.0);
        }
        self.ends.push(self.rows.len());
        self.truths.push(truth);
        self.states.extend(states);
        self.weights.push(weight);
        Ok(())
    }

    fn check(&self, rows: &[f32], truth: usize, states: &[u8], weight: f32) -> std::result::Result<(), String> {
        let (f, n) = (self.features, rows.len());
        if !(1..=MAX_FEATURES).contains(&f) {
            return Err(format!("has {f} features; give 1 to {MAX_FEATURES}"));
        }
        if n == 0 || !n.is_multiple_of(f) {
            return Err(format!("has {n} values; give a positive multiple of {f} features"));
        }
        if truth >= n / f {
            return Err(format!("has row {truth} as its truth; give one of its {} rows, counted from 0", n / f));
        }
        if states.len() != self.groups {
            return Err(format!("has {} states; give {}, one per group", states.len(), self.groups));
        }
        if let Some(x) = rows.iter().find(|x| !x.is_finite()) {
            return Err(format!("holds the value {x}; give finite ones"));
        }
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(format!("has the weight {weight}; give a finite one, not below 0"));
        }
        Ok(())
    }

    /// Those samples whose number is to be kept, in order.
    ///
    /// # Complexity
    /// O(all values), a copy.
    #[must_use]
    pub fn subset(&self, keep: impl Fn(usize) -> bool) -> Samples {
        let mut kept = Samples::new(self.features, self.groups);
        for k in (0..self.len()).filter(|&k| keep(k)) {
            let sample = self.get(k);
            kept.rows.extend(sample.rows);
            kept.ends.push(kept.rows.len());
            kept.truths.push(sample.truth);
            kept.states.extend(sample.states);
            kept.weights.push(sample.weight);
        }
        kept
    }

    /// Values per row, padding included.
    pub(super) fn stride(&self) -> usize {
        self.features.next_multiple_of(LANES)
    }

    /// Sum of all samples' weights.
    pub(super) fn total_weight(&self) -> f64 {
        self.weights.iter().map(|&w| f64::from(w)).sum()
    }

    pub(super) fn get(&self, k: usize) -> SampleView<'_> {
        let start = if k == 0 { 0 } else { self.ends[k - 1] };
        SampleView {
            rows: &self.rows[start..self.ends[k]],
            truth: self.truths[k],
            states: &self.states[k * self.groups..][..self.groups],
            weight: self.weights[k],
        }
    }
}
