//! Weights for one task: fitted on rows of its own that are left out of the counts while it lasts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::build::{self, LeftOut};
use crate::corpus::Store;
use crate::draft::drafter::{Drafter, DrafterOptions};
use crate::draft::length::CostCurve;
use crate::draft::request::Request;
use crate::fit::FitOptions;
use crate::fit::lbfgs::fit;
use crate::fit::samples::Samples;
use crate::mixture::TaskData;
use crate::mixture::features::{END, FEATURES, GROUPS};
use crate::mixture::features::{SourceMask, variants};
use crate::mixture::general;
use crate::mixture::mixer::Weights;
use crate::mixture::weights::MixtureWeights;
use crate::text::SourceText;
use crate::text::pieces::{PieceTokenizer, Pieces, TokenizationCache};
use crate::{Result, TokenId, pool};

/// Drafted at most, and cost of verifying a drafted token, where the figures are taken.
const MAX_TOKENS: usize = 16;
const COST: f64 = 0.02;

/// Of a reliability diagram: mean probability, share that was right, tokens.
pub type Bin = (f64, f64, u64);

/// Bins of the reliability diagram.
const BINS: usize = 10;

/// How weights are fitted to a task.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Rows that are left out, at most; never more than a fifth of those there are.
    pub rows: usize,
    /// Tokens of each output that count.
    pub tokens: usize,
    /// With fewer rows than this left out, nothing is fitted.
    pub min_rows: usize,
    /// Of the optimiser.
    pub fit: FitOptions,
    /// Threads that fit; `None`: [`pool::cores`].
    pub num_threads: Option<usize>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self { rows: 300, tokens: 150, min_rows: 4, fit: FitOptions::default(), num_threads: None }
    }
}

/// What the fit found, measured on rows that neither counts nor weights have seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FitReport {
    /// Rows left out: for the fit, a third of them for these figures.
    pub rows: u64,
    /// Tokens that the weights were fitted to.
    pub tokens: u64,
    /// Mean nats per token: with general weights, with fitted ones.
    pub nats: [f64; 2],
    /// Tokens per step.
    pub tau: f64,
    /// Speed-up when verifying a drafted token costs 0.02 of a plain step, at most 16 drafted.
    pub speedup: f64,
    /// The same without an input, then without each source.
    pub without: Vec<(String, f64)>,
    /// Reliability of the likeliest candidates, by tenths of their probability.
    pub reliability: Vec<Bin>,
    /// Mean distance between probability and share, weighted by tokens.
    pub calibration_error: f64,
}

/// A row that was left out.
struct HeldOutRow<'a> {
    input: &'a str,
    output: &'a [TokenId],
    prompt: Vec<TokenId>,
}

/// Fits weights on rows of a store; `None` when there are too few with an input.
///
/// # Complexity
/// Builds the task once more without those rows; then O(tokens fitted · candidates · iterations).
///
/// # Errors
/// A damaged store's; what `check` and the tokenizer return.
pub fn train(
    store: &Store,
    options: &TrainOptions,
    cache: &mut TokenizationCache,
    tokenizer: Option<&dyn PieceTokenizer>,
    mut check: impl FnMut(f64) -> Result<()>,
) -> Result<Option<(MixtureWeights, FitReport)>> {
    let picked = pick(store, options.rows.min(store.num_inputs() / 5))?;
    if picked.len() < options.min_rows {
        return Ok(None);
    }
    let mut left_out = LeftOut::default();
    for &row in &picked {
        *left_out.entry(row).or_default() += 1;
    }
    // a request spells whatever it is asked; so the rows left out are spelled, though no sample may hold them
    build::tokenize(store, &picked, &mut SourceText::default(), cache, tokenizer)?;
    let task: Arc<dyn TaskData> =
        Arc::new(build::build(store, &left_out, true, cache, tokenizer, |done| check(0.4 * done))?);
    let held_out: Vec<HeldOutRow<'_>> = picked.iter().map(|&row| read(store, row, cache)).collect::<Result<_>>()?;
    let ends = store.meta().eos_id.is_none();
    let shown = |row: usize| row % 3 != 2; // every third one is kept for the figures
    let general = general::weights()?;
    let threads = options.num_threads.unwrap_or_else(pool::cores);
    let options_of_fit = FitOptions { threads, ..options.fit.clone() };
    let fit = |samples: &Samples, prior: &Weights| fit(samples, prior, &options_of_fit);
    let mut tables: Vec<Weights> = Vec::new();
    let mut judged = Vec::new();
    let mut figures = FitReport { rows: picked.len() as u64, ..FitReport::default() };
    let every = variants();
    for (k, &without) in every.iter().enumerate() {
        let drafter = Drafter::new(Some(task.clone()), fixed(without))?;
        let (samples, row_of) = gather(&drafter, without, &held_out, options.tokens, ends)?;
        let prior = general.mixer(without).weights();
        let part = fit(&samples.subset(|s| shown(row_of[s])), prior)?;
        if without == SourceMask::NOTHING || without == SourceMask::inputs() {
            // what serves requests is fitted on all of them
            let whole = fit(&samples, prior)?;
            if without == SourceMask::NOTHING {
                figures.tokens = samples.len() as u64;
                figures.nats = [whole.nats_before, whole.nats];
            }
            tables.push(whole.weights);
        } else {
            tables.push(part.weights.clone());
        }
        judged.push(part.weights);
        check(0.4 + 0.5 * (k + 1) as f64 / every.len() as f64)?;
    }
    let judged = MixtureWeights::new(judged)?;
    let unseen: Vec<&HeldOutRow<'_>> =
        held_out.iter().enumerate().filter(|(k, _)| !shown(*k)).map(|(_, r)| r).collect();
    for &without in &every {
        let options = DrafterOptions { weights: Some(judged.clone()), without, ..DrafterOptions::default() };
        let drafter = Drafter::new(Some(task.clone()), options)?;
        let (tau, speedup) = replay(&drafter, without, &unseen)?;
        if without == SourceMask::NOTHING {
            (figures.tau, figures.speedup) = (tau, speedup);
            (figures.reliability, figures.calibration_error) = reliability(&drafter, &unseen)?;
        } else {
            figures.without.push((without.name(), speedup));
        }
    }
    check(1.0)?;
    Ok(Some((MixtureWeights::new(tables)?, figures)))
}

