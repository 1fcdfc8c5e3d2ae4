//! What `verify` proves of files with right checksums, and that uses of files that were not verified are bounded.
#![allow(clippy::unwrap_used)] // a test may
mod forge;
mod toys;

use std::path::Path;

use forge::Forged;
use tasc_core::corpus::{Store, StoreWriter, store};
use tasc_core::format::{File, Fingerprint};
use tasc_core::index::{NgramsBuilder, TaskArrays};
use tasc_core::merge::{LearnOptions, MergePlan};
use tasc_core::task::file::{BuildOptions, KIND, VERSION};
use tasc_core::task::remove::Removal;
use tasc_core::task::{IndexMeta, TaskIndex};
use tasc_core::{Error, StoreMeta};
use toys::Toy;

fn opened(forged: &Forged) -> TaskIndex {
    TaskIndex::from_file(File::from_bytes(&forged.bytes(), KIND, VERSION.0).unwrap()).unwrap()
}

fn with_inputs(folder: &Path) -> Forged {
    let store = toys::store(&folder.join("rows"), &toys::rows(Toy::Glued, 80, 5));
    let options = BuildOptions { tokenizer: Some(&Toy::Glued), ..BuildOptions::default() };
    TaskIndex::build(&store, &folder.join("i"), &options, |_| Ok(())).unwrap();
    Forged::of(&std::fs::read(folder.join("i")).unwrap())
}

/// Why a verification, and everything that expands the outputs, is refused.
fn refused(forged: &Forged, folder: &Path) -> String {
    let (index, target) = (opened(forged), folder.join("refused"));
    let why = index.verify().unwrap_err().to_string();
    let compacted = index.compact(&[] as &[&Path], &target, &BuildOptions::default(), |_| Ok(()));
    let uses = [index.to_store(&target, &[], || Ok(())).map(drop), compacted.map(drop)];
    uses.into_iter().for_each(|used| assert_eq!(used.unwrap_err().to_string(), why));
    assert!(!target.exists());
    why
}

#[test]
fn whole_indexes_are_safe() {
    let folder = tempfile::tempdir().unwrap();
    opened(&with_inputs(folder.path())).verify().unwrap();
    let mut builder = NgramsBuilder::new();
    for k in 0..400u32 {
        builder.push(&[1, 2, 3 + k % 7, 4 + k % 90], u64::from(k) * 9).unwrap();
    }
    builder.push(&[], 1).unwrap();
    builder.push(&(0..5000).collect::<Vec<_>>(), 1).unwrap();
    builder.push(&[5; 5000], 1).unwrap();
    let task = TaskArrays { ngrams: builder.build(|_| Ok(())).unwrap(), ..<TaskArrays>::default() };
    TaskIndex::write(&folder.path().join("n"), &Fingerprint::default(), &IndexMeta::default(), &task).unwrap();
    TaskIndex::open(&folder.path().join("n")).unwrap().verify().unwrap();
}

