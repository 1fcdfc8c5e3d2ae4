//! Inputs and outputs that nobody had in mind: drafting ends, stays valid and is the same again.
#![allow(clippy::unwrap_used)] // a test may
mod toys;

use std::sync::{Arc, OnceLock, RwLock, Weak, mpsc};
use std::time::Duration;

use proptest::prelude::*;
use tasc_core::corpus::{MergedLogs, OnlineRow, online_log};
use tasc_core::draft::{CostCurve, Draft, Drafter, DrafterOptions, Request};
use tasc_core::fit::FitOptions;
use tasc_core::format::Fingerprint;
use tasc_core::index::view::{TaskArrays, TaskView};
use tasc_core::mixture::features::END;
use tasc_core::mixture::features::variants;
use tasc_core::mixture::general;
use tasc_core::mixture::{MixtureWeights, Source, SourceMask, TaskData};
use tasc_core::task::build::{self, LeftOut};
use tasc_core::task::train::{TrainOptions, train};
use tasc_core::text::PieceTokenizer;
use tasc_core::text::pieces::TokenizationCache;
use tasc_core::{Error, Result, TokenId};
use toys::{Random, Row, Toy};

const TOY: Toy = Toy::GluedPairs;

/// A task with odd rows among its own, and weights fitted to it.
fn task() -> (Arc<TaskArrays>, MixtureWeights) {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = toys::rows(TOY, 150, 6);
    rows.extend(odd_texts().into_iter().filter(|t| t.len() < 20_000).map(|t| odd_row(&t)));
    let store = toys::store(&folder.path().join("s"), &rows);
    let mut learnt = TokenizationCache::default();
    let task = build::build(&store, &LeftOut::default(), true, &mut learnt, Some(&TOY), |_| Ok(())).unwrap();
    let fit = FitOptions { iterations: 30, ..FitOptions::default() };
    let options = TrainOptions { fit, ..TrainOptions::default() };
    let (weights, _) = train(&store, &options, &mut learnt, Some(&TOY), |_| Ok(())).unwrap().unwrap();
    (Arc::new(task), weights)
}

fn odd_row(text: &str) -> Row {
    let end = text.char_indices().nth(300).map_or(text.len(), |c| c.0);
    (text.into(), TOY.ids(&text[..end]), 2)
}

fn odd_texts() -> Vec<String> {
    let many: String = (0..100_000u32).map(|k| format!("w{} ", k % 7919)).collect();
    let punctuation = "?!... --- /// \"'\"'\" ((())) ;;; , , , ".repeat(20);
    let marks = "e\u{301}\u{301} \u{301}x \u{FFFD}\u{FFFD} a\u{FFFD}b \u{200B}\u{FEFF} \u{202E}abc".to_owned();
    vec![
        String::new(),
        " \t\r\n\u{3000}".into(),
        "one".into(),
        many,
        punctuation,
        "x".repeat(10_000),
        format!("{} {}", "ab".repeat(5_000), "c".repeat(300)),
        "same ".repeat(1000),
        "北".repeat(5000),
        "ไทยไทย".repeat(40),
        "1234567890".repeat(30),
        marks,
        "\u{301}".repeat(50),
        "\u{FFFD}".repeat(50),
        "\0 \u{7F} \u{1F600}\u{200D}\u{1F600}".into(),
        "find flights from find flights from find flights from boston to boston to boston".into(),
    ]
}

fn options(weights: Option<&MixtureWeights>, without: SourceMask) -> DrafterOptions {
    DrafterOptions { weights: weights.cloned(), without, tokenizer: Some(Arc::new(TOY)), ..DrafterOptions::default() }
}

fn valid(draft: &Draft, most: usize) {
    assert!(draft.tokens.len() <= most);
    assert_eq!((draft.tokens.len(), draft.tokens.len()), (draft.probabilities.len(), draft.sources.len()));
    assert!(draft.tokens.iter().all(|&t| t != END));
    assert!(draft.probabilities.iter().all(|p| (0.0..=1.0).contains(p)), "{draft:?}");
    assert!(draft.sources.iter().all(|&s| usize::from(s) < Source::ALL.len()));
}

