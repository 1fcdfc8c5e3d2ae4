//! The rows whose inputs are nearest to a given one, without looking at all of them.

use std::hint::select_unpredictable;

use rustc_hash::FxHashMap;

use super::inputs::{Inputs, idf};
use crate::text::words::MAX_WORDS;

/// Postings that one query reads one after the other. Below it the answer is exact.
pub const POSTINGS_BUDGET: usize = 8192;

/// Rows that are looked up in the postings the budget does not reach.
const CANDIDATES: usize = 128;

/// Look-ups in unread postings, of all candidates together; past them there are only as many candidates as neighbours.
const LOOK_UPS: usize = 8192;

/// Candidates of one document: its best row by some terms need not be its best by all of them.
const CANDIDATES_PER_DOCUMENT: u32 = 4;

/// The squared norm of a query in fixed point: sums in it are exact, whatever their order.
const WHOLE: f64 = 2_147_483_648.0;

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

/// What a query works with; re-used, it saves allocations. Below 1 MB unless very many neighbours were asked
/// for.
#[derive(Clone, Debug, Default)]
pub struct NearestScratch {
    places: Vec<usize>,
    lists: Vec<List>,
    /// Open addressing: row (or [`FREE`]) and its sum so far.
    sums: Vec<(u32, u32)>,
    ranked: Vec<Ranked>,
    rows: Vec<u32>,
    held: Vec<u32>,
    seen: FxHashMap<u32, u32>,
}

/// The postings of a term of the query.
#[derive(Clone, Copy, Debug)]
struct List {
    key: u64,
    /// The first posting that was not read.
    lo: usize,
    hi: usize,
    /// Squared idf.
    square: f64,
    /// It as a share of the query's squared norm, [`WHOLE`].
    share: u32,
}

/// A row with its similarity, greater when it is better: the bits of a float ≥ 0, then the row's complement.
type Ranked = u64;

fn ranked(similarity: f32, row: u32) -> Ranked {
    u64::from(similarity.to_bits()) << 32 | u64::from(!row)
}

