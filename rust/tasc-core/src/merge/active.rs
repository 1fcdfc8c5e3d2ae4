//! Number of active tokens: merges that the documents, in their present segmentation, use often enough.

use rustc_hash::{FxHashMap, FxHashSet};

use super::merger::Merger;
use crate::TokenId;

/// Counts the active tokens of a merger. Merges with the same expansion are one token. Most early merges end up as
/// parts of later ones and are no longer active.
pub(super) struct ActiveTokens<'a> {
    threshold: u64,
    forbidden: &'a FxHashSet<&'a [TokenId]>,
    tokens: FxHashMap<Vec<TokenId>, usize>,
    /// The token of each merge.
    of_merge: Vec<usize>,
    /// Uses of each token.
    uses: Vec<u64>,
    /// Whether each token is allowed in a plan.
    allowed: Vec<bool>,
    active: usize,
}

impl<'a> ActiveTokens<'a> {
    pub(super) fn new(threshold: u64, forbidden: &'a FxHashSet<&'a [TokenId]>) -> Self {
        let (tokens, of_merge, uses, allowed) = (FxHashMap::default(), Vec::new(), Vec::new(), Vec::new());
        Self { threshold, forbidden, tokens, of_merge, uses, allowed, active: 0 }
    }

    /// Number of active tokens.
    pub(super) fn len(&self) -> usize {
        self.active
    }

    /// Counts the latest merge.
    pub(super) fn follow(&mut self, merger: &Merger) {
        let Some(merge) = merger.merges().last() else { return };
        let token = *self.tokens.entry(merge.expansion.clone()).or_insert(self.uses.len());
        if token == self.uses.len() {
            self.uses.push(0);
            self.allowed.push(!self.forbidden.contains(merge.expansion.as_slice()));
        }
        self.of_merge.push(token);
        self.change(token, |uses| uses + merge.count);
        for part in merge.parts.into_iter().flatten() {
            self.change(self.of_merge[part], |uses| uses - merge.count);
        }
    }

    fn change(&mut self, token: usize, to: impl FnOnce(u64) -> u64) {
        let uses = &mut self.uses[token];
        let was = *uses >= self.threshold;
        *uses = to(*uses);
        let is = *uses >= self.threshold;
        if self.allowed[token] {
            self.active = self.active + usize::from(is) - usize::from(was);
        }
    }
}
