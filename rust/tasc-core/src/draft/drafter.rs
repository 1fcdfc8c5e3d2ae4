//! The drafter of one task: starts requests, predicts their next tokens, and learns from verified tokens.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLockReadGuard};

use super::length::{CostCurve, LengthRule};
use super::request::{Draft, MAX_FOLLOWED, Request};
use super::scratch::{DraftScratch, ScratchPool};
use super::trace::Observation;
use crate::corpus::OnlineRow;
use crate::corpus::online_log::LOG_BYTES;
use crate::fork::{self, Work};
use crate::format::Fingerprint;
use crate::index::Cursor;
use crate::index::inputs;
use crate::index::view::{Rows, TaskView};
use crate::mixture::TaskData;
use crate::mixture::candidates::Candidates;
use crate::mixture::features::{Columns, END};
use crate::mixture::features::{Source, SourceMask};
use crate::mixture::general;
use crate::mixture::mixer::{Mixer, Sample};
use crate::mixture::weights::MixtureWeights;
use crate::online::adapt::{AdaptedWeights, OnlineCalibration};
use crate::online::served::{IndexedRows, SERVED_BYTES, START};
use crate::online::state::OnlineRows;
use crate::text::pieces::{PieceTokenizer, TokenizationCache};
use crate::{Result, TokenId};

/// Pieces of inputs whose token ids are cached beside those of the index; past them the cache is emptied.
const MAX_CACHED_PIECES: usize = 1 << 18;

/// Drafted tokens for which a request reserves memory.
const RESERVED_TOKENS: usize = 16;

/// Options of a [`Drafter`].
#[derive(Clone)]
pub struct DrafterOptions {
    /// Weights of the mixture; `None`: the weights of the index, or the general weights where it has none.
    pub weights: Option<MixtureWeights>,
    /// Whether calibration, rate and weights stay fixed whatever is verified.
    pub fixed: bool,
    /// Sources that are switched off.
    pub without: SourceMask,
    /// The tokenizer, for words that the index does not hold; `None`: these words are not copied.
    pub tokenizer: Option<Arc<dyn PieceTokenizer>>,
    /// Most bytes of online rows in memory. Past them the older half is dropped. While a table grows or the newer half is
    /// copied, memory is up to three times as much. A single row may exceed the limit.
    pub served_bytes: usize,
    /// Most bytes of the write-ahead log. Past them its oldest rows are dropped until half of the bytes are left.
    pub log_bytes: u64,
    /// Days after which rows leave the write-ahead log; `None`: they stay.
    pub log_days: Option<u32>,
}

impl Default for DrafterOptions {
    fn default() -> Self {
        let (weights, fixed, without, tokenizer) = Default::default();
        Self { weights, fixed, without, tokenizer, served_bytes: SERVED_BYTES, log_bytes: LOG_BYTES, log_days: None }
    }
}

/// Predicts the next tokens of the outputs of one task.
///
/// A drafter can be used by many threads at once. What it learns from verified tokens (calibration, weights, tokens per
/// cost) is shared by its requests. A draft is a deterministic function of the index, the request, the options and what
/// was learned so far.
///
/// # Examples
///
/// Without an index, a drafter predicts from the running context alone:
///
/// ```
/// use tasc_core::{CostCurve, Drafter, DrafterOptions};
///
/// # fn main() -> tasc_core::Result<()> {
/// let drafter = Drafter::new(None, DrafterOptions::default())?;
/// let mut request = drafter.start(&[7, 8, 9, 5, 7, 8, 9, 5, 7], None)?;
/// let draft = drafter.draft(&mut request, 3, &CostCurve::linear(0.02)?);
/// assert_eq!(draft.tokens, [8, 9, 5]);
/// assert!(draft.probabilities.iter().all(|p| (0.0..=1.0).contains(p)));
/// drafter.update(&mut request, &[8, 9, 6]); // the model emitted 6 in place of 5
/// # Ok(())
/// # }
/// ```
pub struct Drafter {
    task: Option<Arc<dyn TaskData>>,
    fitted: MixtureWeights,
    learned: Mutex<Learned>,
    cache: Mutex<TokenizationCache>,
    rows: OnlineRows,
    scratch: ScratchPool,
    options: DrafterOptions,
}

/// What the requests of a drafter have learned together.
#[derive(Clone, Debug, Default)]
struct Learned {
    calibration: OnlineCalibration,
    weights: AdaptedWeights,
}