/// Fifty steps over an output: what is drafted, accepted as far as it is right.
fn serve(drafter: &Drafter, input: &str, output: &[TokenId], costs: &CostCurve) -> Vec<Draft> {
    let mut request = drafter.start(&[5, 6, 7], Some(input)).unwrap();
    let (mut drafts, mut left) = (Vec::new(), output);
    for _ in 0..50 {
        let explained = drafter.explain(&mut request.clone(), 16, costs);
        let draft = drafter.draft(&mut request, 16, costs).clone();
        valid(&draft, 16);
        assert!(explained.iter().map(|e| e.token).eq(draft.tokens.iter().copied()), "`explain` shows the draft");
        assert!(explained.iter().map(|e| e.probability).eq(draft.probabilities.iter().copied()));
        for (e, &source) in explained.iter().zip(&draft.sources) {
            assert!(e.candidates.iter().any(|c| c.0 == e.token));
            assert!(e.candidates.windows(2).all(|c| c[0].1 >= c[1].1));
            assert!(e.sources.iter().all(|&p| p <= e.sources[usize::from(source)]), "the loudest source speaks");
        }
        let right = draft.tokens.iter().zip(left).take_while(|(a, b)| a == b).count();
        let (emitted, rest) = left.split_at((right + 1).min(left.len()));
        drafter.update(&mut request, emitted);
        drafts.push(draft);
        left = rest;
    }
    drafts
}

#[test]
fn odd_texts_are_drafted_for_and_the_same_again() {
    let (task, weights) = task();
    let mut random = Random(3);
    let long: Vec<TokenId> = (0..5000).map(|_| random.below(40) as TokenId).collect();
    let costs = CostCurve::linear(0.02).unwrap();
    let run = |weights: Option<&MixtureWeights>| {
        let drafter = Drafter::new(Some(task.clone()), options(weights, SourceMask::NOTHING)).unwrap();
        let mut all = Vec::new();
        for input in odd_texts() {
            let own = odd_row(&input).1;
            let noise: Vec<TokenId> = own.iter().copied().flat_map(|t| [t, t, 9]).collect();
            for output in [&own, &noise, &vec![7; 200], &vec![TokenId::MAX - 1, 0, TokenId::MAX - 1], &vec![]] {
                all.push(serve(&drafter, &input, output, &costs));
            }
        }
        all.push(serve(&drafter, "please list airlines in boston", &long, &costs));
        all
    };
    for weights in [None, Some(&weights)] {
        assert!(run(weights) == run(weights), "another run, another draft");
    }
    let general = general::weights().unwrap();
    assert!(run(None) == run(Some(&general)));
}

/// An output of 5,000 tokens, whole: the context grows, the rest does not.
#[test]
fn a_very_long_output() {
    let (task, weights) = task();
    let drafter = Drafter::new(Some(task), options(Some(&weights), SourceMask::NOTHING)).unwrap();
    let costs = CostCurve::linear(0.02).unwrap();
    let mut request = drafter.start(&[], Some("find flights from boston to oslo")).unwrap();
    let block = TOY.ids(" from=\"boston\" to=\"oslo\"; and so on, and so on");
    let output: Vec<TokenId> = block.iter().copied().cycle().take(5000).collect();
    let (mut at, mut steps) = (0, 0);
    while at < output.len() {
        let draft = drafter.draft(&mut request, 16, &costs);
        valid(draft, 16);
        let right = draft.tokens.iter().zip(&output[at..]).take_while(|(a, b)| a == b).count();
        let end = (at + right + 1).min(output.len());
        drafter.update(&mut request, &output[at..end]);
        (at, steps) = (end, steps + 1);
    }
    assert!(steps < 1000, "{steps} steps: what repeats is drafted");
    let mut whole = drafter.start(&[], Some("find flights from boston to oslo")).unwrap();
    drafter.update(&mut whole, &output);
    valid(drafter.draft(&mut whole, 16, &costs), 16);
}

/// Tokens that come one by one or many at a time lead to the same place.
#[test]
fn updates_can_be_joined() {
    let (task, weights) = task();
    let costs = CostCurve::linear(0.02).unwrap();
    let fixed = DrafterOptions { fixed: true, ..options(Some(&weights), SourceMask::NOTHING) };
    let drafter = Drafter::new(Some(task), fixed).unwrap();
    let mut random = Random(8);
    for _ in 0..60 {
        let (input, output) = toys::request(&mut random);
        let output = TOY.ids(&output);
        let (mut one, mut many) =
            (drafter.start(&[], Some(&input)).unwrap(), drafter.start(&[], Some(&input)).unwrap());
        let split = random.below(output.len().min(40));
        output[..split].iter().for_each(|&t| drafter.update(&mut one, &[t]));
        drafter.update(&mut many, &output[..split]);
        drafter.update(&mut many, &[]);
        assert_eq!(drafter.draft(&mut one, 16, &costs), drafter.draft(&mut many, 16, &costs));
        let again = drafter.draft(&mut one, 16, &costs).clone();
        assert_eq!(drafter.draft(&mut one, 16, &costs), &again, "drafting changes nothing");
    }
}

