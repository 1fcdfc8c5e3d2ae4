//! Latency of one whole draft of at most 16 tokens, p50 and p99, and the build rate: `draft_latency [TOKENS]`.
//!
//! Indexes a synthetic corpus into a file, which is mapped as users map it, then replays held-out documents of the same task. Beside a peer:
//! benches/python/draft_latency.py, on the same workload. The digest tells whether two versions draft alike, to the bit.
use std::time::Instant;

use tasc_benches::Workload;
use tasc_core::draft::{CostCurve, Drafter, DrafterOptions};
use tasc_core::format::Fingerprint;
use tasc_core::index::NgramsBuilder;
use tasc_core::index::view::TaskArrays;
use tasc_core::task::TaskIndex;
use tasc_core::task::file::IndexMeta;

fn main() {
    let tokens = std::env::args().nth(1).and_then(|t| t.parse().ok()).unwrap_or(1_000_000);
    let mut workload = Workload::new(7);
    let corpus = workload.documents(tokens);
    let held_out = workload.documents(40_000);
    let begin = Instant::now();
    let mut builder = NgramsBuilder::new();
    for d in &corpus {
        builder.push(d, 1).expect("in range");
    }
    let built = builder.build(|_| Ok(())).expect("not empty");
    let seconds = begin.elapsed().as_secs_f64();
    let bytes = 4 * (built.bwt.len() * 3 + built.records.len() + built.slots.len() + built.starts.len() * 2);
    println!(
        "build {:.2} M token/s, {:.2} B/token (records {:.2}, slots {:.2})",
        tokens as f64 / seconds / 1e6,
        bytes as f64 / tokens as f64,
        4.0 * built.records.len() as f64 / tokens as f64,
        4.0 * built.slots.len() as f64 / tokens as f64
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("task.tasc");
    let task = TaskArrays { ngrams: built, ..<TaskArrays>::default() };
    TaskIndex::write(&path, &Fingerprint::default(), &IndexMeta::default(), &task).expect("room on the disk");
    drop(task);
    let index = TaskIndex::open(&path).expect("an index");
    index.verify().expect("as written"); // and read once, so that it is in memory
    let drafter = Drafter::new(Some(std::sync::Arc::new(index)), DrafterOptions::default()).expect("weights fit");
    let costs = CostCurve::linear(0.02).expect("a cost");
    let mut draft_ns: Vec<u64> = Vec::new();
    let mut update_ns: Vec<u64> = Vec::new();
    let (mut steps, mut emitted, mut drafted) = (0usize, 0usize, 0usize);
    let mut digest = 0u64;
    for document in &held_out {
        let mut request = drafter.start(&document[document.len() / 2..], None).expect("no tokenizer");
        let mut at = 0;
        while at < document.len() {
            let t = Instant::now();
            let draft = drafter.draft(&mut request, 16, &costs);
            draft_ns.push(u64::try_from(t.elapsed().as_nanos()).unwrap_or(u64::MAX));
            let right = draft.tokens.iter().zip(&document[at..]).take_while(|(a, b)| a == b).count();
            drafted += draft.tokens.len();
            for (&token, p) in draft.tokens.iter().zip(&draft.probabilities) {
                let seen = u64::from(token) << 32 | u64::from(p.to_bits());
                digest = (digest.rotate_left(5) ^ seen).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            }
            let end = (at + right + 1).min(document.len());
            let t = Instant::now();
            drafter.update(&mut request, &document[at..end]);
            update_ns.push(u64::try_from(t.elapsed().as_nanos()).unwrap_or(u64::MAX));
            (steps, emitted) = (steps + 1, emitted + end - at);
            at = end;
        }
    }
    for (name, mut ns) in [("draft", draft_ns), ("update", update_ns)] {
        ns.sort_unstable();
        let q = |p: usize| ns[(ns.len() - 1) * p / 100] as f64 / 1e3;
        println!("{name}: p50 {:.2} µs, p90 {:.2}, p99 {:.2}", q(50), q(90), q(99));
    }
    println!(
        "tau {:.2}, drafted per step {:.2}, steps {steps}, digest {digest:016x}",
        emitted as f64 / steps as f64,
        drafted as f64 / steps as f64
    );
}
