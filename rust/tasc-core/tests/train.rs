//! Weights fitted to a task: the rows they are fitted on are left out, the probabilities are what they claim, and an
//! index with inputs is the same file for any number of threads.
#![allow(clippy::unwrap_used)] // a test may
mod toys;

use std::path::Path;
use std::sync::Arc;

use tasc_core::corpus::Store;
use tasc_core::draft::{CostCurve, Drafter, DrafterOptions};
use tasc_core::fit::FitOptions;
use tasc_core::format::File;
use tasc_core::index::TaskArrays;
use tasc_core::mixture::TaskData;
use tasc_core::mixture::features::END;
use tasc_core::mixture::features::variants;
use tasc_core::mixture::general;
use tasc_core::mixture::{MixtureWeights, Source, SourceMask};
use tasc_core::task::TaskIndex;
use tasc_core::task::build::{self, LeftOut};
use tasc_core::task::file::{BuildOptions, KIND, VERSION};
use tasc_core::task::train::{FitReport, TrainOptions, train};
use tasc_core::text::pieces::TokenizationCache;
use tasc_core::{Error, TokenId};
use toys::{Random, Row, Toy};

const TOY: Toy = Toy::Glued;

/// Few iterations: enough for what is tested here.
fn quick() -> TrainOptions {
    TrainOptions { fit: FitOptions { iterations: 40, ..FitOptions::default() }, ..TrainOptions::default() }
}

fn build(store: &Store, left_out: &LeftOut) -> TaskArrays {
    build::build(store, left_out, true, &mut TokenizationCache::default(), Some(&TOY), |_| Ok(())).unwrap()
}

fn drafter(task: TaskArrays, options: DrafterOptions) -> Drafter {
    // what the index does not know is spelled as well as what it knows
    Drafter::new(Some(Arc::new(task)), DrafterOptions { tokenizer: Some(Arc::new(TOY)), ..options }).unwrap()
}

/// The mixture's probability of every token of an output; 0 where it is no candidate.
fn probabilities(drafter: &Drafter, input: &str, output: &[TokenId]) -> Vec<f32> {
    let weights = general::weights().unwrap();
    let mut request = drafter.start(&[], Some(input)).unwrap();
    let mut p = Vec::new();
    let each = output.iter().map(|&token| {
        let seen = drafter.candidates(&mut request);
        weights.mixer(SourceMask::NOTHING).mix(&seen.rows, &seen.states, &mut p);
        let at = seen.tokens.iter().position(|&t| t == token);
        drafter.update(&mut request, &[token]);
        at.map_or(0.0, |at| p[at])
    });
    each.collect()
}

/// A row that shares words with others, and whose output is its own: it has a word that no other has.
fn own_row() -> Row {
    ("find flights from boston to kalamazoo".into(), TOY.ids(" from=\"boston\" to=\"kalamazoo\" qqq;"), 1)
}

fn same(a: &TaskArrays, b: &TaskArrays) {
    assert!(a.ngrams == b.ngrams, "n-grams differ");
    let (a, b) = (a.rows.as_ref().unwrap(), b.rows.as_ref().unwrap());
    assert!(a.inputs == b.inputs, "inputs differ");
    assert!(a.copies == b.copies, "copies differ");
    assert!(a.texts == b.texts, "texts differ");
}

/// A row that is left out leaves no trace, wherever it stands.
#[test]
fn leaving_a_row_out_is_as_if_it_had_never_been() {
    let folder = tempfile::tempdir().unwrap();
    let base = toys::rows(TOY, 120, 3);
    let without = toys::store(&folder.path().join("without"), &base);
    let (input, output, _) = own_row();
    for at in [0, 60, 120] {
        let mut rows = base.clone();
        rows.insert(at, own_row());
        let with = toys::store(&folder.path().join("with"), &rows);
        let row = (0..with.num_inputs()).find(|&k| with.input(k).unwrap().text == input).unwrap();
        let left_out = build(&with, &LeftOut::from_iter([(row, 1)]));
        let never = build(&without, &LeftOut::default());
        same(&left_out, &never);
        let seen = probabilities(&drafter(build(&with, &LeftOut::default()), fixed()), &input, &output);
        let left_out = probabilities(&drafter(left_out, fixed()), &input, &output);
        let never = probabilities(&drafter(never, fixed()), &input, &output);
        assert_eq!(left_out, never, "to the bit");
        let nats = |p: &[f32]| p.iter().map(|p| -f64::from(p.max(1e-4)).ln()).sum::<f64>();
        assert!(nats(&seen) < nats(&never) - 1.0, "seeing the row does raise it: {} and {}", nats(&seen), nats(&never));
    }
}

