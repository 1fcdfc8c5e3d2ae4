//! The pairs of neighbours of a text, with their counts and positions.

use rustc_hash::FxHashMap;

use super::text::{BARRIER, MergeSymbol, Text};

/// A pair of neighbours, at least one of them a merge.
pub(super) struct Pair {
    /// Weighted occurrences, overlapping ones included.
    pub(super) count: u64,
    /// Positions at which the pair was found, ascending; some may be gone.
    pub(super) places: Vec<u32>,
}

/// A pair of neighbouring base symbols.
struct BasePair {
    right: MergeSymbol,
    /// Where the pair's positions end in [`Pairs::places`].
    end: u32,
    /// Weighted occurrences, overlapping ones included; 0: the pair was removed.
    count: u64,
}

/// All pairs that occur often enough.
///
/// Most pairs are those of base symbols, and a text can have as many of them as cells. These stand in sorted arrays,
/// which need a third of a map's memory.
pub(super) struct Pairs {
    /// Pairs of base symbols, sorted.
    base: Vec<BasePair>,
    /// Where the pairs of each left symbol begin in `base`, and their end.
    starts: Vec<u32>,
    /// Positions of all pairs of base symbols, in the order of the pairs.
    places: Vec<u32>,
    /// Pairs with a merge, by [`key`].
    merged: FxHashMap<u64, Pair>,
}

/// Packs a pair into one number; the order of pairs is kept.
pub(super) fn key((left, right): (MergeSymbol, MergeSymbol)) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// Unpacks a pair.
pub(super) fn symbols(key: u64) -> (MergeSymbol, MergeSymbol) {
    ((key >> 32) as MergeSymbol, key as MergeSymbol)
}

/// Symbol without a sum.
const NONE: u32 = u32::MAX;

/// Adds up weights by symbol.
#[derive(Default)]
pub(super) struct Tally {
    /// Where each symbol stands in `sums`.
    slots: Vec<u32>,
    sums: Vec<(MergeSymbol, u64, u32)>,
}

impl Tally {
    pub(super) fn add(&mut self, symbol: MergeSymbol, weight: u64) {
        if self.slots.len() <= symbol as usize {
            let wanted = symbol as usize + symbol as usize / 8 + 1;
            self.slots.reserve_exact(wanted - self.slots.len());
            self.slots.resize(wanted, NONE);
        }
        let slot = &mut self.slots[symbol as usize];
        if *slot == NONE {
            *slot = self.sums.len() as u32;
            self.sums.push((symbol, 0, 0));
        }
        let (_, sum, number) = &mut self.sums[*slot as usize];
        *sum += weight;
        *number += 1;
    }

    /// Calls the closure with each symbol, its weight and the number of times it was added, then clears the tally.
    pub(super) fn drain(&mut self, mut each: impl FnMut(MergeSymbol, u64, u32)) {
        for (symbol, sum, number) in self.sums.drain(..) {
            self.slots[symbol as usize] = NONE;
            each(symbol, sum, number);
        }
    }
}

impl Pairs {
    /// Counts the pairs of base symbols that occur often enough.
    pub(super) fn count(text: &Text, min_count: u64) -> Self {
        let cells = text.cells();
        let pair = |place: u32| (cells[place as usize], cells[place as usize + 1]);
        let (mut base, mut starts, mut places) = (Vec::new(), vec![0; text.symbols() + 1], sorted(text));
        let (mut weight, mut kept, mut at) = (text.weights(), 0, 0);
        while at < places.len() {
            let ((left, right), first) = (pair(places[at]), at);
            let mut count = 0;
            while at < places.len() && pair(places[at]) == (left, right) {
                count += weight(places[at]);
                at += 1;
            }
            if count >= min_count {
                places.copy_within(first..at, kept);
                kept += at - first;
                base.push(BasePair { right, end: kept as u32, count });
                starts[left as usize + 1] = base.len() as u32;
            }
        }
        for k in 1..starts.len() {
            starts[k] = starts[k].max(starts[k - 1]);
        }
        places.truncate(kept);
        places.shrink_to_fit();
        base.shrink_to_fit();
        Self { base, starts, places, merged: FxHashMap::default() }
    }

