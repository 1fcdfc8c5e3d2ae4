//! Sorting windows by packed keys, within a scratch of fixed size.

/// A window of tokens: its first symbols packed into a key, its document and its place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    pub(crate) key: u64,
    pub(crate) document: u32,
    pub(crate) at: u32,
}

/// Bits of a digit.
const DIGIT: u32 = 8;
const BUCKETS: usize = 1 << DIGIT;

/// Fewer windows are sorted by comparing.
const FEW: usize = 96;

/// Sorts windows by key. Windows with equal keys come in any order.
///
/// Ranges that fit the scratch are sorted from the lowest digit up, larger ones first divided in place by their
/// highest digit (McIlroy, Bostic, McIlroy: American flag sort).
///
/// # Complexity
/// O(windows · varying bits / 8); no memory but the scratch.
pub(crate) fn sort(windows: &mut [Window], scratch: &mut [Window]) {
    if windows.len() <= FEW {
        windows.sort_unstable_by_key(|w| w.key);
        return;
    }
    let varying = varying(windows);
    if varying == 0 {
        return;
    }
    if let Some(scratch) = scratch.get_mut(..windows.len()) {
        return from_lowest(windows, scratch, varying);
    }
    let shift = (u64::BITS - varying.leading_zeros()).saturating_sub(DIGIT);
    let mut rest = windows;
    for count in by_digit(rest, shift) {
        let (bucket, behind) = std::mem::take(&mut rest).split_at_mut(count);
        sort(bucket, scratch);
        rest = behind;
    }
}

/// The bits in which keys differ.
fn varying(windows: &[Window]) -> u64 {
    let (any, all) = windows.iter().fold((0, u64::MAX), |(any, all), w| (any | w.key, all & w.key));
    any & !all
}

fn digit(key: u64, shift: u32) -> usize {
    (key >> shift) as usize & (BUCKETS - 1)
}

fn histogram(windows: &[Window], shift: u32) -> [usize; BUCKETS] {
    let mut counts = [0; BUCKETS];
    windows.iter().for_each(|w| counts[digit(w.key, shift)] += 1);
    counts
}

/// Where each bucket begins.
fn begins(counts: &[usize; BUCKETS]) -> [usize; BUCKETS] {
    let mut sum = 0;
    counts.map(|count| {
        sum += count;
        sum - count
    })
}

fn from_lowest(windows: &mut [Window], scratch: &mut [Window], varying: u64) {
    let (mut from, mut to) = (&mut *windows, &mut *scratch);
    let mut shift = varying.trailing_zeros();
    let mut moved = false;
    while shift < u64::BITS && varying >> shift > 0 {
        if varying >> shift & (BUCKETS as u64 - 1) > 0 {
            let mut places = begins(&histogram(from, shift));
            for &window in from.iter() {
                let place = &mut places[digit(window.key, shift)];
                to[*place] = window;
                *place += 1;
            }
            std::mem::swap(&mut from, &mut to);
            moved = !moved;
        }
        shift += DIGIT;
    }
    if moved {
        to.copy_from_slice(from);
    }
}

/// Divides windows by a digit, in place, and returns the bucket sizes.
fn by_digit(windows: &mut [Window], shift: u32) -> [usize; BUCKETS] {
    let counts = histogram(windows, shift);
    let mut places = begins(&counts);
    let ends: [usize; BUCKETS] = std::array::from_fn(|k| places[k] + counts[k]);
    for bucket in 0..BUCKETS {
        while places[bucket] < ends[bucket] {
            let here = places[bucket];
            let there = digit(windows[here].key, shift);
            windows.swap(here, places[there]);
            places[there] += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_windows_are_sorted_with_any_scratch(
            keys in prop::collection::vec(prop_oneof![0..5u64, any::<u64>(), Just(1 << 63)], 0..2000),
            scratch in 0..2000usize,
        ) {
            let window = |(at, &key): (usize, &u64)| Window { key, document: 7, at: at as u32 };
            let mut windows: Vec<Window> = keys.iter().enumerate().map(window).collect();
            sort(&mut windows, &mut vec![Window::default(); scratch]);
            prop_assert!(windows.iter().all(|w| keys[w.at as usize] == w.key && w.document == 7));
            let mut places: Vec<u32> = windows.iter().map(|w| w.at).collect();
            places.sort_unstable();
            prop_assert!(places.into_iter().eq(0..keys.len() as u32));
            prop_assert!(windows.is_sorted_by_key(|w| w.key));
        }
    }
}
