//! Rows served since the index was built: counted and retrievable at once, in bounded memory.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use super::sequence_index::{Matches, SequenceIndex, table_bytes};
use crate::TokenId;
use crate::corpus::OnlineRow;
use crate::index::inputs::{Inputs, terms};
use crate::mixture::blend::Blend;
use crate::text::words;

/// Begins every output, so that the first tokens have a context.
pub const START: TokenId = TokenId::MAX;

/// Bytes of served rows that are kept in memory unless told otherwise.
pub const SERVED_BYTES: usize = 64 << 20;

/// Places followed at a time.
const FOLLOWED: usize = 16;

/// Of each term, the latest rows that hold it are looked at, so many at most.
const LOOKED_AT: usize = 1024;

/// What an allocation takes beside what it holds.
const ALLOCATION: usize = 16;

/// Stands for a row that is in no log.
const NO_NUMBER: u64 = u64::MAX;

/// Served rows in memory.
#[derive(Clone, Debug)]
pub struct IndexedRows {
    /// All outputs, each after a [`START`].
    outputs: SequenceIndex,
    rows: VecDeque<Row>,
    /// term → rows that hold it, oldest first.
    postings: FxHashMap<u64, Vec<u32>>,
    /// Bytes of the rows' terms and of the lists in `postings`.
    lists: usize,
    limit: usize,
    /// Changes when rows are forgotten: places in `outputs` mean something else then.
    epoch: u64,
}

#[derive(Clone, Debug)]
struct Row {
    terms: Box<[u64]>,
    /// Its number in the write-ahead log; `NO_NUMBER` without a log.
    number: u64,
    /// Where its [`START`] stands.
    start: usize,
    tokens: usize,
    norm: f32,
}

/// A served row with an input near the one asked about.
#[derive(Clone, Copy, Debug)]
pub struct OnlineNeighbour {
    /// Its number.
    pub row: u32,
    /// Cosine of the two inputs' vectors of idfs, in 0 ..= 1.
    pub similarity: f32,
}

impl Default for IndexedRows {
    /// No row, [`SERVED_BYTES`].
    fn default() -> Self {
        Self::new(SERVED_BYTES)
    }
}

