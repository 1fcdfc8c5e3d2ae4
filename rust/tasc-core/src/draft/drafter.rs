//! A drafter for one task: starts requests, drafts for them, and learns from what verification says.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLockReadGuard};

use super::length::{CostCurve, LengthRule};
use super::request::{Draft, MAX_FOLLOWED, Request};
use super::scratch::{DraftScratch, ScratchPool};
use super::trace::Observation;
use crate::corpus::OnlineRow;
use crate::corpus::online_log::LOG_BYTES;
use crate::format::Fingerprint;
use crate::index::Cursor;
use crate::index::inputs;
use crate::index::view::{Rows, TaskView};
use crate::mixture::TaskData;
use crate::mixture::features::{Candidates, Columns, END};
use crate::mixture::general;
use crate::mixture::mixer::{Mixer, Sample};
use crate::mixture::source::{Source, SourceMask};
use crate::mixture::weights::MixtureWeights;
use crate::online::adapt::{AdaptedWeights, OnlineCalibration};
use crate::online::served::{SERVED_BYTES, START, Served};
use crate::online::state::Kept;
use crate::text::pieces::{PieceTokenizer, TokenizationCache};
use crate::{Result, TokenId};

/// Words of inputs whose spelling is remembered, beside those of the index, before all are forgotten.
const MAX_CACHED_PIECES: usize = 1 << 18;

/// Drafted tokens that a request makes room for at once.
const RESERVED_TOKENS: usize = 16;

/// How a drafter drafts.
#[derive(Clone)]
pub struct DrafterOptions {
    /// Weights of the mixture; `None`: those of the index, else the general ones.
    pub weights: Option<MixtureWeights>,
    /// Whether calibration and rate stay what they are, whatever is verified.
    pub fixed: bool,
    /// Sources switched off.
    pub without: SourceMask,
    /// The tokenizer, for words that the index does not know.
    pub tokenizer: Option<Arc<dyn PieceTokenizer>>,
    /// Most bytes of served rows in memory; past them the older half is forgotten. For the moment in which tables have
    /// grown and the newer half is copied there are more, up to three times as many; a single row that does not fit
    /// takes what it takes.
    pub served_bytes: usize,
    /// Most bytes of their log; past them it drops its oldest rows until half of them are left.
    pub log_bytes: u64,
}

impl Default for DrafterOptions {
    fn default() -> Self {
        let (weights, fixed, without, tokenizer) = Default::default();
        Self { weights, fixed, without, tokenizer, served_bytes: SERVED_BYTES, log_bytes: LOG_BYTES }
    }
}

/// Drafts for the requests of one task.
pub struct Drafter {
    task: Option<Arc<dyn TaskData>>,
    mixtures: MixtureWeights,
    online: Mutex<Learned>,
    spelled: Mutex<TokenizationCache>,
    kept: Kept,
    scratch: ScratchPool,
    options: DrafterOptions,
}

/// What the requests of a drafter have learnt together.
#[derive(Clone, Debug, Default)]
struct Learned {
    calibration: OnlineCalibration,
    weights: AdaptedWeights,
}

impl Drafter {
    /// A drafter over a task's index, or over the request's own context alone.
    ///
    /// # Errors
    /// [`crate::Error::Weights`] when the general weights do not fit the sources.
    pub fn new(task: Option<Arc<dyn TaskData>>, options: DrafterOptions) -> Result<Self> {
        let served = Served::new(options.served_bytes);
        let kept = Kept::new(task.clone(), served);
        Self::with(task, options, kept, Learned::default())
    }

    fn with(task: Option<Arc<dyn TaskData>>, options: DrafterOptions, kept: Kept, learnt: Learned) -> Result<Self> {
        let own = || task.as_ref().and_then(|t| t.weights().cloned());
        let mixtures = match options.weights.clone().or_else(own) {
            Some(mixtures) => mixtures,
            None => general::weights()?,
        };
        let online = Mutex::new(learnt);
        Ok(Self { task, mixtures, online, spelled: Mutex::default(), kept, scratch: ScratchPool::default(), options })
    }

