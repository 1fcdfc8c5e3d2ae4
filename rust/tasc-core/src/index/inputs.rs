//! The inputs of a task's rows as an inverted index: which rows hold a word or a pair of adjacent words.

use crate::format::sections;
use crate::text::words::{Word, split};
use crate::{Error, Result};

/// Most rows of one index.
pub const MAX_ROWS: usize = u32::MAX as usize - 1;

/// Terms of an input: the keys of its words and of its adjacent word pairs, ascending and distinct; `out` is cleared
/// first.
///
/// # Complexity
/// O(words · log words).
pub fn terms(words: &[Word], out: &mut Vec<u64>) {
    out.clear();
    out.extend(words.iter().map(|w| w.key));
    out.extend(words.iter().zip(words.iter().skip(1)).map(|(left, right)| pair(left.key, right.key)));
    out.sort_unstable();
    out.dedup();
}

/// The key of two adjacent words; their order matters.
fn pair(left: u64, right: u64) -> u64 {
    let mixed = (left.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32) ^ right).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ (mixed >> 32)
}

/// Inverse document frequency of a term that `holding` of `rows` rows hold.
#[must_use]
pub fn idf(rows: usize, holding: usize) -> f32 {
    (((1.0 + rows as f64) / (1.0 + holding as f64)).ln() + 1.0) as f32
}

sections! {
    /// The arrays of the inputs. Contents may come from a hostile file: every access is checked, every loop is bounded, and
    /// nonsense yields useless neighbours, never a panic.
    pub struct InputArrays as Inputs {
        /// Distinct term keys, ascending.
        terms: [u64],
        /// `term_starts[t]..term_starts[t + 1]` holds the postings of term `t`; length `terms + 1`.
        term_starts: [u64],
        /// Rows that hold a term, ascending per term.
        postings: [u32],
        /// Length of every row's vector of idfs, ascending: rows are numbered by it, so that postings come in order of
        /// impact.
        norms: [f32],
        /// The document that was a row's output.
        row_documents: [u32],
    }
}

impl Inputs<'_> {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.norms.len().min(self.row_documents.len()).min(MAX_ROWS)
    }

    /// Inverse document frequency of a term key: ln((1 + rows) / (1 + rows that hold it)) + 1.
    ///
    /// # Complexity
    /// O(log terms).
    #[must_use]
    pub fn idf(&self, key: u64) -> f32 {
        let holding = self.terms.binary_search(&key).map_or(0, |at| self.range(at).len());
        idf(self.rows(), holding)
    }

    /// Where the postings of the term at a place are; empty when the arrays do not fit.
    pub(super) fn range(&self, at: usize) -> std::ops::Range<usize> {
        let start = |at: usize| self.term_starts.get(at).and_then(|&s| usize::try_from(s).ok());
        match (start(at), start(at + 1)) {
            (Some(lo), Some(hi)) if lo <= hi && hi <= self.postings.len() => lo..hi,
            _ => 0..0,
        }
    }
}

/// Collects rows, then sorts their terms.
#[derive(Debug, Default)]
pub struct InputsBuilder {
    /// High and low half of a term's key, then a row that holds it: 12 bytes, where a tuple would take 16.
    pairs: Vec<[u32; 3]>,
    documents: Vec<u32>,
    words: Vec<Word>,
    terms: Vec<u64>,
}

impl InputsBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row: its input and the document that was its output. It counts once, however often it occurred, and not
    /// at all when it occurred 0 times.
    ///
    /// # Complexity
    /// O(words · log words); 12 bytes per distinct term of the row.
    ///
    /// # Errors
    /// [`Error::IndexTooLarge`] past [`MAX_ROWS`].
    pub fn push(&mut self, text: &str, document: u32, weight: u64) -> Result<()> {
        if weight == 0 {
            return Ok(());
        }
        let row = row_number(self.documents.len())?;
        split(text, &mut self.words);
        terms(&self.words, &mut self.terms);
        self.pairs.extend(self.terms.iter().map(|&key| [(key >> 32) as u32, key as u32, row]));
        self.documents.push(document);
        Ok(())
    }

    /// Sorts the terms, numbers the rows by their norms (equal ones in the order they came).
    ///
    /// # Complexity
    /// O(n log n) time for n terms of all rows together; 16 bytes for each at the peak, and 16 per distinct term.
    #[must_use]
    pub fn build(self) -> InputArrays {
        let Self { mut pairs, documents, .. } = self;
        pairs.sort_unstable_by_key(|&[high, low, row]| (joined(high, low), row));
        let mut built = InputArrays { term_starts: vec![0], ..<InputArrays>::default() };
        built.postings.reserve_exact(pairs.len());
        let mut squares = vec![0f64; documents.len()];
        for group in pairs.chunk_by(|a, b| a[..2] == b[..2]) {
            let idf = f64::from(idf(documents.len(), group.len()));
            for &[_, _, row] in group {
                squares[row as usize] += idf * idf;
                built.postings.push(row);
            }
            built.terms.extend(group.first().map(|&[high, low, _]| joined(high, low)));
            built.term_starts.push(built.postings.len() as u64);
        }
        drop(pairs);
        number_rows(&mut built, &squares, &documents);
        built
    }
}

fn row_number(row: usize) -> Result<u32> {
    let number = u32::try_from(row).ok().filter(|_| row < MAX_ROWS);
    number.ok_or(Error::IndexTooLarge { positions: row.saturating_add(1), limit: MAX_ROWS })
}

fn joined(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Numbers the rows by their norms, in the postings too.
fn number_rows(built: &mut InputArrays, squares: &[f64], documents: &[u32]) {
    let norm = |row: u32| squares[row as usize].sqrt() as f32;
    let mut order: Vec<u32> = (0..).take(documents.len()).collect();
    order.sort_by(|&a, &b| norm(a).total_cmp(&norm(b)));
    built.norms = order.iter().map(|&row| norm(row)).collect();
    built.row_documents = order.iter().map(|&row| documents[row as usize]).collect();
    let mut number = vec![0u32; order.len()];
    for (new, &row) in (0..).zip(&order) {
        number[row as usize] = new;
    }
    let mut rest = built.postings.as_mut_slice();
    for ends in built.term_starts.windows(2) {
        let (group, after) = rest.split_at_mut((ends[1] - ends[0]) as usize); // no more than there are postings
        for row in group.iter_mut() {
            *row = number[*row as usize];
        }
        group.sort_unstable();
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_rows_are_refused() {
        assert_eq!(row_number(MAX_ROWS - 1).unwrap(), u32::MAX - 2);
        assert!(row_number(MAX_ROWS).unwrap_err().to_string().contains(&MAX_ROWS.to_string()));
    }
}
