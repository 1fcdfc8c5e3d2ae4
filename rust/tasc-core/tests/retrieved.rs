//! Outputs of retrieved rows, read back from the index.
#![allow(clippy::unwrap_used)] // a test may
mod toys;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tasc_core::TokenId;
use tasc_core::corpus::OnlineRow;
use tasc_core::draft::sources::retrieved::{NEIGHBOURS, Retrieved};
use tasc_core::draft::{CostCurve, Drafter, DrafterOptions};
use tasc_core::index::inputs::{InputArrays, InputsBuilder, terms};
use tasc_core::index::{NgramArrays, NgramsBuilder};
use tasc_core::mixture::blend::Blend;
use tasc_core::mixture::{Source, SourceMask};
use tasc_core::online::sequence_index::Matches;
use tasc_core::online::served::{IndexedRows, START};
use tasc_core::task::build;
use tasc_core::text::pieces::TokenizationCache;
use tasc_core::text::words::split;
use toys::{Random, Toy};

fn terms_of(text: &str) -> Vec<u64> {
    let (mut words, mut out) = (Vec::new(), Vec::new());
    split(text, &mut words);
    terms(&words, &mut out);
    out
}

/// The output that starts at a sorted position.
fn output_at(ngrams: &NgramArrays, start: u32) -> Vec<TokenId> {
    let (mut at, mut output) = (start as usize, Vec::new());
    while ngrams.bwt[at] != 0 {
        output.push(ngrams.tokens[ngrams.bwt[at] as usize - 1]);
        at = ngrams.lf[at] as usize;
    }
    output
}

/// Rows (input, output) as an index of outputs and one of inputs.
fn build(rows: &[(String, Vec<TokenId>)]) -> (NgramArrays, InputArrays) {
    let mut documents: Vec<&Vec<TokenId>> = Vec::new();
    let mut builder = NgramsBuilder::new();
    for (_, output) in rows {
        if !documents.contains(&output) {
            documents.push(output);
            builder.push(output, 1).unwrap();
        }
    }
    let (ngrams, starts) = builder.build_with_starts(|_| Ok(())).unwrap();
    let mut inputs = InputsBuilder::new();
    for (input, output) in rows {
        let document = documents.iter().position(|d| *d == output).unwrap();
        inputs.push(input, starts[document], 1).unwrap();
    }
    (ngrams, inputs.build())
}

fn said(retrieved: &Retrieved, matches: &Matches) -> (u32, Blend) {
    let mut blend = Blend::default();
    let order = retrieved.blend(matches, &mut Vec::new(), &mut blend);
    (order, blend)
}