impl IndexedRows {
    /// No row yet. They may take `limit` bytes ([`IndexedRows::fewer`]).
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let (outputs, rows, postings) = Default::default();
        Self { outputs, rows, postings, lists: 0, limit, epoch: 0 }
    }

    /// Number of rows in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Changes when rows are forgotten; matches from before mean nothing then.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Bytes on the heap, room to grow included. O(1).
    #[must_use]
    pub fn memory_usage(&self) -> usize {
        let rows = self.rows.capacity() * size_of::<Row>();
        self.outputs.memory_usage() + rows + table_bytes(&self.postings) + self.lists
    }

    /// Adds a row; `number` is its number in the write-ahead log, `inputs` says how rare terms are.
    ///
    /// # Complexity
    /// O(row), amortised over the rows where tables grow.
    pub fn add(&mut self, row: &OnlineRow, number: Option<u64>, inputs: Option<&Inputs<'_>>) {
        let (mut words, mut found) = (Vec::new(), Vec::new());
        words::split(&row.input, &mut words);
        terms(&words, &mut found);
        let norm = norm(&found, inputs);
        self.insert(found.into(), number.unwrap_or(NO_NUMBER), norm, &row.output);
    }

    fn insert(&mut self, terms: Box<[u64]>, number: u64, norm: f32, output: &[TokenId]) {
        let row = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        for &term in &terms {
            let list = self.postings.entry(term).or_default();
            let before = list_bytes::<u32>(list.capacity());
            list.push(row);
            self.lists += list_bytes::<u32>(list.capacity()) - before;
        }
        self.lists += list_bytes::<u64>(terms.len());
        let start = self.outputs.ids().len();
        self.outputs.insert(std::iter::once(START).chain(output.iter().copied()), 1.0);
        self.rows.push_back(Row { terms, number, start, tokens: output.len(), norm });
    }

    /// The newer half of the rows, where all of them take more than they may; `None` where they fit.
    ///
    /// # Complexity
    /// O(rows kept), so O(row) for each one added: as many are forgotten.
    #[must_use]
    pub fn fewer(&self) -> Option<Self> {
        (self.memory_usage() > self.limit && !self.rows.is_empty()).then(|| self.latest(self.rows.len() / 2))
    }

    /// Copies the latest `count` rows, as if no other had ever been added; a new epoch.
    ///
    /// # Complexity
    /// O(rows kept).
    #[must_use]
    pub fn latest(&self, count: usize) -> Self {
        let first = self.rows.len().saturating_sub(count);
        self.copied(self.rows.range(first..))
    }

    /// Copies the rows but those with a number below `merged`, as if no other had ever been added; a new epoch.
    ///
    /// # Complexity
    /// O(rows).
    #[must_use]
    pub fn without_merged(&self, merged: u64) -> Self {
        self.copied(self.rows.iter().filter(|row| row.number >= merged))
    }

    fn copied<'r>(&self, rows: impl Iterator<Item = &'r Row> + Clone) -> Self {
        let mut kept = Self { epoch: self.epoch + 1, ..Self::new(self.limit) };
        let tokens = rows.clone().map(|row| 1 + row.tokens).sum();
        kept.outputs.reserve(tokens); // no more: all rows are there meanwhile
        for row in rows {
            let output = &self.outputs.ids()[row.start + 1..][..row.tokens];
            kept.insert(row.terms.clone(), row.number, row.norm, output);
        }
        kept
    }

    /// From now on terms are as rare as `inputs` says.
    ///
    /// # Complexity
    /// O(terms · log terms of the index).
    pub fn set_norms(&mut self, inputs: Option<&Inputs<'_>>) {
        self.rows.iter_mut().for_each(|row| row.norm = norm(&row.terms, inputs));
    }

    /// The rows nearest to an input of these terms, best first, at most one per output; ties: the latest.
    ///
    /// # Complexity
    /// O(terms · `LOOKED_AT`).
    pub fn nearest(&self, terms: &[u64], inputs: &Inputs<'_>, n: usize, out: &mut Vec<OnlineNeighbour>) {
        out.clear();
        if self.rows.is_empty() {
            return;
        }
        let mut sums: FxHashMap<u32, f32> = FxHashMap::default();
        let mut square = 0.0;
        for &term in terms {
            let idf = inputs.idf(term);
            square += idf * idf;
            for &row in self.postings.get(&term).into_iter().flat_map(|p| p.iter().rev().take(LOOKED_AT)) {
                *sums.entry(row).or_default() += idf * idf;
            }
        }
        let norm = square.sqrt();
        out.extend(sums.into_iter().filter_map(|(row, sum)| {
            let similarity = sum / (norm * self.rows.get(row as usize)?.norm);
            Some(OnlineNeighbour { row, similarity: similarity.min(1.0) }).filter(|n| n.similarity > 0.0)
        }));
        out.sort_unstable_by(|a, b| b.similarity.total_cmp(&a.similarity).then(b.row.cmp(&a.row)));
        let mut outputs = FxHashSet::default();
        out.retain(|neighbour| outputs.len() < n && outputs.insert(self.output(neighbour.row)));
    }

    /// The output of a row.
    #[must_use]
    pub fn output(&self, row: u32) -> &[TokenId] {
        let tokens = |r: &Row| self.outputs.ids().get(r.start + 1..r.start + 1 + r.tokens);
        self.rows.get(row as usize).and_then(tokens).unwrap_or(&[])
    }

    /// An output grows by a token.
    pub fn advance(&self, matches: &mut Matches, token: TokenId) {
        if !self.rows.is_empty() {
            matches.advance(&self.outputs, token, FOLLOWED);
        }
    }

    /// Fills `blend` with what followed in the served outputs. Returns the length of the longest match.
    pub fn blend(&self, matches: &Matches, scratch: &mut Vec<(u32, TokenId, f32)>, blend: &mut Blend) -> u32 {
        let order = self.outputs.blend(matches, scratch, blend);
        blend.forget(START);
        order
    }
}

/// Length of the vector of idfs; 1 each where no input says how rare terms are.
fn norm(terms: &[u64], inputs: Option<&Inputs<'_>>) -> f32 {
    let idf = |key: &u64| inputs.map_or(1.0, |i| i.idf(*key));
    terms.iter().map(|key| idf(key).powi(2)).sum::<f32>().sqrt()
}

/// Bytes that a list of its own takes on the heap.
fn list_bytes<T>(capacity: usize) -> usize {
    if capacity == 0 { 0 } else { capacity * size_of::<T>() + ALLOCATION }
}
