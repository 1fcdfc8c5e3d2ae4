//! The pairs of neighbours of a text, counted for the first time.

use rustc_hash::FxHashMap;

use super::text::{BARRIER, Symbol, Text};

/// A pair of neighbours.
pub(super) struct Pair {
    /// Weighted occurrences, those that overlap too.
    pub(super) count: u64,
    /// Where it stood when it was found, ascending; some may be gone.
    pub(super) places: Vec<u32>,
}

/// A pair as one number, in the order of pairs.
pub(super) fn key((left, right): (Symbol, Symbol)) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// The pair of a key.
pub(super) fn symbols(key: u64) -> (Symbol, Symbol) {
    ((key >> 32) as Symbol, key as Symbol)
}

/// Adds up weights by symbol.
#[derive(Default)]
pub(super) struct Tally {
    sums: Vec<(u64, u32)>,
    seen: Vec<Symbol>,
}

impl Tally {
    pub(super) fn add(&mut self, symbol: Symbol, weight: u64) {
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

    /// Hands over each symbol, its weight and the number of times it was added, and starts anew.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Symbol, u64, u32)) {
        for symbol in self.seen.drain(..) {
            let (sum, number) = std::mem::take(&mut self.sums[symbol as usize]);
            each(symbol, sum, number);
        }
    }
}

/// The pairs that occur often enough, by [`key`].
///
/// Cells are sorted by their symbol first, so that counting the symbols that follow one needs a small table only, and
/// pairs that are too rare (most of them) are never kept.
pub(super) fn count(text: &Text, min_count: u64) -> FxHashMap<u64, Pair> {
    let cells = text.cells();
    let mut starts = vec![0u32; text.symbols() + 1];
    for &symbol in cells {
        starts[symbol as usize + 1] += 1;
    }
    for k in 1..starts.len() {
        starts[k] += starts[k - 1];
    }
    let mut order = vec![0u32; cells.len()];
    let mut next = starts.clone();
    for (cell, &symbol) in (0..).zip(cells) {
        let at = &mut next[symbol as usize];
        order[*at as usize] = cell;
        *at += 1;
    }
    let (mut pairs, mut tally) = (FxHashMap::default(), Tally::default());
    let mut often: FxHashMap<Symbol, Pair> = FxHashMap::default();
    for (left, range) in (0..).zip(starts.windows(2)).skip(BARRIER as usize + 1) {
        let places = &order[range[0] as usize..range[1] as usize];
        for &place in places {
            tally.add(cells[place as usize + 1], text.weight(place));
        }
        tally.drain(|right, count, number| {
            if right != BARRIER && count >= min_count {
                often.insert(right, Pair { count, places: Vec::with_capacity(number as usize) });
            }
        });
        if often.is_empty() {
            continue;
        }
        for &place in places {
            if let Some(pair) = often.get_mut(&cells[place as usize + 1]) {
                pair.places.push(place);
            }
        }
        pairs.extend(often.drain().map(|(right, pair)| (key((left, right)), pair)));
    }
    pairs
}