fn fixed() -> DrafterOptions {
    DrafterOptions { fixed: true, ..DrafterOptions::default() }
}

/// Of a row that occurred often, one occurrence can be left out; of two rows with one output, either.
#[test]
fn leaving_one_of_several_out() {
    let folder = tempfile::tempdir().unwrap();
    let base = toys::rows(TOY, 40, 4);
    let task = |extra: &[Row], left_out: &[(&str, u64)]| {
        let mut rows = base.clone();
        rows.extend_from_slice(extra);
        let store = toys::store(&folder.path().join("s"), &rows);
        let row = |text: &str| (0..store.num_inputs()).find(|&k| store.input(k).unwrap().text == text).unwrap();
        build(&store, &left_out.iter().map(|l| (row(l.0), l.1)).collect())
    };
    let (input, output, _) = own_row();
    let often = |weight| [(input.clone(), output.clone(), weight)];
    same(&task(&often(5), &[(&input, 2)]), &task(&often(3), &[]));
    same(&task(&often(2), &[(&input, 9)]), &task(&[], &[]));
    let two = [own_row(), ("another way to say it".into(), output.clone(), 4)];
    same(&task(&two, &[(&input, 1)]), &task(&two[1..], &[]));
    same(&task(&two, &[("another way to say it", 1)]), &task(&[own_row(), (two[1].0.clone(), output.clone(), 3)], &[]));
}

#[test]
fn nothing_left_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = toys::store(&folder.path().join("s"), &[own_row()]);
    let left_out = LeftOut::from_iter([(0, 1)]);
    let built = build::build(&store, &left_out, true, &mut TokenizationCache::default(), None, |_| Ok(()));
    assert!(matches!(built, Err(Error::EmptyCorpus)));
}

fn trained(store: &Store, options: &TrainOptions) -> (MixtureWeights, FitReport) {
    train(store, options, &mut TokenizationCache::default(), Some(&TOY), |_| Ok(())).unwrap().unwrap()
}

