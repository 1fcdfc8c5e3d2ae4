//! A few sequences, matched on the fly: the running request itself, or the outputs of similar rows.

use rustc_hash::FxHashMap;

use crate::TokenId;
use crate::draft::blend::Blend;

/// When many tokens arrive at once, matches are traced over this many of the last ones only.
const TRACED: usize = 48;

/// Share of probability below which shorter matches are no longer asked.
const FLOOR: f32 = 1e-3;

const NONE: u32 = u32::MAX;

/// Sequences of tokens with every earlier occurrence of each token, built as they grow.
#[derive(Clone, Debug, Default)]
pub struct Occurrences {
    ids: Vec<TokenId>,
    /// What a place counts for; empty when all count 1.
    weights: Vec<f32>,
    /// Previous place of the same token, or `NONE`.
    previous: Vec<u32>,
    last: FxHashMap<TokenId, u32>,
}

/// Places where the last tokens of a text occur, as (place after the match, tokens matched).
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// Oldest match first; those that began with the same token: the most recent place first.
    places: Vec<(u32, u32)>,
    spare: Vec<(u32, u32)>,
}

impl Matches {
    /// Nothing is matched.
    pub fn clear(&mut self) {
        self.places.clear();
    }

    /// Becomes a copy of `other`, re-using its memory.
    pub fn copy_from(&mut self, other: &Self) {
        self.places.clone_from(&other.places);
    }

    /// Length of the longest match.
    #[must_use]
    pub fn order(&self) -> u32 {
        self.places.iter().map(|p| p.1).max().unwrap_or(0)
    }

    /// The text grows by `token`: matches that it continues grow, the most recent places of `token` begin new ones,
    /// until `followed` are followed. Long-running matches stay; new ones are the most recent.
    ///
    /// # Complexity
    /// O(`followed`).
    pub fn advance(&mut self, seen: &Occurrences, token: TokenId, followed: usize) {
        let grown = &mut self.spare;
        grown.clear();
        for &(place, matched) in &self.places {
            if seen.ids.get(place as usize) == Some(&token) {
                grown.push((place + 1, matched.saturating_add(1)));
            }
        }
        let continued = grown.len();
        let mut place = seen.last.get(&token).copied().unwrap_or(NONE);
        while place != NONE && grown.len() < followed {
            let known = grown.get(..continued).is_some_and(|g| g.iter().any(|p| p.0 == place + 1));
            if !known {
                grown.push((place + 1, 1));
            }
            place = seen.previous.get(place as usize).copied().unwrap_or(NONE);
        }
        std::mem::swap(&mut self.places, &mut self.spare);
    }
}

impl Occurrences {
    /// The tokens so far.
    #[must_use]
    pub fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        (self.ids.clear(), self.weights.clear(), self.previous.clear(), self.last.clear());
    }

    /// Appends tokens; the last of them continue `matches`, which follows at most `followed` places.
    ///
    /// # Complexity
    /// O(new tokens); matches are traced over the last `TRACED` of them.
    pub fn extend(&mut self, ids: &[TokenId], matches: &mut Matches, followed: usize) {
        let untraced = ids.len().saturating_sub(TRACED);
        for (k, &token) in ids.iter().enumerate() {
            if k < untraced {
                matches.clear();
            } else {
                matches.advance(self, token, followed);
            }
            self.push(token);
        }
    }

    /// Appends a sequence whose places count for `weight` each.
    pub fn insert(&mut self, ids: impl Iterator<Item = TokenId>, weight: f32) {
        for token in ids {
            self.push(token);
            self.weights.push(weight);
        }
    }

    fn push(&mut self, token: TokenId) {
        let place = u32::try_from(self.ids.len()).unwrap_or(NONE);
        self.previous.push(self.last.insert(token, place).unwrap_or(NONE));
        self.ids.push(token);
    }

    fn weight(&self, place: u32) -> f32 {
        self.weights.get(place as usize).copied().unwrap_or(1.0)
    }

    /// Fills `blend` with what followed at the matched places. Returns the length of the longest match.
    ///
    /// # Complexity
    /// O(places · log places).
    pub fn blend(&self, matches: &Matches, scratch: &mut Vec<(u32, TokenId, f32)>, blend: &mut Blend) -> u32 {
        blend.clear();
        scratch.clear();
        let followed = |&(p, m): &(u32, u32)| self.ids.get(p as usize).map(|&t| (m, t, self.weight(p)));
        scratch.extend(matches.places.iter().filter_map(followed));
        scratch.sort_by_key(|p| std::cmp::Reverse(p.0));
        let order = scratch.first().map_or(0, |p| p.0);
        let (mut end, mut distinct, mut total) = (0, 0u32, 0.0);
        while let Some(&(matched, ..)) = scratch.get(end) {
            while let Some(&(_, token, weight)) = scratch.get(end).filter(|p| p.0 == matched) {
                distinct += u32::from(!scratch[..end].iter().any(|q| q.1 == token));
                total += weight;
                end += 1;
            }
            let shorter = scratch.get(end).map_or(0, |p| p.0);
            let so_far = scratch[..end].iter().map(|p| (p.1, p.2));
            blend.back_off(so_far, total, distinct as f32, matched - shorter);
            if !blend.is_open(FLOOR) {
                break;
            }
        }
        order
    }
}
