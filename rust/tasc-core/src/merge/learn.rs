//! A store → a plan.

use std::path::Path;

use rustc_hash::{FxHashMap, FxHashSet};

use super::merger::{Merger, MergerOptions};
use super::plan::{Contents, MergePlan, Meta, Point};
use super::segment::{Scratch, Segmenter};
use crate::corpus::Store;
use crate::{Error, Result, TokenId};

/// What a plan is to be.
#[derive(Clone, Debug)]
pub struct LearnOptions {
    /// Live tokens: those that the final segmentation uses.
    pub size: usize,
    /// What merges are allowed. The store's end token is a barrier, named here or not.
    pub merger: MergerOptions,
    /// Share of the rows left out to measure what a size saves; 0: nothing is measured.
    pub held_out: f64,
    /// Expansions that no new token may have.
    pub forbidden: Vec<Vec<TokenId>>,
}

impl Default for LearnOptions {
    fn default() -> Self {
        Self { size: 500, merger: MergerOptions::default(), held_out: 0.1, forbidden: Vec::new() }
    }
}

/// Documents with weights.
type Documents<'a> = Vec<(&'a [TokenId], u64)>;

impl MergePlan {
    /// Learns a plan from a store's outputs, writes it and opens it. `check` is called now and then with the share
    /// done; its error ends the work.
    ///
    /// # Errors
    pub fn learn(
        store: &Store,
        path: &Path,
        options: &LearnOptions,
        mut check: impl FnMut(f64) -> Result<()>,
    ) -> Result<Self> {
        let meta = store.meta();
        let base = meta.vocab_size;
        let mut merger = options.merger.clone();
        merger.barriers.extend(meta.eos_id);
        let all: Documents<'_> =
            (0..store.num_documents()).map(|k| Ok((store.document(k)?, store.weight(k)?))).collect::<Result<_>>()?;
        let forbidden: FxHashSet<&[TokenId]> = options.forbidden.iter().map(Vec::as_slice).collect();
        let mut size = options.size;
        let (mut curve, mut stopped_by) = (Vec::new(), "size");
        if options.held_out > 0.0 {
            let (train, left_out) = split(&all, options.held_out);
            let sets = grow(&train, size, &merger, &forbidden, &mut check)?;
            for set in &sets {
                let segmenter = Segmenter::new(base, set)?;
                let (train, held_out) = (saved(&segmenter, &train)?, saved(&segmenter, &left_out)?);
                curve.push(Point { size: set.len() as u64, train, held_out });
            }
            let best = curve.iter().max_by(|a, b| a.held_out.total_cmp(&b.held_out).then(b.size.cmp(&a.size)));
            if let Some(best) = best.filter(|b| (b.size as usize) < sets.last().map_or(0, Vec::len)) {
                (size, stopped_by) = (best.size as usize, "held-out");
            }
        }
        let live = grow(&all, size, &merger, &forbidden, &mut check)?.pop().unwrap_or_default();
        if live.is_empty() {
            let why = "no pair of tokens passes the floors; give more rows or lower min_count and min_documents";
            return Err(Error::Plan { why: why.into() });
        }
        let segmenter = Segmenter::new(base, &live)?;
        let uses = uses(&segmenter, &all)?;
        let mut order: Vec<usize> = (0..live.len()).filter(|&k| uses.counts[k] > 0).collect();
        order.sort_by_key(|&k| std::cmp::Reverse(uses.counts[k] * (live[k].len() as u64 - 1)));
        if order.len() < size && stopped_by == "size" {
            stopped_by = "floors";
        }
        let meta = Meta {
            writer: env!("CARGO_PKG_VERSION").into(),
            tokenizer: meta.tokenizer.clone(),
            base_vocab_size: base,
            wanted: options.size as u64,
            stopped_by: stopped_by.into(),
            tokens: uses.tokens,
            tokens_after: uses.after,
        };
        Contents {
            meta,
            expansions: order.iter().map(|&k| live[k].as_slice()).collect(),
            counts: order.iter().map(|&k| uses.counts[k]).collect(),
            documents: order.iter().map(|&k| uses.documents[k]).collect(),
            curve: &curve,
        }
        .write(path, &store.file().fingerprint())?;
        Self::open(path)
    }
}

/// Every so-many-th row left out.
fn split<'a>(all: &Documents<'a>, share: f64) -> (Documents<'a>, Documents<'a>) {
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    let mut before = 0u64;
    for &(document, weight) in all {
        let after = before + weight;
        let out = (after as f64 * share) as u64 - (before as f64 * share) as u64;
        if out > 0 {
            held_out.push((document, out));
        }
        if weight > out {
            train.push((document, weight - out));
        }
        before = after;
    }
    (train, held_out)
}

/// Merges until `size` tokens are live; the live ones at some sizes on the way, and at the end.
fn grow(
    documents: &Documents<'_>,
    size: usize,
    options: &MergerOptions,
    forbidden: &FxHashSet<&[TokenId]>,
    check: &mut impl FnMut(f64) -> Result<()>,
) -> Result<Vec<Vec<Vec<TokenId>>>> {
    let mut merger = Merger::new(documents, options)?;
    let (mut sets, mut next) = (Vec::new(), 1);
    let mut last = Vec::new();
    loop {
        let live = live(&merger, options.min_count, forbidden);
        if live.len() > size {
            break;
        }
        if live.len() >= next {
            next = (live.len() * 5 / 4).max(live.len() + 1);
            sets.push(live.clone());
        }
        last = live;
        if merger.step().is_none() {
            break;
        }
        check(0.0)?;
    }
    sets.push(last);
    Ok(sets)
}

fn live(merger: &Merger, floor: u64, forbidden: &FxHashSet<&[TokenId]>) -> Vec<Vec<TokenId>> {
    let mut uses: FxHashMap<&[TokenId], u64> = FxHashMap::default();
    for (merge, &count) in merger.merges().iter().zip(merger.uses()) {
        *uses.entry(&merge.expansion).or_default() += count;
    }
    let mut live: Vec<Vec<TokenId>> =
        uses.into_iter().filter(|u| u.1 >= floor.max(1) && !forbidden.contains(u.0)).map(|u| u.0.to_vec()).collect();
    live.sort_unstable();
    live
}

struct Uses {
    counts: Vec<u64>,
    documents: Vec<u64>,
    tokens: u64,
    after: u64,
}

fn uses(segmenter: &Segmenter, documents: &Documents<'_>) -> Result<Uses> {
    let mut uses = Uses { counts: vec![0; segmenter.len()], documents: vec![0; segmenter.len()], tokens: 0, after: 0 };
    let mut last = vec![usize::MAX; segmenter.len()];
    let (mut scratch, mut out) = (Scratch::default(), Vec::new());
    for (d, &(document, weight)) in documents.iter().enumerate() {
        out.clear();
        segmenter.segment_into(document, &mut scratch, &mut out)?;
        uses.tokens += weight * document.len() as u64;
        uses.after += weight * out.len() as u64;
        for new in out.iter().filter_map(|id| id.checked_sub(segmenter.base())) {
            let new = new as usize;
            uses.counts[new] += weight;
            if last[new] != d {
                uses.documents[new] += weight;
                last[new] = d;
            }
        }
    }
    Ok(uses)
}

fn saved(segmenter: &Segmenter, documents: &Documents<'_>) -> Result<f64> {
    let uses = uses(segmenter, documents)?;
    Ok(1.0 - uses.after as f64 / uses.tokens.max(1) as f64)
}
