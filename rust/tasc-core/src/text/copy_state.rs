//! Which words of the input an output has copied, and which copies are under way.

use super::source_text::{CopyPosition, SourceText, Start};
use crate::TokenId;

/// Copies followed at a time; a token that begins more words than this follows the first of them.
const FOLLOWED: usize = 24;

/// A copy under way.
#[derive(Clone, Copy, Debug)]
pub struct ActiveCopy {
    /// Where its next token stands.
    pub place: CopyPosition,
    /// Tokens copied so far.
    pub matched: u32,
}

/// The copies of one request.
#[derive(Clone, Debug, Default)]
pub struct CopyState {
    active: Vec<ActiveCopy>,
    spare: Vec<ActiveCopy>,
    /// Words copied, a bit each.
    copied: Vec<u64>,
    /// One past the last word copied.
    after: u32,
    /// How many words that are usually copied still wait.
    waiting: f32,
}

impl CopyState {
    /// Nothing is copied yet of an input of so many words.
    pub fn reset(&mut self, words: usize, waiting: f32) {
        self.active.clear();
        self.copied.clear();
        self.copied.resize(words.div_ceil(64), 0);
        self.after = 0;
        self.waiting = waiting;
    }

    /// Becomes a copy of `other`, re-using its memory.
    pub fn copy_from(&mut self, other: &Self) {
        self.active.clone_from(&other.active);
        self.copied.clone_from(&other.copied);
        self.after = other.after;
        self.waiting = other.waiting;
    }

    /// A copy under way.
    #[must_use]
    pub fn active(&self) -> &[ActiveCopy] {
        &self.active
    }

    /// Whether a word was copied.
    #[must_use]
    pub fn is_copied(&self, word: u32) -> bool {
        self.copied.get(word as usize / 64).is_some_and(|bits| bits >> (word % 64) & 1 == 1)
    }

    /// One past the word copied last.
    #[must_use]
    pub fn after(&self) -> u32 {
        self.after
    }

    /// How many words that are usually copied still wait.
    #[must_use]
    pub fn waiting(&self) -> f32 {
        self.waiting
    }

    /// The output grows by a token; `usual[w]` is how much word w counts as waiting.
    ///
    /// # Complexity
    /// O(copies under way + copies that begin).
    pub fn push(&mut self, source_text: &SourceText, usual: &[f32], token: TokenId) {
        let mut active = std::mem::take(&mut self.active);
        self.spare.clear();
        for copy in active.drain(..) {
            if source_text.token(copy.place) == Some(token) {
                self.advance(source_text, usual, copy);
            }
        }
        for &start in source_text.starting_with(token) {
            if self.spare.len() >= FOLLOWED {
                break;
            }
            self.begin(source_text, usual, start);
        }
        self.active = active;
        std::mem::swap(&mut self.active, &mut self.spare);
    }

    fn begin(&mut self, source_text: &SourceText, usual: &[f32], start: Start) {
        if let Some(place) = source_text.begin(start) {
            self.advance(source_text, usual, ActiveCopy { place, matched: 0 });
        }
    }

    fn advance(&mut self, source_text: &SourceText, usual: &[f32], copy: ActiveCopy) {
        let (done, place) = source_text.step(copy.place);
        for word in done {
            let (at, bit) = (word as usize / 64, 1u64 << (word % 64));
            if let Some(bits) = self.copied.get_mut(at).filter(|bits| **bits & bit == 0) {
                *bits |= bit;
                self.waiting -= usual.get(word as usize).copied().unwrap_or(0.0);
            }
            self.after = word + 1;
        }
        if let Some(place) = place {
            self.spare.push(ActiveCopy { place, matched: copy.matched.saturating_add(1) });
        }
    }
}
