//! The store against plain vectors, and what it does when others write at the same time.
#![allow(clippy::unwrap_used)]
use std::path::Path;

use proptest::prelude::*;
use tasc_core::corpus::{Store, StoreWriter, store::StoreMeta};
use tasc_core::format::Fingerprint;
use tasc_core::{Error, TokenId};

const MADE_BY: Fingerprint = Fingerprint([7; 32]);

type Row = (Vec<TokenId>, Option<String>, u64);

/// What a store should hold, found by linear search.
#[derive(Default, Debug, PartialEq)]
struct Naive {
    documents: Vec<(Vec<TokenId>, u64)>,
    inputs: Vec<(String, u32, u64)>,
}

impl Naive {
    fn of(rows: &[Row]) -> Self {
        let mut this = Self::default();
        for (output, input, weight) in rows {
            let document = this.documents.iter().position(|d| d.0 == *output).unwrap_or_else(|| {
                this.documents.push((output.clone(), 0));
                this.documents.len() - 1
            });
            this.documents[document].1 += weight;
            let Some(text) = input else { continue };
            let document = document as u32;
            let row = this.inputs.iter().position(|r| r.0 == *text && r.1 == document).unwrap_or_else(|| {
                this.inputs.push((text.clone(), document, 0));
                this.inputs.len() - 1
            });
            this.inputs[row].2 += weight;
        }
        this
    }

    fn read(store: &Store) -> Self {
        let document = |k| (store.document(k).unwrap().to_vec(), store.weight(k).unwrap());
        let input = |k| store.input(k).map(|i| (i.text.to_owned(), i.document, i.weight)).unwrap();
        Self {
            documents: (0..store.num_documents()).map(document).collect(),
            inputs: (0..store.num_inputs()).map(input).collect(),
        }
    }
}

fn meta() -> StoreMeta {
    StoreMeta {
        writer: env!("CARGO_PKG_VERSION").into(),
        tokenizer: "toy".into(),
        vocab_size: 50,
        eos_id: Some(2),
        ..StoreMeta::default()
    }
}

fn push(mut writer: StoreWriter, rows: &[Row]) -> StoreWriter {
    rows.iter().for_each(|(output, input, weight)| writer.push(output, input.as_deref(), *weight).unwrap());
    writer
}

fn write(path: &Path, rows: &[Row]) {
    push(StoreWriter::create(path, &MADE_BY, meta()).unwrap(), rows).finish().unwrap();
}

fn append(path: &Path, rows: &[Row]) {
    push(StoreWriter::append(path, &MADE_BY, || Ok(())).unwrap(), rows).finish().unwrap();
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Few tokens, short texts: much repeats.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let output = prop::collection::vec(prop_oneof![0..3u32, Just(49)], 0..4);
    let input = prop::option::of(prop_oneof![Just(String::new()), "[abé]{1,2}", Just("a longer one 🙂".into())]);
    prop::collection::vec((output, input, 1..5u64), 1..40)
}

proptest! {
    #[test]
    fn a_store_holds_what_went_in(rows in rows()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        write(&path, &rows);
        let store = Store::open(&path).unwrap();
        store.verify().unwrap();
        let naive = Naive::of(&rows);
        prop_assert_eq!(store.num_tokens(), naive.documents.iter().map(|d| d.0.len()).sum::<usize>());
        prop_assert_eq!(Naive::read(&store), naive);
        prop_assert_eq!(store.meta(), &meta());
        prop_assert_eq!(store.file().fingerprint(), MADE_BY);
    }

    #[test]
    fn appending_gives_the_bytes_of_building_at_once(rows in rows(), cut in 0..40usize) {
        let folder = tempfile::tempdir().unwrap();
        let (whole, grown) = (folder.path().join("whole"), folder.path().join("grown"));
        write(&whole, &rows);
        let (first, rest) = rows.split_at(cut.clamp(1, rows.len()));
        write(&grown, first);
        append(&grown, rest);
        prop_assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&grown).unwrap());
        prop_assert_eq!(files(folder.path()), 2);
    }
}

#[test]
fn refusals_name_value_and_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut writer = StoreWriter::create(&path, &MADE_BY, meta()).unwrap();
    let error = writer.push(&[1, 50], None, 1).unwrap_err();
    assert!(matches!(error, Error::TokenId { id: 50, limit: 50 }), "{error}");
    assert!(matches!(writer.finish().unwrap_err(), Error::EmptyCorpus));
    let mut writer = StoreWriter::create(&path, &MADE_BY, StoreMeta { vocab_size: 0, ..meta() }).unwrap();
    assert!(writer.push(&[u32::MAX], None, 1).is_err());
    writer.push(&[u32::MAX - 1], None, 1).unwrap();
    drop(writer);
    assert_eq!(files(folder.path()), 0);

    write(&path, &[(vec![1], Some("in".into()), 1)]);
    let store = Store::open(&path).unwrap();
    assert!(matches!(store.document(1), Err(Error::OutOfRange { index: 1, limit: 1, .. })));
    assert!(matches!(store.document(usize::MAX), Err(Error::OutOfRange { .. })));
    assert!(matches!(store.weight(7), Err(Error::OutOfRange { index: 7, limit: 1, .. })));
    assert!(matches!(store.input(1), Err(Error::OutOfRange { index: 1, limit: 1, .. })));

    let other = Fingerprint([9; 32]);
    let message = StoreWriter::append(&path, &other, || Ok(())).err().unwrap().to_string();
    assert!(message.contains(&other.to_string()) && message.contains(&MADE_BY.to_string()), "{message}");
    assert!(matches!(StoreWriter::append(&path, &MADE_BY, || Err(Error::Stopped)), Err(Error::Stopped)));
    assert_eq!(files(folder.path()), 1);
}

#[test]
fn damage_is_not_carried_over_by_an_append() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    write(&path, &[(vec![1, 2, 3], None, 1)]);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(12).position(|w| w == bytemuck::cast_slice::<u32, u8>(&[1, 2, 3])).unwrap();
    bytes[at] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    let message = StoreWriter::append(&path, &MADE_BY, || Ok(())).err().unwrap().to_string();
    assert!(message.contains("section `tokens`"), "{message}");
}

#[test]
fn appends_wait_for_each_other_and_readers_for_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    write(&path, &[(vec![0], None, 1)]);
    let old = Store::open(&path).unwrap();
    std::thread::scope(|s| {
        for t in 1..5u32 {
            let path = &path;
            s.spawn(move || (0..10).for_each(|k| append(path, &[(vec![t, k], Some("x".into()), 1)])));
        }
        s.spawn(|| {
            let mut seen = 0;
            while seen < 41 {
                let store = Store::open(&path).unwrap();
                store.verify().unwrap();
                assert_eq!(store.num_documents(), store.num_inputs() + 1, "all of an append is seen, or nothing");
                assert!(store.num_documents() >= seen, "an append was lost");
                seen = store.num_documents();
            }
        });
    });
    assert_eq!(old.num_documents(), 1, "a reader keeps what it opened");
    assert_eq!(files(folder.path()), 1);
}
