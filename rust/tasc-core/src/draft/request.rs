//! One running request: its context, its input, where its output stands in every source, and the draft being made.

use std::sync::Arc;

use super::evidence::Evidence;
use super::features::{Candidates, Columns, END};
use super::mixer::Mixer;
use super::mixtures::{Source, Without};
use super::occurrences::{Matches, Occurrences};
use super::served::Served;
use super::sources::retrieved::Retrieved;
use super::sources::{copy, coverage, task};
use super::trace::Trace;
use crate::TokenId;
use crate::index::copies::TAIL;
use crate::index::view::TaskView;
use crate::index::{Cursor, Successors};
use crate::input::Copying;

/// Places of the running context followed at a time.
pub const FOLLOWED: usize = 16;

/// What a token keeps of the breaks before it.
const BREAK_MEMORY: f32 = 0.98;

/// Tokens proposed for verification. Deterministic in the index, the request's input and tokens, the options and what
/// the drafter has learnt so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// The chain.
    pub tokens: Vec<TokenId>,
    /// Probability of each token, given that those before it are right.
    pub probabilities: Vec<f32>,
    /// Which source spoke most for it: a [`Source`]'s code.
    pub sources: Vec<u8>,
}

/// One running request: its context, its input, its place in the task's index, and memory for drafting.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub(super) context: Occurrences,
    pub(super) retrieved: Retrieved,
    pub(super) source: copy::Source,
    pub(super) without: Without,
    /// That of the served rows which `place` speaks of.
    pub(super) epoch: u64,
    pub(super) place: Place,
    pub(super) draft: Draft,
    /// What the mixer saw at each drafted token.
    pub(super) trace: Trace,
    pub(super) cost: f64,
    pub(super) scratch: Scratch,
}

/// Where an output stands in every source.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) cursor: Cursor,
    pub(super) context: Matches,
    pub(super) retrieved: Matches,
    pub(super) served: Matches,
    pub(super) copying: Copying,
    /// The last tokens of the output.
    pub(super) tail: Vec<TokenId>,
    /// How often the output has left the task's outputs, and the retrieved ones, lately.
    pub(super) breaks: [f32; 2],
}

#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    pub(super) place: Place,
    pub(super) successors: Successors,
    pub(super) matches: Vec<(u32, TokenId, f32)>,
    pub(super) evidence: Evidence,
    pub(super) candidates: Candidates,
    /// The weights of the draft that is being made.
    pub(super) mixer: Option<Arc<Mixer>>,
    pub(super) probabilities: Vec<f32>,
}

impl Request {
    /// The rows retrieved for it.
    #[must_use]
    pub fn retrieved(&self) -> &Retrieved {
        &self.retrieved
    }

    /// Forgets its place among served rows that are gone.
    pub(super) fn still_served(&mut self, served: &Served) {
        if self.epoch != served.epoch() {
            self.place.served.clear();
            self.epoch = served.epoch();
        }
    }

    /// Asks every source at the scratch place; candidates get rows of these columns.
    pub(super) fn gather(&mut self, view: &TaskView<'_>, served: &Served, columns: Columns) {
        let Scratch { place, successors, matches, evidence, candidates, .. } = &mut self.scratch;
        let on = |source| !self.without.has(source);
        evidence.clear();
        if on(Source::Task) {
            evidence.orders[0] = task::blend(&view.ngrams, &mut place.cursor, successors, &mut evidence.task);
            for c in &mut evidence.task.candidates {
                c.0 = view.ngrams.token(c.0).unwrap_or(END);
            }
            if !served.is_empty() {
                let order = served.blend(&place.served, matches, &mut evidence.served);
                evidence.join_served(order);
            }
        }
        if on(Source::Context) {
            evidence.orders[1] = self.context.blend(&place.context, matches, &mut evidence.context);
        }
        if let Some(rows) = &view.rows {
            if on(Source::Retrieved) {
                evidence.orders[2] = self.retrieved.blend(&place.retrieved, matches, &mut evidence.retrieved);
                evidence.similarity = self.retrieved.similarity();
            }
            evidence.agreed = evidence.agree() && !rows.copies.is_ambiguous(&place.tail, place.copying.waiting());
            if on(Source::Coverage) && !evidence.agreed {
                coverage::blend(&rows.copies, &place.tail, place.copying.waiting(), &mut evidence.coverage);
                coverage::ahead(&rows.copies, &place.tail, self.source.next(&place.copying), &mut evidence.ahead);
            }
            if on(Source::Copy) {
                let (task, retrieved) = (&evidence.task, &evidence.retrieved);
                let expects = |token| task.probability(token) + retrieved.probability(token);
                self.source.say(
                    &rows.copies,
                    &place.copying,
                    &place.tail,
                    expects,
                    !evidence.agreed,
                    &mut evidence.copy,
                );
            }
        }
        evidence.breaks = place.breaks;
        let copies = view.rows.filter(|_| on(Source::Copy) && !evidence.agreed).map(|r| r.copies);
        candidates
            .gather(evidence, columns, |token| copies.map_or(0.0, |c| (1.0 - c.token_rate(token)).max(1e-3).ln()));
    }