impl Drafter {
    /// Makes a drafter over a task's index, or (`None`) over each request's own context alone.
    ///
    /// # Complexity
    /// O(weights): about 10,000 numbers are copied.
    ///
    /// # Errors
    /// [`crate::Error::Weights`] when the general weights do not fit the sources.
    pub fn new(task: Option<Arc<dyn TaskData>>, options: DrafterOptions) -> Result<Self> {
        let rows = OnlineRows::new(task.clone(), IndexedRows::new(options.served_bytes));
        Self::with(task, options, rows, Learned::default())
    }

    fn with(
        task: Option<Arc<dyn TaskData>>,
        options: DrafterOptions,
        rows: OnlineRows,
        learned: Learned,
    ) -> Result<Self> {
        let own = || task.as_ref().and_then(|t| t.weights().cloned());
        let fitted = options.weights.clone().or_else(own).map_or_else(general::weights, Ok)?;
        let (learned, cache, scratch) = (Mutex::new(learned), Mutex::default(), ScratchPool::default());
        Ok(Self { task, fitted, learned, cache, rows, scratch, options })
    }

    /// Makes a drafter over another index of the same tokenizer, with the same options, a copy of the online rows, and
    /// their write-ahead log. Rows that were merged into the new index ([`TaskData::merged_logs`]) leave the log, and are not
    /// in the copy, so that no row counts twice.
    ///
    /// Requests that were started before keep the old index and its online rows. A row that either drafter is given goes to
    /// the log and to the newest drafter. Both drafters learn separately from then on; the new one starts with the weights
    /// that the old one has learned, not with those of its index.
    ///
    /// # Complexity
    /// O(online rows), and their memory once more until the old drafter goes; O(log) where rows of it were merged.
    /// Others draft meanwhile; whoever serves waits.
    ///
    /// # Errors
    /// As [`Drafter::new`]; as [`crate::corpus::WriteAheadLog::forget`], where rows of the log were merged: nothing has
    /// changed then.
    pub fn with_index(&self, task: Arc<dyn TaskData>) -> Result<Self> {
        let _work = fork::work();
        let learned = self.learned().clone();
        let mut next = Self::with(Some(task.clone()), self.options.clone(), self.rows.clone(), learned)?;
        next.rows = self.rows.with_index(task)?;
        Ok(next)
    }

    /// Opens a write-ahead log, or creates it. Takes in its latest rows that are not in the index, as many as memory may
    /// hold; every row that is added from now on is appended to it.
    ///
    /// # Complexity
    /// O(log).
    ///
    /// # Errors
    /// As [`crate::corpus::WriteAheadLog::open`]; [`crate::Error::Locked`] also when this drafter has a log already.
    pub fn keep_served(&self, path: &Path, fingerprint: &Fingerprint) -> Result<()> {
        let _work = fork::work();
        self.rows.open(path, fingerprint, self.options.log_bytes, self.options.log_days)
    }

    /// Adds finished rows: every request that starts afterwards counts and retrieves them. With a write-ahead log they are
    /// on disk when this returns.
    ///
    /// # Complexity
    /// O(rows); one `fdatasync` with a log.
    ///
    /// # Errors
    /// As [`crate::corpus::WriteAheadLog::append`]; no row is added then.
    pub fn serve(&self, rows: &[OnlineRow]) -> Result<()> {
        let _work = fork::work();
        self.rows.serve(rows)
    }

    /// Number of online rows in memory.
    #[must_use]
    pub fn num_served(&self) -> usize {
        let _work = fork::work();
        self.served().len()
    }

    /// Bytes that the online rows take in memory. O(1).
    #[must_use]
    pub fn served_memory(&self) -> usize {
        let _work = fork::work();
        self.served().memory_usage()
    }

