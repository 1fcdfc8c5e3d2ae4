//! What the mixer saw at the tokens of a draft, kept until verification says which were right.

use crate::TokenId;
use crate::mixture::candidates::Candidates;
use crate::mixture::features::{GROUPS, NO_INPUT_COLUMNS};

/// What was seen at every token of a draft.
#[derive(Clone, Debug, Default)]
pub struct DraftTrace {
    tokens: Vec<TokenId>,
    rows: Vec<f32>,
    probabilities: Vec<f32>,
    /// (end in `tokens`, end in `rows`, end in `probabilities`), states, and the best candidate's probability.
    ends: Vec<([usize; 3], [u8; GROUPS.len()], f32)>,
}

/// What was seen at one token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation<'a> {
    /// The candidates.
    pub tokens: &'a [TokenId],
    /// Their feature rows and that of "something else".
    pub rows: &'a [f32],
    /// The mixture's probability of each row.
    pub probabilities: &'a [f32],
    /// The state of each group.
    pub states: &'a [u8],
    /// The mixture's probability of the token drafted.
    pub best: f32,
}

impl DraftTrace {
    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.rows.clear();
        self.probabilities.clear();
        self.ends.clear();
    }

    /// Makes room for so many tokens with few candidates each: one step in place of many small ones.
    pub fn reserve(&mut self, tokens: usize) {
        self.tokens.reserve(4 * tokens);
        self.rows.reserve(5 * NO_INPUT_COLUMNS.len() * tokens);
        self.probabilities.reserve(5 * tokens);
        self.ends.reserve(tokens);
    }

    /// One token further.
    pub fn push(&mut self, candidates: &Candidates, probabilities: &[f32], best: f32) {
        self.tokens.extend_from_slice(&candidates.tokens);
        self.rows.extend_from_slice(&candidates.rows);
        self.probabilities.extend_from_slice(probabilities);
        let ends = [self.tokens.len(), self.rows.len(), self.probabilities.len()];
        self.ends.push((ends, candidates.states, best));
    }

    /// What was seen at token `k`; nothing past the last.
    #[must_use]
    pub fn get(&self, k: usize) -> Observation<'_> {
        let Some((to, states, best)) = self.ends.get(k) else { return Observation::default() };
        let from = k.checked_sub(1).and_then(|before| self.ends.get(before)).map_or([0; 3], |e| e.0);
        Observation {
            tokens: &self.tokens[from[0]..to[0]],
            rows: &self.rows[from[1]..to[1]],
            probabilities: &self.probabilities[from[2]..to[2]],
            states,
            best: *best,
        }
    }
}
