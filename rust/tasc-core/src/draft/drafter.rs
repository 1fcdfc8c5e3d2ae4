//! A drafter for one task, the requests it serves, and the drafts it makes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::blend::Blend;
use super::features::{Candidates, END, FEATURES, STATES};
use super::length::{CostCurve, LengthRule};
use super::mixer::{Mixer, Weights};
use super::online::Online;
use super::sources::context::{ContextIndex, Matches};
use super::sources::task;
use crate::index::{Cursor, Ngrams, OwnedNgrams, Successors, TaskIndex};
use crate::{Error, Result, TokenId};

/// Tokens proposed for verification. Deterministic in the index, the request's tokens, the options and what the
/// drafter has learnt so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// The chain.
    pub tokens: Vec<TokenId>,
    /// Probability of each token, given that those before it are right.
    pub probabilities: Vec<f32>,
    /// Which source spoke most for it: 0 task, 1 context.
    pub sources: Vec<u8>,
}

/// Gives the n-grams of an index, wherever they are kept.
pub trait AsNgrams: Send + Sync {
    /// The arrays.
    fn ngrams(&self) -> Ngrams<'_>;
}

impl AsNgrams for TaskIndex {
    fn ngrams(&self) -> Ngrams<'_> {
        TaskIndex::ngrams(self)
    }
}

impl AsNgrams for OwnedNgrams {
    fn ngrams(&self) -> Ngrams<'_> {
        self.view()
    }
}

/// How a drafter drafts.
#[derive(Clone, Debug)]
pub struct DrafterOptions {
    /// Weights of the mixture; `None`: the general ones.
    pub weights: Option<Weights>,
    /// Whether the drafter learns calibration and rate from what is verified.
    pub learn: bool,
}

impl Default for DrafterOptions {
    fn default() -> Self {
        Self { weights: None, learn: true }
    }
}

/// Drafts for the requests of one task.
pub struct Drafter {
    index: Option<Arc<dyn AsNgrams>>,
    mixer: Mixer,
    online: Mutex<Online>,
    learn: bool,
}

/// One running request: its context, its place in the task's index, and memory for drafting.
#[derive(Clone, Debug, Default)]
pub struct Request {
    context: ContextIndex,
    cursor: Cursor,
    draft: Draft,
    /// What the mixture itself thought of each drafted token.
    uncalibrated: Vec<f32>,
    cost: f64,
    scratch: Scratch,
}

#[derive(Clone, Debug, Default)]
struct Scratch {
    cursor: Cursor,
    matches: Matches,
    successors: Successors,
    places: Vec<(u32, TokenId)>,
    task: Blend,
    context: Blend,
    candidates: Candidates,
    probabilities: Vec<f32>,
}

const NO_NGRAMS: Ngrams<'static> = Ngrams {
    tokens: &[],
    starts: &[],
    next: &[],
    step: &[],
    back: &[],
    weights: &[],
    weight_sums: &[],
    heavy_at: &[],
    heavy: &[],
    records: &[],
    slots: &[],
};

impl Drafter {
    /// A drafter over a task's index, or over the request's own context alone.
    ///
    /// # Errors
    /// [`Error::Weights`] when the weights have another number of features than the sources give.
    pub fn new(index: Option<Arc<dyn AsNgrams>>, options: DrafterOptions) -> Result<Self> {
        let weights = match options.weights {
            Some(w) if w.features() != FEATURES || w.states() != STATES => {
                let why =
                    format!("the table is {} × {}, these sources need {STATES} × {FEATURES}", w.states(), w.features());
                return Err(Error::Weights { why });
            }
            Some(w) => w,
            None => super::general::weights()?,
        };
        Ok(Self { index, mixer: Mixer::new(weights), online: Mutex::default(), learn: options.learn })
    }

