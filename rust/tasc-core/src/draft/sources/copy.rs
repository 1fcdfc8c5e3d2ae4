//! Evidence from the words of the input: copies under way, and words that a copy may begin with now.

use crate::TokenId;
use crate::index::copies::{self, Copies};
use crate::text::source_text::{Place, Start};
use crate::text::{Copying, Surface};

/// Words that are offered as the beginning of a copy, the likeliest ones.
const STARTS: usize = 8;

/// A word that is copied less often than this may be passed over in order.
const SELDOM: f32 = 0.3;

/// The input of a request: its words with what the task's rows say of them.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The words.
    pub surface: Surface,
    rates: Vec<f32>,
    usual: Vec<f32>,
}

/// A token with which a copy may begin.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
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
    place: Place,
}

/// What copying says of the next token.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Copies under way, one per token, the longest first.
    pub continuations: Vec<Continuation>,
    /// Words that a copy may begin with.
    pub offers: Vec<Offer>,
    /// Probability that the longest copy, when it stands between words, takes the next word too.
    pub goes_on: f32,
    /// Whether copies were seen to begin after such a tail.
    pub known: bool,
    /// Probability that a copy begins after such a tail.
    pub begins: f32,
}

impl Said {
    /// Nothing is said.
    pub fn clear(&mut self) {
        self.continuations.clear();
        self.offers.clear();
        (self.goes_on, self.known, self.begins) = (0.5, false, 0.0);
    }

    /// About how likely copying finds a token: to name the source that spoke for it, not to mix it.
    #[must_use]
    pub fn probability(&self, token: TokenId) -> f32 {
        let begins = || self.offers.iter().find(|o| o.token == token).map_or(0.0, |o| (o.pointer + o.rate).exp());
        match self.continuations.iter().find(|c| c.token == token) {
            Some(c) if c.between => self.goes_on,
            Some(c) => 1.0 - 0.5 / (c.matched as f32 + 1.0),
            None => begins(),
        }
    }
}

impl Source {
    /// Takes up the words that `surface` has read.
    pub fn begin(&mut self, copies: &Copies<'_>, copying: &mut Copying) {
        let waiting = copies.usual(&self.surface, &mut self.rates, &mut self.usual);
        copying.reset(self.surface.len(), waiting);
    }

    /// The word that waits next to be copied and the word to its left.
    #[must_use]
    pub fn next(&self, copying: &Copying) -> (u64, u64) {
        copies::next(&self.surface, copying, &self.rates)
    }

    /// The output grows by a token.
    pub fn advance(&self, copying: &mut Copying, token: TokenId) {
        copying.push(&self.surface, &self.usual, token);
    }

    /// Fills `said` for an output that ends in `tail`; `expects` says how likely other sources find a token, `offering`
    /// whether words that a copy may begin with are looked for.
    ///
    /// # Complexity
    /// O(words · followers of the tail) where copies are known to begin, O(copies under way) elsewhere.
    pub fn say(
        &self,
        copies: &Copies<'_>,
        copying: &Copying,
        tail: &[TokenId],
        expects: impl Fn(TokenId) -> f32,
        offering: bool,
        said: &mut Said,
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

    fn goes_on(&self, copies: &Copies<'_>, word: u32) -> f32 {
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
        copies: &Copies<'_>,
        copying: &Copying,
        tail: &[TokenId],
        expects: impl Fn(TokenId) -> f32,
        said: &mut Said,
    ) {
        said.offers.clear();
        let pointers = copies.pointers(tail);
        said.known = pointers.known();
        said.begins = pointers.begins();
        if !said.known && !self.surface.starts().iter().any(|s| expects(s.token) > 0.05) {
            return;
        }
        let expected = (copying.after()..self.words())
            .find(|&w| !copying.is_copied(w) && self.rate(w) >= SELDOM)
            .unwrap_or(u32::MAX);
        for &Start { token, word, spaced, .. } in self.surface.starts() {
            if copying.is_copied(word) || said.continuations.iter().any(|c| c.token == token) {
                continue;
            }
            let offer = Offer {
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
        if said.offers.len() > STARTS {
            said.offers.select_nth_unstable_by(STARTS - 1, |a, b| b.score().total_cmp(&a.score()));
            said.offers.truncate(STARTS);
        }
    }

    fn words(&self) -> u32 {
        u32::try_from(self.surface.len()).unwrap_or(u32::MAX)
    }
}

impl Offer {
    fn score(&self) -> f32 {
        self.pointer + self.rate
    }

    /// Two words begin with the same token: the better evidence of each kind counts.
    fn join(&mut self, other: &Self) {
        self.pointer = self.pointer.max(other.pointer);
        self.rate = self.rate.max(other.rate);
        self.in_order |= other.in_order;
        self.spaced &= other.spaced;
    }
}
