//! Rows served since the index was built: counted and retrievable at once, in bounded memory.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use super::blend::Blend;
use super::occurrences::{Matches, Occurrences};
use crate::TokenId;
use crate::corpus::ServedRow;
use crate::index::inputs::{Inputs, terms};
use crate::input::words::{self, Word};

/// Begins every output, so that the first tokens have a context.
pub const START: TokenId = TokenId::MAX;

/// Places followed at a time.
const FOLLOWED: usize = 16;

/// Of each term, the latest rows that hold it are looked at, so many at most.
const LOOKED_AT: usize = 1024;

/// Bytes that a token and a term take in memory, about.
const TOKEN_BYTES: usize = 12;
const TERM_BYTES: usize = 24;

/// Served rows in memory.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// All outputs, each after a [`START`].
    outputs: Occurrences,
    rows: VecDeque<Row>,
    /// term → rows that hold it, oldest first.
    postings: FxHashMap<u64, Vec<u32>>,
    bytes: usize,
    /// Changes when rows are forgotten: places in `outputs` mean something else then.
    epoch: u64,
    words: Vec<Word>,
}

#[derive(Clone, Debug)]
struct Row {
    terms: Box<[u64]>,
    /// Where its [`START`] stands.
    start: usize,
    tokens: usize,
    norm: f32,
}

/// A served row with an input near the one asked about.
#[derive(Clone, Copy, Debug)]
pub struct ServedNeighbour {
    /// Its number.
    pub row: u32,
    /// Cosine of the two inputs' vectors of idfs, in 0 ..= 1.
    pub similarity: f32,
}

impl Served {
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

    /// Adds a row; when all take more than `limit` bytes, the older half of them is forgotten. `inputs` says how rare
    /// terms are.
    ///
    /// # Complexity
    /// O(row); amortised over the rows forgotten.
    pub fn add(&mut self, row: &ServedRow, inputs: Option<&Inputs<'_>>, limit: usize) {
        let mut found = Vec::new();
        words::split(&row.input, &mut self.words);
        terms(&self.words, &mut found);
        let idf = |key: &u64| inputs.map_or(1.0, |i| i.idf(*key));
        let norm = found.iter().map(|key| idf(key).powi(2)).sum::<f32>().sqrt();
        self.insert(found.into(), norm, &row.output);
        if self.bytes > limit {
            self.forget();
        }
    }

    fn insert(&mut self, terms: Box<[u64]>, norm: f32, output: &[TokenId]) {
        let number = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        for &term in &terms {
            self.postings.entry(term).or_default().push(number);
        }
        self.bytes += TERM_BYTES * terms.len() + TOKEN_BYTES * (output.len() + 1);
        let start = self.outputs.ids().len();
        self.outputs.insert(std::iter::once(START).chain(output.iter().copied()), 1.0);
        self.rows.push_back(Row { terms, start, tokens: output.len(), norm });
    }

    fn forget(&mut self) {
        let kept = self.rows.len() / 2;
        let old = std::mem::take(self);
        (self.epoch, self.words) = (old.epoch + 1, old.words);
        for row in old.rows.into_iter().rev().take(kept).rev() {
            let output = &old.outputs.ids()[row.start + 1..][..row.tokens];
            self.insert(row.terms, row.norm, output);
        }
    }

    /// The rows nearest to an input of these terms, best first, at most one per output; ties: the latest.
    ///
    /// # Complexity
    /// O(terms · `LOOKED_AT`).
    pub fn nearest(&self, terms: &[u64], inputs: &Inputs<'_>, n: usize, out: &mut Vec<ServedNeighbour>) {
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
            Some(ServedNeighbour { row, similarity: similarity.min(1.0) }).filter(|n| n.similarity > 0.0)
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
