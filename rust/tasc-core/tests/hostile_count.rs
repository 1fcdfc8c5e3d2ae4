//! Tables of n-grams that are not what they claim, and stores that are not: no panic, no huge allocation, an error or
//! a useless answer.
#![allow(clippy::unwrap_used)]
mod damage;

use std::path::Path;

use damage::damaged;
use tasc_core::corpus::store::{self, StoreMeta};
use tasc_core::corpus::{Store, StoreWriter};
use tasc_core::count::table::{KIND, VERSION};
use tasc_core::count::{CountOptions, MIN_MEMORY, Minimum, NgramTable, Place, count, merge_tables};
use tasc_core::format::{File, Fingerprint, Writer};
use tasc_core::{Error, Result};

const ROUNDS: u64 = 60_000;

fn options() -> CountOptions {
    CountOptions { max_length: 3, memory_limit: MIN_MEMORY, ..CountOptions::default() }
}

fn good_store(path: &Path) {
    let meta = StoreMeta { tokenizer: "toy".into(), vocab_size: 1000, eos_id: Some(2), ..StoreMeta::default() };
    let mut writer = StoreWriter::create(path, &Fingerprint([7; 32]), meta).unwrap();
    for k in 0..60u32 {
        writer.push(&[1, 3 + k % 7, 4 + k * 13, 1, 3, 2], None, u64::from(k) * 70 + 1).unwrap();
    }
    writer.finish().unwrap();
}

fn good_table() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (rows, path) = (folder.path().join("s"), folder.path().join("t"));
    good_store(&rows);
    count(&Store::open(&rows).unwrap(), &path, &options(), |_| Ok(())).unwrap();
    std::fs::read(path).unwrap()
}

/// Reads everything; damage may show anywhere, but only as a format error.
fn read_all(bytes: &[u8]) -> Result<()> {
    let table = NgramTable::from_file(File::from_bytes(bytes, KIND, VERSION.0)?)?;
    let mut damage = table.top(5, 0..9, || Ok(())).map(drop);
    let mut note = |read: Result<()>| {
        if damage.is_ok() {
            damage = read
        }
    };
    for ids in [&[][..], &[1], &[1, 3], &[4, 1, 3], &[u32::MAX; 3], &[0; 40]] {
        note(table.lookup(ids).map(drop));
    }
    for length in 0..=table.max_length() + 1 {
        let mut place = Place::new(length);
        loop {
            match place.next(&table) {
                Ok(Some((ids, ..))) => assert_eq!(ids.len(), length),
                Ok(None) => break,
                Err(error) => {
                    note(Err(error));
                    break;
                }
            }
        }
    }
    note(table.verify());
    damage
}

#[test]
fn damaged_tables_never_panic() {
    let good = good_table();
    read_all(&good).unwrap();
    let mut state = 0x9E37_79B9_97F4_A7C1;
    let (mut read, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        match read_all(&damaged(&good, round, &mut state)) {
            Ok(()) => read += 1,
            Err(Error::Format { .. }) => refused += 1,
            Err(other) => panic!("unexpected {other:?}"),
        }
    }
    assert!(refused > ROUNDS / 2, "{refused} refused, {read} read: most damage should be noticed");
}

/// A table with one page of pairs and right checksums.
fn forged(path: &Path, page: &[u8], pairs: u64) -> NgramTable {
    let mut out = Writer::create(path, KIND, 1, 0, &Fingerprint::default()).unwrap();
    let mut bytes = page.to_vec();
    bytes.resize(1024, 0);
    out.section::<u8>("ngrams1", &[]).unwrap();
    out.section("ngrams2", &bytes).unwrap();
    out.section("meta", format!("{{\"ngrams\":[0,{pairs}]}}").as_bytes()).unwrap();
    out.finish().unwrap();
    NgramTable::open(path).unwrap()
}

#[test]
fn pages_are_distrusted_in_spite_of_right_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    let why = |page: &[u8], pairs| forged(&path, page, pairs).verify().unwrap_err().to_string();
    // an entry: flags 96 (once, in one document), its ids
    assert!(forged(&path, &[1, 0, 96, 5, 6], 1).verify().is_ok());
    assert!(why(&[1, 0, 96, 5, 6], 9).contains("1 n-grams, `meta` says 9"));
    assert!(why(&[1, 0, 97, 5, 6], 1).contains("shares more ids than there are"));
    assert!(why(&[2, 0, 96, 5, 6, 98, 1], 2).contains("shares more ids than there are"));
    assert!(why(&[1, 0, 96, 255, 255, 255, 255, 16, 6], 1).contains("id is too large"));
    assert!(why(&[1, 0, 96, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], 1).contains("number is too long"));
    assert!(why(&[255, 255, 96, 5, 6], 1).contains("ends behind its page"));
    let largest = [2, 0, 96, 255, 255, 255, 255, 15, 6, 96, 0, 6];
    assert!(why(&largest, 2).contains("id is too large"), "nothing is greater than the largest id");
    let unsorted = forged(&path, &[1, 0, 96, 5, 6], 1);
    let sum = merge_tables(&[&unsorted], &path, Minimum::default(), 1, |_| Ok(()));
    assert!(sum.is_ok());
}

#[test]
fn damaged_stores_are_counted_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, path) = (folder.path().join("s"), folder.path().join("t"));
    good_store(&rows);
    let good = std::fs::read(&rows).unwrap();
    let mut state = 0x2545_F491_4F6C_DD1D;
    let (mut counted, mut refused) = (0, 0);
    for round in 0..3000 {
        let bytes = damaged(&good, round * 3 + 1, &mut state); // with a right header
        let Ok(store) = File::from_bytes(&bytes, store::KIND, 1).and_then(Store::from_file) else { continue };
        match count(&store, &path, &options(), |_| Ok(())) {
            Ok(_) => {
                NgramTable::open(&path).unwrap().verify().unwrap();
                counted += 1;
            }
            Err(Error::Format { .. } | Error::TokenId { .. } | Error::MemoryLimit { .. }) => refused += 1,
            Err(other) => panic!("unexpected {other:?}"),
        }
    }
    assert!(counted > 100 && refused > 100, "{counted} counted, {refused} refused");
}
