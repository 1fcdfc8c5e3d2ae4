//! What served rows are said to take beside what the allocator was asked for. Alone in its file: it counts every
//! allocation of the process.
#![allow(clippy::unwrap_used)]
mod toys;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tasc_core::corpus::OnlineRow;
use tasc_core::draft::{Drafter, DrafterOptions};
use tasc_core::online::served::IndexedRows;
use toys::{Random, Toy};

/// The system's allocator; an allocation counts for 16 bytes more than it was asked for.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size() + 16, Relaxed) + layout.size() + 16;
        PEAK.fetch_max(live, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() + 16, Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes live since `before`.
fn grown(before: usize) -> usize {
    LIVE.load(Relaxed).saturating_sub(before)
}

/// Rows of few words, of words all different, and without an input.
fn kinds() -> [fn(u64) -> OnlineRow; 3] {
    let templates = |k| {
        let (input, output) = toys::request(&mut Random(k));
        OnlineRow { input, output: Toy::GluedPairs.ids(&output), ..OnlineRow::default() }
    };
    let all_different = |k| OnlineRow {
        input: (0..30).map(|w| format!("w{k}x{w} ")).collect(),
        output: vec![k as u32],
        ..OnlineRow::default()
    };
    let outputs_alone =
        |k: u64| OnlineRow { input: String::new(), output: (0..(k % 300) as u32).collect(), ..OnlineRow::default() };
    [templates, all_different, outputs_alone]
}

#[test]
fn what_rows_take_is_what_they_are_said_to_take() {
    for (kind, row) in kinds().into_iter().enumerate() {
        for rows in [0, 1, 2, 10, 300, 5000] {
            let before = LIVE.load(Relaxed);
            let mut served = IndexedRows::default();
            (0..rows).for_each(|k| served.add(&row(k), None, None));
            let (said, taken) = (served.memory_usage(), grown(before));
            let off = said.abs_diff(taken);
            assert!(off * 50 <= taken + 10_000, "kind {kind}, {rows} rows: {said} bytes said, {taken} taken");
            let half = served.latest(served.len() / 2);
            assert!(half.memory_usage() <= said, "half of them take {} bytes, all {said}", half.memory_usage());
        }
        bounded(row);
    }
}

/// A drafter keeps to its budget, and forgets no more than it must.
fn bounded(row: fn(u64) -> OnlineRow) {
    const LIMIT: usize = 423_000; // just more than tables take before they double: near the highest peak
    let drafter = Drafter::new(None, DrafterOptions { served_bytes: LIMIT, ..DrafterOptions::default() }).unwrap();
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let mut most = 0;
    for k in 0..5000 {
        drafter.serve(&[row(k)]).unwrap();
        assert!(drafter.served_memory() <= LIMIT && grown(before) < LIMIT + 20_000, "{} bytes", grown(before));
        most = most.max(drafter.served_memory());
    }
    assert!(most > LIMIT / 3, "{most} bytes at most");
    let peak = PEAK.load(Relaxed) - before;
    assert!(peak <= 3 * LIMIT, "{peak} bytes for a moment");
    drafter
        .serve(&[OnlineRow { input: String::new(), output: (0..LIMIT as u32 / 8).collect(), ..OnlineRow::default() }])
        .unwrap();
    assert!(drafter.served_memory() <= LIMIT, "forgotten until the rest fits");
}
