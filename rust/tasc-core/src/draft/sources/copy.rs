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
    pub surface: SourceText,
    rates: Vec<f32>,
    usual: Vec<f32>,
}

impl CopySource {
    /// Takes up the words that `surface` has read.
    pub fn begin(&mut self, copies: &CopyModel<'_>, copying: &mut CopyState) {
        let waiting = copies.usual(&self.surface, &mut self.rates, &mut self.usual);
        copying.reset(self.surface.len(), waiting);
    }

    /// The word that waits next to be copied and the word to its left.
    #[must_use]
    pub fn next(&self, copying: &CopyState) -> (u64, u64) {
        copies::next(&self.surface, copying, &self.rates)
    }

    /// The output grows by a token.
    pub fn advance(&self, copying: &mut CopyState, token: TokenId) {
        copying.push(&self.surface, &self.usual, token);
    }

    /// Fills `said` for an output that ends in `tail`; `expects` says how likely other sources find a token, `offering`
    /// whether words that a copy may begin with are looked for.
    ///
    /// # Complexity
    /// O(words · followers of the tail) where copies are known to begin, O(copies under way) elsewhere.
    pub fn say(
        &self,
        copies: &CopyModel<'_>,
        copying: &CopyState,
        tail: &[TokenId],
        expects: impl Fn(TokenId) -> f32,
        offering: bool,
        said: &mut CopyEvidence,
    ) {
        said.continuations.clear();
        for copy in copying.active() {
            let Some(token) = self.surface.token(copy.place) else { continue };
            let between = self.surface.is_between(copy.place);
            let found = Continuation { token, matched: copy.matched, between, place: copy.place };
            match said.continuations.iter_mut().find(|c| c.token == token) {
                Some(c) if c.matched < copy.matched => *c = found,
                Some(_) => {}
                None => said.continuations.push(found),
            }
        }
        said.continuations.sort_by_key(|c| std::cmp::Reverse(c.matched));
        said.goes_on = match said.continuations.first() {
            Some(c) if c.between => self.goes_on(copies, self.surface.word(c.place)),
            _ => 0.5,
        };
        if offering {
            self.offer(copies, copying, tail, expects, said);
        }
    }

    fn goes_on(&self, copies: &CopyModel<'_>, word: u32) -> f32 {
        let [pair, alone] = copies.continued(self.surface.left(word), self.surface.key(word));
        let rate = self.rate(word);
        let blend = |p: f32, (went, could): (u32, u32)| (went as f32 + 2.0 * p) / (could as f32 + 2.0);
        blend(blend(rate, alone), pair).clamp(0.01, 0.99)
    }

    fn rate(&self, word: u32) -> f32 {
        self.rates.get(word as usize).copied().unwrap_or(0.5)
    }

    fn offer(
        &self,
        copies: &CopyModel<'_>,
        copying: &CopyState,
        tail: &[TokenId],
        expects: impl Fn(TokenId) -> f32,
        said: &mut CopyEvidence,
    ) {
        said.offers.clear();
        let pointers = copies.pointers(tail);
        said.known = pointers.known();
        said.begins = pointers.begins();
        if !said.known && !self.surface.starts().iter().any(|s| expects(s.token) > 0.05) {
            return;
        }
        let expected = (copying.after()..self.words())
            .find(|&w| !copying.is_copied(w) && self.rate(w) >= MIN_ORDERED_RATE)
            .unwrap_or(u32::MAX);
        for &Start { token, word, spaced, .. } in self.surface.starts() {
            if copying.is_copied(word) || said.continuations.iter().any(|c| c.token == token) {
                continue;
            }
            let offer = CopyStart {
                token,
                pointer: (pointers.left(self.surface.left(word)) + 1e-4).ln(),
                rate: self.rate(word).max(1e-3).ln(),
                in_order: word >= copying.after() && word <= expected,
                spaced,
            };
            match said.offers.iter_mut().find(|o| o.token == token) {
                Some(o) => o.join(&offer),
                None => said.offers.push(offer),
            }
        }
        if said.offers.len() > MAX_STARTS {
            said.offers.select_nth_unstable_by(MAX_STARTS - 1, |a, b| b.score().total_cmp(&a.score()));
            said.offers.truncate(MAX_STARTS);
        }
    }

    fn words(&self) -> u32 {
        u32::try_from(self.surface.len()).unwrap_or(u32::MAX)
    }
}
