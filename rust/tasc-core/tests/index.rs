//! The index against its naive twin.
#![allow(clippy::unwrap_used)] // a test may
#[path = "support/naive.rs"]
mod naive;

use std::collections::BTreeMap;

use naive::NaiveIndex;
use proptest::prelude::*;
use tasc_core::TokenId;
use tasc_core::index::{Cursor, Ngrams, NgramsBuilder, Successors};

type Documents = Vec<(Vec<TokenId>, u64)>;

fn build(documents: &Documents) -> (tasc_core::index::NgramArrays, NaiveIndex) {
    let (mut fast, mut slow) = (NgramsBuilder::new(), NaiveIndex::default());
    for (d, w) in documents {
        fast.push(d, *w).unwrap();
        slow.push(d, *w);
    }
    (fast.build(|_| Ok(())).unwrap(), slow)
}

/// Few symbols and repeated templates, so that contexts are long and frequent.
fn documents() -> impl Strategy<Value = Documents> {
    let token = prop_oneof![4 => 0..4u32, 1 => 5..9u32, 1 => Just(u32::MAX - 1)];
    let free = prop::collection::vec(token, 0..12);
    let template = (0..3usize, 0..6u32).prop_map(|(t, slot)| {
        let mut d = vec![100 + u32::try_from(t).unwrap(); 5];
        d[3] = slot;
        d
    });
    let weight = prop_oneof![6 => Just(1u64), 2 => 2..5u64, 1 => 250..260u64, 1 => Just(u64::from(u32::MAX) + 7)];
    prop::collection::vec((prop_oneof![free, template], weight), 1..80)
}

fn successors(ngrams: &Ngrams<'_>, interval: tasc_core::index::Interval) -> (u64, u32, BTreeMap<Option<TokenId>, u64>) {
    let mut out = Successors::default();
    ngrams.successors(interval, &mut out);
    (out.total, out.distinct, out.entries.iter().map(|e| (ngrams.token(e.symbol), e.weight)).collect())
}

fn check(ngrams: &Ngrams<'_>, slow: &NaiveIndex, cursor: &mut Cursor, history: &[Option<TokenId>]) {
    let order = cursor.order(ngrams) as usize;
    assert!(order <= history.len());
    if order < history.len() {
        let longer = slow.successors(&history[history.len() - order - 1..]);
        assert!(longer.is_empty(), "order {order} of {history:?} is not the longest");
    }
    let mut runs = cursor.runs().iter().rev().peekable();
    for m in 0..=order {
        if runs.peek().is_some_and(|r| (r.order as usize) < m) {
            runs.next();
        }
        let run = runs.peek().unwrap();
        let truth = slow.successors(&history[history.len() - m..]);
        let (total, distinct, found) = successors(ngrams, run.interval);
        assert_eq!(total, truth.values().sum::<u64>(), "total of {:?}", &history[history.len() - m..]);
        assert_eq!(distinct as usize, truth.len());
        for (token, weight) in &found {
            assert_eq!(truth.get(token), Some(weight));
        }
        if run.interval.size() <= 32 || truth.len() <= 12 {
            assert_eq!(found.len(), truth.len());
        } else {
            let least = found.values().min().unwrap();
            assert!(truth.iter().all(|(t, w)| found.contains_key(t) || w <= least));
        }
        for (&token, &weight) in &truth {
            let Some(token) = token else { continue };
            let symbol = ngrams.symbol(token).unwrap();
            let anywhere = ngrams.ending_in(symbol);
            let child = ngrams.child(run.interval, symbol, anywhere);
            assert_eq!(child.map(|c| ngrams.weight(c)), Some(weight), "child {token}");
            for shorter in cursor.runs().iter().skip_while(|r| r.order > run.order) {
                let outer = ngrams.child(shorter.interval, symbol, anywhere).unwrap();
                assert_eq!(ngrams.child(run.interval, symbol, outer), child, "within {outer:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]
    #[test]
    fn equals_the_naive_index(documents in documents(), walks in prop::collection::vec(prop::collection::vec(0..10u32, 0..6), 1..4), pick in any::<prop::sample::Index>()) {
        let (fast, slow) = build(&documents);
        let ngrams = fast.view();
        let mut outputs = walks;
        outputs.push(pick.get(&documents).0.clone());
        outputs.push(vec![100, 100, 100, 2, 100]);
        for output in outputs {
            let mut cursor = Cursor::at_start(&ngrams);
            let mut history = vec![None];
            check(&ngrams, &slow, &mut cursor, &history);
            for token in output {
                cursor.advance(&ngrams, ngrams.symbol(token));
                history.push(Some(token));
                check(&ngrams, &slow, &mut cursor, &history);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]
    /// A cursor that advances only what is asked for says the same as one that advances everything, and that as one which
    /// looks every child up, whatever it was asked for before.
    #[test]
    fn lazy_equals_eager(documents in documents(), asked in prop::collection::vec((any::<prop::sample::Index>(), 0..6usize, any::<bool>()), 1..30)) {
        let (fast, _) = build(&documents);
        let ngrams = fast.view();
        let [mut lazy, mut eager, mut unasked, mut copy] = [(); 4].map(|()| Cursor::at_start(&ngrams));
        let mut found = Successors::default();
        for (pick, depth, copied) in asked {
            let see = |cursor: &mut Cursor, depth: usize| {
                // order by order, so that it does not matter which of them share a run
                let mut seen = Vec::new();
                cursor.visit(&ngrams, |interval, _, orders| {
                    seen.extend(std::iter::repeat_n(interval, orders as usize));
                    seen.len() < depth
                });
                seen.truncate(depth);
                seen
            };
            if depth > 0 {
                prop_assert_eq!(see(&mut lazy, depth), see(&mut eager, depth));
            }
            prop_assert_eq!(lazy.order(&ngrams), eager.order(&ngrams));
            if copied {
                copy.copy_from(&lazy);
                std::mem::swap(&mut copy, &mut lazy);
            }
            let run = eager.runs()[pick.index(eager.runs().len())];
            ngrams.successors(run.interval, &mut found);
            let symbol = found.entries[pick.index(found.entries.len())].symbol;
            let symbol = (symbol != 0).then_some(symbol);
            lazy.advance_front(&ngrams, symbol);
            eager.advance(&ngrams, symbol);
            unasked.advance(&ngrams, symbol);
            prop_assert_eq!(eager.runs(), unasked.runs());
        }
    }
}

#[test]
fn runs_and_repeats() {
    let documents: Documents = vec![(vec![7; 100], 3), (vec![7; 40], 1), (vec![], 2), (vec![7, 8], 1)];
    let (fast, slow) = build(&documents);
    let ngrams = fast.view();
    let mut cursor = Cursor::at_start(&ngrams);
    let mut history = vec![None];
    for _ in 0..101 {
        check(&ngrams, &slow, &mut cursor, &history);
        cursor.advance(&ngrams, ngrams.symbol(7));
        history.push(Some(7));
    }
}
