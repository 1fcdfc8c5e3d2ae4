//! Words of a text, and the nearest rows against their naive twin.
#![allow(clippy::unwrap_used)] // a test may
#[path = "support/naive.rs"]
mod naive;

use std::collections::BTreeMap;

use naive::NaiveInputs;
use proptest::prelude::*;
use tasc_core::index::inputs::{InputArrays, Inputs, InputsBuilder};
use tasc_core::index::inputs::{idf, terms};
use tasc_core::index::nearest::POSTINGS_BUDGET;
use tasc_core::index::nearest::{NearestScratch, Neighbour};
use tasc_core::text::words::{MAX_WORDS, Word, WordKind, split};

fn words(text: &str) -> Vec<Word> {
    let mut out = Vec::new();
    split(text, &mut out);
    out
}

fn terms_of(text: &str) -> Vec<u64> {
    let mut out = Vec::new();
    terms(&words(text), &mut out);
    out
}

fn nearest(inputs: Inputs<'_>, text: &str, n: usize) -> Vec<Neighbour> {
    let mut out = Vec::new();
    inputs.nearest(&terms_of(text), n, &mut NearestScratch::default(), &mut out);
    out
}

fn build(rows: &[(String, u32)]) -> (InputArrays, NaiveInputs) {
    let (mut fast, mut slow) = (InputsBuilder::new(), NaiveInputs::default());
    for (text, document) in rows {
        fast.push(text, *document, 1).unwrap();
        slow.push(&terms_of(text));
    }
    (fast.build(), slow)
}