#[test]
fn figures_hold_on_rows_never_seen() {
    let folder = tempfile::tempdir().unwrap();
    let store = toys::store(&folder.path().join("s"), &toys::rows(TOY, 900, 7));
    let (weights, figures) = trained(&store, &TrainOptions::default());
    assert!(figures.nats[1] <= figures.nats[0], "{:?}", figures.nats);
    assert!(figures.nats[1] < 0.5, "{:?}", figures.nats);
    assert!(figures.rows as usize <= store.num_inputs() / 5 && figures.rows > 100);
    assert_eq!(figures.without.len(), variants().len() - 1);
    assert!(figures.tau >= 1.0 && figures.speedup > 1.5, "{} {}", figures.tau, figures.speedup);
    assert!(figures.calibration_error < 0.05, "{}", figures.calibration_error);
    let counted: u64 = figures.reliability.iter().map(|b| b.2).sum();
    assert!(counted > 1000 && counted < figures.tokens);
    let distance = |b: &(f64, f64, u64)| (b.0 - b.1).abs() * b.2 as f64 / counted as f64;
    let error: f64 = figures.reliability.iter().map(distance).sum();
    assert!((error - figures.calibration_error).abs() < 1e-9, "{error}");

    // the same, looked at from outside: all candidates of fresh rows of the task, not the likeliest alone
    let options = DrafterOptions { weights: Some(weights.clone()), ..fixed() };
    let drafter = drafter(build(&store, &LeftOut::default()), options);
    let (mut random, mut p) = (Random(99), Vec::new());
    let mut bins = [(0.0, 0.0, 0u32); 10];
    let (mut nats, mut general_nats, mut tokens) = (0.0, 0.0, 0u32);
    let general = general::weights().unwrap();
    for _ in 0..150 {
        let (input, output) = toys::request(&mut random);
        let mut request = drafter.start(&[], Some(&input)).unwrap();
        for token in TOY.ids(&output).into_iter().chain([END]) {
            let seen = drafter.candidates(&mut request);
            assert_eq!(seen.rows.len(), (seen.tokens.len() + 1) * tasc_core::mixture::features::FEATURES);
            let truth = seen.tokens.iter().position(|&t| t == token).unwrap_or(seen.tokens.len());
            general.mixer(SourceMask::NOTHING).mix(&seen.rows, &seen.states, &mut p);
            general_nats -= f64::from(p[truth].max(1e-9)).ln();
            weights.mixer(SourceMask::NOTHING).mix(&seen.rows, &seen.states, &mut p);
            nats -= f64::from(p[truth].max(1e-9)).ln();
            tokens += 1;
            assert_eq!(p.len(), seen.tokens.len() + 1);
            assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-4, "candidates and something else sum to one");
            for (k, &p) in p.iter().enumerate() {
                let bin = &mut bins[((f64::from(p) * 10.0) as usize).min(9)];
                *bin = (bin.0 + f64::from(p), bin.1 + f64::from(u8::from(k == truth)), bin.2 + 1);
            }
            if token != END {
                drafter.update(&mut request, &[token]);
            }
        }
    }
    // distance between what was promised and what came, per token
    let error = bins.iter().map(|b| (b.0 - b.1).abs()).sum::<f64>() / f64::from(tokens);
    assert!(error < 0.06, "{error}: {bins:?}");
    assert!(bins[9].2 > 1000 && (bins[9].0 - bins[9].1).abs() / f64::from(bins[9].2) < 0.02, "{bins:?}");
    let (nats, general_nats) = (nats / f64::from(tokens), general_nats / f64::from(tokens));
    assert!(nats < general_nats, "fitted weights are better on new rows too: {nats}, general {general_nats}");
    println!(
        "calibration error {:.4} by the figures, {error:.4} outside; nats {nats:.3}, general {general_nats:.3}; {:?}",
        figures.calibration_error, figures.nats
    );
}

/// `likeliest` and `draft` say what the mixer makes of the candidates.
#[test]
fn the_draft_is_the_mixers() {
    let folder = tempfile::tempdir().unwrap();
    let store = toys::store(&folder.path().join("s"), &toys::rows(TOY, 200, 8));
    let (weights, _) = trained(&store, &quick());
    let costs = CostCurve::linear(0.0).unwrap();
    for without in variants() {
        let options = DrafterOptions { weights: Some(weights.clone()), without, ..fixed() };
        let drafter = drafter(build(&store, &LeftOut::default()), options);
        let (mut random, mut p) = (Random(1), Vec::new());
        for _ in 0..10 {
            let (input, output) = toys::request(&mut random);
            let mut request = drafter.start(&[], Some(&input)).unwrap();
            for token in TOY.ids(&output) {
                let mut fork = request.clone();
                let drafted = drafter.draft(&mut fork, 8, &costs).clone();
                let likeliest = drafter.likeliest(&mut request);
                let seen = drafter.candidates(&mut request);
                weights.mixer(without).mix(&seen.rows, &seen.states, &mut p);
                let best = (0..seen.tokens.len()).rev().max_by(|&a, &b| p[a].total_cmp(&p[b]));
                assert_eq!(likeliest, best.map(|b| (seen.tokens[b], p[b])));
                if let (Some(first), Some(best)) = (drafted.tokens.first(), best) {
                    assert_eq!(*first, seen.tokens[best]);
                    assert!((drafted.probabilities[0] - p[best]).abs() < 1e-3);
                }
                // a drafted token is what would be likeliest had those before it been emitted; the running context alone
                // takes drafted tokens in only when they are
                if without.has(Source::Context) {
                    let mut on = request.clone();
                    for pair in drafted.tokens.windows(2) {
                        drafter.update(&mut on, &pair[..1]);
                        assert_eq!(drafter.likeliest(&mut on).map(|b| b.0), Some(pair[1]), "{without:?}");
                    }
                }
                for s in Source::ALL.iter().filter(|&&s| without.has(s)) {
                    assert!(!drafted.sources.contains(&s.code()), "{s:?} is switched off");
                }
                drafter.update(&mut request, &[token]);
            }
        }
    }
}