#[test]
fn every_set_of_sources_drafts() {
    let (task, weights) = task();
    let costs = CostCurve::linear(0.02).unwrap();
    for bits in 0..1u32 << Source::ALL.len() {
        let without: SourceMask = Source::ALL.into_iter().filter(|s| bits >> s.code() & 1 == 1).collect();
        let drafter = Drafter::new(Some(task.clone()), options(Some(&weights), without)).unwrap();
        let mut random = Random(2);
        for _ in 0..5 {
            let (input, output) = toys::request(&mut random);
            for draft in serve(&drafter, &input, &TOY.ids(&output), &costs) {
                assert!(draft.sources.iter().all(|&s| !without.has(Source::ALL[usize::from(s)])), "{without:?}");
            }
        }
    }
    assert!(variants().iter().all(|v| !v.name().contains("++")));
}

/// Four threads, one drafter that learns and is served rows: nothing is poisoned or stuck, every draft is valid.
#[test]
fn one_drafter_for_four_threads() {
    let (task, weights) = task();
    let bounded = DrafterOptions { served_bytes: 60_000, ..options(Some(&weights), SourceMask::NOTHING) };
    let drafter = Drafter::new(Some(task), bounded).unwrap();
    let costs = CostCurve::linear(0.02).unwrap();
    let before = drafter.calibration();
    std::thread::scope(|s| {
        for t in 0..4u64 {
            let (drafter, costs) = (&drafter, &costs);
            s.spawn(move || {
                let mut random = Random(t);
                for k in 0..60 {
                    let (input, output) = toys::request(&mut random);
                    let known = Some(input.as_str()).filter(|_| k % 5 > 0);
                    let mut request = drafter.start(&[], known).unwrap();
                    let output = TOY.ids(&output);
                    let mut left = &output[..];
                    while !left.is_empty() {
                        let draft = drafter.draft(&mut request, 16, costs);
                        valid(draft, 16);
                        let right = draft.tokens.iter().zip(left).take_while(|(a, b)| a == b).count();
                        let (emitted, rest) = left.split_at((right + 1).min(left.len()));
                        drafter.update(&mut request, emitted);
                        left = rest;
                    }
                    drafter.serve(&[OnlineRow { input, output, ..OnlineRow::default() }]).unwrap();
                }
            });
        }
    });
    let after = drafter.calibration();
    assert_ne!(before, after);
    assert!(after.scale().is_finite() && after.shift().is_finite() && after.rate() > 1.5, "{after:?}");
    assert!((1..240).contains(&drafter.num_served()), "{} rows in memory", drafter.num_served());
    // it still drafts well
    let mut request = drafter.start(&[], Some("please list airlines in boston")).unwrap();
    assert!(!drafter.draft(&mut request, 16, &costs).tokens.is_empty());
}

/// What a request says at every place until its output ends.
fn all_drafts(drafter: &Drafter, input: &str, output: &[TokenId]) -> Vec<Draft> {
    serve(drafter, input, output, &CostCurve::linear(0.02).unwrap())
}

/// The successor over another index drafts as a new drafter there that was served the same rows, and whatever was begun
/// before goes on as if nothing had happened.
#[test]
fn a_drafter_over_another_index_is_one_made_there() {
    let built = |seed| {
        let folder = tempfile::tempdir().unwrap();
        let store = toys::store(&folder.path().join("s"), &toys::rows(TOY, 150, seed));
        Arc::new(
            build::build(&store, &LeftOut::default(), true, &mut TokenizationCache::default(), Some(&TOY), |_| Ok(()))
                .unwrap(),
        )
    };
    let (first, second) = (built(1), built(2));
    let mut random = Random(9);
    let served: Vec<OnlineRow> = (0..80)
        .map(|_| toys::request(&mut random))
        .map(|(input, output)| OnlineRow { input, output: TOY.ids(&output), ..OnlineRow::default() })
        .collect();
    let new = |task: &Arc<TaskArrays>| {
        let drafter = Drafter::new(Some(task.clone()), DrafterOptions { fixed: true, ..DrafterOptions::default() });
        drafter.inspect(|d| d.serve(&served).unwrap()).unwrap()
    };
    let (old, untouched, made) = (new(&first), new(&first), new(&second));
    let costs = CostCurve::linear(0.02).unwrap();
    let (mut begun, mut twin) = [&old, &untouched].map(|d| d.start(&[], Some("list airlines in oslo")).unwrap()).into();
    let next = old.with_index(second.clone()).unwrap();
    assert_eq!(old.draft(&mut begun, 16, &costs), untouched.draft(&mut twin, 16, &costs));
    assert!(!begun_is_empty(&old, &mut begun));
    for _ in 0..40 {
        let (input, output) = toys::request(&mut random);
        let output = TOY.ids(&output);
        assert_eq!(all_drafts(&next, &input, &output), all_drafts(&made, &input, &output));
    }
    old.serve(&served[..3]).unwrap();
    assert_eq!((old.num_served(), next.num_served()), (80, 83), "the newest takes in what is served through either");
    made.serve(&served[..3]).unwrap();
    let (input, output) = toys::request(&mut random);
    let output = TOY.ids(&output);
    assert_eq!(
        all_drafts(&next, &input, &output),
        all_drafts(&made, &input, &output),
        "terms are as rare as in its index"
    );
}