#[test]
fn cycles_and_overlaps_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = with_inputs(folder.path());
    let n = good.clone().get::<u32>("bwt").len();
    let positions: Vec<u32> = (0..n as u32).collect();
    // every position leads to itself, over a symbol without a token
    let cycle = good.clone().set("bwt", &vec![u32::MAX - 15; n]).set("lf", &positions);
    assert!(refused(&cycle, folder.path()).contains("has symbol 4294967280"));
    // every position begins an output, which ends where all end
    let next: Vec<u32> = (1..n as u32).chain([0]).collect();
    let symbols: Vec<u32> = vec![1; n - 1].into_iter().chain([0]).collect();
    let mut overlap = good.clone().set("tokens", &[65u32]).set("starts", &[0, n as u32, n as u32]).set("lf", &next);
    overlap = overlap.set("bwt", &symbols).set("lf_inverse", &positions);
    assert!(refused(&overlap, folder.path()).contains("section `lf`"));
    // one to one, and still a cycle: position 1 follows itself
    let apart = Forged::of(&ngrams(folder.path())).set("bwt", &[0u32, 1]).set("lf", &[0u32, 1]);
    let apart = apart.set("lf_inverse", &[0u32, 1]).set("starts", &[0u32, 1, 2]);
    assert!(refused(&apart, folder.path()).contains("in a circle"));
    // a circle that is long, beside an output without tokens: the transform of a text that has no start
    let mut random = toys::Random(5);
    let text: Vec<u32> = (0..3000).map(|_| 1 + random.below(2) as u32).collect();
    let mut order: Vec<usize> = (0..text.len()).collect();
    order.sort_by_key(|&k| [&text[k..], &text[..k]].concat());
    let mut bwt = vec![0];
    bwt.extend(order.iter().map(|&k| text[(k + text.len() - 1) % text.len()]));
    let ones = text.iter().filter(|&&t| t == 1).count() as u32;
    let mut next = [0, 1, 1 + ones];
    let mut lf = vec![0u32; bwt.len()];
    let mut lf_inverse = lf.clone();
    for (at, &symbol) in bwt.iter().enumerate() {
        lf[at] = next[symbol as usize];
        lf_inverse[lf[at] as usize] = at as u32;
        next[symbol as usize] += 1;
    }
    let long = Forged::of(&ngrams(folder.path())).set("tokens", &[7u32, 8]).set("starts", &[0, 1, 1 + ones, 3001]);
    let long = long.set("bwt", &bwt).set("lf", &lf).set("lf_inverse", &lf_inverse);
    assert!(refused(&long, folder.path()).contains("in a circle"));
}

/// The index of one output of one token.
fn ngrams(folder: &Path) -> Vec<u8> {
    let path = folder.join("n");
    let mut builder = NgramsBuilder::new();
    builder.push(&[7], 1).unwrap();
    let task = TaskArrays { ngrams: builder.build(|_| Ok(())).unwrap(), ..<TaskArrays>::default() };
    TaskIndex::write(&path, &Fingerprint::default(), &IndexMeta::default(), &task).unwrap();
    std::fs::read(path).unwrap()
}

/// One element that is out of range, or out of order, in each section that says where others lie.
#[test]
fn every_offset_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let mut good = with_inputs(folder.path());
    let words = [
        "tokens",
        "starts",
        "bwt",
        "lf",
        "lf_inverse",
        "slots",
        "postings",
        "row_documents",
        "piece_starts",
        "pointer_slots",
        "coverage_slots",
        "text_starts",
    ];
    for name in words {
        let mut elements = good.get::<u32>(name);
        let at = elements.iter().position(|&e| e > 0).unwrap();
        elements[at] = u32::MAX;
        refused(&good.clone().set(name, &elements), folder.path());
    }
    for name in ["terms", "term_starts", "piece_keys", "text_offsets"] {
        let mut elements = good.get::<u64>(name);
        elements[1] = u64::MAX;
        refused(&good.clone().set(name, &elements), folder.path());
    }
    for name in ["norms", "text_weights", "copy_rates", "piece_ids", "text_bytes"] {
        let mut short = good.clone();
        let bytes = short.section(name);
        bytes.truncate(bytes.len() - 8);
        refused(&short, folder.path());
    }
    let texts = vec![0xFFu8; good.section("text_bytes").len()];
    assert!(refused(&good.clone().set("text_bytes", &texts), folder.path()).contains("is not UTF-8"));
    refused(&good.clone().set("heavy_at", &[u32::MAX]).set("heavy", &[9u64]), folder.path());
    let mut records = good.get::<u32>("records");
    records[6] = u32::MAX; // a successor
    assert!(refused(&good.clone().set("records", &records), folder.path()).contains("section `records`"));
}

#[test]
fn a_verification_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let index = opened(&with_inputs(folder.path()));
    let mut calls = 0;
    let stopped = index.verify_with(|| {
        calls += 1;
        if calls == 12 { Err(Error::Stopped) } else { Ok(()) }
    });
    assert!(matches!(stopped, Err(Error::Stopped)));
}

