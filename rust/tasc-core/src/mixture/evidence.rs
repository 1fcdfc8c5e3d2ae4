//! What the sources say at one place of an output.

use super::blend::Blend;
use super::features::{Distribution, Source};
use crate::TokenId;
use crate::text::source_text::CopyPosition;

/// Share of probability below which n-grams leave no doubt.
const MAX_DOUBT: f32 = 0.02;

/// Share of probability below which another source's doubt does not count.
const OBJECTION_THRESHOLD: f32 = 0.05;

/// Longest match in the context from which on its doubt counts.
const CONTEXT_MATCH_THRESHOLD: u32 = 8;

/// What the sources say at one place.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// One for each of [`Distribution::ALL`]; that of the task includes online rows.
    pub blends: [Blend; Distribution::ALL.len()],
    /// Of online rows, before they are joined with the task's.
    pub served: Blend,
    /// Of copying.
    pub copy: CopyEvidence,
    /// Longest matches: task, context, retrieved.
    pub orders: [u32; 3],
    /// Similarity of the nearest row.
    pub similarity: f32,
    /// Whether the n-grams of the task and of the retrieved outputs know one and the same next token.
    pub agreed: bool,
    /// How often the output has left what was known lately: the task's outputs, the retrieved ones.
    pub mismatch_rate: [f32; 2],
}

impl Evidence {
    /// Nothing is said yet.
    pub fn clear(&mut self) {
        self.blends.iter_mut().for_each(Blend::clear);
        self.copy.clear();
        self.orders = [0; 3];
        self.similarity = 0.0;
        self.mismatch_rate = [0.0; 2];
        self.agreed = false;
    }

    /// Counts served rows in: whichever knows the longer context speaks first, the other for what it leaves over.
    pub fn join_served(&mut self, order: u32) {
        if self.served.candidates.is_empty() {
            return;
        }
        if order > self.orders[0] {
            std::mem::swap(&mut self.blends[Distribution::Task as usize], &mut self.served);
            self.orders[0] = order;
        }
        self.blends[Distribution::Task as usize].back_off_to(&self.served);
    }

    /// Whether n-grams leave no doubt: most places are like that, and need no other evidence.
    #[must_use]
    pub fn agree(&self) -> bool {
        let Some(&(token, p)) = self[Distribution::Task].candidates.first() else { return false };
        let objection = |blend: &Blend| blend.candidates.iter().filter(|c| c.0 != token).map(|c| c.1).sum::<f32>();
        let [_, context, _] = self.orders;
        p > 1.0 - MAX_DOUBT
            && objection(&self[Distribution::Retrieved]) < OBJECTION_THRESHOLD
            && (context < CONTEXT_MATCH_THRESHOLD || objection(&self[Distribution::Context]) < OBJECTION_THRESHOLD)
    }

    /// The probability of a token by each of [`Source::ALL`], 0 where a source does not name it.
    #[must_use]
    pub fn probabilities(&self, token: TokenId) -> [(Source, f32); Source::ALL.len()] {
        let mut found = Source::ALL.map(|source| (source, 0.0f32));
        for (kind, blend) in Distribution::ALL.into_iter().zip(&self.blends) {
            let of_source = &mut found[kind.source() as usize].1;
            *of_source = of_source.max(blend.probability(token));
        }
        found[Source::Copy as usize].1 = self.copy.probability(token);
        found
    }

    /// The source that gives a token the highest probability.
    #[must_use]
    pub fn main_source(&self, token: TokenId) -> Source {
        self.probabilities(token).into_iter().reduce(|a, b| if b.1 > a.1 { b } else { a }).map_or(Source::Task, |s| s.0)
    }
}

impl std::ops::Index<Distribution> for Evidence {
    type Output = Blend;

    fn index(&self, kind: Distribution) -> &Blend {
        &self.blends[kind as usize]
    }
}

impl std::ops::IndexMut<Distribution> for Evidence {
    fn index_mut(&mut self, kind: Distribution) -> &mut Blend {
        &mut self.blends[kind as usize]
    }
}

/// A token with which a copy may begin.
#[derive(Clone, Copy, Debug)]
pub struct CopyStart {
    /// The token.
    pub token: TokenId,
    /// Log-probability that a word with this left neighbour is copied now.
    pub pointer: f32,
    /// Log of how often the word is copied.
    pub rate: f32,
    /// Whether it is the next word in order that is usually copied, or one before it.
    pub in_order: bool,
    /// Whether a blank is copied with it.
    pub spaced: bool,
}

/// A token with which a copy goes on.
#[derive(Clone, Copy, Debug)]
pub struct Continuation {
    /// The token.
    pub token: TokenId,
    /// Tokens copied so far.
    pub matched: u32,
    /// Whether the copy stands between two words.
    pub between: bool,
    pub(crate) place: CopyPosition,
}

/// What copying says of the next token.
#[derive(Clone, Debug, Default)]
pub struct CopyEvidence {
    /// Copies under way, one per token, the longest first.
    pub continuations: Vec<Continuation>,
    /// Words that a copy may begin with.
    pub starts: Vec<CopyStart>,
    /// Probability that the longest copy, when it stands between words, takes the next word too.
    pub continue_probability: f32,
    /// Whether copies were seen to begin after such a tail.
    pub known: bool,
    /// Probability that a copy begins after such a tail.
    pub begins: f32,
}

impl CopyEvidence {
    /// Nothing is said.
    pub fn clear(&mut self) {
        self.continuations.clear();
        self.starts.clear();
        (self.continue_probability, self.known, self.begins) = (0.5, false, 0.0);
    }

    /// About how likely copying finds a token: to name the source that spoke for it, not to mix it.
    #[must_use]
    pub fn probability(&self, token: TokenId) -> f32 {
        let begins = || self.starts.iter().find(|o| o.token == token).map_or(0.0, |o| (o.pointer + o.rate).exp());
        match self.continuations.iter().find(|c| c.token == token) {
            Some(c) if c.between => self.continue_probability,
            Some(c) => 1.0 - 0.5 / (c.matched as f32 + 1.0),
            None => begins(),
        }
    }
}

impl CopyStart {
    pub(crate) fn score(&self) -> f32 {
        self.pointer + self.rate
    }

    /// Two words begin with the same token: the better evidence of each kind counts.
    pub(crate) fn join(&mut self, other: &Self) {
        self.pointer = self.pointer.max(other.pointer);
        self.rate = self.rate.max(other.rate);
        self.in_order |= other.in_order;
        self.spaced &= other.spaced;
    }
}
