//! The rows whose inputs are nearest to a given one, without looking at all of them.

use std::hint::select_unpredictable;

use rustc_hash::FxHashMap;

use super::inputs::{Inputs, idf};
use crate::input::words::MAX_WORDS;

/// Postings that one query reads one after the other. Below it the answer is exact.
pub const POSTINGS_BUDGET: usize = 16_384;

/// Rows that are looked up in the postings the budget does not reach, when few of these are long.
const CANDIDATES: usize = 128;

/// Look-ups of a candidate in postings, in all; more candidates than neighbours are not worth more.
const LOOK_UPS: usize = 8192;

/// Candidates of one document: its best row by some terms need not be its best by all of them.
const CANDIDATES_PER_DOCUMENT: u32 = 4;

/// No row has this number, see [`super::inputs::MAX_ROWS`].
const FREE: u32 = u32::MAX;

/// A row with an input near the one asked about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// The row.
    pub row: u32,
    /// The document that was its output.
    pub document: u32,
    /// Cosine of the two inputs' vectors of idfs, in 0 ..= 1.
    pub similarity: f32,
}

/// What a query works with; re-used, it saves allocations. At most about 1 MB.
#[derive(Clone, Debug, Default)]
pub struct NearestScratch {
    places: Vec<usize>,
    lists: Vec<List>,
    /// Open addressing: row (or [`FREE`]) and the sum of its squared idfs so far.
    sums: Vec<(u32, f32)>,
    candidates: Vec<Candidate>,
    rows: Vec<u32>,
    seen: FxHashMap<u32, u32>,
}

/// The postings of a term of the query.
#[derive(Clone, Copy, Debug)]
struct List {
    key: u64,
    /// The first posting that was not read.
    lo: usize,
    hi: usize,
    square: f32,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    row: u32,
    document: u32,
    sum: f32,
    similarity: f32,
}

impl Candidate {
    /// Most similar first, then by row.
    fn better(a: &Self, b: &Self) -> std::cmp::Ordering {
        b.similarity.total_cmp(&a.similarity).then(a.row.cmp(&b.row))
    }
}

impl Inputs<'_> {
    /// The nearest rows to an input of these terms (see [`super::inputs::terms`]), best first, at most one per document,
    /// ties by row; `out` is cleared first. Rows that share no term are none.
    ///
    /// Postings are read from the rarest term to the most common one until [`POSTINGS_BUDGET`] is used up; the rows that
    /// look best then are looked up in what was not read. So similarities are always exact, and the rows are the nearest
    /// ones for certain when the terms have no more postings than that.
    ///
    /// # Complexity
    /// O(q log terms + budget + (128 + n) · q · log rows) for q terms; terms past the first 8192 are ignored.
    pub fn nearest(&self, terms: &[u64], n: usize, scratch: &mut NearestScratch, out: &mut Vec<Neighbour>) {
        out.clear();
        let terms = terms.get(..2 * MAX_WORDS).unwrap_or(terms);
        let query_norm = self.find_lists(terms, scratch);
        self.read(scratch);
        scratch.candidates.clear();
        let read = scratch.sums.iter().filter(|(row, _)| *row != FREE);
        scratch.candidates.extend(read.map(|&(row, sum)| self.candidate(row, sum, query_norm)));
        scratch.lists.retain(|list| list.lo < list.hi);
        if !scratch.lists.is_empty() {
            let wanted = (LOOK_UPS / scratch.lists.len()).min(CANDIDATES).max(n);
            scratch.keep_best(wanted, CANDIDATES_PER_DOCUMENT);
            self.complete(query_norm, scratch);
        }
        scratch.keep_best(n, 1);
        out.extend(scratch.candidates.iter().map(|&Candidate { row, document, similarity, .. }| Neighbour {
            row,
            document,
            similarity,
        }));
    }

    /// Finds the postings of the query's terms, the rarest first; returns the norm of the query.
    fn find_lists(&self, terms: &[u64], scratch: &mut NearestScratch) -> f32 {
        places(self.terms, terms, &mut scratch.places);
        scratch.lists.clear();
        let mut squares = 0f64;
        for (&key, &at) in terms.iter().zip(&scratch.places) {
            let range = if self.terms.get(at) == Some(&key) { self.range(at) } else { 0..0 };
            let idf = idf(self.rows(), range.len());
            squares += f64::from(idf) * f64::from(idf);
            if !range.is_empty() {
                scratch.lists.push(List { key, lo: range.start, hi: range.end, square: idf * idf });
            }
        }
        scratch.lists.sort_unstable_by_key(|list| (list.hi - list.lo, list.key));
        squares.sqrt() as f32
    }

    /// Adds up the first postings, as many as the budget allows.
    fn read(&self, scratch: &mut NearestScratch) {
        let rows = u32::try_from(self.rows()).unwrap_or(FREE);
        let all = scratch.lists.iter().fold(0, |sum: usize, list| sum.saturating_add(list.hi - list.lo));
        let mut budget = all.min(POSTINGS_BUDGET);
        let size = (2 * budget).next_power_of_two().max(2); // never more than half full
        scratch.sums.clear();
        scratch.sums.resize(size, (FREE, 0.0));
        for list in &mut scratch.lists {
            let end = list.hi.min(list.lo + budget);
            let postings = self.postings.get(list.lo..end).unwrap_or(&[]);
            for &row in postings.iter().filter(|&&row| row < rows) {
                add(&mut scratch.sums, row, list.square);
            }
            budget -= end - list.lo;
            list.lo = end;
        }
    }

    fn candidate(&self, row: u32, sum: f32, query_norm: f32) -> Candidate {
        let norm = self.norms.get(row as usize).copied().unwrap_or(0.0);
        let cosine = sum / (norm * query_norm);
        let similarity = if cosine > 0.0 { cosine.min(1.0) } else { 0.0 }; // NaN too
        let document = self.row_documents.get(row as usize).copied().unwrap_or(0);
        Candidate { row, document, sum, similarity }
    }

    /// Adds what the candidates have in the postings that were not read.
    fn complete(&self, query_norm: f32, scratch: &mut NearestScratch) {
        let NearestScratch { places: at, lists, candidates, rows, .. } = scratch;
        candidates.sort_unstable_by_key(|c| c.row);
        rows.clear();
        rows.extend(candidates.iter().map(|c| c.row));
        for list in lists {
            let rest = self.postings.get(list.lo..list.hi).unwrap_or(&[]);
            places(rest, rows, at);
            for (candidate, at) in candidates.iter_mut().zip(&*at) {
                let held = rest.get(*at) == Some(&candidate.row);
                candidate.sum += if held { list.square } else { 0.0 };
            }
        }
        for c in candidates {
            *c = self.candidate(c.row, c.sum, query_norm);
        }
    }
}

