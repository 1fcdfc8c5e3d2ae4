//! Sources, mixer, length rule and drafter against slow twins.
#![allow(clippy::unwrap_used)] // a test may
#[path = "support/naive.rs"]
mod naive;

use std::collections::BTreeMap;
use std::sync::Arc;

use naive::{NaiveIndex, witten_bell};
use proptest::prelude::*;
use tasc_core::TokenId;
use tasc_core::draft::length::LengthRule;
use tasc_core::draft::sources::task;
use tasc_core::draft::{CostCurve, Drafter, DrafterOptions};
use tasc_core::index::{Cursor, NgramsBuilder};
use tasc_core::mixture::blend::Blend;
use tasc_core::mixture::{Mixer, MixtureWeights, Weights};
use tasc_core::online::adapt::OnlineCalibration;
use tasc_core::online::sequence_index::{Matches, SequenceIndex};

proptest! {
    /// Blending run by run from the longest context equals the recursion from the shortest, order by order.
    #[test]
    fn blend_is_interpolated_witten_bell(
        documents in prop::collection::vec(prop::collection::vec(0..4u32, 1..8), 1..12),
        output in prop::collection::vec(0..4u32, 0..6),
    ) {
        let (mut builder, mut slow) = (NgramsBuilder::new(), NaiveIndex::default());
        for d in &documents {
            builder.push(d, 1).unwrap();
            slow.push(d, 1);
        }
        let built = builder.build(|_| Ok(())).unwrap();
        let ngrams = built.view();
        let mut cursor = Cursor::at_start(&ngrams);
        let mut history = vec![None];
        for &t in &output {
            cursor.advance(&ngrams, ngrams.symbol(t));
            history.push(Some(t));
        }
        let orders: Vec<BTreeMap<_, _>> =
            (0..=history.len()).map(|m| slow.successors(&history[history.len() - m..])).take_while(|c| !c.is_empty()).collect();
        let truth = witten_bell(&orders);
        let mut blend = Blend::default();
        let order = task::blend(&ngrams, &mut cursor, &mut blend);
        prop_assert_eq!(order as usize, orders.len() - 1);
        let total: f32 = blend.candidates.iter().map(|c| c.1).sum::<f32>() + blend.rest;
        prop_assert!((total - 1.0).abs() < 1e-4, "sums to {}", total);
        for &(symbol, p) in &blend.candidates {
            let exact = truth[&ngrams.token(symbol)];
            // shorter contexts are left out once less than 0.5 % is left for them
            prop_assert!((f64::from(p) - exact).abs() < 0.006, "{:?}: {} is not {}", ngrams.token(symbol), p, exact);
        }
    }

    /// The context source follows every earlier occurrence, as a search through the text would find them.
    #[test]
    fn context_matches_equal_a_search(
        ids in prop::collection::vec(0..6u32, 0..40),
        split in 0..40usize,
        followed in prop_oneof![Just(64usize), 1..8usize],
    ) {
        let (mut context, mut matches) = (SequenceIndex::default(), Matches::default());
        let split = split.min(ids.len());
        context.extend(&ids[..split], &mut matches, followed);
        context.extend(&ids[split..], &mut matches, followed);
        let orders: Vec<BTreeMap<TokenId, u64>> =
            (1..=ids.len()).map(|m| followers(&ids, &ids[ids.len() - m..])).take_while(|c| !c.is_empty()).collect();
        let mut blend = Blend::default();
        let order = context.blend(&matches, &mut Vec::new(), &mut blend);
        prop_assert_eq!(order, matches.order());
        let total: f32 = blend.candidates.iter().map(|c| c.1).sum::<f32>() + blend.rest;
        prop_assert!((total - 1.0).abs() < 1e-4, "sums to {total}");
        if followed < 64 {
            prop_assert!(order as usize <= orders.len());
            prop_assert!(blend.candidates.iter().all(|c| orders[0].contains_key(&c.0)));
            prop_assert!(blend.candidates.len() <= followed);
            return Ok(());
        }
        prop_assert_eq!(order as usize, orders.len());
        // no order 0 here: what is left over belongs to nobody
        let mut left = 1.0;
        let mut exact: BTreeMap<TokenId, f64> = BTreeMap::new();
        for counts in orders.iter().rev() {
            let (n, t) = (counts.values().sum::<u64>() as f64, counts.len() as f64);
            for (&token, &c) in counts {
                *exact.entry(token).or_default() += left * c as f64 / (n + t);
            }
            left *= t / (n + t);
        }
        // shorter matches are left out once less than 1 % is left for them, candidates below 1 % of the best too
        prop_assert!((f64::from(blend.rest) - left).abs() < 0.03);
        for (&token, &p) in &exact {
            let found = f64::from(blend.probability(token));
            prop_assert!((found - p).abs() < 0.0101 || (found == 0.0 && p < 0.0201), "{token}: {found} is not {p}");
        }
        prop_assert!(blend.candidates.iter().all(|c| exact.contains_key(&c.0)));
    }

    /// The length rule finds the best prefix although it stops early.
    #[test]
    fn length_is_the_best_prefix(
        p in prop::collection::vec(0.05..1.0f64, 0..20),
        steps in prop::collection::vec(0.0..0.3f64, 1..24),
        rate in 1.0..12.0f64,
    ) {
        let costs: Vec<f64> = steps.iter().scan(1.0, |c, s| { let now = *c; *c += s; Some(now) }).collect();
        let (chosen, best) = chosen_and_best(&p, &CostCurve::new(costs).unwrap(), rate);
        prop_assert!(best - chosen < 1e-9, "{chosen} is worse than {best}");
    }

    #[test]
    fn mixture_sums_to_one(rows in prop::collection::vec(-30.0..5.0f32, 5..60), states in prop::collection::vec(0..9u8, 0..4)) {
        let rows = &rows[..rows.len() / 5 * 5];
        let table: Vec<f32> = (0..35u8).map(|k| f32::from(k) / 17.0 - 1.0).collect();
        let mut p = Vec::new();
        Mixer::new(Weights::new(5, vec![2, 4], table).unwrap()).mix(rows, &states, &mut p);
        prop_assert_eq!(p.len(), rows.len() / 5);
        prop_assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-4);
    }
}

