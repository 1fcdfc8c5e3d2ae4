//! Counts of what followed a hashed condition: the best followers of every condition seen often enough.

use super::ngrams::MAX_PROBES;
use crate::format::sections;

/// At most this many followers are stored for one condition.
pub const FOLLOWERS: usize = 12;

/// `u32` words of a record before its followers: condition (two words), total, distinct, followers.
const HEAD: usize = 5;

sections! {
    /// The arrays of a table of conditions. Contents may come from a hostile file: every access is checked, every loop is
    /// bounded.
    pub struct ConditionalArrays as Conditional {
        /// Hash slots into `records` (word offset + 1; 0 is empty); a power of two, or empty.
        slots: [u32],
        /// Records one after the other: condition (low, high), total, distinct, f, then f pairs (follower, count).
        records: [u32],
    }
}

/// What followed one condition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Followers<'a> {
    /// How often the condition held.
    pub total: u32,
    /// How many different followers it had.
    pub distinct: u32,
    pairs: &'a [u32],
}

impl Followers<'_> {
    /// (follower, count), most frequent first.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.pairs.as_chunks::<2>().0.iter().map(|p| (p[0], p[1]))
    }

    /// How often `follower` followed; 0 when it is not among the stored ones.
    #[must_use]
    pub fn count(&self, follower: u32) -> u32 {
        self.iter().find(|p| p.0 == follower).map_or(0, |p| p.1)
    }
}

impl<'a> Conditional<'a> {
    /// What followed a condition; nothing when it is not stored.
    ///
    /// # Complexity
    /// O(1) expected.
    #[must_use]
    pub fn get(&self, condition: u64) -> Followers<'a> {
        self.find(condition).unwrap_or_default()
    }

    fn find(&self, condition: u64) -> Option<Followers<'a>> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = first_slot(condition) & mask;
        for _ in 0..self.slots.len().min(MAX_PROBES) {
            let (found, followers) = self.record(*self.slots.get(slot)?)?;
            if found == condition {
                return Some(followers);
            }
            slot = (slot + 1) & mask;
        }
        None
    }

    /// The condition that a slot stands for, and what followed it; `None` for an empty slot, or when the arrays do not
    /// fit.
    pub(super) fn record(&self, slot: u32) -> Option<(u64, Followers<'a>)> {
        let words = self.records.get((slot as usize).checked_sub(1)?..)?;
        let head = words.get(..HEAD)?;
        let len = (head[4] as usize).min(FOLLOWERS) * 2;
        let followers = Followers { total: head[2], distinct: head[3], pairs: words.get(HEAD..HEAD + len)? };
        Some((u64::from(head[0]) | u64::from(head[1]) << 32, followers))
    }
}

/// Counts followers of conditions.
///
/// Memory: 16 bytes per observation.
#[derive(Clone, Debug, Default)]
pub struct ConditionalBuilder {
    seen: Vec<(u64, u32, u32)>,
}

impl ConditionalBuilder {
    /// `follower` followed `condition` so many times more.
    pub fn add(&mut self, condition: u64, follower: u32, times: u32) {
        self.seen.push((condition, follower, times));
    }

    /// The stored form of the conditions whose (follower, count) pairs `keep` finds worth it.
    #[must_use]
    pub fn build(mut self, keep: impl Fn(&[(u32, u32)]) -> bool) -> ConditionalArrays {
        self.seen.sort_unstable();
        let mut built = <ConditionalArrays>::default();
        let mut at = Vec::new();
        for same in self.seen.chunk_by(|a, b| a.0 == b.0) {
            let times = |run: &[(u64, u32, u32)]| run.iter().fold(0u32, |sum, s| sum.saturating_add(s.2));
            let mut pairs: Vec<(u32, u32)> =
                same.chunk_by(|a, b| a.1 == b.1).map(|run| (run[0].1, times(run))).collect();
            let (condition, total, distinct) = (same[0].0, times(same), small(pairs.len()));
            if !keep(&pairs) {
                continue;
            }
            pairs.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
            pairs.truncate(FOLLOWERS);
            at.push((condition, small(built.records.len() + 1)));
            built.records.extend([condition as u32, (condition >> 32) as u32, total, distinct, small(pairs.len())]);
            built.records.extend(pairs.iter().flat_map(|p| [p.0, p.1]));
        }
        let size = if at.is_empty() { 0 } else { (at.len() * 3 / 2 + 1).next_power_of_two() };
        built.slots = vec![0; size];
        for (condition, record) in at {
            let mut slot = first_slot(condition) & (size - 1);
            while built.slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            built.slots[slot] = record;
        }
        built
    }
}

fn first_slot(condition: u64) -> usize {
    (condition.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
