//! A few sequences, matched on the fly: the running request itself, or the outputs of similar rows.

use rustc_hash::FxHashMap;

use crate::TokenId;
use crate::mixture::blend::Blend;

/// When many tokens arrive at once, matches are traced over this many of the last ones only.
const MAX_TRACED: usize = 48;

/// Share of probability below which shorter matches are no longer asked.
const MIN_REMAINING_PROBABILITY: f32 = 1e-2;

/// Candidates less likely than this fraction of the best are dropped.
const MIN_RELATIVE_PROBABILITY: f32 = 0.01;

const NONE: u32 = u32::MAX;

/// Buckets of a hash table that are looked at together.
const GROUP_BYTES: usize = 16;

/// Sequences of tokens with every earlier occurrence of each token, built as they grow.
#[derive(Clone, Debug, Default)]
pub struct SequenceIndex {
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
    /// The most recent place first.
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
    pub fn advance(&mut self, seen: &SequenceIndex, token: TokenId, followed: usize) {
        let goes_on = |&(place, _): &(u32, u32)| seen.ids.get(place as usize) == Some(&token);
        self.places.retain(goes_on);
        let mut room = followed.saturating_sub(self.places.len());
        let grown = &mut self.spare;
        grown.clear();
        let mut continued = self.places.iter().peekable();
        let mut fresh = seen.last.get(&token).copied().unwrap_or(NONE);
        while fresh != NONE && room > 0 {
            while let Some(&(place, matched)) = continued.next_if(|p| p.0 > fresh) {
                grown.push((place + 1, matched.saturating_add(1)));
            }
            if continued.peek().is_none_or(|p| p.0 != fresh) {
                grown.push((fresh + 1, 1));
                room -= 1;
            }
            fresh = seen.previous.get(fresh as usize).copied().unwrap_or(NONE);
        }
        grown.extend(continued.map(|&(place, matched)| (place + 1, matched.saturating_add(1))));
        std::mem::swap(&mut self.places, &mut self.spare);
    }
}

impl SequenceIndex {
    /// The tokens so far.
    #[must_use]
    pub fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.weights.clear();
        self.previous.clear();
        self.last.clear();
    }

    /// Appends tokens; the last of them continue `matches`, which follows at most `followed` places.
    ///
    /// # Complexity
    /// O(new tokens); matches are traced over the last `MAX_TRACED` of them.
    pub fn extend(&mut self, ids: &[TokenId], matches: &mut Matches, followed: usize) {
        let untraced = ids.len().saturating_sub(MAX_TRACED);
        for (k, &token) in ids.iter().enumerate() {
            if k < untraced {
                matches.clear();
            } else {
                matches.advance(self, token, followed);
            }
            self.push(token);
        }
    }

    /// Bytes on the heap. O(1).
    #[must_use]
    pub fn memory_usage(&self) -> usize {
        let each = self.ids.capacity() + self.weights.capacity() + self.previous.capacity();
        each * size_of::<u32>() + table_bytes(&self.last)
    }

    /// Makes room for so many tokens that are inserted, and no more.
    pub fn reserve(&mut self, tokens: usize) {
        self.ids.reserve_exact(tokens);
        self.previous.reserve_exact(tokens);
        self.weights.reserve_exact(tokens);
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

    /// What a place counts for.
    #[must_use]
    pub fn weight(&self, place: u32) -> f32 {
        self.weights.get(place as usize).copied().unwrap_or(1.0)
    }

    /// Fills `blend` with what followed at the matched places. Returns the length of the longest match.
    ///
    /// # Complexity
    /// O(places · lengths asked): stops as soon as the longer matches leave little to the shorter ones.
    pub fn blend(&self, matches: &Matches, scratch: &mut Vec<(u32, TokenId, f32)>, blend: &mut Blend) -> u32 {
        blend.clear();
        scratch.clear();
        let followed = |&(p, m): &(u32, u32)| self.ids.get(p as usize).map(|&t| (m, t, self.weight(p)));
        scratch.extend(matches.places.iter().filter_map(followed));
        let longest_of = |rest: &[(u32, TokenId, f32)]| rest.iter().map(|p| p.0).max().unwrap_or(0);
        let order = longest_of(scratch);
        let (mut end, mut matched, mut distinct, mut total) = (0, order, 0u32, 0.0);
        while end < scratch.len() && blend.is_open(MIN_REMAINING_PROBABILITY) {
            let mut shorter = 0;
            let rest = end..scratch.len();
            for k in rest {
                if scratch[k].0 == matched {
                    scratch.swap(end, k); // those taken stand in front
                    distinct += u32::from(!scratch[..end].iter().any(|q| q.1 == scratch[end].1));
                    total += scratch[end].2;
                    end += 1;
                } else {
                    shorter = shorter.max(scratch[k].0);
                }
            }
            let so_far = scratch[..end].iter().map(|p| (p.1, p.2));
            blend.back_off(so_far, total, distinct as f32, matched - shorter);
            matched = shorter;
        }
        blend.prune(MIN_RELATIVE_PROBABILITY);
        order
    }
}

/// Bytes that a hash table has on the heap: a power of two of buckets, at most 7 in 8 of them used, a byte of each
/// beside them, and one group of such bytes more.
pub(super) fn table_bytes<K, V>(table: &FxHashMap<K, V>) -> usize {
    match table.capacity() {
        0 => 0,
        n => (n + n / 7).next_power_of_two() * (size_of::<(K, V)>() + 1) + GROUP_BYTES,
    }
}