    fn served(&self) -> RwLockReadGuard<'_, IndexedRows> {
        self.rows.rows()
    }

    fn view(&self) -> TaskView<'_> {
        self.task.as_ref().map_or_else(TaskView::default, |t| t.view())
    }

    /// Pieces that were tokenized for requests.
    fn cache(&self) -> (MutexGuard<'_, TokenizationCache>, Work) {
        let work = fork::work();
        (self.cache.lock().unwrap_or_else(PoisonError::into_inner), work)
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calibration and rate learned so far.
    #[must_use]
    pub fn calibration(&self) -> OnlineCalibration {
        let _work = fork::work();
        self.learned().calibration
    }

    /// The current weights.
    fn weights(&self, without: SourceMask) -> Arc<Mixer> {
        self.learned().weights.get(without, self.fitted.for_columns(without)).clone()
    }

    /// Starts a request whose output follows `prompt`; `input` is the part of the prompt that is the row's input, where
    /// known. It may be the whole prompt, if the index has a template of prompts.
    ///
    /// # Complexity
    /// O(prompt + input), and one retrieval: about 0.15 ms among 100,000 rows.
    ///
    /// # Errors
    /// Errors of the tokenizer, which is asked for words that neither the index nor the cache holds.
    pub fn start(&self, prompt: &[TokenId], input: Option<&str>) -> Result<Request> {
        let view = self.view();
        let template = self.task.as_ref().and_then(|task| task.input_template());
        let input = input.map(|input| template.map_or(input, |template| template.input(input)));
        let mut request = Request { without: self.options.without, ..Request::default() };
        request.context.extend(prompt, &mut request.place.context, MAX_FOLLOWED);
        request.place.cursor = Cursor::at_start(&view.ngrams);
        let read = match (input, &view.rows) {
            (Some(input), Some(rows)) => Some((self.read(&mut request, input, rows)?, rows)),
            _ => None,
        };
        // only now, so that rows can be added while the tokenizer works
        let _work = fork::work();
        let served = self.served();
        request.epoch = served.epoch();
        served.advance(&mut request.place.served, START);
        let Request { retrieved, place, without, .. } = &mut request;
        match read {
            Some((terms, rows)) if !without.has(Source::Retrieved) => {
                retrieved.find(&rows.inputs, &view.ngrams, &served, &terms, &mut place.retrieved);
            }
            Some(_) => {}
            None => *without = without.and(SourceMask::inputs()),
        }
        drop(served);
        Ok(request)
    }

    /// Tokenizes the input; returns its terms. No lock is held while the tokenizer works.
    fn read(&self, request: &mut Request, input: &str, rows: &Rows<'_>) -> Result<Vec<u64>> {
        let Request { source, place, .. } = request;
        source.source_text.set_cases(rows.cases());
        let pieces = source.source_text.split(input);
        let (mut missing, mut spelled) = (Vec::new(), Vec::new());
        if let Some(tokenizer) = &self.options.tokenizer {
            missing = pieces.missing(&rows.pieces, &self.cache().0);
            if !missing.is_empty() {
                spelled = tokenizer.tokenize_pieces(&missing)?;
            }
        }
        let (mut cache, _work) = self.cache();
        cache.bound(MAX_CACHED_PIECES);
        cache.extend(&missing, &spelled);
        source.source_text.spell(pieces, &rows.pieces, &cache);
        drop(cache);
        source.begin(&rows.copies, &mut place.copy_state);
        let mut terms = Vec::new();
        inputs::terms(source.source_text.words(), &mut terms);
        Ok(terms)
    }

    /// Drafts at most `max_tokens` tokens. The draft is empty when no length has a positive expected gain at these costs.
    ///
    /// # Complexity
    /// O(tokens drafted), each a few look-ups in the index of O(log n) for n tokens indexed.
    pub fn draft<'r>(&self, request: &'r mut Request, max_tokens: usize, costs: &CostCurve) -> &'r Draft {
        let _work = fork::work();
        let (view, served) = (self.view(), self.served());
        request.sync_online_rows(&served);
        request.draft.clear();
        request.trace.clear();
        request.draft.reserve(max_tokens.min(RESERVED_TOKENS));
        request.trace.reserve(max_tokens.min(RESERVED_TOKENS));
        let (online, mixer) = (self.calibration(), self.weights(request.without));
        let mut rule = LengthRule::new(costs, online.rate());
        let columns = Columns::of(request.without);
        self.scratch.lend(|scratch| {
            scratch.place.copy_from(&request.place);
            while request.draft.tokens.len() < max_tokens {
                scratch.gather(request, &view, &served, columns);
                let Some((token, p)) = scratch.likeliest(&mixer) else {
                    break;
                };
                let calibrated = online.calibrate(f64::from(p));
                if token == END || !rule.extend(calibrated) {
                    break;
                }
                // first, so that memory is fetched for the next token during the rest
                scratch.step(request, &view, &served, token);
                request.trace.push(&scratch.candidates, &scratch.probabilities, p);
                request.draft.tokens.push(token);
                request.draft.probabilities.push(calibrated as f32);
                request.draft.sources.push(scratch.evidence.main_source(token).code());
            }
        });
        request.draft.truncate(rule.best());
        request.cost = costs.cost(request.draft.tokens.len());
        &request.draft
    }

    /// Appends the tokens that verification has emitted since the last draft (the accepted ones and one more) to a request,
    /// and learns from them.
    ///
    /// # Complexity
    /// O(tokens).
    pub fn update(&self, request: &mut Request, emitted: &[TokenId]) {
        let _work = fork::work();
        if !self.options.fixed && !emitted.is_empty() && request.cost > 0.0 {
            self.learn(request, emitted);
        }
        request.draft.clear();
        request.trace.clear();
        request.cost = 0.0;
        let (view, served) = (self.view(), self.served());
        request.sync_online_rows(&served);
        request.advance(&view, &served, emitted);
    }

    /// Updates calibration and weights by the drafted tokens that were verified.
    fn learn(&self, request: &Request, emitted: &[TokenId]) {
        let drafted = &request.draft.tokens;
        let right = drafted.iter().zip(emitted).take_while(|(a, b)| a == b).count();
        let tested = (right + 1).min(drafted.len()).min(emitted.len());
        let mut online = self.learned();
        let fitted = self.fitted.for_columns(request.without);
        for (k, &token) in emitted.iter().enumerate().take(tested) {
            let seen = request.trace.get(k);
            online.calibration.record_token(f64::from(seen.best), k < right);
            let truth = seen.tokens.iter().position(|&t| t == token).unwrap_or(seen.tokens.len());
            let Observation { rows, probabilities, states, .. } = seen;
            online.weights.learn(request.without, fitted, &Sample { rows, probabilities, states, truth });
        }
        online.calibration.record_step(emitted.len(), request.cost);
    }

    /// The candidates at the request's position with their features, in all columns: for fitting weights.
    pub fn candidates(&self, request: &mut Request) -> Candidates {
        self.look(request, Columns::All, |scratch| std::mem::take(&mut scratch.candidates))
    }

    /// The most probable next token and its probability before calibration.
    pub fn likeliest(&self, request: &mut Request) -> Option<(TokenId, f32)> {
        let _work = fork::work();
        let (columns, mixer) = (Columns::of(request.without), self.weights(request.without));
        self.look(request, columns, |scratch| scratch.likeliest(&mixer))
    }

    /// Calls `f` with the candidates at the request's position.
    fn look<T>(&self, request: &mut Request, columns: Columns, f: impl FnOnce(&mut DraftScratch) -> T) -> T {
        let _work = fork::work();
        let (view, served) = (self.view(), self.served());
        request.sync_online_rows(&served);
        self.scratch.lend(|scratch| {
            scratch.place.copy_from(&request.place);
            scratch.gather(request, &view, &served, columns);
            f(scratch)
        })
    }
}

