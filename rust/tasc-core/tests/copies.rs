//! What rows teach about copying: by hand on a tiny task, and against counts made from scratch.
#![allow(clippy::unwrap_used)] // a test may
mod toys;

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use tasc_core::TokenId;
use tasc_core::index::copies::{CopyArrays, CopyModel, CopyModelBuilder, next, short};
use tasc_core::text::pieces::TokenizationCache;
use tasc_core::text::words::split;
use tasc_core::text::{CopyState, Pieces, SourceText};
use toys::{Toy, id};

fn source_text(text: &str, toy: Toy) -> SourceText {
    let mut source_text = SourceText::default();
    source_text.read(text, &Pieces::default(), &mut TokenizationCache::default(), Some(&toy)).unwrap();
    source_text
}

fn learn(rows: &[(String, Vec<TokenId>, u32)], toy: Toy) -> CopyArrays {
    let mut builder = CopyModelBuilder::default();
    let surfaces: Vec<SourceText> = rows.iter().map(|r| source_text(&r.0, toy)).collect();
    for (row, source_text) in rows.iter().zip(&surfaces) {
        builder.count(source_text, &row.1, row.2);
    }
    builder.counted();
    for (row, source_text) in rows.iter().zip(&surfaces) {
        builder.learn(source_text, &row.1, row.2);
    }
    builder.build()
}

/// Rows of words: an input, an output, a weight.
fn task(rows: &[(&str, &str, u32)]) -> CopyArrays {
    let rows: Vec<_> = rows.iter().map(|r| (r.0.to_owned(), Toy::Words.ids(r.1), r.2)).collect();
    learn(&rows, Toy::Words)
}

fn word(text: &str) -> u64 {
    let mut words = Vec::new();
    split(text, &mut words);
    words[0].key
}

fn near(found: f32, wanted: f64) {
    assert!((f64::from(found) - wanted).abs() < 1e-6, "{found} is not {wanted}");
}

/// A city stands in the output as it stands in the input, and "X" comes before it.
fn flights() -> CopyArrays {
    task(&[("to a", "X a Y", 1), ("to b", "X b Z", 1)])
}

#[test]
fn rates_by_hand() {
    let learnt = flights();
    let copies = learnt.view();
    // two words were seen once, both copied: a word that is new is copied in (2 + 1) of (2 + 2)
    near(copies.rate(word("new")), 0.75);
    near(copies.rate(word("a")), (1.0 + 0.75) / 2.0);
    near(copies.rate(word("b")), (1.0 + 0.75) / 2.0);
    near(copies.rate(word("to")), (0.0 + 0.75) / 3.0);
    assert_eq!(copies.words.len(), 4);
    near(copies.token_rate(id("X")), 0.0);
    near(copies.token_rate(id("a")), 0.5); // one of one, and one more that was not
    near(copies.token_rate(id("never")), 0.0);
    near(CopyModel::default().rate(1), 0.5);
    let heavy = task(&[("to a", "X a", 3), ("to b", "X", 5)]);
    near(heavy.view().rate(word("a")), (3.0 + 0.5) / 4.0); // nothing was seen once: 1 of 2
    near(heavy.view().rate(word("b")), 0.5 / 6.0);
    near(heavy.view().token_rate(id("a")), 3.0 / 4.0);
}

#[test]
fn pointers_by_hand() {
    let learnt = flights();
    let copies = learnt.view();
    let after_x = copies.pointers(&[id("X")]);
    assert!(after_x.known());
    // twice a copy began, of two times: a prior of 0.1 that counts as two, once per length of the tail
    let near_tail = (2.0 + 2.0 * 0.1) / 4.0;
    near(after_x.begins(), (2.0 + 2.0 * near_tail) / 4.0);
    let any = (2.0 + 0.1) / (2.0 + 10.0);
    let near_tail = (2.0 + 3.0 * any) / (2.0 + 3.0);
    near(after_x.left(word("to")), (2.0 + 3.0 * near_tail) / (2.0 + 3.0));
    let none = 0.1 / 12.0;
    near(after_x.left(word("from")), 3.0 / 5.0 * (3.0 / 5.0 * none));
    // nothing was copied first, nor after "X a"
    for tail in [&[][..], &[id("X"), id("a")], &[id("Q")]] {
        let pointers = copies.pointers(tail);
        assert!(!pointers.known(), "{tail:?}");
        assert!(pointers.begins() < 0.11);
    }
}

