//! What the mixer sees: candidates of all sources, a row of features each, and the states that pick the weights.

use super::blend::Blend;
use super::mixtures::Source;
use super::sources::copy::{Continuation, Offer, Said};
use crate::TokenId;

/// Columns of a feature row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Column {
    /// Log-probability by the task's n-grams.
    Task,
    /// … by the retrieved outputs.
    Retrieved,
    /// … by the running context.
    Context,
    /// … by coverage.
    Coverage,
    /// … by the word that waits next.
    Ahead,
    /// The task's n-grams do not name it.
    NoTask,
    /// The retrieved outputs do not name it.
    NoRetrieved,
    /// The context does not name it.
    NoContext,
    /// Coverage does not name it.
    NoCoverage,
    /// The word that waits next does not name it.
    NoAhead,
    /// The last row: "something else".
    Else,
    /// A copy may begin with it.
    Starts,
    /// Log-probability of that by the word to the left.
    Pointer,
    /// Log of how often that word is copied.
    Rate,
    /// That word is next in order.
    InOrder,
    /// A copy with its blank may begin with it.
    Spaced,
    /// It goes on with a word half copied.
    Inside,
    /// Log of one more than the tokens copied so far, inside a word.
    InsideLength,
    /// It goes on with the next word.
    Between,
    /// Log of one more than the tokens copied so far, between words.
    BetweenLength,
    /// Log-odds that a copy goes on from this word to the next.
    GoesOn,
    /// It leaves a word half copied.
    Leaves,
    /// Log-probability that a copy ends before the next word, for what does not go on.
    Ends,
    /// Log-probability that a copy begins here, for what begins one.
    Begins,
    /// Log-probability that none begins here, for what does not.
    BeginsNot,
    /// Log of how often this token is not copied where it occurs, for what is no copy.
    Foreign,
}

/// Features per candidate.
pub const FEATURES: usize = Column::Foreign as usize + 1;

/// States of each group: longest match in the task, in the context, in the retrieved outputs; the copy under way; how
/// near the nearest row is.
pub const GROUPS: [usize; 8] = [8, 8, 8, 5, 6, 6, 6, 2];

/// The candidate "the output ends here without a token".
pub const END: TokenId = TokenId::MAX;

/// Least probability that a log is taken of.
const TINY: f32 = 1e-5;
const LN_TINY: f32 = -11.512_925;

/// Share of probability below which n-grams leave no doubt.
const DOUBT: f32 = 0.02;

/// Share of probability below which another source's doubt does not count.
const OBJECTION: f32 = 0.05;

/// Longest match in the context from which on its doubt counts.
const HEARD: u32 = 8;

/// Candidates taken of a source at most.
const TAKEN: usize = 8;

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

/// Candidates with their features. The last row is "something else" and has no token.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Candidate tokens.
    pub tokens: Vec<TokenId>,
    /// `FEATURES` per token, then one more row.
    pub rows: Vec<f32>,
    /// State of each group.
    pub states: [u8; GROUPS.len()],
}