    /// Makes a drafter over another index of the same tokenizer, with the same options, a copy of the online rows, and
    /// their write-ahead log. Rows that were merged into the new index ([`TaskData::merged_logs`]) leave the log, and are not
    /// in the copy, so that no row counts twice.
    ///
    /// Requests that were begun before go on over the old index and the rows that were served so far. Whichever drafter
    /// is served a row, the log and the newest one take it in. What was learnt goes on in each by itself; the new one
    /// begins with the weights that the old one has learnt, not with those of its index.
    ///
    /// # Complexity
    /// O(online rows), and their memory once more until the old drafter goes; O(log) where rows of it were merged.
    /// Others draft meanwhile; whoever serves waits.
    ///
    /// # Errors
    /// As [`Drafter::new`]; as [`crate::corpus::WriteAheadLog::forget`], where rows of the log were merged: nothing has
    /// changed then.
    pub fn with_index(&self, task: Arc<dyn TaskData>) -> Result<Self> {
        let learnt = self.online().clone();
        let mut next = Self::with(Some(task.clone()), self.options.clone(), self.kept.clone(), learnt)?;
        next.kept = self.kept.with_index(task)?;
        Ok(next)
    }

    /// Takes in the latest rows of a log that are not in the index, as many as memory may hold, and writes to it
    /// whatever is served from now on.
    ///
    /// # Errors
    /// As [`crate::corpus::WriteAheadLog::open`]; [`crate::Error::Locked`] also when this drafter has a log already.
    pub fn keep_served(&self, path: &Path, fingerprint: &Fingerprint) -> Result<()> {
        self.kept.open(path, fingerprint, self.options.log_bytes)
    }

    /// Adds rows that were served: they are counted and retrievable for every request that begins afterwards. Where
    /// there is a log they are on disk when this returns.
    ///
    /// # Errors
    /// As [`crate::corpus::WriteAheadLog::append`]; no row is added then.
    pub fn serve(&self, rows: &[OnlineRow]) -> Result<()> {
        self.kept.serve(rows)
    }

    /// Number of served rows in memory.
    #[must_use]
    pub fn num_served(&self) -> usize {
        self.served().len()
    }

    /// Bytes that they take. O(1).
    #[must_use]
    pub fn served_memory(&self) -> usize {
        self.served().memory_usage()
    }