#[test]
fn too_few_rows_are_not_fitted_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let fitted =
        |store: &Store| train(store, &quick(), &mut TokenizationCache::default(), Some(&TOY), |_| Ok(())).unwrap();
    assert!(fitted(&toys::store(&path, &toys::rows(TOY, 15, 2))).is_none());
    assert!(fitted(&toys::store(&path, &toys::rows(TOY, 60, 2))).is_some());
    let store = toys::store(&path, &toys::rows(TOY, 60, 2));
    let stopped = train(&store, &quick(), &mut TokenizationCache::default(), Some(&TOY), |done| {
        if done > 0.5 { Err(Error::Stopped) } else { Ok(()) }
    });
    assert!(matches!(stopped, Err(Error::Stopped)));
}

fn write(store: &Store, path: &Path, options: &BuildOptions<'_>) -> Vec<u8> {
    let mut heard = 0.0;
    let index = TaskIndex::build(store, path, options, |done| {
        assert!((heard - 1e-9..=1.0 + 1e-9).contains(&done), "{done} after {heard}");
        heard = done;
        Ok(())
    });
    index.unwrap().verify().unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn same_bytes_for_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let store = toys::store(&folder.path().join("s"), &toys::rows(TOY, 250, 9));
    let path = folder.path().join("i");
    let bytes = |threads| {
        let train = TrainOptions { num_threads: Some(threads), ..quick() };
        write(&store, &path, &BuildOptions { no_inputs: false, train: Some(&train), tokenizer: Some(&TOY) })
    };
    let one = bytes(1);
    for threads in [1, 2, 3] {
        assert!(bytes(threads) == one, "other bytes with {threads} threads");
    }
}

#[test]
fn a_file_drafts_as_its_task_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let store = toys::store(&folder.path().join("s"), &toys::rows(TOY, 250, 9));
    let (path, train) = (folder.path().join("i"), quick());
    write(&store, &path, &BuildOptions { no_inputs: false, train: Some(&train), tokenizer: Some(&TOY) });
    let index = TaskIndex::open(&path).unwrap();
    assert_eq!(index.meta().inputs as usize, store.num_inputs());
    assert!(index.weights().is_some() && index.meta().fit.is_some());
    let weights = index.weights().unwrap().clone();
    let (fitted, _) = trained(&store, &quick());
    assert!(fitted.weights().eq(weights.weights()));
    let tokenizer = || DrafterOptions { tokenizer: Some(Arc::new(TOY)), ..DrafterOptions::default() };
    let from_file = Drafter::new(Some(Arc::new(index)), tokenizer()).unwrap();
    let options = DrafterOptions { weights: Some(weights), ..tokenizer() };
    let in_memory = drafter(build(&store, &LeftOut::default()), options);
    let (mut random, costs) = (Random(4), CostCurve::linear(0.02).unwrap());
    for _ in 0..30 {
        let (input, output) = toys::request(&mut random);
        let start = |d: &Drafter| d.start(&[], Some(&input)).unwrap();
        let (mut a, mut b) = (start(&from_file), start(&in_memory));
        for token in TOY.ids(&output) {
            assert_eq!(from_file.draft(&mut a, 16, &costs), in_memory.draft(&mut b, 16, &costs));
            from_file.update(&mut a, &[token]);
            in_memory.update(&mut b, &[token]);
        }
    }
}