/// A drafted token with the evidence for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explained {
    /// The token drafted.
    pub token: TokenId,
    /// Its probability, calibrated.
    pub probability: f32,
    /// Its probability by each of [`Source::ALL`]; 0 where a source does not name it.
    pub sources: [f32; Source::ALL.len()],
    /// The likeliest candidates with the mixture's probabilities, best first, the drafted one included.
    pub candidates: Vec<(TokenId, f32)>,
}

impl Drafter {
    /// Makes the draft of [`Drafter::draft`] and returns every token with the evidence for it.
    ///
    /// # Complexity
    /// As two drafts.
    pub fn explain(&self, request: &mut Request, max_tokens: usize, costs: &CostCurve) -> Vec<Explained> {
        let _work = fork::work();
        let draft = self.draft(request, max_tokens, costs).clone();
        let (view, served) = (self.view(), self.served());
        self.scratch.lend(|scratch| {
            scratch.place.copy_from(&request.place);
            let explained =
                draft.tokens.iter().zip(&draft.probabilities).enumerate().map(|(k, (&token, &probability))| {
                    scratch.gather(request, &view, &served, Columns::of(request.without));
                    let sources = scratch.evidence.probabilities(token).map(|s| s.1);
                    let seen = request.trace.get(k);
                    let both = seen.tokens.iter().zip(seen.probabilities);
                    let mut candidates: Vec<(TokenId, f32)> = both.map(|(&t, &p)| (t, p)).collect();
                    candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                    scratch.step(request, &view, &served, token);
                    Explained { token, probability, sources, candidates }
                });
            explained.collect()
        })
    }
}