fn row(ranked: Ranked) -> u32 {
    !(ranked as u32) // the low half
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
    /// O(q log terms + budget + (128 + n) · q · log rows) for q terms; terms past the first 8192 are ignored. About
    /// 0.15 ms among 100 k rows of 12 to 20 words, 0.35 ms among a million.
    pub fn nearest(&self, terms: &[u64], n: usize, scratch: &mut NearestScratch, out: &mut Vec<Neighbour>) {
        out.clear();
        let terms = terms.get(..2 * MAX_WORDS).unwrap_or(terms);
        let query_norm = self.find_lists(terms, scratch);
        self.read(scratch);
        self.rank(query_norm, scratch);
        scratch.lists.retain(|list| list.lo < list.hi);
        if !scratch.lists.is_empty() {
            let wanted = (LOOK_UPS / scratch.lists.len()).min(CANDIDATES).max(n);
            self.keep_best(wanted, CANDIDATES_PER_DOCUMENT, scratch);
            self.complete(query_norm, scratch);
        }
        self.keep_best(n, 1, scratch);
        out.extend(scratch.ranked.iter().map(|&r| Neighbour {
            row: row(r),
            document: self.document(row(r)),
            similarity: f32::from_bits((r >> 32) as u32),
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
            let square = f64::from(idf) * f64::from(idf);
            squares += square;
            if !range.is_empty() {
                scratch.lists.push(List { key, lo: range.start, hi: range.end, square, share: 0 });
            }
        }
        for list in &mut scratch.lists {
            list.share = (list.square / squares * WHOLE).round() as u32;
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
        scratch.sums.resize(size, (FREE, 0));
        for list in &mut scratch.lists {
            let end = list.hi.min(list.lo + budget);
            let postings = self.postings.get(list.lo..end).unwrap_or(&[]);
            for &row in postings.iter().filter(|&&row| row < rows) {
                if let Some(entry) = entry(&mut scratch.sums, row) {
                    *entry = (row, entry.1.saturating_add(list.share));
                }
            }
            budget -= end - list.lo;
            list.lo = end;
        }
    }

    /// Ranks the rows that were read.
    fn rank(&self, query_norm: f32, scratch: &mut NearestScratch) {
        let NearestScratch { sums, ranked: all, .. } = scratch;
        all.clear();
        all.resize(sums.len(), 0);
        let mut count = 0; // whether an entry is free cannot be predicted, so all are written and the free ones over
        for &(row, sum) in sums.iter() {
            all[count] = u64::from(sum) << 32 | u64::from(row);
            count += usize::from(row != FREE);
        }
        all.truncate(count);
        for r in all {
            let (row, sum) = (*r as u32, (*r >> 32) as u32);
            *r = ranked(self.similarity(row, sum, query_norm), row);
        }
    }

    fn document(&self, row: u32) -> u32 {
        self.row_documents.get(row as usize).copied().unwrap_or(0)
    }

    fn similarity(&self, row: u32, sum: u32, query_norm: f32) -> f32 {
        let norm = self.norms.get(row as usize).copied().unwrap_or(0.0);
        let cosine = (f64::from(sum) / WHOLE) as f32 * query_norm / norm;
        if cosine > 0.0 { cosine.min(1.0) } else { 0.0 } // NaN too
    }

    /// Keeps the best rows, best first, of each document at most so many.
    fn keep_best(&self, wanted: usize, per_document: u32, scratch: &mut NearestScratch) {
        let NearestScratch { ranked, seen, .. } = scratch;
        seen.clear();
        let (mut kept, mut step) = (0, wanted.saturating_mul(2));
        while kept < wanted && kept < ranked.len() {
            let end = kept.saturating_add(step).min(ranked.len());
            step = step.saturating_mul(4);
            if end < ranked.len() {
                ranked[kept..].select_nth_unstable_by(end - kept - 1, |a, b| b.cmp(a));
            }
            ranked[kept..end].sort_unstable_by(|a, b| b.cmp(a));
            let from = kept;
            for k in from..end {
                let of_document = seen.entry(self.document(row(ranked[k]))).or_insert(0);
                if *of_document < per_document && kept < wanted {
                    *of_document += 1;
                    ranked[kept] = ranked[k];
                    kept += 1;
                }
            }
            if kept < wanted {
                // what is left of documents that have enough need not be sorted
                let mut at = 0;
                ranked.retain(|&r| {
                    at += 1;
                    let open = || seen.get(&self.document(row(r))).is_none_or(|&seen| seen < per_document);
                    at <= kept || (at > end && open())
                });
            }
        }
        ranked.truncate(kept);
    }

    /// Adds what the rows hold of the postings that were not read.
    fn complete(&self, query_norm: f32, scratch: &mut NearestScratch) {
        let NearestScratch { places: at, lists, sums, ranked: best, rows, held, .. } = scratch;
        rows.clear();
        rows.extend(best.iter().map(|&r| row(r)));
        rows.sort_unstable();
        held.clear();
        held.extend(rows.iter().map(|&row| entry(sums, row).map_or(0, |e| e.1)));
        for list in lists {
            let rest = self.postings.get(list.lo..list.hi).unwrap_or(&[]);
            places(rest, rows, at);
            for ((sum, row), &at) in held.iter_mut().zip(&*rows).zip(&*at) {
                let share = if rest.get(at) == Some(row) { list.share } else { 0 };
                *sum = sum.saturating_add(share);
            }
        }
        best.clear();
        best.extend(rows.iter().zip(&*held).map(|(&row, &sum)| ranked(self.similarity(row, sum, query_norm), row)));
    }
}

/// The entry of a row in an open-addressing table that has room, or the free one where it belongs.
#[inline]
fn entry(sums: &mut [(u32, u32)], row: u32) -> Option<&mut (u32, u32)> {
    let mask = sums.len() - 1;
    let shift = 64 - sums.len().trailing_zeros();
    let mut slot = (u64::from(row).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> shift) as usize;
    while sums.get(slot).is_some_and(|e| e.0 != row && e.0 != FREE) {
        slot = (slot + 1) & mask;
    }
    sums.get_mut(slot)
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
