//! Evidence from the running request itself: its prompt and what it has generated.

use rustc_hash::FxHashMap;

use crate::TokenId;
use crate::draft::blend::Blend;

/// How many earlier places are followed at a time. Long-running matches stay; new ones are the most recent.
const FOLLOWED: usize = 24;

/// When many tokens arrive at once, matches are traced over this many of the last ones only.
const TRACED: usize = 48;

const NONE: u32 = u32::MAX;

/// The tokens of one request with every earlier occurrence of each, built as the request grows.
#[derive(Clone, Debug, Default)]
pub struct ContextIndex {
    ids: Vec<TokenId>,
    /// Previous place of the same token, or `NONE`.
    previous: Vec<u32>,
    last: FxHashMap<TokenId, u32>,
    matches: Matches,
}

/// Earlier places where the last tokens of a text occur, as (place after the match, tokens matched).
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// Longest first is *not* kept here: order is that of following, oldest match first.
    places: Vec<(u32, u32)>,
    spare: Vec<(u32, u32)>,
}

impl Matches {
    /// Becomes a copy of `other`, re-using its memory.
    pub fn copy_from(&mut self, other: &Self) {
        self.places.clone_from(&other.places);
    }

    /// Length of the longest match.
    #[must_use]
    pub fn order(&self) -> u32 {
        self.places.iter().map(|p| p.1).max().unwrap_or(0)
    }

    /// The text grows by `token`: matches that it continues grow, the most recent places of `token` begin new ones.
    ///
    /// # Complexity
    /// O(places followed), a constant.
    pub fn advance(&mut self, context: &ContextIndex, token: TokenId) {
        let grown = &mut self.spare;
        grown.clear();
        for &(place, matched) in &self.places {
            if context.ids.get(place as usize) == Some(&token) {
                grown.push((place + 1, matched.saturating_add(1)));
            }
        }
        let mut place = context.last.get(&token).copied().unwrap_or(NONE);
        let continued = grown.len();
        while place != NONE && grown.len() < FOLLOWED {
            let known = grown.get(..continued).is_some_and(|g| g.iter().any(|p| p.0 == place + 1));
            if !known {
                grown.push((place + 1, 1));
            }
            place = context.previous.get(place as usize).copied().unwrap_or(NONE);
        }
        std::mem::swap(&mut self.places, &mut self.spare);
    }
}

impl ContextIndex {
    /// An empty request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The tokens so far.
    #[must_use]
    pub fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    /// Where the last tokens occurred before.
    #[must_use]
    pub fn matches(&self) -> &Matches {
        &self.matches
    }

    /// Appends tokens.
    ///
    /// # Complexity
    /// O(new tokens); matches are traced over the last `TRACED` of them.
    pub fn extend(&mut self, ids: &[TokenId]) {
        let untraced = ids.len().saturating_sub(TRACED);
        for (k, &token) in ids.iter().enumerate() {
            if k < untraced {
                self.matches.places.clear();
            } else {
                let mut matches = std::mem::take(&mut self.matches);
                matches.advance(self, token);
                self.matches = matches;
            }
            let place = u32::try_from(self.ids.len()).unwrap_or(NONE);
            self.previous.push(self.last.insert(token, place).unwrap_or(NONE));
            self.ids.push(token);
        }
    }

    /// Fills `blend` with what followed at the matched places. Candidates are *tokens*.
    /// Returns the length of the longest match.
    pub fn blend(&self, matches: &Matches, scratch: &mut Vec<(u32, TokenId)>, blend: &mut Blend) -> u32 {
        blend.clear();
        scratch.clear();
        scratch.extend(matches.places.iter().filter_map(|&(p, m)| self.ids.get(p as usize).map(|&t| (m, t))));
        scratch.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let order = scratch.first().map_or(0, |p| p.0);
        let mut end = 0;
        while let Some(&(matched, _)) = scratch.get(end) {
            while scratch.get(end).is_some_and(|p| p.0 == matched) {
                end += 1;
            }
            let shorter = scratch.get(end).map_or(0, |p| p.0);
            let so_far = &scratch[..end];
            let distinct = so_far.iter().enumerate().filter(|(k, p)| so_far[..*k].iter().all(|q| q.1 != p.1)).count();
            blend.back_off(so_far.iter().map(|p| (p.1, 1.0)), end as f32, distinct as f32, matched - shorter);
        }
        order
    }
}
