//! Evidence from the task's past outputs.

use crate::draft::blend::Blend;
use crate::index::{Cursor, Ngrams, Successors};

/// Share of probability below which shorter contexts are no longer asked.
const FLOOR: f32 = 5e-3;

/// Candidates less likely than this fraction of the best are dropped: no other source makes them win.
const HOPELESS: f32 = 0.01;

/// Fills `blend` with what followed this context, for all orders, in the task's outputs. Candidates are *symbols* of
/// the index. Returns the length of the longest context that occurs there.
///
/// # Complexity
/// O(runs asked · entries): stops as soon as the longer contexts leave less than [`FLOOR`] to the shorter ones.
pub fn blend(ngrams: &Ngrams<'_>, cursor: &Cursor, scratch: &mut Successors, blend: &mut Blend) -> u32 {
    blend.clear();
    let runs = cursor.runs();
    for (k, run) in runs.iter().enumerate() {
        if !blend.is_open(FLOOR) {
            break;
        }
        let below = runs.get(k + 1).map_or(0, |r| r.order);
        let orders = (run.order - below).max(1);
        ngrams.successors(run.interval, scratch);
        let entries = scratch.entries.iter().map(|e| (e.symbol, e.weight as f32));
        blend.back_off(entries, scratch.total as f32, scratch.distinct as f32, orders);
    }
    blend.prune(HOPELESS);
    cursor.order()
}
