//! Memory for making drafts. Requests wait for verification most of the time, so they do not each have their own: a
//! drafter keeps as much as it has drafts in the making at a time, and what is used again and again stays in cache.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::request::{DraftPosition, MAX_FOLLOWED, Request, record_mismatch};
use super::sources::{coverage, task};
use crate::TokenId;
use crate::index::ngrams::Symbol;
use crate::index::view::TaskView;
use crate::mixture::candidates::Candidates;
use crate::mixture::evidence::Evidence;
use crate::mixture::features::{Columns, END};
use crate::mixture::features::{Distribution, Source};
use crate::mixture::mixer::Mixer;
use crate::online::served::IndexedRows;

/// A chain in the making: where it stands, and what its next token may be.
#[derive(Debug, Default)]
pub(super) struct DraftScratch {
    pub(super) place: DraftPosition,
    pub(super) evidence: Evidence,
    pub(super) candidates: Candidates,
    /// What the mixture makes of the candidates.
    pub(super) probabilities: Vec<f32>,
    /// Of the task's candidates.
    symbols: Vec<(TokenId, Symbol)>,
    matches: Vec<(u32, TokenId, f32)>,
}

/// All memory that no draft is using.
#[derive(Debug, Default)]
pub(super) struct ScratchPool(Mutex<Vec<DraftScratch>>);

impl ScratchPool {
    /// Runs `f` with memory of its own; what stood in it is of no account.
    pub(super) fn lend<T>(&self, f: impl FnOnce(&mut DraftScratch) -> T) -> T {
        let mut scratch = self.free().pop().unwrap_or_default();
        let made = f(&mut scratch);
        self.free().push(scratch);
        made
    }

    fn free(&self) -> MutexGuard<'_, Vec<DraftScratch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DraftScratch {
    /// Asks every source; candidates get rows of these columns.
    pub(super) fn gather(&mut self, request: &Request, view: &TaskView<'_>, served: &IndexedRows, columns: Columns) {
        let Self { place, symbols, matches, evidence, candidates, .. } = self;
        let on = |source| !request.without.has(source);
        evidence.clear();
        if on(Source::Task) {
            evidence.orders[0] = task::blend(&view.ngrams, &mut place.cursor, &mut evidence[Distribution::Task]);
            symbols.clear();
            for c in &mut evidence[Distribution::Task].candidates {
                let symbol = c.0;
                c.0 = view.ngrams.token(symbol).unwrap_or(END);
                symbols.push((c.0, symbol));
            }
            if !served.is_empty() {
                let order = served.blend(&place.served, matches, &mut evidence.served);
                evidence.join_served(order);
            }
        }
        if on(Source::Context) {
            evidence.orders[1] = request.context.blend(&place.context, matches, &mut evidence[Distribution::Context]);
        }
        if let Some(rows) = &view.rows {
            if on(Source::Retrieved) {
                evidence.orders[2] =
                    request.retrieved.blend(&place.retrieved, matches, &mut evidence[Distribution::Retrieved]);
                evidence.similarity = request.retrieved.similarity();
            }
            evidence.agreed = evidence.agree() && !rows.copies.is_ambiguous(&place.tail, place.copy_state.waiting());
            if on(Source::Coverage) && !evidence.agreed {
                coverage::blend(
                    &rows.copies,
                    &place.tail,
                    place.copy_state.waiting(),
                    &mut evidence[Distribution::Coverage],
                );
                coverage::ahead(
                    &rows.copies,
                    &place.tail,
                    request.source.next(&place.copy_state),
                    &mut evidence[Distribution::Ahead],
                );
            }
            if on(Source::Copy) {
                let [task, retrieved, ..] = &evidence.blends;
                let expects = |token| task.probability(token) + retrieved.probability(token);
                request.source.gather(
                    &rows.copies,
                    &place.copy_state,
                    &place.tail,
                    expects,
                    !evidence.agreed,
                    &mut evidence.copy,
                );
            }
        }
        evidence.mismatch_rate = place.mismatch_rate;
        let copies = view.rows.filter(|_| on(Source::Copy) && !evidence.agreed).map(|r| r.copies);
        candidates
            .gather(evidence, columns, |token| copies.map_or(0.0, |c| (1.0 - c.token_rate(token)).max(1e-3).ln()));
    }

    /// The chain goes on by a token.
    pub(super) fn step(&mut self, request: &Request, view: &TaskView<'_>, served: &IndexedRows, token: TokenId) {
        let place = &mut self.place;
        let before = place.cursor.order(&view.ngrams);
        let known = self.symbols.iter().find(|s| s.0 == token).map(|s| s.1);
        place.cursor.advance_front(&view.ngrams, known.or_else(|| view.ngrams.symbol(token)));
        record_mismatch(&mut place.mismatch_rate[0], place.cursor.order(&view.ngrams) <= before);
        place.cursor.prefetch(&view.ngrams);
        place.context.advance(&request.context, token, MAX_FOLLOWED);
        place.follow(&request.source, &request.retrieved, served, request.without, token);
        place.cursor.prefetch_summaries(&view.ngrams);
    }

    /// The most probable candidate: (token, probability). Ties: the one named first.
    pub(super) fn likeliest(&mut self, mixer: &Mixer) -> Option<(TokenId, f32)> {
        mixer.mix(&self.candidates.rows, &self.candidates.states, &mut self.probabilities);
        let scored = self.candidates.tokens.iter().copied().zip(self.probabilities.iter().copied());
        scored.reduce(|a, b| if b.1 > a.1 { b } else { a })
    }
}
