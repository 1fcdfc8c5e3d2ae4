//! Evidence of all sources as the mixer reads it: candidates, a row of features each, and states.

use super::blend::Blend;
use super::evidence::{Continuation, CopyEvidence, CopyStart, Evidence};
use super::features::{Column, Columns, Distribution, FEATURES, GROUPS, NO_INPUT_COLUMNS};
use crate::TokenId;

/// Least probability that a log is taken of.
const MIN_PROBABILITY: f32 = 1e-5;
const LN_MIN_PROBABILITY: f32 = -11.512_925;

/// Candidates taken of a source at most.
const MAX_CANDIDATES_PER_SOURCE: usize = 8;

/// Candidates with their features. The last row is "something else" and has no token.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Candidate tokens.
    pub tokens: Vec<TokenId>,
    /// A row per token, then one more.
    pub rows: Vec<f32>,
    /// State of each group.
    pub states: [u8; GROUPS.len()],
}

impl Candidates {
    /// Joins the evidence of all sources, in rows of these columns; `foreign` is [`Column::Foreign`] of a token.
    pub fn gather(&mut self, seen: &Evidence, columns: Columns, foreign: impl Fn(TokenId) -> f32) {
        self.name(seen);
        self.rows.clear();
        match columns {
            Columns::All => self.describe(seen, foreign),
            Columns::NoInput => self.describe_plain(seen),
        }
        let [task, context, retrieved] = seen.orders.map(bucket);
        let [left_task, left_retrieved] = seen.mismatch_rate.map(mismatch_state);
        let (copy, similarity) = (copy_state(&seen.copy), similarity_state(seen.similarity));
        let agreed = u8::from(seen.agreed);
        self.states = [task, context, retrieved, copy, similarity, left_task, left_retrieved, agreed];
    }

    fn name(&mut self, seen: &Evidence) {
        self.tokens.clear();
        let taken = if seen.agreed { 1 } else { MAX_CANDIDATES_PER_SOURCE };
        let [first, others @ ..] = &seen.blends;
        self.tokens.extend(first.candidates.iter().take(taken).map(|c| c.0)); // names no token twice
        for blend in others {
            for &(token, _) in blend.candidates.iter().take(taken) {
                self.add(token);
            }
        }
        seen.copy.continuations.iter().for_each(|c| self.add(c.token));
        seen.copy.starts.iter().for_each(|o| self.add(o.token));
    }

    fn describe(&mut self, seen: &Evidence, foreign: impl Fn(TokenId) -> f32) {
        let blends = &seen.blends;
        let longest = seen.copy.continuations.first();
        let mut other = [0.0; FEATURES]; // of what is no copy
        other[Column::Leaves as usize] = flag(longest.is_some_and(|c| !c.between));
        other[Column::Ends as usize] =
            longest.filter(|c| c.between).map_or(0.0, |_| (1.0 - seen.copy.continue_probability).ln());
        if seen.copy.known {
            other[Column::BeginsNot as usize] = (1.0 - seen.copy.begins).max(1e-3).ln();
        }
        for &token in &self.tokens {
            let continuation = seen.copy.continuations.iter().find(|c| c.token == token);
            let offer = seen.copy.starts.iter().find(|o| o.token == token);
            let mut row = [0.0; FEATURES];
            if continuation.is_none() && offer.is_none() {
                row = other;
                row[Column::Foreign as usize] = foreign(token);
            }
            for (blend, [log, unnamed]) in blends.iter().zip(Distribution::ALL.map(Distribution::columns)) {
                [row[log as usize], row[unnamed as usize]] = blend_features(blend, token);
            }
            if let Some(c) = continuation {
                describe_continuation(&mut row, c, seen.copy.continue_probability);
            } else if let Some(offer) = offer {
                describe_start(&mut row, offer, &seen.copy);
                row[Column::Leaves as usize] = other[Column::Leaves as usize];
                row[Column::Ends as usize] = other[Column::Ends as usize];
            }
            self.rows.extend(row);
        }
        other[Column::Else as usize] = 1.0;
        for (blend, [log, _]) in blends.iter().zip(Distribution::ALL.map(Distribution::columns)) {
            other[log as usize] = unnamed_feature(blend);
        }
        self.rows.extend(other);
    }