    fn served(&self) -> RwLockReadGuard<'_, Served> {
        self.kept.rows()
    }

    fn view(&self) -> TaskView<'_> {
        self.task.as_ref().map_or_else(TaskView::default, |t| t.view())
    }

    fn online(&self) -> MutexGuard<'_, Learned> {
        self.online.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calibration and rate learnt so far.
    #[must_use]
    pub fn learnt(&self) -> OnlineCalibration {
        self.online().calibration
    }

    /// The weights as they are now.
    fn weights(&self, without: SourceMask) -> Arc<Mixer> {
        self.online().weights.get(without, self.mixtures.for_columns(without)).clone()
    }

    /// Begins a request whose output follows `prompt`; `input` is the part of it that is the row's input, where known.
    ///
    /// # Complexity
    /// O(prompt + input), and one retrieval.
    ///
    /// # Errors
    /// Errors of the tokenizer.
    pub fn start(&self, prompt: &[TokenId], input: Option<&str>) -> Result<Request> {
        let view = self.view();
        let mut request = Request { without: self.options.without, ..Request::default() };
        request.context.extend(prompt, &mut request.place.context, MAX_FOLLOWED);
        request.place.cursor = Cursor::at_start(&view.ngrams);
        let read = match (input, &view.rows) {
            (Some(input), Some(rows)) => Some((self.read(&mut request, input, rows)?, rows)),
            _ => None,
        };
        // only now: while the tokenizer works, whoever adds served rows waits for nobody
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

    /// Reads the input; returns its terms.
    fn read(&self, request: &mut Request, input: &str, rows: &Rows<'_>) -> Result<Vec<u64>> {
        let Request { source, place, .. } = request;
        let tokenizer = self.options.tokenizer.as_deref();
        let mut spelled = self.spelled.lock().unwrap_or_else(PoisonError::into_inner);
        spelled.bound(MAX_CACHED_PIECES);
        source.source_text.set_cases(rows.cases());
        source.source_text.read(input, &rows.pieces, &mut spelled, tokenizer)?;
        drop(spelled);
        source.begin(&rows.copies, &mut place.copy_state);
        let mut terms = Vec::new();
        inputs::terms(source.source_text.words(), &mut terms);
        Ok(terms)
    }

    /// Drafts at most `max_tokens` for what comes next; nothing when drafting does not pay.
    ///
    /// # Complexity
    /// O(tokens drafted), each a few look-ups in the index; independent of corpus size but for caches and O(log n) steps.
    pub fn draft<'r>(&self, request: &'r mut Request, max_tokens: usize, costs: &CostCurve) -> &'r Draft {
        let (view, served) = (self.view(), self.served());
        request.sync_online_rows(&served);
        request.draft.clear();
        request.trace.clear();
        request.draft.reserve(max_tokens.min(RESERVED_TOKENS));
        request.trace.reserve(max_tokens.min(RESERVED_TOKENS));
        let (online, mixer) = (self.learnt(), self.weights(request.without));
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
                // at once, so that what comes next is on its way from memory during the rest
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

    /// Tells a request which tokens verification has emitted since its last draft: those accepted and the one after.
    ///
    /// # Complexity
    /// O(tokens).
    pub fn update(&self, request: &mut Request, emitted: &[TokenId]) {
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

    /// Learns from the tokens that verification has looked at; returns once all requests draft with it.
    fn learn(&self, request: &Request, emitted: &[TokenId]) {
        let drafted = &request.draft.tokens;
        let right = drafted.iter().zip(emitted).take_while(|(a, b)| a == b).count();
        let tested = (right + 1).min(drafted.len()).min(emitted.len());
        let mut online = self.online();
        let fitted = self.mixtures.for_columns(request.without);
        for (k, &token) in emitted.iter().enumerate().take(tested) {
            let seen = request.trace.get(k);
            online.calibration.record_token(f64::from(seen.best), k < right);
            let truth = seen.tokens.iter().position(|&t| t == token).unwrap_or(seen.tokens.len());
            let Observation { rows, probabilities, states, .. } = seen;
            online.weights.learn(request.without, fitted, &Sample { rows, probabilities, states, truth });
        }
        online.calibration.record_step(emitted.len(), request.cost);
    }

    /// What the mixer sees at the request's present place, in all columns: for fitting weights.
    pub fn candidates(&self, request: &mut Request) -> Candidates {
        self.look(request, Columns::All, |scratch| std::mem::take(&mut scratch.candidates))
    }

    /// The likeliest next token and the mixture's probability of it, uncalibrated.
    pub fn likeliest(&self, request: &mut Request) -> Option<(TokenId, f32)> {
        let (columns, mixer) = (Columns::of(request.without), self.weights(request.without));
        self.look(request, columns, |scratch| scratch.likeliest(&mixer))
    }

    /// What `f` makes of the candidates at the request's present place.
    fn look<T>(&self, request: &mut Request, columns: Columns, f: impl FnOnce(&mut DraftScratch) -> T) -> T {
        let (view, served) = (self.view(), self.served());
        request.sync_online_rows(&served);
        self.scratch.lend(|scratch| {
            scratch.place.copy_from(&request.place);
            scratch.gather(request, &view, &served, columns);
            f(scratch)
        })
    }
}

/// How a drafted token came about: for looking into it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explained {
    /// The token drafted.
    pub token: TokenId,
    /// Its probability, calibrated.
    pub probability: f32,
    /// What each of [`Source::ALL`] makes of it; 0 for what it does not name.
    pub sources: [f32; Source::ALL.len()],
    /// The likeliest candidates with the mixture's probabilities, best first, the drafted one included.
    pub candidates: Vec<(TokenId, f32)>,
}

impl Drafter {
    /// The draft that [`Drafter::draft`] would make, token by token, with what spoke for each.
    pub fn explain(&self, request: &mut Request, max_tokens: usize, costs: &CostCurve) -> Vec<Explained> {
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