impl Candidates {
    /// Joins what the sources say.
    pub fn gather(&mut self, seen: &Evidence, foreign: impl Fn(TokenId) -> f32) {
        self.tokens.clear();
        self.rows.clear();
        let taken = if seen.agreed { 1 } else { TAKEN };
        let blends = [&seen.task, &seen.retrieved, &seen.context, &seen.coverage, &seen.ahead];
        for blend in blends {
            for &(token, _) in blend.candidates.iter().take(taken) {
                self.add(token);
            }
        }
        seen.copy.continuations.iter().for_each(|c| self.add(c.token));
        seen.copy.offers.iter().for_each(|o| self.add(o.token));
        let longest = seen.copy.continuations.first();
        let mut other = [0.0; FEATURES]; // of what is no copy
        other[Column::Leaves as usize] = flag(longest.is_some_and(|c| !c.between));
        other[Column::Ends as usize] = longest.filter(|c| c.between).map_or(0.0, |_| (1.0 - seen.copy.goes_on).ln());
        if seen.copy.known {
            other[Column::BeginsNot as usize] = (1.0 - seen.copy.begins).max(1e-3).ln();
        }
        for &token in &self.tokens {
            let continuation = seen.copy.continuations.iter().find(|c| c.token == token);
            let offer = seen.copy.offers.iter().find(|o| o.token == token);
            let mut row = [0.0; FEATURES];
            if continuation.is_none() && offer.is_none() {
                row = other;
                row[Column::Foreign as usize] = foreign(token);
            }
            for (k, blend) in blends.into_iter().enumerate().filter(|b| !b.1.candidates.is_empty()) {
                let p = blend.probability(token);
                row[Column::Task as usize + k] = ln(p);
                row[Column::NoTask as usize + k] = flag(p == 0.0);
            }
            if let Some(c) = continuation {
                continues(&mut row, c, seen.copy.goes_on);
            } else if let Some(offer) = offer {
                offers(&mut row, offer, &seen.copy);
                row[Column::Leaves as usize] = other[Column::Leaves as usize];
                row[Column::Ends as usize] = other[Column::Ends as usize];
            }
            self.rows.extend(row);
        }
        other[Column::Else as usize] = 1.0;
        for (k, blend) in blends.into_iter().enumerate().filter(|b| !b.1.candidates.is_empty()) {
            other[Column::Task as usize + k] = ln(blend.rest);
        }
        self.rows.extend(other);
        let [task, context, retrieved] = seen.orders.map(bucket);
        let [left_task, left_retrieved] = seen.breaks.map(break_state);
        let (copy, similarity) = (copy_state(&seen.copy), similarity_state(seen.similarity));
        let agreed = u8::from(seen.agreed);
        self.states = [task, context, retrieved, copy, similarity, left_task, left_retrieved, agreed];
    }

    fn add(&mut self, token: TokenId) {
        if !self.tokens.contains(&token) {
            self.tokens.push(token);
        }
    }
}

fn continues(row: &mut [f32; FEATURES], c: &Continuation, goes_on: f32) {
    let (flag, length) =
        if c.between { (Column::Between, Column::BetweenLength) } else { (Column::Inside, Column::InsideLength) };
    row[flag as usize] = 1.0;
    row[length as usize] = (1.0 + c.matched as f32).ln();
    if c.between {
        row[Column::GoesOn as usize] = (goes_on / (1.0 - goes_on)).ln();
    }
}

fn offers(row: &mut [f32; FEATURES], offer: &Offer, said: &Said) {
    row[Column::Begins as usize] = if said.known { said.begins.max(1e-3).ln() } else { 0.0 };
    row[Column::Starts as usize] = 1.0;
    row[Column::Pointer as usize] = offer.pointer + 4.0;
    row[Column::Rate as usize] = offer.rate;
    row[Column::InOrder as usize] = flag(offer.in_order);
    row[Column::Spaced as usize] = flag(offer.spaced);
}

fn copy_state(said: &Said) -> u8 {
    match said.continuations.first() {
        None => u8::from(said.known),
        Some(c) if c.between => 2,
        Some(c) => 3 + u8::from(c.matched > 1),
    }
}

fn break_state(breaks: f32) -> u8 {
    match breaks {
        b if b < 0.05 => 0,
        b if b < 0.4 => 1,
        b if b < 0.9 => 2,
        b if b < 1.8 => 3,
        b if b < 3.5 => 4,
        _ => 5,
    }
}

fn similarity_state(similarity: f32) -> u8 {
    match similarity {
        s if s <= 0.0 => 0,
        s if s < 0.3 => 1,
        s if s < 0.5 => 2,
        s if s < 0.7 => 3,
        s if s < 0.9 => 4,
        _ => 5,
    }
}

fn bucket(order: u32) -> u8 {
    match order {
        0 => 0,
        1 => 1,
        2..=3 => 2,
        4..=7 => 3,
        8..=15 => 4,
        16..=31 => 5,
        32..=63 => 6,
        _ => 7,
    }
}

/// Natural logarithm of p + TINY to three digits, which is what evidence is good for; the same bits on every machine.
fn ln(p: f32) -> f32 {
    if p <= 0.0 {
        return LN_TINY;
    }
    let bits = (p + TINY).to_bits();
    let exponent = (bits >> 23).cast_signed() - 127;
    let m = f32::from_bits(bits & 0x007F_FFFF | 0x3F80_0000); // 1 ..= 2
    // ln m = 2·artanh s with s = (m − 1) / (m + 1), up to s⁷
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    exponent as f32 * std::f32::consts::LN_2 + 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (0.2 + q / 7.0)))
}

fn flag(b: bool) -> f32 {
    f32::from(u8::from(b))
}
