//! A running output as the chain of nested intervals of its back-off contexts.

use super::ngrams::{BOUNDARY, Interval, Ngrams, Successors, Symbol};

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
///
/// Long contexts usually leave nothing for shorter ones to say, so a cursor can be advanced *lazily*: only the front
/// runs, those that were asked for, are kept current; the others catch up when they are asked for.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// From the longest context down to the empty one, intervals growing.
    runs: Vec<Run>,
    /// The first so many runs are current.
    front: usize,
    /// The symbols that the other runs have yet to take.
    pending: Vec<Symbol>,
    /// What follows the first runs: so many were visited since the output last went on.
    seen: Vec<Successors>,
    visited: usize,
}

impl Cursor {
    /// Somewhere in an output of which nothing is known.
    #[must_use]
    pub fn anywhere(ngrams: &Ngrams<'_>) -> Self {
        Self { runs: vec![Run { interval: ngrams.all(), order: 0 }], front: 1, ..Self::default() }
    }

    /// At the start of an output.
    #[must_use]
    pub fn at_start(ngrams: &Ngrams<'_>) -> Self {
        let mut cursor = Self::anywhere(ngrams);
        cursor.advance(ngrams, BOUNDARY);
        cursor
    }

    /// Becomes a copy of `other`, re-using its memory.
    pub fn copy_from(&mut self, other: &Self) {
        self.runs.clone_from(&other.runs);
        self.front = other.front;
        self.pending.clone_from(&other.pending);
        self.visited = 0;
    }

    /// Runs, longest context first. `runs()[k]` holds the orders `runs()[k + 1].order + 1 ..= runs()[k].order`; the
    /// last run is the empty context, order 0. All of them are current unless [`Cursor::advance_front`] was used since.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Length of the longest context that occurs in the corpus.
    pub fn order(&mut self, ngrams: &Ngrams<'_>) -> u32 {
        if self.front == 0 {
            self.catch_up(ngrams);
        }
        self.runs.first().map_or(0, |r| r.order)
    }

    /// Visits runs from the longest context down until `visit` returns false; it gets the interval, what follows it and
    /// the number of orders that share it. Those visited become the front.
    pub fn visit(&mut self, ngrams: &Ngrams<'_>, mut visit: impl FnMut(Interval, &Successors, u32) -> bool) {
        let mut k = 0;
        self.visited = 0;
        loop {
            if k >= self.front {
                self.catch_up(ngrams);
                prefetch(ngrams, self.runs.get(k..).unwrap_or(&[]));
            }
            let Some(run) = self.runs.get(k) else { break };
            let behind = if k + 1 < self.front { 0 } else { self.pending.len() };
            let behind = u32::try_from(behind).unwrap_or(u32::MAX);
            // a shorter context of one that occurs occurs too, so what is behind will have grown by all of `pending`
            let below = self.runs.get(k + 1).map_or(0, |r| r.order.saturating_add(behind));
            if self.seen.len() == k {
                self.seen.push(Successors::default());
            }
            let seen = &mut self.seen[k];
            ngrams.successors(run.interval, seen);
            k += 1;
            self.visited = k;
            if !visit(run.interval, seen, run.order.saturating_sub(below).max(1)) {
                break;
            }
        }
        if self.pending.is_empty() {
            self.front = k.min(self.runs.len());
        }
    }

    /// Begins to fetch what the front runs' successors will be read from.
    ///
    /// # Complexity
    /// O(front runs), and nothing waits.
    pub fn prefetch(&self, ngrams: &Ngrams<'_>) {
        self.runs[..self.front].iter().for_each(|run| ngrams.prefetch(run.interval));
    }

    /// Goes on with it, some time later.
    ///
    /// # Complexity
    /// O(front runs); waits for what [`Cursor::prefetch`] has asked for.
    pub fn prefetch_summaries(&self, ngrams: &Ngrams<'_>) {
        self.runs[..self.front].iter().for_each(|run| ngrams.prefetch_summary(run.interval));
    }

    /// Appends a symbol; `None` is a token that the corpus never holds. All runs are current afterwards.
    ///
    /// # Complexity
    /// O(runs), each a step of [`Ngrams::child`].
    pub fn advance(&mut self, ngrams: &Ngrams<'_>, symbol: impl Into<Option<Symbol>>) {
        self.catch_up(ngrams);
        match symbol.into() {
            Some(symbol) => self.extend(ngrams, symbol, 0),
            None => self.runs.clear(),
        }
        self.runs.push(Run { interval: ngrams.all(), order: 0 });
        self.front = self.runs.len();
    }

    /// Appends a symbol to the front runs only.
    ///
    /// # Complexity
    /// O(front runs).
    pub fn advance_front(&mut self, ngrams: &Ngrams<'_>, symbol: impl Into<Option<Symbol>>) {
        let symbol = symbol.into();
        let (Some(symbol), true) = (symbol, self.front < self.runs.len()) else {
            return self.advance(ngrams, symbol);
        };
        let behind = self.runs.len() - self.front;
        self.extend(ngrams, symbol, behind);
        self.front = self.runs.len() - behind;
        let follows = |before| ngrams.child(ngrams.ending_in(before), symbol, ngrams.ending_in(symbol)).is_some();
        if self.front == 0 && self.pending.last().is_some_and(|&before| !follows(before)) {
            // no context of two tokens goes on, so that there is nothing to catch up on
            self.pending.clear();
            self.runs.drain(..behind - 1);
            return self.advance(ngrams, symbol);
        }
        self.pending.push(symbol);
    }

    /// Brings all runs up to date.
    fn catch_up(&mut self, ngrams: &Ngrams<'_>) {
        if !self.pending.is_empty() {
            let visited = std::mem::take(&mut self.visited);
            let front = self.front;
            self.runs.rotate_left(front); // what is current waits behind the others
            for k in 0..self.pending.len() {
                self.extend(ngrams, self.pending[k], front);
                let end = self.runs.len() - front;
                self.runs.insert(end, Run { interval: ngrams.all(), order: 0 });
            }
            self.runs.rotate_right(front);
            self.pending.clear();
            self.visited = visited;
        }
        self.front = self.runs.len();
    }

    /// Extends all runs but the last `untouched` by a symbol; drops those that die, merges those that become equal.
    fn extend(&mut self, ngrams: &Ngrams<'_>, symbol: Symbol, untouched: usize) {
        let touched = self.runs.len() - untouched;
        let seen = &self.seen[..std::mem::take(&mut self.visited)];
        prefetch(ngrams, self.runs[..touched].get(seen.len()..).unwrap_or(&[]));
        let (mut kept, mut outer) = (touched, ngrams.ending_in(symbol));
        // what a longer context becomes lies within what a shorter one does
        for k in (0..touched).rev() {
            let Run { interval, order } = self.runs[k];
            let child = match seen.get(k).and_then(|s| s.child(symbol)) {
                _ if order == 0 => Some(outer),
                Some(known) => known,
                None => ngrams.child(interval, symbol, outer),
            };
            let Some(child) = child.and_then(|i| ngrams.checked(i)) else { break };
            if kept == touched || self.runs[kept].interval != child {
                kept -= 1;
            }
            self.runs[kept] = Run { interval: child, order: order + 1 };
            outer = child;
        }
        self.runs.drain(..kept);
    }
}

/// Fetches what runs that are to be looked up will be read from, for all of them at once.
fn prefetch(ngrams: &Ngrams<'_>, runs: &[Run]) {
    runs.iter().for_each(|run| ngrams.prefetch(run.interval));
    runs.iter().for_each(|run| ngrams.prefetch_summary(run.interval));
}