    fn describe_plain(&mut self, seen: &Evidence) {
        let kinds = Distribution::ALL.into_iter().filter(|kind| !kind.source().needs_input());
        let mut row = [0.0; FEATURES];
        for &token in &self.tokens {
            for kind in kinds.clone() {
                let [log, unnamed] = kind.columns();
                [row[log as usize], row[unnamed as usize]] = blend_features(&seen[kind], token);
            }
            self.rows.extend(NO_INPUT_COLUMNS.map(|column| row[column as usize]));
        }
        row = [0.0; FEATURES];
        row[Column::Else as usize] = 1.0;
        for kind in kinds {
            row[kind.columns()[0] as usize] = unnamed_feature(&seen[kind]);
        }
        self.rows.extend(NO_INPUT_COLUMNS.map(|column| row[column as usize]));
    }

    fn add(&mut self, token: TokenId) {
        if !self.tokens.contains(&token) {
            self.tokens.push(token);
        }
    }
}

/// Log-probability of a token, and whether it is not named; nothing of a source that is silent.
fn blend_features(blend: &Blend, token: TokenId) -> [f32; 2] {
    if blend.candidates.is_empty() {
        return [0.0; 2];
    }
    let p = blend.probability(token);
    [ln(p), flag(p == 0.0)]
}

/// Log-probability of what a source does not name.
fn unnamed_feature(blend: &Blend) -> f32 {
    if blend.candidates.is_empty() { 0.0 } else { ln(blend.rest) }
}

fn describe_continuation(row: &mut [f32; FEATURES], c: &Continuation, continue_probability: f32) {
    let (flag, length) =
        if c.between { (Column::Between, Column::BetweenLength) } else { (Column::Inside, Column::InsideLength) };
    row[flag as usize] = 1.0;
    row[length as usize] = (1.0 + c.matched as f32).ln();
    if c.between {
        row[Column::GoesOn as usize] = (continue_probability / (1.0 - continue_probability)).ln();
    }
}

fn describe_start(row: &mut [f32; FEATURES], offer: &CopyStart, copy: &CopyEvidence) {
    row[Column::Begins as usize] = if copy.known { copy.begins.max(1e-3).ln() } else { 0.0 };
    row[Column::Starts as usize] = 1.0;
    row[Column::Pointer as usize] = offer.pointer + 4.0;
    row[Column::Rate as usize] = offer.rate;
    row[Column::InOrder as usize] = flag(offer.in_order);
    row[Column::Spaced as usize] = flag(offer.spaced);
}

fn copy_state(copy: &CopyEvidence) -> u8 {
    match copy.continuations.first() {
        None => u8::from(copy.known),
        Some(c) if c.between => 2,
        Some(c) => 3 + u8::from(c.matched > 1),
    }
}

fn mismatch_state(rate: f32) -> u8 {
    [0.05, 0.4, 0.9, 1.8, 3.5].map(|limit| u8::from(rate >= limit)).iter().sum()
}

fn similarity_state(similarity: f32) -> u8 {
    [0.3, 0.5, 0.7, 0.9].map(|limit| u8::from(similarity >= limit)).iter().sum::<u8>() + u8::from(similarity > 0.0)
}

/// Number of binary digits of the order, at most 7.
fn bucket(order: u32) -> u8 {
    (u32::BITS - order.leading_zeros()).min(7) as u8
}

/// Natural logarithm of p + MIN_PROBABILITY to three digits, which is what evidence is good for; the same bits on every machine.
fn ln(p: f32) -> f32 {
    if p <= 0.0 {
        return LN_MIN_PROBABILITY;
    }
    let bits = (p + MIN_PROBABILITY).to_bits();
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