    /// No pairs.
    pub(super) fn none() -> Self {
        Self { base: Vec::new(), starts: vec![0], places: Vec::new(), merged: FxHashMap::default() }
    }

    /// Returns the pairs of base symbols with their counts, by [`key`], ascending.
    pub(super) fn base(&self) -> impl Iterator<Item = (u64, u64)> {
        let of_left = |(left, range): (u32, &[u32])| {
            self.base[range[0] as usize..range[1] as usize]
                .iter()
                .map(move |pair| (key((left, pair.right)), pair.count))
        };
        (0..).zip(self.starts.windows(2)).flat_map(of_left)
    }

    /// Returns a pair's count and positions.
    pub(super) fn get(&self, key: u64) -> Option<(u64, &[u32])> {
        if let Some(k) = self.base_pair(key) {
            let start = k.checked_sub(1).map_or(0, |before| self.base[before].end);
            let BasePair { count, end, .. } = self.base[k];
            return (count > 0).then(|| (count, &self.places[start as usize..end as usize]));
        }
        self.merged.get(&key).map(|pair| (pair.count, pair.places.as_slice()))
    }

    /// Adds a pair with a merge.
    pub(super) fn insert(&mut self, key: u64, pair: Pair) {
        self.merged.insert(key, pair);
    }

    pub(super) fn remove(&mut self, key: u64) {
        match self.base_pair(key) {
            Some(k) => self.base[k].count = 0,
            None => drop(self.merged.remove(&key)),
        }
    }

    /// Subtracts occurrences from a pair, and removes the pair when too few are left.
    pub(super) fn lose(&mut self, key: u64, weight: u64, min_count: u64) {
        let left = |count: u64| Some(count.saturating_sub(weight)).filter(|&count| count >= min_count);
        if let Some(k) = self.base_pair(key) {
            self.base[k].count = left(self.base[k].count).unwrap_or(0);
        } else if let Some(pair) = self.merged.get_mut(&key) {
            match left(pair.count) {
                Some(count) => pair.count = count,
                None => drop(self.merged.remove(&key)),
            }
        }
    }

    /// Finds a pair of base symbols.
    fn base_pair(&self, key: u64) -> Option<usize> {
        let (left, right) = symbols(key);
        let range =
            self.starts.get(left as usize..)?.first_chunk().map(|&[start, end]| start as usize..end as usize)?;
        let found = self.base[range.clone()].binary_search_by_key(&right, |pair| pair.right).ok()?;
        Some(range.start + found)
    }
}

/// Returns the first cells of all neighbours without a barrier, sorted by the left symbol, the right one and the position.
fn sorted(text: &Text) -> Vec<u32> {
    let cells = text.cells();
    let pairs =
        || (0..).zip(cells.windows(2)).filter(|two| two.1[0] != BARRIER && two.1[1] != BARRIER).map(|two| two.0);
    let right = |place: u32| cells[place as usize + 1];
    let by_right = by_symbol(pairs(), right, text.symbols());
    by_symbol(by_right.iter().copied(), |place| cells[place as usize], text.symbols())
}

/// Sorts positions by a symbol; those with the same symbol stay in their order.
fn by_symbol(
    places: impl Iterator<Item = u32> + Clone,
    symbol: impl Fn(u32) -> MergeSymbol,
    symbols: usize,
) -> Vec<u32> {
    let mut next = vec![0u32; symbols + 1];
    for place in places.clone() {
        next[symbol(place) as usize + 1] += 1;
    }
    for k in 1..next.len() {
        next[k] += next[k - 1];
    }
    let mut sorted = vec![0; next[symbols] as usize];
    for place in places {
        let at = &mut next[symbol(place) as usize];
        sorted[*at as usize] = place;
        *at += 1;
    }
    sorted
}
