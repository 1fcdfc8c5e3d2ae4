//! What a plan holds, and why it holds no more.
#![allow(clippy::unwrap_used)] // a test may
use std::path::{Path, PathBuf};

use tasc_core::corpus::store::StoreMeta;
use tasc_core::corpus::{Store, StoreWriter};
use tasc_core::format::Fingerprint;
use tasc_core::merge::{LearnOptions, MergePlan, MergerOptions};
use tasc_core::{Error, Result, TokenId};

const EOS: TokenId = 2;

struct Task {
    folder: tempfile::TempDir,
    store: Store,
}

fn task(documents: &[(&[TokenId], u64)]) -> Task {
    with_vocabulary(documents, 50)
}

fn with_vocabulary(documents: &[(&[TokenId], u64)], vocab_size: u32) -> Task {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows");
    let meta = StoreMeta { tokenizer: "toy".into(), vocab_size, eos_id: Some(EOS), ..StoreMeta::default() };
    let mut writer = StoreWriter::create(&path, &Fingerprint([7; 32]), meta).unwrap();
    for (ids, weight) in documents {
        writer.push(&[ids, [EOS].as_slice()].concat(), None, *weight).unwrap();
    }
    writer.finish().unwrap();
    Task { store: Store::open(&path).unwrap(), folder }
}

impl Task {
    fn path(&self) -> PathBuf {
        self.folder.path().join("plan")
    }

    fn learn(&self, options: &LearnOptions) -> Result<MergePlan> {
        MergePlan::learn(&self.store, &self.path(), options, |_| Ok(()))
    }
}

fn size(size: usize) -> LearnOptions {
    LearnOptions { size, held_out: 0.0, ..LearnOptions::default() }
}

fn expansions(plan: &MergePlan) -> Vec<Vec<TokenId>> {
    (0..plan.segmenter().len()).map(|k| plan.segmenter().expansion(k).unwrap().to_vec()).collect()
}

#[test]
fn scaffolding_is_no_part_of_a_plan() {
    let plan = task(&[(&[3, 4, 5, 6, 7, 8], 50)]).learn(&size(4)).unwrap();
    assert_eq!(expansions(&plan), [[3, 4, 5, 6, 7, 8]]); // never its end token
    let meta = plan.meta();
    assert_eq!((meta.wanted, meta.stopped_by.as_str()), (4, "thresholds"));
    assert_eq!((meta.tokens, meta.tokens_after), (350, 100));
    assert_eq!((plan.counts(), plan.documents()), (&[50][..], &[50][..]));
}

#[test]
fn the_budget_goes_to_what_saves_most() {
    let task = task(&[(&[3, 4, 5, 9, 6, 7], 40), (&[3, 4, 5, 10, 8, 9], 20), (&[6, 7], 5)]);
    let plan = task.learn(&size(1)).unwrap();
    let whole = vec![3, 4, 5, 9, 6, 7];
    assert_eq!(expansions(&plan), std::slice::from_ref(&whole)); // 40 · 5 tokens, 60 · 2 for what more documents hold
    assert_eq!(plan.meta().stopped_by, "size");
    assert!(expansions(&task.learn(&size(9)).unwrap()).contains(&whole));
    let forbidden = vec![vec![3, 4, 5], whole];
    let plan = task.learn(&LearnOptions { forbidden: forbidden.clone(), ..size(9) }).unwrap();
    assert!(expansions(&plan).iter().all(|e| !forbidden.contains(e)));
    let barriers = MergerOptions { barriers: vec![4], ..MergerOptions::default() };
    let plan = task.learn(&LearnOptions { merger: barriers, ..size(9) }).unwrap();
    assert!(expansions(&plan).iter().all(|e| !e.contains(&4)));
    let short = MergerOptions { max_length: 2, ..MergerOptions::default() };
    let plan = task.learn(&LearnOptions { merger: short, ..size(9) }).unwrap();
    assert!(expansions(&plan).iter().all(|e| e.len() == 2));
}

#[test]
fn one_token_is_chosen_from_many_merges_even_where_no_row_repeats() {
    let rows: Vec<Vec<TokenId>> = (0..200).map(|k| vec![3, 4, 5, 6, 7, 8, 10 + k % 40, 30 + k / 20]).collect();
    let rows: Vec<(&[TokenId], u64)> = rows.iter().map(|row| (row.as_slice(), 1)).collect();
    let plan = task(&rows).learn(&size(1)).unwrap();
    assert_eq!(expansions(&plan), [[3, 4, 5, 6, 7, 8]]); // the first two merges are (3, 4) and (5, 6)
}

#[test]
fn a_rare_token_that_others_would_replace_makes_them_frequent_enough() {
    // 3 4 5 stands alone in 5 rows, 3 4 in 6: too few for both, but 3 4 replaces 3 4 5.
    let plan = task(&[(&[9, 3, 4, 5], 20), (&[3, 4, 5], 5), (&[3, 4, 7], 6)]).learn(&size(4)).unwrap();
    assert_eq!(expansions(&plan), [vec![9, 3, 4, 5], vec![3, 4]]);
    assert_eq!(plan.counts(), [20, 11]);
}