#[test]
fn words_by_example() {
    let text = "Find e\u{301}tudes, snake_case  &&  北京a ไท\u{e48}!";
    let found: Vec<_> = words(text).iter().map(|w| (&text[w.start as usize..w.end as usize], w.kind)).collect();
    let (w, p, c) = (WordKind::Word, WordKind::Punctuation, WordKind::Character);
    let characters = [("北", c), ("京", c), ("a", w), ("ไ", c), ("ท", c), ("\u{e48}", c), ("!", p)];
    let mut wanted = vec![("Find", w), ("e\u{301}tudes", w), (",", p), ("snake", w), ("_", p), ("case", w), ("&&", p)];
    wanted.extend(characters);
    assert_eq!(found, wanted);
    let keys = |text: &str| words(text).iter().map(|w| w.key).collect::<Vec<_>>();
    assert_eq!(keys("ΟΔΟΣ Straße ABC"), keys("οδος straße abc"));
    assert_eq!(keys("abc"), [xxhash_rust::xxh3::xxh3_64(b"abc")]);
    assert!(keys(" \t\r\n\u{a0}\u{3000}").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
    #[test]
    fn words_cover_a_text(text in prop_oneof!["\\PC{0,60}", "[a-zA-Z0-9_ .,ÄäßΣσς\u{300}İ北あアกກ၁ក\t]{0,80}"]) {
        let found = words(&text);
        let mut at = 0;
        for w in &found {
            let (start, end) = (w.start as usize, w.end as usize);
            prop_assert!(at <= start && start < end && text.is_char_boundary(start) && text.is_char_boundary(end));
            prop_assert!(text[at..start].chars().all(char::is_whitespace));
            let word = &text[start..end];
            prop_assert!(!word.contains(char::is_whitespace));
            prop_assert!(w.kind != WordKind::Character || word.chars().count() == 1);
            prop_assert!(w.kind != WordKind::Punctuation || !word.contains(char::is_alphanumeric));
            let alone = words(&word.chars().flat_map(char::to_lowercase).collect::<String>());
            prop_assert_eq!(alone.iter().map(|w| w.key).collect::<Vec<_>>(), [w.key]);
            at = end;
        }
        prop_assert!(text[at..].chars().all(char::is_whitespace));
        for (a, b) in found.iter().zip(found.iter().skip(1)) {
            prop_assert!(a.end < b.start || a.kind != b.kind || a.kind == WordKind::Character, "not maximal");
        }
    }
}

#[test]
fn terms_are_words_and_ordered_pairs() {
    assert_eq!(terms_of("a b").len(), 3);
    assert_eq!(terms_of("a a a a").len(), 2);
    let (ab, ba) = (terms_of("a b"), terms_of("b a"));
    assert_eq!(ab.iter().filter(|t| ba.contains(t)).count(), 2);
    assert!(ab.is_sorted());
}

/// Every neighbour is what the twin says of its document, none is missing, one per document, in order.
fn check(inputs: Inputs<'_>, rows: &[(String, u32)], slow: &NaiveInputs, query: &str, n: usize) {
    let mut best: BTreeMap<u32, f64> = BTreeMap::new();
    for (similarity, (_, document)) in slow.similarities(&terms_of(query)).into_iter().zip(rows) {
        let so_far = best.entry(*document).or_insert(0.0);
        *so_far = so_far.max(similarity);
    }
    best.retain(|_, s| *s > 0.0);
    let mut wanted: Vec<f64> = best.values().copied().collect();
    wanted.sort_by(|a, b| b.total_cmp(a));
    wanted.truncate(n);
    let found = nearest(inputs, query, n);
    assert_eq!(found.len(), wanted.len());
    for (f, w) in found.iter().zip(wanted) {
        assert!((f64::from(f.similarity) - w).abs() < 1e-5, "{} instead of {w}", f.similarity);
        let of_document = best.remove(&f.document).expect("once per document");
        assert!((f64::from(f.similarity) - of_document).abs() < 1e-5);
        assert_eq!(inputs.row_documents[f.row as usize], f.document);
        assert!((0.0..=1.0).contains(&f.similarity));
    }
    for (a, b) in found.iter().zip(found.iter().skip(1)) {
        assert!(a.similarity > b.similarity || (a.similarity == b.similarity && a.row < b.row));
    }
}

fn text() -> impl Strategy<Value = String> {
    let word = prop_oneof![3 => "[a-d]", 1 => "[e-z][a-c]", 1 => Just("!".to_owned())];
    prop::collection::vec(word, 0..9).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]
    #[test]
    fn equals_the_naive_neighbours(rows in prop::collection::vec((text(), 0..20u32), 0..60), query in text(), n in prop_oneof![0..20usize, Just(usize::MAX)]) {
        let (fast, slow) = build(&rows);
        check(fast.view(), &rows, &slow, &query, n);
    }

    #[test]
    fn built_arrays_hold_together(rows in prop::collection::vec((text(), 0..20u32), 0..60)) {
        let (built, _) = build(&rows);
        prop_assert!(built.terms.windows(2).all(|w| w[0] < w[1]));
        prop_assert!(built.norms.is_sorted());
        prop_assert_eq!(built.term_starts.len(), built.terms.len() + 1);
        prop_assert_eq!(built.postings.len(), rows.iter().map(|(text, _)| terms_of(text).len()).sum::<usize>());
        for (t, ends) in built.term_starts.windows(2).enumerate() {
            let postings = &built.postings[usize::try_from(ends[0]).unwrap()..usize::try_from(ends[1]).unwrap()];
            prop_assert!(!postings.is_empty() && postings.windows(2).all(|w| w[0] < w[1]));
            prop_assert_eq!(built.view().idf(built.terms[t]), idf(rows.len(), postings.len()));
        }
        prop_assert_eq!(built.view().idf(1), idf(rows.len(), 0));
    }

    /// Arrays that nobody built: any answer will do.
    #[test]
    fn hostile_arrays_never_panic(
        terms in prop::collection::vec(prop_oneof![0..12u64, any::<u64>()], 0..20),
        term_starts in prop::collection::vec(prop_oneof![9 => 0..40u64, 1 => any::<u64>()], 0..22),
        postings in prop::collection::vec(prop_oneof![9 => 0..10u32, 1 => any::<u32>()], 0..40),
        norms in prop::collection::vec(prop_oneof![any::<f32>(), Just(f32::NAN), Just(0.0), Just(1.0)], 0..12),
        row_documents in prop::collection::vec(any::<u32>(), 0..12),
        query in prop::collection::vec(prop_oneof![0..12u64, any::<u64>()], 0..30),
        n in prop_oneof![0..9usize, Just(usize::MAX)],
        sorted in any::<bool>(),
    ) {
        let (mut terms, mut term_starts) = (terms, term_starts);
        if sorted {
            terms.sort_unstable();
            term_starts.sort_unstable();
        }
        let inputs = Inputs { terms: &terms, term_starts: &term_starts, postings: &postings, norms: &norms, row_documents: &row_documents };
        let mut found = Vec::new();
        inputs.nearest(&query, n, &mut NearestScratch::default(), &mut found);
        prop_assert!(found.len() <= n.min(inputs.rows()));
        for f in &found {
            prop_assert!((0.0..=1.0).contains(&f.similarity) && (f.row as usize) < inputs.rows());
        }
        for key in query {
            let _ = inputs.idf(key);
        }
    }
}

/// A small generator (Marsaglia: xorshift), and rows of a task: templates with slots, and free words.
struct Rows(u64);