/// What the draft that the rule chooses is worth, and what the best prefix is.
fn chosen_and_best(p: &[f64], curve: &CostCurve, rate: f64) -> (f64, f64) {
    let net = |k: usize| {
        let gain: f64 = (1..=k).map(|i| p[..i].iter().product::<f64>()).sum();
        gain - rate * (curve.cost(k) - curve.cost(0))
    };
    let mut rule = LengthRule::new(curve, rate);
    let _ = p.iter().all(|&p| rule.extend(p));
    (net(rule.best()), (0..=p.len()).map(net).fold(f64::NEG_INFINITY, f64::max))
}

/// The curve ends flat: what lies past its end is cheaper than anything before.
#[test]
fn length_looks_past_the_end_of_the_curve() {
    let p = [0.752, 0.659, 0.881, 0.919, 0.846, 0.988];
    let curve = CostCurve::new(vec![1.0, 1.0, 1.0, 1.264, 1.478, 1.478]).unwrap();
    let (chosen, best) = chosen_and_best(&p, &curve, 2.7516);
    assert!((best - chosen).abs() < 1e-12, "{chosen} is worse than {best}");
}

/// What followed `context` in a text, and how often.
fn followers(ids: &[TokenId], context: &[TokenId]) -> BTreeMap<TokenId, u64> {
    let mut counts = BTreeMap::new();
    for end in (context.len()..ids.len()).filter(|&end| ids[..end].ends_with(context)) {
        *counts.entry(ids[end]).or_insert(0) += 1;
    }
    counts
}

fn drafter(documents: &[Vec<TokenId>]) -> Drafter {
    let mut builder = NgramsBuilder::new();
    documents.iter().for_each(|d| builder.push(d, 1).unwrap());
    let built = builder.build(|_| Ok(())).unwrap();
    Drafter::new(Some(Arc::new(built)), DrafterOptions::default()).unwrap()
}

#[test]
fn drafts_what_always_follows_and_ends_with_the_document() {
    let drafter = drafter(&vec![vec![1, 2, 3, 4, 5]; 50]);
    let costs = CostCurve::linear(0.02).unwrap();
    let mut request = drafter.start(&[], None).unwrap();
    let draft = drafter.draft(&mut request, 16, &costs).clone();
    assert_eq!(draft.tokens, [1, 2, 3, 4, 5]);
    assert_eq!(draft.sources, [0; 5]);
    assert!(draft.probabilities.iter().all(|&p| p > 0.7), "{draft:?}");
    drafter.update(&mut request, &[1, 2]);
    assert_eq!(drafter.draft(&mut request, 2, &costs).tokens, [3, 4]);
    drafter.update(&mut request, &[9]);
    assert!(drafter.draft(&mut request, 16, &costs).tokens.len() < 5, "an unknown token leaves short contexts only");
}

