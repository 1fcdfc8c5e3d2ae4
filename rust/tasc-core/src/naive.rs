//! Slow, obviously right twins of the fast paths; tests compare the two.

use std::collections::{BTreeMap, BTreeSet};

use crate::TokenId;

/// What follows a context in weighted documents, found by looking everywhere.
///
/// `None` in a context is the start of a document, `None` as a successor its end.
#[derive(Clone, Debug, Default)]
pub struct NaiveIndex {
    documents: Vec<(Vec<Option<TokenId>>, u64)>,
}

impl NaiveIndex {
    /// Adds a document.
    pub fn push(&mut self, document: &[TokenId], weight: u64) {
        let bounded = std::iter::once(None).chain(document.iter().copied().map(Some)).chain([None]);
        self.documents.push((bounded.collect(), weight));
    }

    /// Weighted counts of what follows `context`.
    ///
    /// # Complexity
    /// O(corpus · context).
    #[must_use]
    pub fn successors(&self, context: &[Option<TokenId>]) -> BTreeMap<Option<TokenId>, u64> {
        let mut counts = BTreeMap::new();
        for (document, weight) in &self.documents {
            for end in 1..document.len() {
                if document[..end].ends_with(context) {
                    *counts.entry(document[end]).or_insert(0) += weight;
                }
            }
        }
        counts
    }
}

/// Weighted count of every n-gram of 1 to `max_length` tokens, and number of documents that hold it.
///
/// # Complexity
/// O(tokens · length² · log n-grams).
#[must_use]
pub fn count_ngrams(documents: &[(Vec<TokenId>, u64)], max_length: usize) -> BTreeMap<Vec<TokenId>, (u64, u64)> {
    let mut counts = BTreeMap::new();
    for (ids, weight) in documents {
        let mut held = BTreeSet::new();
        for length in 1..=max_length {
            for ngram in ids.windows(length) {
                let figures = counts.entry(ngram.to_vec()).or_insert((0u64, 0));
                figures.0 = figures.0.saturating_add(*weight);
                figures.1 += u64::from(held.insert(ngram));
            }
        }
    }
    counts
}

/// Rows as sets of terms, compared with every one of them.
#[derive(Clone, Debug, Default)]
pub struct NaiveInputs {
    rows: Vec<BTreeSet<u64>>,
    holding: BTreeMap<u64, u32>,
}

impl NaiveInputs {
    /// Adds a row.
    pub fn push(&mut self, terms: &[u64]) {
        let terms: BTreeSet<u64> = terms.iter().copied().collect();
        for &t in &terms {
            *self.holding.entry(t).or_insert(0) += 1;
        }
        self.rows.push(terms);
    }

    /// The squared inverse document frequencies of some terms, added up.
    fn squares<'a>(&self, terms: impl IntoIterator<Item = &'a u64>) -> f64 {
        let holding = |t| f64::from(self.holding.get(t).copied().unwrap_or(0));
        let idf = |t| ((1.0 + self.rows.len() as f64) / (1.0 + holding(t))).ln() + 1.0;
        terms.into_iter().map(|t| idf(t) * idf(t)).sum()
    }

    /// Cosine of every row's vector of idfs with that of some terms; 0 where nothing is shared.
    ///
    /// # Complexity
    /// O(terms of all rows · log terms).
    #[must_use]
    pub fn similarities(&self, terms: &[u64]) -> Vec<f64> {
        let terms: BTreeSet<u64> = terms.iter().copied().collect();
        let norm = self.squares(&terms).sqrt();
        let cosine = |row: &BTreeSet<u64>| match self.squares(row.intersection(&terms)) {
            0.0 => 0.0,
            shared => shared / (norm * self.squares(row).sqrt()),
        };
        self.rows.iter().map(cosine).collect()
    }
}

/// Interpolated Witten–Bell over back-off orders, from order 0 up: p_m = (c + T·p_{m−1}) / (N + T).
///
/// `orders[m]` holds the successor counts of the order-m context, the shortest first.
#[must_use]
pub fn witten_bell<T: Copy + Ord>(orders: &[BTreeMap<T, u64>]) -> BTreeMap<T, f64> {
    let mut p = BTreeMap::new();
    for counts in orders {
        let (n, t) = (counts.values().sum::<u64>() as f64, counts.len() as f64);
        for x in counts.keys() {
            p.entry(*x).or_insert(0.0);
        }
        for (x, p) in &mut p {
            *p = (counts.get(x).copied().unwrap_or(0) as f64 + t * *p) / (n + t);
        }
    }
    p
}