#[test]
fn copies_that_go_on_by_hand() {
    let learnt = task(&[("p q", "p q E", 1), ("p q", "p E", 2), ("r q", "r q E", 4)]);
    let copies = learnt.view();
    let key = word;
    assert_eq!(copies.continued(key("p"), key("q")), [(1, 3), (5, 7)]);
    assert_eq!(copies.continued(key("r"), key("q")), [(4, 4), (5, 7)]);
    assert_eq!(copies.continued(key("s"), key("q")), [(0, 0), (5, 7)]);
    assert_eq!(copies.continued(key("q"), key("p")), [(0, 0), (0, 0)]);
}

#[test]
fn coverage_by_hand() {
    let learnt = flights();
    let copies = learnt.view();
    let (x, a, b) = (id("X"), id("a"), id("b"));
    let followers =
        |f: tasc_core::index::conditional::Followers<'_>| (f.total, f.distinct, f.iter().collect::<Vec<_>>());
    // one word waits (0.875 of it) after X, and what follows X depends on which: all tails are ambiguous
    for found in copies.coverage(&[x], 0.875) {
        assert_eq!(followers(found), (2, 2, vec![(a, 1), (b, 1)]));
    }
    assert!(copies.is_ambiguous(&[x], 0.875));
    assert!(!copies.is_ambiguous(&[x], 0.0), "it was never so that nothing waited there");
    assert!(!copies.is_ambiguous(&[], 0.875), "X comes first, whatever waits");
    assert!(!copies.is_ambiguous(&[x, a], 0.0), "Y follows");
    let [long, short, left, left_short] = copies.ahead(&[x], word("a"), word("to"));
    assert_eq!(followers(long), (1, 1, vec![(a, 1)]));
    assert_eq!(followers(short), (1, 1, vec![(a, 1)]));
    assert_eq!(followers(left), (2, 2, vec![(a, 1), (b, 1)]));
    assert_eq!(followers(left_short), (2, 2, vec![(a, 1), (b, 1)]));
    let [unknown, _, left, _] = copies.ahead(&[x], word("z"), word("to"));
    assert_eq!((unknown.total, left.total), (0, 2));
}

/// Only what still waits tells the two endings apart.
#[test]
fn the_end_depends_on_what_waits() {
    let learnt = task(&[("a b", "a S b E", 2), ("c", "c E", 3), ("d", "d E", 1)]);
    let copies = learnt.view();
    let follower = |waiting: f32, tail: &[&str]| {
        let tail: Vec<TokenId> = tail.iter().map(|t| id(t)).collect();
        copies.coverage(&tail, waiting)[1].iter().map(|p| p.0).collect::<Vec<_>>()
    };
    assert_eq!(follower(2.0, &[]), [id("a")], "two wait");
    assert_eq!(follower(1.0, &[]), [id("c"), id("d")], "one waits");
    assert!(follower(0.0, &["c"]).is_empty(), "c is followed by E alone: nothing to tell apart");
}

#[test]
fn the_next_word_is_the_first_that_waits() {
    let source_text = source_text("to a via b", Toy::Words);
    let rates = [0.1, 0.9, 0.2, 0.8];
    let mut copy_state = CopyState::default();
    copy_state.reset(4, 1.7);
    assert_eq!(next(&source_text, &copy_state, &rates), (word("a"), word("to")));
    copy_state.push(&source_text, &rates, id("a"));
    assert_eq!(next(&source_text, &copy_state, &rates), (word("b"), word("via")));
    copy_state.push(&source_text, &rates, id("b"));
    assert_eq!(next(&source_text, &copy_state, &rates), (0, 1));
    let mut back = CopyState::default();
    back.reset(4, 1.7);
    back.push(&source_text, &rates, id("b"));
    assert_eq!(next(&source_text, &back, &rates), (0, 1), "what was passed over does not wait");
}

/// An id that no vocabulary holds takes no memory.
#[test]
fn huge_ids_are_harmless() {
    let learnt = learn(&[("a".into(), vec![TokenId::MAX - 1, 3, 97], 1)], Toy::Words);
    near(learnt.view().token_rate(TokenId::MAX - 1), 0.0);
    near(learnt.view().token_rate(97), 0.5);
    assert!(learnt.tokens.len() < 1 << 24, "{} tokens", learnt.tokens.len());
}