#[test]
fn drafts_from_the_context_without_an_index() {
    let drafter = Drafter::new(None, DrafterOptions::default()).unwrap();
    let costs = CostCurve::linear(0.02).unwrap();
    let mut request = drafter.start(&[7, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3], None).unwrap();
    let draft = drafter.draft(&mut request, 3, &costs);
    assert_eq!(draft.tokens, [4, 5, 6]);
    assert_eq!(draft.sources, [1; 3]);
    let mut fresh = drafter.start(&[], None).unwrap();
    assert!(drafter.draft(&mut fresh, 16, &costs).tokens.is_empty());
}

#[test]
fn drafts_nothing_when_it_does_not_pay() {
    let documents: Vec<Vec<TokenId>> = (0..400).map(|k| vec![k, k * 7 % 400, k * 13 % 400]).collect();
    let drafter = drafter(&documents);
    let mut request = drafter.start(&[], None).unwrap();
    assert!(drafter.draft(&mut request, 16, &CostCurve::linear(0.1).unwrap()).tokens.is_empty());
    assert!(drafter.draft(&mut request, 0, &CostCurve::linear(0.0).unwrap()).tokens.is_empty());
}

#[test]
fn learns_when_it_is_wrong() {
    let drafter = drafter(&vec![vec![1, 2, 3, 4, 5, 6]; 100]);
    let costs = CostCurve::linear(0.05).unwrap();
    let mut lengths = Vec::new();
    for _ in 0..400 {
        let mut request = drafter.start(&[], None).unwrap();
        lengths.push(drafter.draft(&mut request, 16, &costs).tokens.len());
        drafter.update(&mut request, &[8]);
    }
    assert_eq!(lengths[0], 6);
    assert_eq!(*lengths.last().unwrap(), 0, "always wrong: no draft any more");
}

#[test]
fn same_inputs_same_draft() {
    let documents: Vec<Vec<TokenId>> = (0..60).map(|k| vec![1, 2, k % 5, 3, k % 3, 4]).collect();
    let run = || {
        let drafter = drafter(&documents);
        let costs = CostCurve::linear(0.02).unwrap();
        let mut request = drafter.start(&[3, 1, 2], None).unwrap();
        let mut drafts = Vec::new();
        for token in [1, 2, 0, 3] {
            drafts.push(drafter.draft(&mut request, 8, &costs).clone());
            drafter.update(&mut request, &[token]);
        }
        drafts
    };
    assert_eq!(run(), run());
}

#[test]
fn calibration_follows_what_happens() {
    let mut online = OnlineCalibration::default();
    for k in 0..4000 {
        online.record_token(0.95, k % 2 == 0);
    }
    assert!((online.calibrate(0.95) - 0.5).abs() < 0.1, "{}", online.calibrate(0.95));
    assert!(online.calibrate(0.2) < online.calibrate(0.95));
    for _ in 0..500 {
        online.record_step(6, 2.0);
    }
    assert!((online.rate() - 3.0).abs() < 0.01);
}

#[test]
fn bad_curves_and_weights_are_refused() {
    for (costs, why) in [(vec![], "empty"), (vec![1.0, f64::NAN], "NaN"), (vec![0.0], "0"), (vec![2.0, 1.0], "falls")] {
        assert!(CostCurve::new(costs).unwrap_err().to_string().contains(why));
    }
    assert!(CostCurve::linear(-0.1).is_err());
    assert!(Weights::new(5, vec![], vec![0.0; 7]).unwrap_err().to_string().contains("7 weights"));
    assert!(Weights::new(2, vec![], vec![0.0, f32::INFINITY]).unwrap_err().to_string().contains("inf"));
    let other = Weights::new(2, vec![], vec![0.0; 2]).unwrap();
    assert!(MixtureWeights::single(&other).unwrap_err().to_string().contains("a table has 2 features"));
    assert!(MixtureWeights::new(vec![]).unwrap_err().to_string().contains("there are 0 tables; give 7"));
}