#[test]
fn what_one_record_holds_is_left_out() {
    let secret: Vec<TokenId> = (20..40).chain(20..40).chain(20..40).collect(); // three times in one row
    let rows: Vec<(&[TokenId], u64)> = vec![(&[3, 4, 5], 30), (&secret, 1)];
    let merger = MergerOptions { min_count: 1, min_documents: 2, ..MergerOptions::default() };
    let plan = task(&rows).learn(&LearnOptions { merger: merger.clone(), ..size(50) }).unwrap();
    assert_eq!(expansions(&plan), [[3, 4, 5]]);
    // a document that stands for many rows is no record
    let rows: Vec<(&[TokenId], u64)> = vec![(&[3, 4, 5], 30), (&secret, 2)];
    let plan = task(&rows).learn(&LearnOptions { merger, ..size(50) }).unwrap();
    assert!(expansions(&plan).iter().any(|e| e.starts_with(&[20, 21])));
}

#[test]
fn more_new_tokens_than_save_on_held_out_rows_are_not_made() {
    // Every row has a word of its own that no other row holds; what rows share is one phrase.
    let words: Vec<Vec<TokenId>> =
        (0..400).map(|k| vec![3, 4, 5, 10 + k % 20, 30 + k / 20, 30 + k / 20, 10 + k % 20]).collect();
    let rows: Vec<(&[TokenId], u64)> = words.iter().map(|w| (w.as_slice(), 1)).collect();
    let merger = MergerOptions { min_count: 1, min_documents: 1, ..MergerOptions::default() };
    let task = task(&rows);
    let options = LearnOptions { merger, held_out: 0.1, ..size(300) };
    let plan = task.learn(&options).unwrap();
    assert_eq!(plan.meta().stopped_by, "held-out");
    assert!(plan.segmenter().len() < 300);
    let sizes: Vec<u64> = plan.curve().iter().map(|p| p.size).collect();
    assert!(sizes.is_sorted() && sizes[0] == 1 && sizes.contains(&(plan.segmenter().len() as u64)));
    assert!(plan.curve().iter().all(|p| (0.0..1.0).contains(&p.train) && (0.0..1.0).contains(&p.held_out)));
    let bytes = std::fs::read(task.path()).unwrap();
    task.learn(&options).unwrap();
    assert_eq!(std::fs::read(task.path()).unwrap(), bytes);
}

#[test]
fn unusable_options_and_stores_are_named() {
    let task = task(&[(&[3, 4], 50), (&[], 1)]);
    let why = |options: LearnOptions| task.learn(&options).unwrap_err().to_string();
    assert!(why(size(0)).contains("size of 0"));
    assert!(why(LearnOptions { held_out: 1.5, ..size(1) }).contains("held_out is 1.5"));
    assert!(why(LearnOptions { held_out: f64::NAN, ..size(1) }).contains("held_out is NaN"));
    let merger = |merger| LearnOptions { merger, ..size(1) };
    assert!(why(merger(MergerOptions { max_length: 1, ..MergerOptions::default() })).contains("max_length is 1"));
    let floor = why(merger(MergerOptions { min_count: 51, ..MergerOptions::default() }));
    assert!(floor.contains("51 times in 5 rows"), "{floor}");
    let floor = why(merger(MergerOptions { min_documents: 51, ..MergerOptions::default() }));
    assert!(floor.contains("10 times in 51 rows"), "{floor}");
    assert!(!Path::new(&task.path()).exists());
    let unknown = with_vocabulary(&[(&[3, 4], 50)], 0).learn(&size(1)).unwrap_err();
    assert!(matches!(unknown, Error::Plan { why } if why.contains("how large its vocabulary")));
}

#[test]
fn a_stopped_call_writes_nothing() {
    let task = task(&[(&[3, 4, 5], 50)]);
    for held_out in [0.0, 0.1] {
        let options = LearnOptions { held_out, ..size(5) };
        let stopped = MergePlan::learn(&task.store, &task.path(), &options, |_| Err(Error::Stopped));
        assert!(matches!(stopped, Err(Error::Stopped)));
        assert!(!task.path().exists());
    }
}

#[test]
fn weights_of_any_size_do_no_harm() {
    let rows: Vec<(&[TokenId], u64)> = vec![(&[3, 4, 3, 4, 5], u64::MAX), (&[3, 4], u64::MAX - 1), (&[5, 5, 5], 1)];
    for held_out in [0.0, 0.3] {
        let plan = task(&rows).learn(&LearnOptions { held_out, ..size(5) }).unwrap();
        assert!(!plan.segmenter().is_empty());
    }
}