fn begun_is_empty(drafter: &Drafter, request: &mut Request) -> bool {
    drafter.draft(request, 16, &CostCurve::linear(0.02).unwrap()).tokens.is_empty()
}

/// What was learnt goes over.
#[test]
fn a_drafter_over_another_index_goes_on_learning() {
    let (task, _) = task();
    let old = Drafter::new(Some(task.clone()), DrafterOptions::default()).unwrap();
    let mut random = Random(3);
    let mut requests: Vec<_> = (0..60).map(|_| toys::request(&mut random)).map(|(i, o)| (i, TOY.ids(&o))).collect();
    let (last, last_output) = requests.pop().unwrap();
    requests.iter().for_each(|(input, output)| drop(all_drafts(&old, input, output)));
    let next = old.with_index(task.clone()).unwrap();
    assert_eq!(old.calibration(), next.calibration());
    let again = |d: &Drafter| all_drafts(d, &last, &last_output);
    let (untaught, theirs) = (again(&Drafter::new(Some(task), DrafterOptions::default()).unwrap()), again(&old));
    assert_ne!(theirs, untaught);
    assert_eq!(again(&next), theirs, "weights, calibration and rate");
}

/// A task that holds rows of logs.
struct Holding {
    task: Arc<TaskArrays>,
    merged: MergedLogs,
}

impl TaskData for Holding {
    fn view(&self) -> TaskView<'_> {
        self.task.view()
    }

    fn merged_logs(&self) -> &MergedLogs {
        &self.merged
    }
}

/// Rows that a task holds leave memory and log, however they came there; rows in no log stay.
#[test]
fn rows_in_the_index_are_not_taken_in() {
    let (task, _) = task();
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("t.served"), folder.path().join("u.served"));
    let made_by = Fingerprint::default();
    let row = |k: u32| OnlineRow { input: format!("row {k}"), output: vec![k], ..OnlineRow::default() };
    let rows =
        |drafter: &Drafter, range: std::ops::Range<u32>| drafter.serve(&range.map(row).collect::<Vec<_>>()).unwrap();
    let new = |task| Drafter::new(Some(task), DrafterOptions::default()).unwrap();
    let drafter = new(task.clone() as Arc<dyn TaskData>);
    rows(&drafter, 0..2); // before there is a log
    drafter.keep_served(&path, &made_by).unwrap();
    assert!(matches!(drafter.keep_served(&other, &made_by), Err(Error::Locked { .. })), "one log each");
    rows(&drafter, 2..6);
    let mut merged = MergedLogs::default();
    assert_eq!(online_log::read_unmerged(&path, &made_by, &mut merged).unwrap().len(), 4);
    rows(&drafter, 6..9);
    let holding: Arc<dyn TaskData> = Arc::new(Holding { task: task.clone(), merged });
    let foreign = new(task);
    foreign.keep_served(&other, &made_by).unwrap();
    rows(&foreign, 0..3);
    assert_eq!(foreign.with_index(holding.clone()).unwrap().num_served(), 3, "another log");
    let next = drafter.with_index(holding.clone()).unwrap();
    assert_eq!((drafter.num_served(), next.num_served()), (9, 5), "two in no log, three not in the index");
    assert_eq!(online_log::read(&path, &made_by).unwrap(), [6, 7, 8].map(row));
    drop((drafter, next));
    let again = new(holding);
    again.keep_served(&path, &made_by).unwrap();
    assert_eq!(again.num_served(), 3);
}