/// The sections that an index has, and how large each is.
fn sections(bytes: &[u8]) -> Vec<String> {
    File::from_bytes(bytes, KIND, VERSION.0).unwrap().sections().filter(|s| s.1 > 0).map(|s| s.0).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

#[test]
fn private_text_stays_out() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<Row> = (0..80).map(|k| (format!("secretname{k} wants tea"), TOY.ids(" tea;"), 1)).collect();
    let store = toys::store(&folder.path().join("s"), &rows);
    assert!(holds(&std::fs::read(folder.path().join("s")).unwrap(), "secretname7 wants"));
    let (path, train) = (folder.path().join("i"), quick());
    let options = BuildOptions { no_inputs: false, train: Some(&train), tokenizer: Some(&TOY) };
    let with = write(&store, &path, &options);
    let without = write(&store, &path, &BuildOptions { no_inputs: true, ..options });
    let index = TaskIndex::open(&path).unwrap();
    assert_eq!((index.meta().inputs, &index.meta().fit, &index.meta().mixture), (0, &None, &None));
    assert!(index.view().rows.is_none() && index.weights().is_none());
    let added = ["terms", "term_starts", "postings", "norms", "row_documents", "piece_keys", "piece_starts"];
    let more = ["piece_ids", "copy_words", "copy_rates", "copy_tokens", "mixture"];
    for section in added.iter().chain(&more) {
        assert!(sections(&with).iter().any(|s| s == section), "{section} is missing");
    }
    let other_names = [
        "pointer_slots",
        "pointer_records",
        "coverage_slots",
        "coverage_records",
        "text_bytes",
        "text_offsets",
        "text_starts",
        "text_weights",
    ];
    for section in added.iter().chain(&more).chain(&other_names) {
        assert!(
            !File::from_bytes(&without, KIND, VERSION.0).unwrap().sections().any(|s| s.0 == **section),
            "{section}"
        );
    }
    assert!(holds(&with, "secretname7 wants tea"), "the inputs are stored, so that the index can be built again");
    assert!(!holds(&without, "secretname") && !holds(&without, "wants"), "no text of an input");
    // an index without inputs is that of a store without inputs
    let plain: Vec<_> = rows.iter().map(|r| (r.1.clone(), r.2)).collect();
    let mut writer = tasc_core::corpus::StoreWriter::create(
        &folder.path().join("p"),
        &store.file().fingerprint(),
        store.meta().clone(),
    )
    .unwrap();
    plain.iter().for_each(|(output, weight)| writer.push(output, None, *weight).unwrap());
    writer.finish().unwrap();
    let plain = Store::open(&folder.path().join("p")).unwrap();
    assert!(write(&plain, &path, &options) == without);
    // a drafter over it takes an input and makes nothing of it
    let costs = CostCurve::linear(0.02).unwrap();
    let drafter = Drafter::new(Some(Arc::new(TaskIndex::open(&path).unwrap())), fixed()).unwrap();
    let draft = |input| drafter.draft(&mut drafter.start(&[], input).unwrap(), 16, &costs).clone();
    assert_eq!(draft(Some("secretname7 wants tea")), draft(None));
    assert_eq!(draft(None).tokens, TOY.ids(" tea;"));
}

/// Weights of another version of the sources: the general ones serve.
#[test]
fn weights_of_another_shape_are_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let store = toys::store(&folder.path().join("s"), &toys::rows(TOY, 100, 9));
    let (path, train) = (folder.path().join("i"), quick());
    let good = write(&store, &path, &BuildOptions { no_inputs: false, train: Some(&train), tokenizer: Some(&TOY) });
    let open = |bytes: &[u8]| TaskIndex::from_file(File::from_bytes(bytes, KIND, VERSION.0).unwrap()).unwrap();
    assert!(open(&good).weights().is_some());
    let changed = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let layout = open(&good).meta().mixture.clone().unwrap();
    let features = |n: usize| format!("\"features\":{n}");
    let groups = |g: &[usize]| serde_json::to_string(g).unwrap();
    let mut reversed = layout.groups.clone();
    reversed.reverse();
    assert_ne!(reversed, layout.groups);
    let other_features = changed(&features(layout.features), &features(layout.features - 1));
    let other_groups = changed(&groups(&layout.groups), &groups(&reversed));
    let input = "find flights from boston to oslo";
    let draft = |index: TaskIndex, weights: Option<MixtureWeights>| {
        let drafter = Drafter::new(Some(Arc::new(index)), DrafterOptions { weights, ..fixed() }).unwrap();
        drafter.draft(&mut drafter.start(&[], Some(input)).unwrap(), 16, &CostCurve::linear(0.02).unwrap()).clone()
    };
    let general = draft(open(&good), Some(general::weights().unwrap()));
    for bytes in [other_features, other_groups] {
        assert!(open(&bytes).weights().is_none());
        assert_eq!(draft(open(&bytes), None), general);
    }
}