impl Rows {
    /// Zipf-like below `limit`: density falls as 1 / rank.
    fn zipf(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let u = f64::from((self.0 >> 32) as u32) / f64::from(u32::MAX);
        (f64::from(limit + 1).powf(u) - 1.0).min(f64::from(limit - 1)) as u32
    }

    fn text(&mut self) -> String {
        let template = self.zipf(60);
        let mut out = String::from("please");
        for k in 0..6 + template % 4 {
            out += &match (template + k) % 3 {
                0 => format!(" t{}", (template * 7 + k) % 90),
                1 => format!(" the s{}", self.zipf(2000)),
                _ => format!(" w{}", self.zipf(20_000)),
            };
        }
        out + " ."
    }
}

/// Past the budget the nearest rows are nearly always found, and the similarities are exact all the same.
#[test]
fn most_neighbours_are_found_among_many_rows() {
    let mut random = Rows(7);
    let rows: Vec<_> = (0..50_000).map(|d| (random.text(), d)).collect();
    let (fast, slow) = build(&rows);
    let (mut hits, mut over_budget) = (0, 0);
    for _ in 0..40 {
        let query = random.text();
        let terms = terms_of(&query);
        let truth = slow.similarities(&terms);
        let postings = terms.iter().filter_map(|t| fast.terms.binary_search(t).ok());
        let postings: u64 = postings.map(|t| fast.term_starts[t + 1] - fast.term_starts[t]).sum();
        over_budget += usize::from(usize::try_from(postings).unwrap() > POSTINGS_BUDGET);
        let mut sorted = truth.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let found = nearest(fast.view(), &query, 16);
        assert_eq!(found.len(), 16);
        for f in found {
            let similarity = truth[f.document as usize];
            assert!((similarity - f64::from(f.similarity)).abs() < 1e-5, "{} is {similarity}", f.similarity);
            hits += usize::from(similarity > sorted[15] - 1e-6);
        }
    }
    assert!(over_budget > 30, "only {over_budget} of 40 queries go past the budget");
    let recall = f64::from(u32::try_from(hits).unwrap()) / (40.0 * 16.0);
    assert!(recall >= 0.9, "recall {recall}");
    println!("recall {recall:.3}, {over_budget} of 40 past the budget");
}

/// One output for most rows: its thousands of equal rows leave room for the others.
#[test]
fn one_neighbour_per_document() {
    let rows = (0..20_000u32).map(|k| (format!("turn on lamp {}", k % 9), if k % 500 == 0 { k } else { 1 }));
    let rows: Vec<_> = rows.collect();
    let (fast, slow) = build(&rows);
    let found = nearest(fast.view(), "turn on lamp 3", 5);
    assert_eq!(found.len(), 5);
    assert_eq!(found.iter().filter(|f| f.document == 1).count(), 1);
    assert!(found.iter().all(|f| f.similarity > 0.999), "{found:?}");
    check(fast.view(), &rows, &slow, "3", 50);
}

#[test]
fn odd_texts() {
    let long: String = (0..100_000u32).map(|k| format!("w{} ", k % 7919)).collect();
    let odd = ["", "one", "?!... --- ///", &"same ".repeat(1000), &long, &"北".repeat(9000)].map(str::to_owned);
    let kept = words(&long);
    assert_eq!((kept.len(), kept.last().map(|w| w.end as usize)), (MAX_WORDS, Some(long.trim_end().len())));
    assert!(kept.windows(2).all(|w| w[0].end + 1 == w[1].start), "the last words, one after the other");
    let rows: Vec<_> = odd.iter().cloned().zip(0..).collect();
    let (fast, slow) = build(&rows);
    for query in &odd {
        check(fast.view(), &rows, &slow, query, 16);
        assert!(nearest(InputsBuilder::new().build().view(), query, 16).is_empty());
    }
    let mut inputs = InputsBuilder::new();
    inputs.push("never", 3, 0).unwrap();
    inputs.push("once", 4, 9).unwrap();
    assert_eq!(inputs.build().row_documents, [4]);
}

#[test]
fn rows_are_numbered_by_norm_then_by_arrival() {
    let texts = ["a b c", "x", "a", "a", ""];
    let rows: Vec<_> = texts.map(str::to_owned).into_iter().zip(0..).collect();
    let (fast, _) = build(&rows);
    assert_eq!(fast.row_documents, [4, 2, 3, 1, 0]);
    assert_eq!(nearest(fast.view(), "a", 9).iter().map(|f| f.document).collect::<Vec<_>>(), [2, 3, 0]);
}