    fn ngrams(&self) -> Ngrams<'_> {
        self.index.as_ref().map_or(NO_NGRAMS, |i| i.ngrams())
    }

    fn online(&self) -> MutexGuard<'_, Online> {
        self.online.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was learnt so far.
    #[must_use]
    pub fn learnt(&self) -> Online {
        *self.online()
    }

    /// Begins a request whose output follows `prompt`.
    ///
    /// # Complexity
    /// O(prompt).
    #[must_use]
    pub fn start(&self, prompt: &[TokenId]) -> Request {
        let mut context = ContextIndex::new();
        context.extend(prompt);
        Request { context, cursor: Cursor::at_start(&self.ngrams()), ..Request::default() }
    }

    /// Drafts at most `max_tokens` for what comes next; nothing when drafting does not pay.
    ///
    /// # Complexity
    /// O(tokens drafted), each a few look-ups in the index; independent of corpus size but for caches and O(log n) steps.
    pub fn draft<'r>(&self, request: &'r mut Request, max_tokens: usize, costs: &CostCurve) -> &'r Draft {
        let ngrams = self.ngrams();
        let online = *self.online();
        let Request { context, cursor, draft, uncalibrated, scratch, cost } = request;
        scratch.cursor.copy_from(cursor);
        scratch.matches.copy_from(context.matches());
        draft.clear();
        uncalibrated.clear();
        let mut rule = LengthRule::new(costs, online.rate());
        while draft.tokens.len() < max_tokens {
            scratch.gather(&ngrams, context);
            self.mixer.mix(&scratch.candidates.rows, scratch.candidates.state, &mut scratch.probabilities);
            let Some((token, p, source)) = scratch.best() else {
                break;
            };
            let calibrated = online.calibrate(f64::from(p));
            if token == END || !rule.extend(calibrated) {
                break;
            }
            draft.tokens.push(token);
            draft.probabilities.push(calibrated as f32);
            draft.sources.push(source);
            uncalibrated.push(p);
            scratch.cursor.advance(&ngrams, ngrams.symbol(token));
            scratch.matches.advance(context, token);
        }
        draft.truncate(rule.best());
        *cost = costs.cost(draft.tokens.len());
        draft
    }

    /// Tells a request which tokens verification has emitted since its last draft: those accepted and the one after.
    ///
    /// # Complexity
    /// O(tokens).
    pub fn update(&self, request: &mut Request, emitted: &[TokenId]) {
        if self.learn && !emitted.is_empty() && request.cost > 0.0 {
            let drafted = &request.draft.tokens;
            let right = drafted.iter().zip(emitted).take_while(|(a, b)| a == b).count();
            let tested = (right + 1).min(drafted.len()).min(emitted.len());
            let mut online = self.online();
            for (k, &p) in request.uncalibrated.iter().enumerate().take(tested) {
                online.verified(f64::from(p), k < right);
            }
            online.stepped(emitted.len(), request.cost);
        }
        request.draft.clear();
        request.uncalibrated.clear();
        request.cost = 0.0;
        let ngrams = self.ngrams();
        for &token in emitted {
            request.cursor.advance(&ngrams, ngrams.symbol(token));
        }
        request.context.extend(emitted);
    }

    /// What the mixer sees at the request's present place: for fitting weights.
    pub fn candidates<'r>(&self, request: &'r mut Request) -> &'r Candidates {
        let Request { context, cursor, scratch, .. } = request;
        scratch.cursor.copy_from(cursor);
        scratch.matches.copy_from(context.matches());
        scratch.gather(&self.ngrams(), context);
        &scratch.candidates
    }
}

impl Draft {
    fn clear(&mut self) {
        self.truncate(0);
    }

    fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.probabilities.truncate(len);
        self.sources.truncate(len);
    }
}

impl Scratch {
    fn gather(&mut self, ngrams: &Ngrams<'_>, context: &ContextIndex) {
        let task_order = task::blend(ngrams, &self.cursor, &mut self.successors, &mut self.task);
        for c in &mut self.task.candidates {
            c.0 = ngrams.token(c.0).unwrap_or(END);
        }
        let context_order = context.blend(&self.matches, &mut self.places, &mut self.context);
        self.candidates.gather(&self.task, task_order, &self.context, context_order);
    }

    /// The most probable candidate: (token, probability, source). Ties: the one named first.
    fn best(&self) -> Option<(TokenId, f32, u8)> {
        let scored = self.candidates.tokens.iter().zip(&self.probabilities);
        let (&token, &p) = scored.reduce(|a, b| if b.1 > a.1 { b } else { a })?;
        let from_context = self.context.probability(token) > self.task.probability(token);
        Some((token, p, u8::from(from_context)))
    }
}
