//! Time per drafted token where the draft knows its input, p50 and p99: `input_latency INDEX HELD_OUT.store`.
//!
//! Both files come from benches/python/input_latency.py. Replays the held-out rows, at most 16 tokens a draft.
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tasc_core::corpus::Store;
use tasc_core::draft::{CostCurve, Drafter, DrafterOptions};
use tasc_core::task::TaskIndex;

fn main() {
    let path = |n: usize| std::env::args().nth(n).expect("usage: input_latency INDEX HELD_OUT.store");
    let index = TaskIndex::open(Path::new(&path(1))).expect("an index");
    let store = Store::open(Path::new(&path(2))).expect("a store");
    let tokens = index.meta().tokens;
    let drafter = Drafter::new(Some(Arc::new(index)), DrafterOptions::default()).expect("weights fit");
    let costs = CostCurve::linear(0.02).expect("a cost");
    let (mut start_us, mut draft_us, mut token_us, mut update_us) = (vec![], vec![], vec![], vec![]);
    let (mut emitted, mut cost) = (0usize, 0.0);
    let us = |t: Instant| t.elapsed().as_secs_f64() * 1e6;
    for row in 0..store.num_inputs() {
        let input = store.input(row).expect("a row");
        let mut left = store.document(input.document as usize).expect("an output");
        let t = Instant::now();
        let mut request = drafter.start(&[], Some(input.text)).expect("no tokenizer");
        start_us.push(us(t));
        while !left.is_empty() {
            let t = Instant::now();
            let draft = drafter.draft(&mut request, 16, &costs);
            draft_us.push(us(t));
            token_us.push(us(t) / (draft.tokens.len().max(1)) as f64);
            let right = draft.tokens.iter().zip(left).take_while(|(a, b)| a == b).count();
            cost += costs.cost(draft.tokens.len());
            let (now, rest) = left.split_at((right + 1).min(left.len()));
            let t = Instant::now();
            drafter.update(&mut request, now);
            update_us.push(us(t));
            (emitted, left) = (emitted + now.len(), rest);
        }
    }
    println!("{tokens} tokens indexed, {} drafts, s(0.02) {:.2}", draft_us.len(), emitted as f64 / cost);
    let named = [("start", start_us), ("draft", draft_us), ("per drafted token", token_us), ("update", update_us)];
    for (name, mut us) in named {
        us.sort_unstable_by(f64::total_cmp);
        let q = |p: usize| us[(us.len() - 1) * p / 100];
        println!("{name}: p50 {:.2} µs, p90 {:.2}, p99 {:.2}", q(50), q(90), q(99));
    }
}
