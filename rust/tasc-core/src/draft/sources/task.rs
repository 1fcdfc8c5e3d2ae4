//! Evidence from the task's past outputs.

use crate::index::{Cursor, Ngrams};
use crate::mixture::blend::Blend;

/// Share of probability below which shorter contexts are no longer asked.
const MIN_REMAINING_PROBABILITY: f32 = 5e-3;

/// Candidates less likely than this fraction of the best are dropped: no other source makes them win.
const MIN_RELATIVE_PROBABILITY: f32 = 0.01;

/// Fills `blend` with what followed this context, for all orders, in the task's outputs. Candidates are *symbols* of
/// the index. Returns the length of the longest context that occurs there.
///
/// # Complexity
/// O(runs asked · entries): stops as soon as the longer contexts leave less than `MIN_REMAINING_PROBABILITY` to the shorter ones.
pub fn blend(ngrams: &Ngrams<'_>, cursor: &mut Cursor, blend: &mut Blend) -> u32 {
    blend.clear();
    cursor.visit(ngrams, |_, seen, orders| {
        let entries = seen.entries.iter().map(|e| (e.symbol, e.weight as f32));
        blend.back_off(entries, seen.total as f32, seen.distinct as f32, orders);
        blend.is_open(MIN_REMAINING_PROBABILITY)
    });
    blend.prune(MIN_RELATIVE_PROBABILITY);
    cursor.order(ngrams)
}
