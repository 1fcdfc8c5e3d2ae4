//! A running output as the chain of nested intervals of its back-off contexts.

use super::ngrams::{BOUNDARY, Interval, Ngrams, Symbol};

/// Consecutive back-off orders that share one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The places in the corpus where the context occurs.
    pub interval: Interval,
    /// Longest context of this run, in tokens (the start of the output counts as one).
    pub order: u32,
}

/// Where a running output stands in the index: the occurrences of its last 0, 1, 2, … tokens, up to the
/// longest context that the corpus holds. Orders with the same occurrences share a [`Run`].
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// From the longest context down to the empty one, intervals strictly growing.
    runs: Vec<Run>,
}

impl Cursor {
    /// Somewhere in an output of which nothing is known.
    #[must_use]
    pub fn anywhere(ngrams: &Ngrams<'_>) -> Self {
        Self { runs: vec![Run { interval: ngrams.all(), order: 0 }] }
    }

    /// At the start of an output.
    #[must_use]
    pub fn at_start(ngrams: &Ngrams<'_>) -> Self {
        let mut cursor = Self::anywhere(ngrams);
        cursor.advance(ngrams, BOUNDARY);
        cursor
    }

    /// Runs, longest context first. `runs()[k]` holds the orders `runs()[k + 1].order + 1 ..= runs()[k].order`;
    /// the last run is the empty context, order 0.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Length of the longest context that occurs in the corpus.
    #[must_use]
    pub fn order(&self) -> u32 {
        self.runs.first().map_or(0, |r| r.order)
    }

    /// Becomes a copy of `other`, re-using its memory.
    pub fn copy_from(&mut self, other: &Self) {
        self.runs.clone_from(&other.runs);
    }

    /// Appends a symbol; `None` is a token that the corpus never holds.
    ///
    /// # Complexity
    /// O(runs), each a step of [`Ngrams::child`].
    pub fn advance(&mut self, ngrams: &Ngrams<'_>, symbol: impl Into<Option<Symbol>>) {
        let mut kept = 0;
        if let Some(symbol) = symbol.into() {
            for k in 0..self.runs.len() {
                let run = self.runs[k];
                let child = if run.order == 0 {
                    Some(ngrams.ending_in(symbol)).filter(|i| i.size() > 0)
                } else {
                    ngrams.child(run.interval, symbol)
                };
                let Some(interval) = child else { continue };
                let same = kept > 0 && self.runs[kept - 1].interval == interval;
                if !same {
                    self.runs[kept] = Run { interval, order: run.order + 1 };
                    kept += 1;
                }
            }
        }
        self.runs.truncate(kept);
        let all = Run { interval: ngrams.all(), order: 0 };
        self.runs.push(all);
    }
}
