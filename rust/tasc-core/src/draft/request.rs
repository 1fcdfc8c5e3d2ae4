//! One running request: its context, its input, where its output stands in every source, and its draft.

use super::sources::copy;
use super::sources::retrieved::Retrieved;
use super::trace::DraftTrace;
use crate::TokenId;
use crate::index::Cursor;
use crate::index::copies::TAIL;
use crate::index::view::TaskView;
use crate::mixture::features::{Source, SourceMask};
use crate::online::sequence_index::{Matches, SequenceIndex};
use crate::online::served::IndexedRows;
use crate::text::CopyState;

/// Places of the running context followed at a time.
pub const MAX_FOLLOWED: usize = 16;

/// Factor by which each token decays the mismatch rate before it.
const MISMATCH_DECAY: f32 = 0.98;

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

/// One running request: its context, its input, its place in the task's index, and its draft.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub(super) context: SequenceIndex,
    pub(super) retrieved: Retrieved,
    pub(super) source: copy::CopySource,
    pub(super) without: SourceMask,
    /// That of the served rows which `place` speaks of.
    pub(super) epoch: u64,
    pub(super) place: DraftPosition,
    pub(super) draft: Draft,
    /// What the mixer saw at each drafted token.
    pub(super) trace: DraftTrace,
    pub(super) cost: f64,
}

/// Where an output stands in every source.
#[derive(Clone, Debug, Default)]
pub(super) struct DraftPosition {
    pub(super) cursor: Cursor,
    pub(super) context: Matches,
    pub(super) retrieved: Matches,
    pub(super) served: Matches,
    pub(super) copy_state: CopyState,
    /// The last tokens of the output.
    pub(super) tail: Vec<TokenId>,
    /// How often the output has left the task's outputs, and the retrieved ones, lately.
    pub(super) mismatch_rate: [f32; 2],
}

impl Request {
    /// The rows retrieved for it.
    #[must_use]
    pub fn retrieved(&self) -> &Retrieved {
        &self.retrieved
    }

    /// Forgets its place among served rows that are gone.
    pub(super) fn sync_online_rows(&mut self, served: &IndexedRows) {
        if self.epoch != served.epoch() {
            self.place.served.clear();
            self.epoch = served.epoch();
        }
    }

    /// The output goes on by what verification has emitted.
    pub(super) fn advance(&mut self, view: &TaskView<'_>, served: &IndexedRows, emitted: &[TokenId]) {
        for &token in emitted {
            let Self { source, retrieved, place, without, .. } = self;
            let before = place.cursor.order(&view.ngrams);
            place.cursor.advance(&view.ngrams, view.ngrams.symbol(token));
            record_mismatch(&mut place.mismatch_rate[0], place.cursor.order(&view.ngrams) <= before);
            place.follow(source, retrieved, served, *without, token);
        }
        self.context.extend(emitted, &mut self.place.context, MAX_FOLLOWED);
    }
}

impl DraftPosition {
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.cursor.copy_from(&other.cursor);
        self.context.copy_from(&other.context);
        self.retrieved.copy_from(&other.retrieved);
        self.served.copy_from(&other.served);
        self.copy_state.copy_from(&other.copy_state);
        self.tail.clone_from(&other.tail);
        self.mismatch_rate = other.mismatch_rate;
    }

    /// What depends on the input, or on served rows, goes on by a token of the output.
    pub(super) fn follow(
        &mut self,
        source: &copy::CopySource,
        retrieved: &Retrieved,
        served: &IndexedRows,
        without: SourceMask,
        token: TokenId,
    ) {
        served.advance(&mut self.served, token);
        if !without.has(Source::Retrieved) {
            let before = self.retrieved.order();
            retrieved.advance(&mut self.retrieved, token);
            record_mismatch(&mut self.mismatch_rate[1], self.retrieved.order() <= before);
        }
        if !(without.has(Source::Copy) && without.has(Source::Coverage)) {
            source.advance(&mut self.copy_state, token);
            if self.tail.len() == TAIL {
                self.tail.remove(0);
            }
            self.tail.push(token);
        }
    }
}

/// One token further: a match broke or did not.
pub(super) fn record_mismatch(mismatch_rate: &mut f32, broken: bool) {
    *mismatch_rate = *mismatch_rate * MISMATCH_DECAY + f32::from(u8::from(broken));
}

impl Draft {
    pub(super) fn clear(&mut self) {
        self.truncate(0);
    }

    pub(super) fn reserve(&mut self, tokens: usize) {
        self.tokens.reserve(tokens);
        self.probabilities.reserve(tokens);
        self.sources.reserve(tokens);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.probabilities.truncate(len);
        self.sources.truncate(len);
    }
}
