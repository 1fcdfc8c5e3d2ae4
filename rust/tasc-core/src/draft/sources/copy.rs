//! Evidence from the words of the input: copies under way, and words that a copy may begin with now.

use crate::TokenId;
use crate::index::copies::{self, CopyModel};
use crate::mixture::evidence::{Continuation, CopyEvidence, CopyStart};
use crate::text::source_text::Start;
use crate::text::{CopyState, SourceText};

/// Words that are offered as the beginning of a copy, the likeliest ones.
const MAX_STARTS: usize = 8;

/// A word that is copied less often than this may be passed over in order.
const MIN_ORDERED_RATE: f32 = 0.3;

/// The input of a request: its words with what the task's rows say of them.
#[derive(Clone, Debug, Default)]
pub struct CopySource {
    /// The words.
    pub source_text: SourceText,
    rates: Vec<f32>,
    usual: Vec<f32>,
}

impl CopySource {
    /// Takes up the words that `source_text` has read.
    pub fn begin(&mut self, copies: &CopyModel<'_>, copy_state: &mut CopyState) {
        let waiting = copies.usual(&self.source_text, &mut self.rates, &mut self.usual);
        copy_state.reset(self.source_text.len(), waiting);
    }

    /// The word that waits next to be copied and the word to its left.
    #[must_use]
    pub fn next(&self, copy_state: &CopyState) -> (u64, u64) {
        copies::next(&self.source_text, copy_state, &self.rates)
    }

    /// The output grows by a token.
    pub fn advance(&self, copy_state: &mut CopyState, token: TokenId) {
        copy_state.push(&self.source_text, &self.usual, token);
    }

    /// Fills `said` for an output that ends in `tail`; `expects` says how likely other sources find a token, `offering`
    /// whether words that a copy may begin with are looked for.
    ///
    /// # Complexity
    /// O(words · followers of the tail) where copies are known to begin, O(copies under way) elsewhere.
    pub fn gather(
        &self,
        copies: &CopyModel<'_>,
        copy_state: &CopyState,
        tail: &[TokenId],
        expects: impl Fn(TokenId) -> f32,
        offering: bool,
        evidence: &mut CopyEvidence,
    ) {
        evidence.continuations.clear();
        for copy in copy_state.active() {
            let Some(token) = self.source_text.token(copy.place) else { continue };
            let between = self.source_text.is_between(copy.place);
            let found = Continuation { token, matched: copy.matched, between, place: copy.place };
            match evidence.continuations.iter_mut().find(|c| c.token == token) {
                Some(c) if c.matched < copy.matched => *c = found,
                Some(_) => {}
                None => evidence.continuations.push(found),
            }
        }
        evidence.continuations.sort_by_key(|c| std::cmp::Reverse(c.matched));
        evidence.continue_probability = match evidence.continuations.first() {
            Some(c) if c.between => self.continue_probability(copies, self.source_text.word(c.place)),
            _ => 0.5,
        };
        if offering {
            self.gather_starts(copies, copy_state, tail, expects, evidence);
        }
    }

    fn continue_probability(&self, copies: &CopyModel<'_>, word: u32) -> f32 {
        let [pair, alone] = copies.continued(self.source_text.left(word), self.source_text.key(word));
        let rate = self.rate(word);
        let blend = |p: f32, (went, could): (u32, u32)| (went as f32 + 2.0 * p) / (could as f32 + 2.0);
        blend(blend(rate, alone), pair).clamp(0.01, 0.99)
    }

    fn rate(&self, word: u32) -> f32 {
        self.rates.get(word as usize).copied().unwrap_or(0.5)
    }

    fn gather_starts(
        &self,
        copies: &CopyModel<'_>,
        copy_state: &CopyState,
        tail: &[TokenId],
        expects: impl Fn(TokenId) -> f32,
        evidence: &mut CopyEvidence,
    ) {
        evidence.starts.clear();
        let pointers = copies.pointers(tail);
        evidence.known = pointers.known();
        evidence.begins = pointers.begins();
        if !evidence.known && !self.source_text.starts().iter().any(|s| expects(s.token) > 0.05) {
            return;
        }
        let expected = (copy_state.after()..self.words())
            .find(|&w| !copy_state.is_copied(w) && self.rate(w) >= MIN_ORDERED_RATE)
            .unwrap_or(u32::MAX);
        for &Start { token, word, spaced, .. } in self.source_text.starts() {
            if copy_state.is_copied(word) || evidence.continuations.iter().any(|c| c.token == token) {
                continue;
            }
            let offer = CopyStart {
                token,
                pointer: (pointers.left(self.source_text.left(word)) + 1e-4).ln(),
                rate: self.rate(word).max(1e-3).ln(),
                in_order: word >= copy_state.after() && word <= expected,
                spaced,
            };
            match evidence.starts.iter_mut().find(|o| o.token == token) {
                Some(o) => o.join(&offer),
                None => evidence.starts.push(offer),
            }
        }
        if evidence.starts.len() > MAX_STARTS {
            evidence.starts.select_nth_unstable_by(MAX_STARTS - 1, |a, b| b.score().total_cmp(&a.score()));
            evidence.starts.truncate(MAX_STARTS);
        }
    }

    fn words(&self) -> u32 {
        u32::try_from(self.source_text.len()).unwrap_or(u32::MAX)
    }
}