/// Threads draft and serve while the index is replaced under them, again and again: nothing waits for ever, every draft
/// is valid, every row is in the log once.
#[test]
fn the_index_is_replaced_under_four_threads() {
    let (task, _) = task();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let options = DrafterOptions { served_bytes: 60_000, ..DrafterOptions::default() };
    let first = Drafter::new(Some(task.clone()), options).unwrap();
    first.keep_served(&path, &Fingerprint::default()).unwrap();
    let current = RwLock::new(Arc::new(first));
    let costs = CostCurve::linear(0.02).unwrap();
    let (mut taken, mut merged) = (Vec::new(), MergedLogs::default());
    std::thread::scope(|s| {
        let threads: Vec<_> = (0..4u32)
            .map(|t| {
                let (current, costs) = (&current, &costs);
                s.spawn(move || {
                    let mut random = Random(u64::from(t));
                    for k in 0..50 {
                        let drafter = current.read().unwrap().clone();
                        let (input, output) = toys::request(&mut random);
                        let mut request = drafter.start(&[], Some(&input)).unwrap();
                        for token in TOY.ids(&output) {
                            valid(drafter.draft(&mut request, 16, costs), 16);
                            drafter.update(&mut request, &[token]);
                        }
                        drafter
                            .serve(&[OnlineRow { input, output: vec![1000 * t + k], ..OnlineRow::default() }])
                            .unwrap();
                    }
                })
            })
            .collect();
        while !threads.iter().all(|t| t.is_finished()) {
            let rows = online_log::read_unmerged(&path, &Fingerprint::default(), &mut merged).unwrap();
            let old = current.read().unwrap().clone();
            let next = old.with_index(Arc::new(Holding { task: task.clone(), merged: merged.clone() })).unwrap();
            *current.write().unwrap() = Arc::new(next);
            taken.extend(rows);
        }
    });
    let left = current.read().unwrap().num_served();
    let log = online_log::read(&path, &Fingerprint::default()).unwrap();
    assert!(left <= log.len(), "{left} rows in memory, {} in the log", log.len());
    let mut ids: Vec<_> = taken.iter().map(|(_, row)| row).chain(&log).map(|row| row.output[0]).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..4).flat_map(|t| (0..50).map(move |k| 1000 * t + k)).collect::<Vec<_>>());
}

/// A tokenizer that does not answer before a row was served, as one does that waits for an interpreter's lock.
struct Waiting {
    drafter: Arc<OnceLock<Weak<Drafter>>>,
}

impl PieceTokenizer for Waiting {
    fn tokenize_pieces(&self, pieces: &[&str]) -> Result<Vec<Vec<TokenId>>> {
        let (drafter, (sender, served)) = (self.drafter.get().unwrap().upgrade().unwrap(), mpsc::channel());
        std::thread::spawn(move || {
            drafter.serve(&[OnlineRow { input: "x".into(), output: vec![1], ..OnlineRow::default() }]).unwrap();
            sender.send(()).unwrap();
        });
        served.recv_timeout(Duration::from_secs(20)).expect("serving waits for the tokenizer");
        TOY.tokenize_pieces(pieces)
    }
}

#[test]
fn serving_does_not_wait_for_the_tokenizer() {
    let (task, _) = task();
    let cell = Arc::new(OnceLock::new());
    let tokenizer = Some(Arc::new(Waiting { drafter: cell.clone() }) as Arc<dyn PieceTokenizer>);
    let drafter =
        Arc::new(Drafter::new(Some(task), DrafterOptions { tokenizer, ..DrafterOptions::default() }).unwrap());
    cell.set(Arc::downgrade(&drafter)).unwrap();
    drafter.start(&[], Some("fly to a place never heard of")).unwrap();
    assert_eq!(drafter.num_served(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Any rows, any input, any output; sources and weights as they come.
    #[test]
    fn anything_goes(
        rows in prop::collection::vec(("\\PC{0,20}", "\\PC{0,20}", 1..300u64), 1..30),
        input in "\\PC{0,30}",
        output in "\\PC{0,40}",
        cost in 0.0..0.2f64,
        toy in prop::sample::select(Toy::ALL.to_vec()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let rows: Vec<Row> = rows.into_iter().map(|(i, o, w)| (i, toy.ids(&o), w)).collect();
        let store = toys::store(&folder.path().join("s"), &rows);
        let task = build::build(&store, &LeftOut::default(), true, &mut TokenizationCache::default(), Some(&toy), |_| Ok(())).unwrap();
        let options = DrafterOptions { tokenizer: Some(Arc::new(toy)), ..DrafterOptions::default() };
        let drafter = Drafter::new(Some(Arc::new(task)), options).unwrap();
        let costs = CostCurve::linear(cost).unwrap();
        serve(&drafter, &input, &toy.ids(&output), &costs);
        serve(&drafter, &rows[0].0, &rows[0].1, &costs);
    }
}
