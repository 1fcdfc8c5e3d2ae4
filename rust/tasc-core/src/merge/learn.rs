//! Learns a plan from a store.

use std::cmp::Reverse;
use std::path::Path;

use rustc_hash::FxHashSet;

use super::active::ActiveTokens;
use super::documents::{Expansions, WeightedDocuments, documents, novelty, sample, split};
use super::merger::{Merger, MergerOptions};
use super::plan::{Contents, MergePlan, PlanMeta, Point};
use super::prune::{Pruner, Uses};
use super::segment::Segmenter;
use crate::corpus::Store;
use crate::{Error, Result, TokenId};

/// Merging ends and pruning begins at this ratio of active tokens to tokens wanted. With a larger ratio the plan fits the
/// documents more closely. That pays when new rows repeat them, and costs when they do not (docs/lab/vocabulary.md).
const MAX_ACTIVE: f64 = 3.0;
const ACTIVE_BY_NOVELTY: f64 = 4.0;
const MIN_ACTIVE: f64 = 1.25;

/// Merging goes on until there are at least so many active tokens more than wanted: of few new tokens, the first merges are a
/// poor choice, and a quarter more gives pruning no other.
const MIN_SPARE: f64 = 128.0;

/// Merging ends early when the expansions of all merges hold more tokens together than this, and than this share of the
/// documents' tokens. Outputs of tasks need a third of it. A long document whose tokens all differ and that occurred often
/// reaches it: there, most merges are parts of longer ones, and only one in `max_length` is active.
const MAX_EXPANDED: usize = 1 << 16;
const MAX_EXPANDED_SHARE: usize = 8;

/// Share of the work that is done when all merges are made, for progress reports.
const MERGED: f64 = 0.7;

/// Merges between two calls of `check`.
const CHECK_EVERY: usize = 16;

/// Options of learning a plan.
#[derive(Clone, Debug)]
pub struct LearnOptions {
    /// Largest number of new tokens. All of them are active: the segmentation of the documents uses them.
    pub size: usize,
    /// Which merges are allowed; the thresholds hold for the uses of a new token in the final segmentation too. The store's
    /// end token is a barrier, named here or not.
    pub merger: MergerOptions,
    /// Share of the rows left out to find how many new tokens still save more on rows never seen; 0: `size` of them.
    pub held_out: f64,
    /// Expansions that no new token may have. Merges may go through them.
    pub forbidden: Vec<Vec<TokenId>>,
}

impl Default for LearnOptions {
    fn default() -> Self {
        Self { size: 500, merger: MergerOptions::default(), held_out: 0.1, forbidden: Vec::new() }
    }
}

impl MergePlan {
    /// Learns a plan from a store's outputs, writes it and opens it. `check` is called repeatedly with the
    /// share done; its error ends the work.
    ///
    /// The new tokens are sorted by the number of tokens that they save. When fewer than asked for pass the thresholds, or
    /// more do not save more on held-out rows, [`PlanMeta::stopped_by`] says so.
    ///
    /// # Complexity
    /// For T tokens and size K: O(T + K log K) merging, one segmentation of all documents, and about 100 of some of them
    /// (of 2²⁰ tokens, say) to prune; about twice that with held-out rows. Memory: see [`Merger::new`].
    ///
    /// # Errors
    /// [`Error::Plan`] when no pair passes the thresholds, or an option is out of range; [`Error::TokenId`] for an id that
    /// the store's vocabulary does not hold; [`Error::IndexTooLarge`]; a format error when the store is damaged;
    /// [`Error::Io`]; what `check` returns. Nothing is written then.
    pub fn learn(
        store: &Store,
        path: &Path,
        options: &LearnOptions,
        mut check: impl FnMut(f64) -> Result<()>,
    ) -> Result<Self> {
        checked(store, options)?;
        let all = documents(store)?;
        let learner = Learner::new(store, options, novelty(&all));
        let (mut size, mut curve, mut before) = (options.size, Vec::new(), 0.0);
        if options.held_out > 0.0 {
            curve = learner.curve(&all, |done| check(done / 2.0))?;
            size = best(&curve).unwrap_or(size);
            before = 0.5;
        }
        let (segmenter, uses) = learner.vocabulary(&all, size, |done| check(before + done * (1.0 - before)))?;
        let stopped_by = match segmenter.len() {
            found if found == options.size => "size",
            found if found == size && curve.last().is_some_and(|most| most.size > found as u64) => "held-out",
            _ => "thresholds",
        };
        let meta = PlanMeta {
            writer: env!("CARGO_PKG_VERSION").into(),
            tokenizer: store.meta().tokenizer.clone(),
            base_vocab_size: learner.base,
            wanted: options.size as u64,
            stopped_by: stopped_by.into(),
            tokens: uses.tokens,
            tokens_after: uses.after,
        };
        let expansions = (0..segmenter.len()).map(|k| segmenter.expansion(k)).collect::<Result<_>>()?;
        Contents { meta, expansions, counts: uses.counts, documents: uses.documents, curve: &curve }
            .write(path, &store.file().fingerprint())?;
        Self::open(path)
    }
}

fn checked(store: &Store, options: &LearnOptions) -> Result<()> {
    let refuse = |why: String| Err(Error::Plan { why });
    if options.size == 0 {
        return refuse("a size of 0 was asked for; give at least 1".into());
    }
    if !(0.0..=0.5).contains(&options.held_out) {
        return refuse(format!("held_out is {}; give a share from 0 to 0.5", options.held_out));
    }
    if options.merger.max_length < 2 {
        return refuse(format!("max_length is {}; a new token stands for at least 2", options.merger.max_length));
    }
    if store.meta().vocab_size == 0 {
        return refuse("the store does not say how large its vocabulary is; build it with its tokenizer".into());
    }
    Ok(())
}