/// Documents, or inputs, that overlap would make more of a store than it holds.
#[test]
fn overlapping_rows_of_a_store_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows");
    let meta = StoreMeta { vocab_size: 50, ..StoreMeta::default() };
    let mut writer = StoreWriter::create(&path, &Fingerprint::default(), meta).unwrap();
    for k in 0..9u32 {
        writer.push(&[k, 1, 2, 3], Some(&format!("input {k}")), 20).unwrap();
    }
    writer.finish().unwrap();
    let mut good = Forged::of(&std::fs::read(&path).unwrap());
    Store::open(&path).unwrap().verify().unwrap();
    for name in ["offsets", "input_offsets"] {
        let mut offsets = good.get::<u64>(name);
        offsets[4] = 0; // a document from there on, one over all before it
        let bytes = good.clone().set(name, &offsets).bytes();
        std::fs::write(&path, &bytes).unwrap();
        let store = Store::from_file(File::from_bytes(&bytes, store::KIND, store::VERSION.0).unwrap()).unwrap();
        let (target, options) = (folder.path().join("x"), tasc_core::count::CountOptions::default());
        let uses = [
            store.verify(),
            TaskIndex::build(&store, &target, &BuildOptions::default(), |_| Ok(())).map(drop),
            MergePlan::learn(&store, &target, &LearnOptions::default(), |_| Ok(())).map(drop),
            tasc_core::count::count(&store, &target, &options, |_| Ok(())).map(drop),
            StoreWriter::append(&path, &Fingerprint::default(), || Ok(())).map(drop),
        ];
        for used in uses {
            let why = used.unwrap_err().to_string();
            let of_the_texts = name == "input_offsets" && why.contains("section `inputs`"); // whoever reads them first
            assert!(why.contains(&format!("section `{name}`")) || of_the_texts, "{why}");
        }
    }
    let mut ids = good.get::<u32>("tokens");
    ids[3] = 50;
    let store = File::from_bytes(&good.set("tokens", &ids).bytes(), store::KIND, store::VERSION.0);
    let why = Store::from_file(store.unwrap()).unwrap().verify().unwrap_err().to_string();
    assert!(why.contains("id 50 is not below 50"), "{why}");
}

/// A row for each input, and one output: the output is read once, not once for each row.
#[test]
fn rows_share_the_walk_of_their_output() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, output) = (300, vec![3u32; 20_000]);
    let rows: Vec<toys::Row> = (0..rows).map(|k| (format!("input {k}"), output.clone(), 1 + k % 3)).collect();
    let store = toys::store(&folder.path().join("rows"), &rows);
    let index = TaskIndex::build(&store, &folder.path().join("i"), &BuildOptions::default(), |_| Ok(())).unwrap();
    let copy = index.to_store(&folder.path().join("copy"), &[], || Ok(())).unwrap();
    assert_eq!((copy.num_documents(), copy.num_inputs()), (1, 300));
    assert_eq!((copy.weight(0).unwrap(), copy.document(0).unwrap()), (store.weight(0).unwrap(), output.as_slice()));
    (0..300).for_each(|k| assert_eq!(copy.input(k).unwrap(), store.input(k).unwrap()));
}

/// Numbers of rows near 2**64 are added up as far as they go, and their rows are removed.
#[test]
fn rows_of_any_weight_can_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut good = with_inputs(folder.path());
    let weights = vec![u64::MAX - 1; good.get::<u64>("text_weights").len()];
    let path = folder.path().join("heavy");
    std::fs::write(&path, good.set("text_weights", &weights).bytes()).unwrap();
    let index = TaskIndex::open(&path).unwrap();
    let gone: Vec<String> = (0..3).map(|k| index.input(k).unwrap().text.to_owned()).collect();
    let picks = &mut |rows: &[tasc_core::OnlineRow]| Ok(rows.iter().map(|row| gone.contains(&row.input)).collect());
    let mut removal = Removal { picks, keys: &[], before: None };
    let removed = index.remove(&[] as &[&Path], &mut removal, &BuildOptions::default(), |_| Ok(())).unwrap();
    assert_eq!(removed.from_index, u64::MAX);
    let left = TaskIndex::open(&path).unwrap();
    left.verify().unwrap();
    assert!((0..left.num_inputs()).all(|k| !gone.iter().any(|text| text == left.input(k).unwrap().text)));
}
