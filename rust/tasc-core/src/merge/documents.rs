//! The documents of a store, with weights, as merging reads them.

use crate::corpus::Store;
use crate::{Error, Result, TokenId};

/// Tokens of the documents that pruning looks at.
const SAMPLE: usize = 1 << 20;

/// Documents with weights.
pub(super) type WeightedDocuments<'a> = Vec<(&'a [TokenId], u64)>;

/// Expansions of new tokens.
pub(super) type Expansions = Vec<Vec<TokenId>>;

/// The documents of a store with their weights.
pub(super) fn documents(store: &Store) -> Result<WeightedDocuments<'_>> {
    store.check_contents()?;
    let limit = store.meta().vocab_size;
    let document = |k| {
        let ids = store.document(k)?;
        match ids.iter().find(|&&id| id >= limit) {
            Some(&id) => Err(Error::TokenId { id, limit }),
            None => Ok((ids, store.weight(k)?)),
        }
    };
    (0..store.num_documents()).map(document).collect()
}

/// Rows apart from every so-many-th of them; those. A document of weight w is w rows.
pub(super) fn split<'a>(all: &WeightedDocuments<'a>, share: f64) -> (WeightedDocuments<'a>, WeightedDocuments<'a>) {
    let (mut train, mut left_out) = (Vec::new(), Vec::new());
    let mut before = 0u64;
    for &(document, weight) in all {
        let after = before.saturating_add(weight);
        let out = ((after as f64 * share) as u64 - (before as f64 * share) as u64).min(weight);
        left_out.extend((out > 0).then_some((document, out)));
        train.extend((out < weight).then_some((document, weight - out)));
        before = after;
    }
    (train, left_out)
}

/// Every so-many-th document, so that together they have about `SAMPLE` tokens.
pub(super) fn sample<'a>(documents: &WeightedDocuments<'a>) -> WeightedDocuments<'a> {
    let tokens: usize = documents.iter().map(|d| d.0.len()).sum();
    documents.iter().step_by(tokens.div_ceil(SAMPLE).max(1)).copied().collect()
}

/// Good and Turing's estimate of the share of new rows whose output was never seen: that of the rows seen once.
pub(super) fn novelty(documents: &WeightedDocuments<'_>) -> f64 {
    let rows: f64 = documents.iter().map(|d| d.1 as f64).sum();
    documents.iter().filter(|d| d.1 == 1).count() as f64 / rows.max(1.0)
}
