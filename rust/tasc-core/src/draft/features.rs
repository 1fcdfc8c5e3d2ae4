//! What the mixer sees: candidates of all sources, a row of features each, and the state that picks the weights.

use super::blend::Blend;
use crate::TokenId;

/// Features per candidate: for each of two sources the log-probability and a flag "it does not name this token",
/// and a flag for the last row, "something else".
pub const FEATURES: usize = 5;

/// Buckets of a source's longest match.
const BUCKETS: usize = 6;

/// Number of states: longest match in the task × longest match in the context.
pub const STATES: usize = BUCKETS * BUCKETS;

/// The candidate "the output ends here without a token".
pub const END: TokenId = TokenId::MAX;

/// Least probability that a log is taken of.
const TINY: f32 = 1e-5;
const LN_TINY: f32 = -11.512_925;

/// Candidates with their features. The last row is "something else" and has no token.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Candidate tokens.
    pub tokens: Vec<TokenId>,
    /// `FEATURES` per token, then one more row.
    pub rows: Vec<f32>,
    /// Which weight vector applies.
    pub state: usize,
}

impl Candidates {
    /// Joins what the sources say. Both blends are over tokens.
    pub fn gather(&mut self, task: &Blend, task_order: u32, context: &Blend, context_order: u32) {
        self.tokens.clear();
        self.rows.clear();
        for &(token, p) in &task.candidates {
            let q = context.probability(token);
            self.push(token, [ln(p), ln(q), 0.0, flag(q == 0.0), 0.0]);
        }
        for &(token, q) in &context.candidates {
            if !task.candidates.iter().any(|c| c.0 == token) {
                self.push(token, [ln(0.0), ln(q), 1.0, 0.0, 0.0]);
            }
        }
        self.rows.extend([ln(task.rest), ln(context.rest), 0.0, 0.0, 1.0]);
        self.state = bucket(task_order) * BUCKETS + bucket(context_order);
    }

    fn push(&mut self, token: TokenId, row: [f32; FEATURES]) {
        self.tokens.push(token);
        self.rows.extend(row);
    }
}

fn bucket(order: u32) -> usize {
    match order {
        0 => 0,
        1 => 1,
        2..=3 => 2,
        4..=7 => 3,
        8..=15 => 4,
        _ => 5,
    }
}

fn ln(p: f32) -> f32 {
    if p > 0.0 { (p + TINY).ln() } else { LN_TINY }
}

fn flag(b: bool) -> f32 {
    f32::from(u8::from(b))
}