/// Rows spread evenly over all that occurred; a row that occurred often may be picked more than once.
fn pick(store: &Store, wanted: usize) -> Result<Vec<usize>> {
    let mut total = 0u64;
    for row in 0..store.num_inputs() {
        total = total.saturating_add(store.input(row)?.weight);
    }
    let mut picked = Vec::with_capacity(wanted);
    let (mut row, mut passed) = (0, 0u64);
    for k in 0..wanted as u128 {
        let at = u64::try_from(u128::from(total) * (2 * k + 1) / (2 * wanted as u128)).unwrap_or(u64::MAX);
        while passed.saturating_add(store.input(row)?.weight) <= at {
            passed = passed.saturating_add(store.input(row)?.weight);
            row += 1;
        }
        picked.push(row);
    }
    Ok(picked)
}

fn read<'s>(store: &'s Store, row: usize, cache: &mut TokenizationCache) -> Result<HeldOutRow<'s>> {
    let input = store.input(row)?;
    let mut source_text = SourceText::default();
    source_text.read(input.text, &Pieces::default(), cache, None)?;
    let output = store.document(input.document as usize)?;
    Ok(HeldOutRow { input: input.text, output, prompt: source_text.running().collect() })
}

fn fixed(without: SourceMask) -> DrafterOptions {
    DrafterOptions { fixed: true, without, ..DrafterOptions::default() }
}

fn start(drafter: &Drafter, without: SourceMask, row: &HeldOutRow<'_>) -> Result<Request> {
    drafter.start(&row.prompt, Some(row.input).filter(|_| without != SourceMask::inputs()))
}

/// What the mixer sees at every token of the rows, and the row of each sample.
fn gather(
    drafter: &Drafter,
    without: SourceMask,
    rows: &[HeldOutRow<'_>],
    tokens: usize,
    ends: bool,
) -> Result<(Samples, Vec<usize>)> {
    let mut samples = Samples::new(FEATURES, GROUPS.len());
    let mut row_of = Vec::new();
    for (k, row) in rows.iter().enumerate() {
        let mut request = start(drafter, without, row)?;
        for &token in row.output.iter().chain(ends.then_some(&END)).take(tokens) {
            let seen = drafter.candidates(&mut request);
            let truth = seen.tokens.iter().position(|&t| t == token).unwrap_or(seen.tokens.len());
            samples.push(&seen.rows, truth, &seen.states, 1.0)?;
            row_of.push(k);
            drafter.update(&mut request, &[token]);
        }
    }
    Ok((samples, row_of))
}

/// (tokens per step, speed-up) of decoding the rows.
fn replay(drafter: &Drafter, without: SourceMask, rows: &[&HeldOutRow<'_>]) -> Result<(f64, f64)> {
    let costs = CostCurve::linear(COST)?;
    let (mut tokens, mut steps, mut cost) = (0usize, 0usize, 0.0);
    for row in rows {
        let mut request = start(drafter, without, row)?;
        let mut left = row.output;
        while !left.is_empty() {
            let drafted = &drafter.draft(&mut request, MAX_TOKENS, &costs).tokens;
            let right = drafted.iter().zip(left).take_while(|(a, b)| a == b).count();
            cost += costs.cost(drafted.len());
            let (emitted, rest) = left.split_at((right + 1).min(left.len()));
            drafter.update(&mut request, emitted);
            (tokens, steps, left) = (tokens + emitted.len(), steps + 1, rest);
        }
    }
    Ok((tokens as f64 / steps.max(1) as f64, tokens as f64 / f64::max(cost, 1.0)))
}

/// How often the likeliest candidate was right, by how likely the mixture found it, and the mean distance of the two.
fn reliability(drafter: &Drafter, rows: &[&HeldOutRow<'_>]) -> Result<(Vec<Bin>, f64)> {
    let mut bins = vec![(0.0, 0.0, 0u64); BINS];
    for row in rows {
        let mut request = start(drafter, SourceMask::NOTHING, row)?;
        for &token in row.output {
            if let Some((likeliest, p)) = drafter.likeliest(&mut request) {
                let p = f64::from(p);
                let bin = &mut bins[((p * BINS as f64) as usize).min(BINS - 1)];
                *bin = (bin.0 + p, bin.1 + f64::from(u8::from(likeliest == token)), bin.2 + 1);
            }
            drafter.update(&mut request, &[token]);
        }
    }
    let all: u64 = bins.iter().map(|b| b.2).sum();
    let error = bins.iter().map(|b| (b.0 - b.1).abs()).sum::<f64>() / all.max(1) as f64;
    let mean = |(p, right, n): Bin| (p / n.max(1) as f64, right / n.max(1) as f64, n);
    Ok((bins.into_iter().map(mean).collect(), error))
}