fn rows() -> impl Strategy<Value = Vec<(String, Vec<TokenId>)>> {
    let input = prop::collection::vec("[a-e]", 0..6).prop_map(|w| w.join(" "));
    let token = prop_oneof![8 => 0..6u32, 1 => Just(u32::MAX - 1)];
    prop::collection::vec((input, prop::collection::vec(token, 0..12)), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn starts_lead_through_whole_documents(documents in prop::collection::vec(prop::collection::vec(0..4u32, 0..9), 1..60)) {
        let mut builder = NgramsBuilder::new();
        documents.iter().for_each(|d| builder.push(d, 1).unwrap());
        let (ngrams, starts) = builder.build_with_starts(|_| Ok(())).unwrap();
        prop_assert_eq!(starts.len(), documents.len());
        prop_assert_eq!(starts.iter().collect::<BTreeSet<_>>().len(), documents.len());
        for (document, start) in documents.iter().zip(starts) {
            prop_assert_eq!(&output_at(&ngrams, start), document);
        }
    }

    /// What may follow is what follows in the outputs of the rows retrieved, found by searching them.
    #[test]
    fn evidence_equals_a_search(rows in rows(), query in "[a-e]( [a-e]){0,4}", walk in prop::collection::vec(0..6u32, 0..6)) {
        let (ngrams, inputs) = build(&rows);
        let (mut retrieved, mut matches) = (Retrieved::default(), Matches::default());
        retrieved.find(&inputs.view(), &ngrams.view(), &IndexedRows::default(), &terms_of(&query), &mut matches);
        let neighbours = retrieved.neighbours();
        prop_assert!(neighbours.len() <= NEIGHBOURS);
        prop_assert_eq!(retrieved.similarity(), neighbours.first().map_or(0.0, |n| n.similarity));
        let documents: BTreeSet<u32> = neighbours.iter().map(|n| n.document).collect();
        prop_assert_eq!(documents.len(), neighbours.len(), "at most one row per document");
        let outputs: Vec<Vec<TokenId>> = neighbours.iter().map(|n| output_at(&ngrams, n.document)).collect();
        for output in &outputs {
            prop_assert!(rows.iter().any(|r| r.1 == *output));
        }
        for at in 0..=walk.len() {
            let (order, blend) = said(&retrieved, &matches);
            // the start of an output counts as one token before it
            let longest = |o: &[TokenId], end: usize| {
                let same = o[..end].iter().rev().zip(walk[..at].iter().rev()).take_while(|(a, b)| a == b).count();
                same + usize::from(same == end && same == at)
            };
            let mut followers: BTreeSet<TokenId> = BTreeSet::new();
            for output in &outputs {
                followers.extend((0..output.len()).filter(|&end| longest(output, end) > 0).map(|end| output[end]));
            }
            prop_assert!(blend.candidates.iter().all(|c| followers.contains(&c.0)), "{:?} of {:?}", blend, followers);
            prop_assert!(blend.candidates.iter().all(|c| c.0 != TokenId::MAX && c.1 > 0.0));
            let total: f32 = blend.candidates.iter().map(|c| c.1).sum::<f32>() + blend.rest;
            prop_assert!((total - 1.0).abs() < 1e-4, "{total}");
            let best = outputs.iter().flat_map(|o| (0..o.len()).map(|end| longest(o, end))).max().unwrap_or(0);
            prop_assert!(order as usize >= best || outputs.len() * 12 > 24, "{order} is less than {best}");
            if at < walk.len() {
                retrieved.advance(&mut matches, walk[at]);
            }
        }
    }

    /// Along the output of the nearest row every token is expected.
    #[test]
    fn the_nearest_output_is_expected(rows in rows(), pick in any::<prop::sample::Index>()) {
        let (ngrams, inputs) = build(&rows);
        let (mut retrieved, mut matches) = (Retrieved::default(), Matches::default());
        let query = &pick.get(&rows).0;
        retrieved.find(&inputs.view(), &ngrams.view(), &IndexedRows::default(), &terms_of(query), &mut matches);
        let Some(nearest) = retrieved.neighbours().first() else { return Ok(()) };
        for token in output_at(&ngrams, nearest.document) {
            let (order, blend) = said(&retrieved, &matches);
            prop_assert!(order > 0 && blend.probability(token) > 0.01, "{} in {:?}", token, blend);
            retrieved.advance(&mut matches, token);
        }
        retrieved.find(&inputs.view(), &ngrams.view(), &IndexedRows::default(), &[], &mut matches);
        prop_assert_eq!((retrieved.similarity(), retrieved.neighbours().len(), said(&retrieved, &matches).0), (0.0, 0, 0));
    }

    /// Positions from a hostile file: outputs of any tokens, of bounded length.
    #[test]
    fn hostile_positions_never_panic(
        documents in prop::collection::vec(prop_oneof![0..40u32, any::<u32>()], 1..20),
        step in prop::collection::vec(prop_oneof![4 => 0..40u32, 1 => any::<u32>()], 40),
    ) {
        let mut builder = NgramsBuilder::new();
        builder.push(&[1; 39], 1).unwrap();
        let mut ngrams = builder.build(|_| Ok(())).unwrap();
        ngrams.lf = step;
        let mut inputs = InputsBuilder::new();
        documents.iter().for_each(|&d| inputs.push("a", d, 1).unwrap());
        let (mut retrieved, mut matches) = (Retrieved::default(), Matches::default());
        retrieved.find(&inputs.build().view(), &ngrams.view(), &IndexedRows::default(), &terms_of("a"), &mut matches);
        for _ in 0..3 {
            said(&retrieved, &matches);
            retrieved.advance(&mut matches, 1);
        }
    }
}

#[test]
fn nearer_rows_count_for_more() {
    let far = ("fly to rome", vec![1, 2, 3]);
    let nearer = ("fly to boston on monday", vec![1, 5, 6]);
    let rows: Vec<_> = [far, nearer].map(|(i, o)| (i.to_owned(), o)).to_vec();
    let (ngrams, inputs) = build(&rows);
    let (mut retrieved, mut matches) = (Retrieved::default(), Matches::default());
    retrieved.find(
        &inputs.view(),
        &ngrams.view(),
        &IndexedRows::default(),
        &terms_of("fly to boston on friday"),
        &mut matches,
    );
    retrieved.advance(&mut matches, 1);
    let (order, blend) = said(&retrieved, &matches);
    assert_eq!(order, 2, "from the start of the output");
    assert!(blend.probability(5) > 4.0 * blend.probability(2) && blend.probability(2) > 0.0, "{blend:?}");
}

/// A thousand rows with the same output are one neighbour; the others are there too.
#[test]
fn near_duplicates_do_not_crowd_out() {
    let mut rows: Vec<_> = (0..1000u32).map(|k| (format!("turn on lamp {}", k % 9), vec![7, 7, 7])).collect();
    rows.extend((0..40).map(|k| (format!("turn on radio {k}"), vec![8, k, 9])));
    let (ngrams, inputs) = build(&rows);
    let (mut retrieved, mut matches) = (Retrieved::default(), Matches::default());
    retrieved.find(&inputs.view(), &ngrams.view(), &IndexedRows::default(), &terms_of("turn on lamp 3"), &mut matches);
    let outputs: BTreeSet<_> = retrieved.neighbours().iter().map(|n| output_at(&ngrams, n.document)).collect();
    assert_eq!(outputs.len(), NEIGHBOURS);
    assert!(outputs.contains(&vec![7, 7, 7]));
}

/// Rows served since count as those of the index do: at most one per output, sixteen in all.
#[test]
fn served_rows_are_retrieved_and_do_not_crowd_out_either() {
    let rows: Vec<_> = (0..40u32).map(|k| (format!("turn on radio {k}"), vec![8, k, 9])).collect();
    let (ngrams, inputs) = build(&rows);
    let inputs = inputs.view();
    let mut served = IndexedRows::default();
    for k in 0..1000 {
        let row =
            OnlineRow { input: format!("turn on radio {}", 3 + k % 2), output: vec![7, 7, 5], ..OnlineRow::default() };
        served.add(&row, None, Some(&inputs));
    }
    served.add(
        &OnlineRow { input: "turn on lamp 3".into(), output: vec![6, 6], ..OnlineRow::default() },
        None,
        Some(&inputs),
    );
    let (mut retrieved, mut matches, mut found) = (Retrieved::default(), Matches::default(), Vec::new());
    let terms = terms_of("turn on radio 3");
    served.nearest(&terms, &inputs, 16, &mut found);
    assert_eq!(found.iter().map(|n| served.output(n.row)).collect::<Vec<_>>(), [&[7, 7, 5][..], &[6, 6]]);
    assert_eq!((found[0].row, found[0].similarity > 0.999), (998, true), "of equals the latest");
    served.nearest(&terms, &inputs, 1, &mut found);
    assert_eq!(found.len(), 1);
    retrieved.find(&inputs, &ngrams.view(), &served, &terms, &mut matches);
    assert!(retrieved.neighbours().len() >= NEIGHBOURS - 2);
    let (_, blend) = said(&retrieved, &matches);
    assert!(blend.probability(7) > 0.0 && blend.probability(8) > 0.0, "{blend:?}");
}

/// What is forgotten leaves the rest as if nothing else had ever been.
#[test]
fn forgotten_rows_leave_no_trace() {
    let inputs = InputsBuilder::new().build();
    let row = |k: u32| OnlineRow { input: format!("a b{k}"), output: vec![k, k + 1, 5], ..OnlineRow::default() };
    let (mut bounded, mut fresh) = (IndexedRows::new(20_000), IndexedRows::default());
    for k in 0..500 {
        bounded.add(&row(k), None, Some(&inputs.view()));
        bounded = bounded.fewer().unwrap_or(bounded);
        assert!(bounded.memory_usage() <= 20_000, "{} bytes", bounded.memory_usage());
    }
    assert!((3..30).contains(&bounded.epoch()), "forgotten {} times, half of them each", bounded.epoch());
    assert!(bounded.len() > 20 && bounded.len() < 120, "{} rows", bounded.len());
    let first = 500 - bounded.len() as u32;
    (first..500).for_each(|k| fresh.add(&row(k), None, Some(&inputs.view())));
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for text in ["a", "a b499", "b470", "b3"] {
        bounded.nearest(&terms_of(text), &inputs.view(), 500, &mut a);
        fresh.nearest(&terms_of(text), &inputs.view(), 500, &mut b);
        let all = |s: &IndexedRows, found: &[tasc_core::online::served::OnlineNeighbour]| {
            found.iter().map(|n| (n.row, n.similarity, s.output(n.row).to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(all(&bounded, &a), all(&fresh, &b));
    }
    assert!(a.is_empty(), "b3 was forgotten");
}

proptest! {
    /// The 16 latest rows count alike; forgetting older ones changes nothing.
    #[test]
    fn the_latest_served_rows_count(outputs in prop::collection::vec(0..4u32, 1..500), kept in 0..40usize) {
        let mut served = IndexedRows::new(usize::MAX);
        let row = |token| OnlineRow { input: String::new(), output: vec![9, token], ..OnlineRow::default() };
        outputs.iter().for_each(|&token| served.add(&row(token), None, None));
        let (mut matches, mut blend) = (Matches::default(), Blend::default());
        for of in [&served, &served.latest(kept)] {
            let mut counts = BTreeMap::<TokenId, f64>::new();
            let followed = outputs.iter().rev().take(of.len().min(16)); // the latest places
            for &token in followed {
                *counts.entry(token).or_default() += 1.0;
            }
            matches.clear();
            of.advance(&mut matches, START);
            of.advance(&mut matches, 9);
            of.blend(&matches, &mut Vec::new(), &mut blend);
            let (n, t) = (counts.values().sum::<f64>(), counts.len() as f64);
            let best = counts.values().copied().fold(0.0, f64::max);
            for (&token, &c) in counts.iter().filter(|(_, c)| **c > 0.02 * best) {
                // both lengths of the match say the same
                let (found, exact) = (f64::from(blend.probability(token)), c / n * (1.0 - (t / (n + t)).powi(2)));
                prop_assert!((found - exact).abs() < 1e-4, "{token}: {found} is not {exact}");
            }
        }
    }
}

/// From a store to the request: the neighbours' documents are outputs of rows that share words with the input.
#[test]
fn neighbours_of_a_request_are_rows_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let rows = toys::rows(Toy::Glued, 300, 1);
    let store = toys::store(&folder.path().join("s"), &rows);
    let built = |left_out: &build::LeftOut| {
        build::build(&store, left_out, true, &mut TokenizationCache::default(), Some(&Toy::Glued), |_| Ok(())).unwrap()
    };
    let ngrams = built(&build::LeftOut::default()).ngrams;
    let drafter = Drafter::new(Some(Arc::new(built(&build::LeftOut::default()))), DrafterOptions::default()).unwrap();
    let mut random = Random(5);
    for _ in 0..100 {
        let (input, _) = toys::request(&mut random);
        let request = drafter.start(&[], Some(&input)).unwrap();
        let terms = terms_of(&input);
        let found = request.retrieved().neighbours();
        assert_eq!(found.len(), NEIGHBOURS);
        for n in found {
            let output = output_at(&ngrams, n.document);
            let shares = |r: &&toys::Row| r.1 == output && terms_of(&r.0).iter().any(|t| terms.contains(t));
            assert!(rows.iter().any(|r| shares(&r)), "{output:?}");
        }
    }
    // a row in the index is its own nearest neighbour
    for (input, _, _) in rows.iter().take(50) {
        let request = drafter.start(&[], Some(input)).unwrap();
        assert!(request.retrieved().similarity() > 0.999);
        let nearest = output_at(&ngrams, request.retrieved().neighbours()[0].document);
        assert!(rows.iter().any(|r| r.0 == *input && r.1 == nearest));
    }
}

/// The mark at the start of every output is no token: it is never drafted, whatever speaks.
#[test]
fn the_start_is_never_drafted() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<toys::Row> = (0..60).map(|k| (format!("a b {}", k % 3), vec![1; 1 + k % 3], 1)).collect();
    let store = toys::store(&folder.path().join("s"), &rows);
    let task =
        build::build(&store, &build::LeftOut::default(), true, &mut TokenizationCache::default(), None, |_| Ok(()))
            .unwrap();
    let without: SourceMask = [Source::Task].into_iter().collect();
    let costs = CostCurve::linear(0.0).unwrap();
    for options in [DrafterOptions::default(), DrafterOptions { without, ..DrafterOptions::default() }] {
        let drafter = Drafter::new(Some(Arc::new(task.clone())), options).unwrap();
        let mut request = drafter.start(&[], Some("a b 1")).unwrap();
        for _ in 0..6 {
            let draft = drafter.draft(&mut request, 16, &costs);
            assert!(draft.tokens.iter().all(|&t| t == 1), "{draft:?}");
            drafter.update(&mut request, &[1]);
        }
    }
}
