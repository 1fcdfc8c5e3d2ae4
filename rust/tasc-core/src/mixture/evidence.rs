//! What the sources say at one place of an output.

use super::blend::Blend;
use super::weights::Source;
use crate::TokenId;
use crate::draft::sources::copy::Said;

/// Share of probability below which n-grams leave no doubt.
const DOUBT: f32 = 0.02;

/// Share of probability below which another source's doubt does not count.
const OBJECTION: f32 = 0.05;

/// Longest match in the context from which on its doubt counts.
const HEARD: u32 = 8;

/// What the sources say at one place.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Of the task's n-grams, over tokens.
    pub task: Blend,
    /// Of rows served since; they count as the task's.
    pub served: Blend,
    /// Of the retrieved outputs.
    pub retrieved: Blend,
    /// Of the running context.
    pub context: Blend,
    /// Of coverage.
    pub coverage: Blend,
    /// Of the word that waits next.
    pub ahead: Blend,
    /// Of copying.
    pub copy: Said,
    /// Longest matches: task, context, retrieved.
    pub orders: [u32; 3],
    /// Similarity of the nearest row.
    pub similarity: f32,
    /// Whether the n-grams of the task and of the retrieved outputs know one and the same next token.
    pub agreed: bool,
    /// How often the output has left what was known lately: the task's outputs, the retrieved ones.
    pub breaks: [f32; 2],
}

impl Evidence {
    /// Nothing is said yet.
    pub fn clear(&mut self) {
        for blend in [&mut self.task, &mut self.retrieved, &mut self.context, &mut self.coverage, &mut self.ahead] {
            blend.clear();
        }
        self.copy.clear();
        self.orders = [0; 3];
        self.similarity = 0.0;
        self.breaks = [0.0; 2];
        self.agreed = false;
    }

    /// The n-grams, in the order of their columns.
    pub(super) fn blends(&self) -> [&Blend; 5] {
        [&self.task, &self.retrieved, &self.context, &self.coverage, &self.ahead]
    }

    /// Counts served rows in: whichever knows the longer context speaks first, the other for what it leaves over.
    pub fn join_served(&mut self, order: u32) {
        if self.served.candidates.is_empty() {
            return;
        }
        if order > self.orders[0] {
            std::mem::swap(&mut self.task, &mut self.served);
            self.orders[0] = order;
        }
        self.task.back_off_to(&self.served);
    }

    /// Whether n-grams leave no doubt: most places are like that, and need no other evidence.
    #[must_use]
    pub fn agree(&self) -> bool {
        let Some(&(token, p)) = self.task.candidates.first() else { return false };
        let objection = |blend: &Blend| blend.candidates.iter().filter(|c| c.0 != token).map(|c| c.1).sum::<f32>();
        let [_, context, _] = self.orders;
        p > 1.0 - DOUBT
            && objection(&self.retrieved) < OBJECTION
            && (context < HEARD || objection(&self.context) < OBJECTION)
    }

    /// What each source makes of a token: its probability, 0 where it does not name it.
    #[must_use]
    pub fn said(&self, token: TokenId) -> [(Source, f32); Source::ALL.len()] {
        [
            (Source::Task, self.task.probability(token)),
            (Source::Context, self.context.probability(token)),
            (Source::Retrieved, self.retrieved.probability(token)),
            (Source::Coverage, self.coverage.probability(token).max(self.ahead.probability(token))),
            (Source::Copy, self.copy.probability(token)),
        ]
    }

    /// The source that found a token likeliest.
    #[must_use]
    pub fn speaker(&self, token: TokenId) -> Source {
        self.said(token).into_iter().reduce(|a, b| if b.1 > a.1 { b } else { a }).map_or(Source::Task, |s| s.0)
    }
}
