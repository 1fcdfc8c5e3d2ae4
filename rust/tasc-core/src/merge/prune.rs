//! Pruning: the new tokens with the smallest removal loss are removed.

use std::cmp::Reverse;

use super::documents::{Expansions, WeightedDocuments};
use super::merger::MergerOptions;
use super::segment::{Scratch, Segmenter};
use crate::{Result, TokenId};

/// Share of the new tokens that is removed in one round.
const PRUNED_SHARE: f64 = 0.1;

/// Uses that a new token adds to the tokens of its second-best segmentation, as a factor of the share of new rows: in
/// unseen outputs, long tokens match less often than their parts.
const PASSED_ON: f64 = 0.6;

/// Uses of new tokens in documents.
pub(super) struct Uses {
    /// Uses of each new token, weighted by the documents.
    pub(super) counts: Vec<u64>,
    /// Rows that use each new token.
    pub(super) documents: Vec<u64>,
    /// Tokens of the documents.
    pub(super) tokens: u64,
    /// Tokens of the documents after segmentation.
    pub(super) after: u64,
}

impl Uses {
    /// Segments documents and counts the uses.
    pub(super) fn count(segmenter: &Segmenter, documents: &WeightedDocuments<'_>) -> Result<Self> {
        let zeros = vec![0u64; segmenter.len()];
        let mut uses = Self { counts: zeros.clone(), documents: zeros, tokens: 0, after: 0 };
        let mut last = vec![usize::MAX; segmenter.len()];
        let (mut scratch, mut out) = (Scratch::default(), Vec::new());
        for (d, &(document, weight)) in documents.iter().enumerate() {
            out.clear();
            segmenter.segment_into(document, &mut scratch, &mut out)?;
            let add = |sum: &mut u64, n: usize| *sum = sum.saturating_add(weight.saturating_mul(n as u64));
            add(&mut uses.tokens, document.len());
            add(&mut uses.after, out.len());
            for new in out.iter().filter_map(|&id| segmenter.new_token(id)) {
                add(&mut uses.counts[new], 1);
                if std::mem::replace(&mut last[new], d) != d {
                    add(&mut uses.documents[new], 1);
                }
            }
        }
        Ok(uses)
    }

    /// Share of the tokens that are saved.
    pub(super) fn saved(&self) -> f64 {
        1.0 - self.after as f64 / self.tokens.max(1) as f64
    }

    /// Whether a new token is used often enough.
    pub(super) fn pass(&self, token: usize, thresholds: &MergerOptions) -> bool {
        self.counts[token] >= thresholds.min_count && self.documents[token] >= thresholds.min_documents
    }
}

/// Removes new tokens, round by round.
pub(super) struct Pruner<'a> {
    pub(super) base: TokenId,
    pub(super) documents: &'a WeightedDocuments<'a>,
    /// Share of rows whose output was never seen.
    pub(super) novelty: f64,
    /// Fewest uses, and rows with uses, in these documents.
    pub(super) thresholds: (f64, f64),
}

impl Pruner<'_> {
    /// Removes new tokens until at most `size` are left and all of them are used often enough. `each` is called with every
    /// set on the way, the largest first, and its uses. Among the sets is one of `landmark` tokens, if there are as many.
    ///
    /// # Complexity
    /// One segmentation of the documents for every tenth of the new tokens removed.
    pub(super) fn prune(
        &self,
        mut set: Expansions,
        landmark: usize,
        size: usize,
        mut each: impl FnMut(&Segmenter, &Uses) -> Result<()>,
    ) -> Result<Expansions> {
        let share = |number: usize| (number as f64 * PRUNED_SHARE).ceil() as usize;
        loop {
            let segmenter = Segmenter::new(self.base, &set)?;
            let uses = Uses::count(&segmenter, self.documents)?;
            each(&segmenter, &uses)?;
            let next = if set.len() > landmark { landmark.max(size) } else { size };
            let pruned = match set.len().saturating_sub(next) {
                // A part at a time: the uses of a removed token go to the others.
                0 => share((0..set.len()).filter(|&k| !self.is_used_enough(&uses, k)).count()),
                excess => share(set.len()).min(excess),
            };
            if pruned == 0 {
                return Ok(set);
            }
            let mut kept = self.by_removal_loss(&segmenter, &uses)?;
            kept.truncate(set.len() - pruned);
            kept.sort_unstable();
            set = kept.into_iter().map(|k| std::mem::take(&mut set[k])).collect();
        }
    }

    fn is_used_enough(&self, uses: &Uses, token: usize) -> bool {
        uses.counts[token] as f64 >= self.thresholds.0 && uses.documents[token] as f64 >= self.thresholds.1
    }

    /// Returns the new tokens, the largest removal loss first: the number of tokens that their removal would add. Tokens that
    /// are not used often enough come last.
    fn by_removal_loss(&self, segmenter: &Segmenter, uses: &Uses) -> Result<Vec<usize>> {
        let length = |k: usize| segmenter.expansion(k).map_or(0, <[TokenId]>::len);
        let mut order: Vec<usize> = (0..segmenter.len()).collect();
        order.sort_by_key(|&k| Reverse(length(k)));
        let mut counts: Vec<f64> = uses.counts.iter().map(|&c| c as f64).collect();
        let mut removal_loss = vec![0.0; segmenter.len()];
        for &k in &order {
            let parts = segmenter.segment_without(k)?;
            removal_loss[k] = counts[k] * (parts.len() - 1) as f64;
            for part in parts.iter().filter_map(|&id| segmenter.new_token(id)) {
                counts[part] += PASSED_ON * self.novelty * counts[k];
            }
        }
        let rare = |k: usize| !self.is_used_enough(uses, k);
        order.sort_by(|&a, &b| rare(a).cmp(&rare(b)).then(removal_loss[b].total_cmp(&removal_loss[a])).then(a.cmp(&b)));
        Ok(order)
    }
}
