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
        let bounded = std::iter::once(None)
            .chain(document.iter().copied().map(Some))
            .chain([None]);
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
