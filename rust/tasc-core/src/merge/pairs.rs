//! Initial counts of the pairs of neighbours of a text.

use rustc_hash::FxHashMap;

use super::text::{BARRIER, MergeSymbol, Text};

/// A pair of neighbours.
pub(super) struct Pair {
    /// Weighted occurrences, overlapping ones included.
    pub(super) count: u64,
    /// Positions at which the pair was found, ascending; some may be gone.
    pub(super) places: Vec<u32>,
}

/// Packs a pair into one number; the order of pairs is kept.
pub(super) fn key((left, right): (MergeSymbol, MergeSymbol)) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// Unpacks a pair.
pub(super) fn symbols(key: u64) -> (MergeSymbol, MergeSymbol) {
    ((key >> 32) as MergeSymbol, key as MergeSymbol)
}

/// Adds up weights by symbol.
#[derive(Default)]
pub(super) struct Tally {
    sums: Vec<(u64, u32)>,
    seen: Vec<MergeSymbol>,
}

impl Tally {
    pub(super) fn add(&mut self, symbol: MergeSymbol, weight: u64) {
        if self.sums.len() <= symbol as usize {
            self.sums.resize(symbol as usize + 1, (0, 0));
        }
        let (sum, number) = &mut self.sums[symbol as usize];
        if *number == 0 {
            self.seen.push(symbol);
        }
        *sum += weight;
        *number += 1;
    }

    /// Calls the closure with each symbol, its weight and the number of times it was added, then clears the tally.
    pub(super) fn drain(&mut self, mut each: impl FnMut(MergeSymbol, u64, u32)) {
        for symbol in self.seen.drain(..) {
            let (sum, number) = std::mem::take(&mut self.sums[symbol as usize]);
            each(symbol, sum, number);
        }
    }
}

/// Counts the pairs that occur often enough, by [`key`].
///
/// Neighbours are sorted by the left symbol first: counting the symbols that follow one needs a small table only, and
/// pairs that are too rare (most of them) are never kept.
pub(super) fn count(text: &Text, min_count: u64) -> FxHashMap<u64, Pair> {
    const RARE: u32 = u32::MAX;
    let (order, starts) = by_left(text.cells(), text.symbols());
    let (mut pairs, mut tally) = (FxHashMap::default(), Tally::default());
    let mut slots = vec![RARE; text.symbols()];
    let mut often: Vec<(MergeSymbol, Pair)> = Vec::new();
    for (left, range) in (0..).zip(starts.windows(2)).skip(BARRIER as usize + 1) {
        let neighbours = &order[range[0] as usize..range[1] as usize];
        let mut weight = text.weights();
        for &(place, right) in neighbours {
            tally.add(right, weight(place));
        }
        tally.drain(|right, count, number| {
            if right != BARRIER && count >= min_count {
                slots[right as usize] = often.len() as u32;
                often.push((right, Pair { count, places: Vec::with_capacity(number as usize) }));
            }
        });
        for &(place, right) in if often.is_empty() { &[] } else { neighbours } {
            if let Some((_, pair)) = often.get_mut(slots[right as usize] as usize) {
                pair.places.push(place);
            }
        }
        for (right, pair) in often.drain(..) {
            slots[right as usize] = RARE;
            pairs.insert(key((left, right)), pair);
        }
    }
    pairs
}

/// Returns every cell but the last, with the symbol after it, sorted by the cell's own symbol; and where each symbol begins.
fn by_left(cells: &[MergeSymbol], symbols: usize) -> (Vec<(u32, MergeSymbol)>, Vec<u32>) {
    let mut starts = vec![0u32; symbols + 1];
    for two in cells.windows(2) {
        starts[two[0] as usize + 1] += 1;
    }
    for k in 1..starts.len() {
        starts[k] += starts[k - 1];
    }
    let (mut order, mut next) = (vec![(0, 0); cells.len().saturating_sub(1)], starts.clone());
    for (place, two) in (0..).zip(cells.windows(2)) {
        let at = &mut next[two[0] as usize];
        order[*at as usize] = (place, two[1]);
        *at += 1;
    }
    (order, starts)
}