/// The smallest size that saves most on rows left out.
fn best(curve: &[Point]) -> Option<usize> {
    let most = curve.iter().max_by(|a, b| a.held_out.total_cmp(&b.held_out).then(b.size.cmp(&a.size)))?;
    usize::try_from(most.size).ok()
}

/// State that is constant while a plan is learned.
struct Learner<'a> {
    base: TokenId,
    options: &'a LearnOptions,
    merger: MergerOptions,
    forbidden: FxHashSet<&'a [TokenId]>,
    novelty: f64,
}

impl<'a> Learner<'a> {
    fn new(store: &Store, options: &'a LearnOptions, novelty: f64) -> Self {
        let mut merger = options.merger.clone();
        merger.min_count = merger.min_count.max(1);
        merger.barriers.extend(store.meta().eos_id);
        let forbidden = options.forbidden.iter().map(Vec::as_slice).collect();
        Self { base: store.meta().vocab_size, options, merger, forbidden, novelty }
    }

    /// Measures the share of tokens that each number of new tokens saves, the smallest first, on the rows learned from
    /// and on rows held out.
    fn curve(&self, all: &WeightedDocuments<'_>, mut check: impl FnMut(f64) -> Result<()>) -> Result<Vec<Point>> {
        let (train, left_out) = split(all, self.options.held_out);
        let (train_sample, left_out) = (sample(&train), sample(&left_out));
        let mut curve = Vec::new();
        let candidates = self.candidates(&train, &mut check)?;
        self.pruner(&train_sample, &train).prune(candidates, self.options.size, 1, |segmenter, uses| {
            if (1..=self.options.size).contains(&segmenter.len()) {
                let held_out = Uses::count(segmenter, &left_out)?.saved();
                curve.push(Point { size: segmenter.len() as u64, train: uses.saved(), held_out });
            }
            check(MERGED + (1.0 - MERGED) / segmenter.len().max(1) as f64)
        })?;
        curve.reverse();
        Ok(curve)
    }

    /// Learns at most `size` new tokens, sorted by the tokens that they save, and counts their uses.
    fn vocabulary(
        &self,
        all: &WeightedDocuments<'_>,
        size: usize,
        mut check: impl FnMut(f64) -> Result<()>,
    ) -> Result<(Segmenter, Uses)> {
        let candidates = self.candidates(all, &mut check)?;
        let sample = sample(all);
        let pruner = self.pruner(&sample, all);
        let mut set = pruner.prune(candidates, size, size, |now, _| {
            check(MERGED + (1.0 - MERGED) * (size as f64 / now.len().max(1) as f64).min(1.0))
        })?;
        loop {
            let segmenter = Segmenter::new(self.base, &set)?;
            let uses = Uses::count(&segmenter, all)?;
            let enough = |k: &usize| uses.pass(*k, &self.merger);
            let mut order: Vec<usize> = (0..set.len()).filter(enough).collect();
            if order.is_empty() {
                let MergerOptions { min_count, min_documents, .. } = self.merger;
                let why = format!(
                    "no tokens stand side by side {min_count} times in {min_documents} rows; give more rows, or lower \
                     min_count or min_documents"
                );
                return Err(Error::Plan { why });
            }
            order.sort_by_key(|&k| Reverse(uses.counts[k].saturating_mul(set[k].len() as u64 - 1)));
            if order.iter().copied().eq(0..set.len()) {
                return Ok((segmenter, uses));
            }
            set = order.into_iter().map(|k| std::mem::take(&mut set[k])).collect();
        }
    }

    fn pruner<'d>(&self, documents: &'d WeightedDocuments<'d>, of: &WeightedDocuments<'_>) -> Pruner<'d> {
        let size = |documents: &WeightedDocuments<'_>| documents.iter().map(|d| d.1 as f64).sum::<f64>();
        let share = size(documents) / size(of).max(1.0);
        // a token that passes in the sample must pass in all documents
        let threshold = |all: u64| {
            let expected = all as f64 * share;
            if share < 1.0 { expected + 2.0 * expected.sqrt() } else { expected }
        };
        let thresholds = (threshold(self.merger.min_count), threshold(self.merger.min_documents));
        Pruner { base: self.base, documents, novelty: self.novelty, thresholds }
    }

    /// Returns the expansions of the first merges, until enough of them are active to choose from.
    fn candidates(
        &self,
        documents: &WeightedDocuments<'_>,
        mut check: impl FnMut(f64) -> Result<()>,
    ) -> Result<Expansions> {
        let size = self.options.size as f64;
        let ratio = (MAX_ACTIVE - ACTIVE_BY_NOVELTY * self.novelty).max(MIN_ACTIVE);
        let wanted = (size * ratio).max(size + MIN_SPARE);
        check(0.0)?;
        let mut merger = Merger::new(documents, &self.merger)?;
        let mut active = ActiveTokens::new(self.merger.min_count, &self.forbidden);
        let tokens: usize = documents.iter().map(|d| d.0.len()).sum();
        let mut room = MAX_EXPANDED.max(tokens / MAX_EXPANDED_SHARE);
        while (active.len() as f64) < wanted
            && room > 0
            && let Some(merge) = merger.step()
        {
            room = room.saturating_sub(merge.expansion.len());
            active.follow(&merger);
            if merger.merges().len() % CHECK_EVERY == 0 {
                check(MERGED * (active.len() as f64 / wanted).min(1.0))?;
            }
        }
        let mut found: Expansions = merger.merges().iter().map(|m| m.expansion.clone()).collect();
        found.retain(|expansion| !self.forbidden.contains(expansion.as_slice()));
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}
