//! Followers of conditions against a map.
#![allow(clippy::unwrap_used)] // a test may
use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use tasc_core::index::conditional::{Conditional, ConditionalBuilder, FOLLOWERS};

/// Conditions that meet in few slots, followers that repeat, counts that overflow.
fn seen() -> impl Strategy<Value = Vec<(u64, u32, u32)>> {
    let condition = prop_oneof![4 => 0..6u64, 1 => (0..40u64).prop_map(|c| c << 32), 1 => any::<u64>()];
    let follower = prop_oneof![6 => 0..20u32, 1 => any::<u32>()];
    let times = prop_oneof![8 => 1..5u32, 1 => Just(u32::MAX), 1 => Just(0)];
    prop::collection::vec((condition, follower, times), 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn equals_a_map(seen in seen(), asked in prop::collection::vec(any::<u64>(), 0..5), picky: bool) {
        let mut builder = ConditionalBuilder::default();
        let mut twin: HashMap<u64, BTreeMap<u32, u64>> = HashMap::new();
        for &(condition, follower, times) in &seen {
            builder.add(condition, follower, times);
            *twin.entry(condition).or_default().entry(follower).or_default() += u64::from(times);
        }
        let clip = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let keep = |pairs: &[(u32, u32)]| !picky || pairs.iter().any(|p| p.0 % 3 == 0);
        let built = builder.build(keep);
        let view = built.view();
        for (&condition, followers) in &twin {
            let pairs: Vec<_> = followers.iter().map(|(&f, &n)| (f, clip(n))).collect();
            let found = view.get(condition);
            if !keep(&pairs) {
                prop_assert_eq!((found.total, found.distinct, found.iter().count()), (0, 0, 0));
                continue;
            }
            prop_assert_eq!(found.total, clip(followers.values().sum()));
            prop_assert_eq!(found.distinct as usize, followers.len());
            let mut best = pairs.clone();
            best.sort_by_key(|&(f, n)| (std::cmp::Reverse(n), f));
            best.truncate(FOLLOWERS);
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), best.clone());
            for (f, n) in pairs {
                prop_assert_eq!(found.count(f), if best.contains(&(f, n)) { n } else { 0 });
            }
            prop_assert_eq!(found.count(77_777), followers.get(&77_777).map_or(0, |&n| clip(n)));
        }
        for condition in asked.into_iter().filter(|c| !twin.contains_key(c)) {
            prop_assert_eq!(view.get(condition).total, 0);
        }
    }

    /// The order in which things were seen leaves no trace.
    #[test]
    fn any_order_gives_the_same_bytes(seen in seen(), shuffled in any::<prop::sample::Index>()) {
        let build = |seen: &mut dyn Iterator<Item = (u64, u32, u32)>| {
            let mut builder = ConditionalBuilder::default();
            seen.for_each(|(c, f, n)| builder.add(c, f, n));
            builder.build(|_| true)
        };
        let at = shuffled.index(seen.len().max(1)).min(seen.len());
        let turned = seen[at..].iter().chain(&seen[..at]).rev().copied();
        prop_assert_eq!(build(&mut seen.iter().copied()), build(&mut turned.into_iter()));
    }

    /// Arrays that nobody built: any answer will do, in bounded time.
    #[test]
    fn hostile_arrays_never_panic(
        slots in prop::collection::vec(prop_oneof![8 => 0..60u32, 1 => any::<u32>()], 0..40),
        records in prop::collection::vec(prop_oneof![4 => 0..20u32, 1 => any::<u32>()], 0..60),
        asked in prop::collection::vec(prop_oneof![0..20u64, any::<u64>()], 1..20),
    ) {
        let view = Conditional { slots: &slots, records: &records };
        for condition in asked {
            let found = view.get(condition);
            prop_assert!(found.iter().count() <= FOLLOWERS);
            let _ = found.count(1);
        }
    }
}

#[test]
fn an_empty_table_knows_nothing() {
    for table in [ConditionalBuilder::default().build(|_| true), Default::default()] {
        assert_eq!(table.view().get(0).total, 0);
        assert!(table.slots.is_empty() && table.records.is_empty());
    }
}
