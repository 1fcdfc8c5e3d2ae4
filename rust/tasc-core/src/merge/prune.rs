//! Fewer new tokens: those that are missed least are given up.

use std::cmp::Reverse;

use super::learn::{Documents, Expansions};
use super::merger::MergerOptions;
use super::segment::{Scratch, Segmenter};
use crate::{Result, TokenId};

/// Share of the new tokens given up at a time.
const GIVEN_UP: f64 = 0.1;

/// Uses that a new token passes on to those that would stand in for it, for each share of rows that are new: in what was
/// never seen, long tokens fit less often than their parts.
const PASSED_ON: f64 = 0.6;

/// How documents use new tokens.
pub(super) struct Uses {
    /// Uses of each, as often as the document occurred.
    pub(super) counts: Vec<u64>,
    /// Rows that use each.
    pub(super) documents: Vec<u64>,
    /// Tokens of the documents.
    pub(super) tokens: u64,
    /// The same segmented.
    pub(super) after: u64,
}

impl Uses {
    /// Segments documents.
    pub(super) fn count(segmenter: &Segmenter, documents: &Documents<'_>) -> Result<Self> {
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
    pub(super) fn pass(&self, token: usize, floors: &MergerOptions) -> bool {
        self.counts[token] >= floors.min_count && self.documents[token] >= floors.min_documents
    }
}

/// Gives up new tokens one after the other.
pub(super) struct Pruner<'a> {
    pub(super) base: TokenId,
    pub(super) documents: &'a Documents<'a>,
    /// Share of rows whose output was never seen.
    pub(super) novelty: f64,
    /// Fewest uses, and rows with uses, in these documents.
    pub(super) floors: (f64, f64),
}

impl Pruner<'_> {
    /// Until `size` are left. Every set on the way is handed over with its uses, the largest first; among them are one
    /// of `landmark` and the last.
    ///
    /// # Complexity
    /// A segmentation of the documents for every tenth of the new tokens given up.
    pub(super) fn prune(
        &self,
        mut set: Expansions,
        landmark: usize,
        size: usize,
        mut each: impl FnMut(&Segmenter, &Uses) -> Result<()>,
    ) -> Result<Expansions> {
        loop {
            let segmenter = Segmenter::new(self.base, &set)?;
            let uses = Uses::count(&segmenter, self.documents)?;
            each(&segmenter, &uses)?;
            if set.len() <= size {
                return Ok(set);
            }
            let next = if set.len() > landmark { landmark.max(size) } else { size };
            let given_up = ((set.len() as f64 * GIVEN_UP) as usize).clamp(1, set.len() - next);
            let mut kept = self.most_missed(&segmenter, &uses)?;
            kept.truncate(set.len() - given_up);
            kept.sort_unstable();
            set = kept.into_iter().map(|k| std::mem::take(&mut set[k])).collect();
        }
    }

    /// New tokens, those first that would cost most tokens if they were missing.
    fn most_missed(&self, segmenter: &Segmenter, uses: &Uses) -> Result<Vec<usize>> {
        let length = |k: usize| segmenter.expansion(k).map_or(0, <[TokenId]>::len);
        let mut order: Vec<usize> = (0..segmenter.len()).collect();
        order.sort_by_key(|&k| Reverse(length(k)));
        let mut counts: Vec<f64> = uses.counts.iter().map(|&c| c as f64).collect();
        let mut missed = vec![0.0; segmenter.len()];
        for &k in &order {
            let parts = segmenter.segment_without(k)?;
            let enough = uses.counts[k] as f64 >= self.floors.0 && uses.documents[k] as f64 >= self.floors.1;
            if enough {
                missed[k] = counts[k] * (parts.len() - 1) as f64;
            }
            for part in parts.iter().filter_map(|&id| segmenter.new_token(id)) {
                counts[part] += PASSED_ON * self.novelty * counts[k];
            }
        }
        order.sort_by(|&a, &b| missed[b].total_cmp(&missed[a]).then(a.cmp(&b)));
        Ok(order)
    }
}