impl NearestScratch {
    /// Keeps the best candidates, best first, of each document at most so many.
    fn keep_best(&mut self, wanted: usize, per_document: u32) {
        let Self { candidates: all, seen, .. } = self;
        seen.clear();
        let (mut kept, mut done, mut step) = (0, 0, wanted.saturating_mul(2));
        while kept < wanted && done < all.len() {
            let end = done.saturating_add(step).min(all.len());
            step = step.saturating_mul(4);
            if let Some(rest) = all.get_mut(done..).filter(|rest| rest.len() > end - done) {
                rest.select_nth_unstable_by(end - done - 1, Candidate::better);
            }
            all[done..end].sort_unstable_by(Candidate::better);
            for k in done..end {
                let of_document = seen.entry(all[k].document).or_insert(0);
                if *of_document < per_document && kept < wanted {
                    *of_document += 1;
                    all[kept] = all[k];
                    kept += 1;
                }
            }
            // what is left of documents that have enough need not be sorted
            let mut at = 0;
            all.retain(|c| {
                at += 1;
                at <= kept || (at > end && seen.get(&c.document).is_none_or(|&seen| seen < per_document))
            });
            done = kept;
        }
        all.truncate(kept);
    }
}

/// Adds to the sum of a row in an open-addressing table that has room.
fn add(sums: &mut [(u32, f32)], row: u32, square: f32) {
    let mask = sums.len() - 1;
    let shift = 64 - sums.len().trailing_zeros();
    let mut slot = (u64::from(row).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> shift) as usize;
    while let Some(entry) = sums.get_mut(slot & mask) {
        if entry.0 == row || entry.0 == FREE {
            *entry = (row, entry.1 + square);
            return;
        }
        slot += 1;
    }
}

/// For every wanted key the last place in `sorted` that is not after it (0 when there is none). All searches halve
/// their ranges in step, so that they wait for memory together.
fn places<T: Ord>(sorted: &[T], wanted: &[T], out: &mut Vec<usize>) {
    out.clear();
    out.resize(wanted.len(), 0);
    let mut size = sorted.len();
    while size > 1 {
        let half = size / 2;
        for (at, wanted) in out.iter_mut().zip(wanted) {
            let middle = *at + half;
            *at = select_unpredictable(sorted.get(middle).is_some_and(|key| key <= wanted), middle, *at);
        }
        size -= half;
    }
}