    /// The output goes on by what verification has emitted.
    pub(super) fn go_on(&mut self, view: &TaskView<'_>, served: &Served, emitted: &[TokenId]) {
        for &token in emitted {
            let Self { source, retrieved, place, without, .. } = self;
            let before = place.cursor.order(&view.ngrams);
            place.cursor.advance(&view.ngrams, view.ngrams.symbol(token));
            leave(&mut place.breaks[0], place.cursor.order(&view.ngrams) <= before);
            place.follow(source, retrieved, served, *without, token);
        }
        self.context.extend(emitted, &mut self.place.context, FOLLOWED);
    }

    /// The scratch place goes on by a drafted token.
    pub(super) fn step(&mut self, view: &TaskView<'_>, served: &Served, token: TokenId) {
        let place = &mut self.scratch.place;
        let before = place.cursor.order(&view.ngrams);
        place.cursor.advance_front(&view.ngrams, view.ngrams.symbol(token));
        leave(&mut place.breaks[0], place.cursor.order(&view.ngrams) <= before);
        place.context.advance(&self.context, token, FOLLOWED);
        place.follow(&self.source, &self.retrieved, served, self.without, token);
    }
}

impl Place {
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.cursor.copy_from(&other.cursor);
        self.context.copy_from(&other.context);
        self.retrieved.copy_from(&other.retrieved);
        self.served.copy_from(&other.served);
        self.copying.copy_from(&other.copying);
        self.tail.clone_from(&other.tail);
        self.breaks = other.breaks;
    }

    /// What depends on the input, or on served rows, goes on by a token of the output.
    fn follow(
        &mut self,
        source: &copy::Source,
        retrieved: &Retrieved,
        served: &Served,
        without: Without,
        token: TokenId,
    ) {
        served.advance(&mut self.served, token);
        if !without.has(Source::Retrieved) {
            let before = self.retrieved.order();
            retrieved.advance(&mut self.retrieved, token);
            leave(&mut self.breaks[1], self.retrieved.order() <= before);
        }
        if !(without.has(Source::Copy) && without.has(Source::Coverage)) {
            source.advance(&mut self.copying, token);
            if self.tail.len() == TAIL {
                self.tail.remove(0);
            }
            self.tail.push(token);
        }
    }
}

/// One token further: a match broke or did not.
fn leave(breaks: &mut f32, broken: bool) {
    *breaks = *breaks * BREAK_MEMORY + f32::from(u8::from(broken));
}

impl Draft {
    pub(super) fn clear(&mut self) {
        self.truncate(0);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.probabilities.truncate(len);
        self.sources.truncate(len);
    }
}

impl Scratch {
    pub(super) fn mix(&mut self) {
        if let Some(mixer) = &self.mixer {
            mixer.mix(&self.candidates.rows, &self.candidates.states, &mut self.probabilities);
        }
    }

    /// The most probable candidate: (token, probability). Ties: the one named first.
    pub(super) fn best(&self) -> Option<(TokenId, f32)> {
        let scored = self.candidates.tokens.iter().copied().zip(self.probabilities.iter().copied());
        scored.reduce(|a, b| if b.1 > a.1 { b } else { a })
    }
}