/// Rows over a small alphabet, so that words repeat.
fn rows() -> impl Strategy<Value = Vec<(String, Vec<TokenId>, u32)>> {
    let words = |n| prop::collection::vec("[a-f]", 0..n).prop_map(|w| w.join(" "));
    let row = (words(6), words(9), 1..4u32).prop_map(|(i, o, w)| (i, Toy::Words.ids(&o), w));
    prop::collection::vec(row, 1..12)
}

/// Rates, counted from scratch: with one token per word, a word is copied when the output holds it.
fn naive_rates(rows: &[(String, Vec<TokenId>, u32)]) -> BTreeMap<String, f64> {
    let mut seen: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for (input, output, weight) in rows {
        let words: std::collections::BTreeSet<&str> = input.split_whitespace().collect();
        for w in words {
            let entry = seen.entry(w.into()).or_default();
            entry.0 += weight;
            entry.1 += if output.contains(&id(w)) { *weight } else { 0 };
        }
    }
    let once: Vec<_> = seen.values().filter(|s| s.0 == 1).collect();
    let copied = once.iter().filter(|s| s.1 == 1).count();
    let unknown = (copied as f64 + 1.0) / (once.len() as f64 + 2.0);
    let mut rates: BTreeMap<String, f64> =
        seen.into_iter().map(|(w, s)| (w, (f64::from(s.1) + unknown) / (f64::from(s.0) + 1.0))).collect();
    rates.insert("never".into(), unknown);
    rates
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, ..ProptestConfig::default() })]

    #[test]
    fn rates_equal_those_from_scratch(rows in rows()) {
        let learnt = learn(&rows, Toy::Words);
        let rates = naive_rates(&rows);
        prop_assert_eq!(learnt.words.len(), rates.len());
        prop_assert!(learnt.words.windows(2).all(|w| w[0] < w[1]));
        for (w, rate) in rates {
            prop_assert!((f64::from(learnt.view().rate(word(&w))) - rate).abs() < 1e-6, "{w}");
        }
        let mut tokens: BTreeMap<TokenId, (u32, u32)> = BTreeMap::new();
        for (input, output, weight) in &rows {
            let words = Toy::Words.ids(input);
            for &t in output {
                let counts = tokens.entry(t).or_default();
                counts.0 += weight;
                counts.1 += if words.contains(&t) { *weight } else { 0 };
            }
        }
        for (t, (seen, copied)) in tokens {
            let exact = (256.0 * f64::from(copied) / (f64::from(seen) + 1.0)).floor() / 256.0;
            prop_assert!((f64::from(learnt.view().token_rate(t)) - exact).abs() < 1e-6);
        }
    }

    /// Pointers and coverage against maps keyed by the whole tail.
    #[test]
    fn tables_equal_maps(rows in rows()) {
        let learnt = learn(&rows, Toy::Words);
        let copies = learnt.view();
        let waits = |rate: f32| if rate > 0.4 { rate } else { 0.0 };
        let tail = |output: &[TokenId], at: usize, n: usize| output[at.saturating_sub(n)..at].to_vec();
        let mut after: HashMap<Vec<TokenId>, Vec<TokenId>> = HashMap::new();
        for (_, output, _) in &rows {
            (0..output.len()).for_each(|at| after.entry(tail(output, at, 4)).or_default().push(output[at]));
        }
        let mut coverage: HashMap<(Vec<TokenId>, usize), BTreeMap<TokenId, u32>> = HashMap::new();
        // tail length and tail → left word of what was copied (`None`: nothing was) → how often
        let mut begun: HashMap<(usize, Vec<TokenId>), BTreeMap<Option<u32>, u32>> = HashMap::new();
        for (input, output, weight) in &rows {
            let words: Vec<&str> = input.split_whitespace().collect();
            for (at, &token) in output.iter().enumerate() {
                let waiting: f32 = words.iter().filter(|w| !output[..at].contains(&id(w))).map(|w| waits(copies.rate(word(w)))).sum();
                let bucket = [0.6, 1.6, 2.6].iter().filter(|&&b| waiting >= b).count();
                let ends = |b: f32| (waiting - b).abs() < 1e-3;
                prop_assume!(!(ends(0.6) || ends(1.6) || ends(2.6))); // the order of a sum decides there
                let tail = tail(output, at, 4);
                if after[&tail].iter().any(|&t| t != token) {
                    *coverage.entry((tail.clone(), bucket)).or_default().entry(token).or_default() += weight;
                }
                // a copy goes on when the token before was its left word
                let goes_on = at > 0 && words.windows(2).any(|p| id(p[0]) == output[at - 1] && id(p[1]) == token);
                let lefts: Vec<u64> = (0..words.len())
                    .filter(|&w| id(words[w]) == token)
                    .map(|w| if w == 0 { 0 } else { word(words[w - 1]) })
                    .collect();
                for n in [9, 4, 0].into_iter().filter(|_| !goes_on) {
                    let counts = begun.entry((n, output[at.saturating_sub(n)..at].to_vec())).or_default();
                    lefts.iter().for_each(|&l| *counts.entry(Some(short(l))).or_default() += weight);
                    if lefts.is_empty() && n > 0 {
                        *counts.entry(None).or_default() += weight;
                    }
                }
            }
        }
        for ((tail, bucket), followers) in coverage {
            let found = copies.coverage(&tail, bucket as f32)[1];
            prop_assert_eq!(found.iter().collect::<BTreeMap<_, _>>(), followers);
            prop_assert!(copies.is_ambiguous(&tail, bucket as f32));
        }
        for (_, output, _) in &rows {
            for at in 0..output.len() {
                let counts = |n: usize| begun.get(&(n, output[at.saturating_sub(n)..at].to_vec()));
                let all = |n: usize| counts(n).map_or(0, |c| c.values().sum::<u32>());
                let of = |n: usize, left: Option<u32>| counts(n).and_then(|c| c.get(&left)).copied().unwrap_or(0);
                let copies_after = |n: usize| f64::from(all(n) - of(n, None));
                let pointers = copies.pointers(&output[..at]);
                prop_assert_eq!(pointers.known(), copies_after(4) > 0.0);
                let begins = [4, 9].iter().fold(0.1, |p, &n| (copies_after(n) + 2.0 * p) / (f64::from(all(n)) + 2.0));
                // a tail that nothing was copied after is not stored
                let stored = [4, 9].iter().all(|&n| copies_after(n) > 0.0);
                prop_assert!(!stored || (f64::from(pointers.begins()) - begins).abs() < 1e-5);
                for left in ["a", "b", "c", "d", "e", "f"].map(word).into_iter().chain([0]) {
                    let any = (f64::from(of(0, Some(short(left)))) + 0.1) / (f64::from(all(0)) + 10.0);
                    let p = [4, 9].iter().fold(any, |p, &n| {
                        (f64::from(of(n, Some(short(left)))) + 3.0 * p) / (copies_after(n) + 3.0)
                    });
                    prop_assert!((f64::from(pointers.left(left)) - p).abs() < 1e-5, "{} is not {p}", pointers.left(left));
                }
            }
        }
    }

    /// Whatever is learnt stays within its bounds, with any tokenizer.
    #[test]
    fn numbers_stay_within_bounds(
        rows in prop::collection::vec(("[ab北京 ,]{0,20}", "[ab北京 ,]{0,20}", 1..3u32), 1..8),
        toy in prop::sample::select(Toy::ALL.to_vec()),
    ) {
        let rows: Vec<_> = rows.into_iter().map(|(i, o, w)| (i, toy.ids(&o), w)).collect();
        let learnt = learn(&rows, toy);
        let copies = learnt.view();
        prop_assert!(learnt.rates.iter().all(|r| (0.0..=1.0).contains(r)));
        for (input, output, _) in &rows {
            let source_text = source_text(input, toy);
            let (mut rates, mut usual) = (Vec::new(), Vec::new());
            let waiting = copies.usual(&source_text, &mut rates, &mut usual);
            prop_assert!((waiting - usual.iter().sum::<f32>()).abs() < 1e-4);
            for at in 0..=output.len() {
                let pointers = copies.pointers(&output[..at]);
                prop_assert!((0.0..=1.0).contains(&pointers.begins()));
                for w in 0..source_text.len() as u32 {
                    let p = pointers.left(source_text.left(w));
                    prop_assert!((0.0..=1.0).contains(&p), "{p}");
                    for (went, could) in copies.continued(source_text.left(w), source_text.key(w)) {
                        prop_assert!(went <= could);
                    }
                }
                prop_assert!(output.get(at).is_none_or(|&t| (0.0..1.0).contains(&copies.token_rate(t))));
            }
        }
        prop_assert_eq!(short(u64::MAX - 1), u32::MAX - 1);
    }
}
