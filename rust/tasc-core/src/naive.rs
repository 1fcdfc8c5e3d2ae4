//! Slow, obviously right twins of the fast paths; tests compare the two.

use std::collections::BTreeMap;

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
