//! Stores and containers that are not what they claim: no panic, no huge allocation, an error or a useless answer.
#![allow(clippy::unwrap_used)]
mod damage;

use damage::{damaged, random};
use tasc_core::corpus::store::{KIND, StoreMeta, VERSION};
use tasc_core::corpus::{Store, StoreWriter};
use tasc_core::format::{File, Fingerprint, Kind, MAGIC};
use tasc_core::{Error, Result};

/// Files per kind of damage; together more than 10⁵.
const ROUNDS: u64 = 36_000;

fn store_bytes() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let meta = StoreMeta { tokenizer: "toy".into(), vocab_size: 50, eos_id: Some(2), ..StoreMeta::default() };
    let mut writer = StoreWriter::create(&path, &Fingerprint([7; 32]), meta).unwrap();
    for k in 0..12u32 {
        let text = format!("é input {}", k % 5);
        writer.push(&[1, 3 + k % 7, 4, 2], (k % 3 > 0).then_some(text.as_str()), u64::from(k) + 1).unwrap();
    }
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

/// Reads everything; damage may show anywhere, but only as a format error.
fn read_all(bytes: &[u8]) -> Result<()> {
    let store = Store::from_file(File::from_bytes(bytes, KIND, VERSION.0)?)?;
    let mut damage = Ok(());
    let mut note = |read: Result<()>| {
        if damage.is_ok() {
            damage = read
        }
    };
    for k in 0..store.num_documents() {
        note(store.document(k).map(|ids| assert!(ids.len() <= store.num_tokens())));
        note(store.weight(k).map(drop));
    }
    for k in 0..store.num_inputs() {
        note(store.input(k).map(|row| assert!((row.document as usize) < store.num_documents())));
    }
    note(store.verify());
    damage
}

#[test]
fn damaged_stores_never_panic() {
    let good = store_bytes();
    read_all(&good).unwrap();
    let mut state = 0x9E37_79B9_97F4_A7C1;
    let (mut read, mut refused) = (0, 0);
    for round in 0..ROUNDS * 3 {
        let bytes = damaged(&good, round, &mut state);
        match read_all(&bytes) {
            Ok(()) => read += 1,
            Err(Error::Format { .. }) => refused += 1,
            Err(other) => panic!("unexpected {other:?}"),
        }
    }
    assert!(refused > ROUNDS * 2, "{refused} refused, {read} read: most damage should be noticed");
}

#[test]
fn any_bytes_are_no_container() {
    let mut state = 0x2545_F491_4F6C_DD1D;
    for round in 0..30_000 {
        let mut bytes: Vec<u8> = (0..random(&mut state) % 200).map(|_| random(&mut state) as u8).collect();
        if round % 2 == 0 && bytes.len() >= 16 {
            bytes[..8].copy_from_slice(&MAGIC);
            bytes[8..12].copy_from_slice(&KIND.0);
            bytes[12..16].copy_from_slice(&[1, 0, 0, 0]);
        }
        assert!(matches!(File::from_bytes(&bytes, KIND, 1), Err(Error::Format { .. })));
    }
}

#[test]
fn another_kind_or_version_is_named() {
    let good = store_bytes();
    let why = |bytes: &[u8], kind, major| File::from_bytes(bytes, kind, major).unwrap_err().to_string();
    assert!(why(&good, Kind(*b"INDX"), 1).contains("kind STOR, INDX is wanted"));
    assert!(why(&good, KIND, 7).contains("format version 1.0, this tasc reads 7.x"));
}

/// Bytes between sections could hold anything unnoticed.
#[test]
fn a_gap_between_sections_is_refused() {
    let good = store_bytes();
    let table = u64::from_le_bytes(good[56..64].try_into().unwrap()) as usize;
    let shifted = |entries: usize| {
        let mut bytes = [&good[..table], &[1; 64], &good[table..]].concat();
        let (length, new_table) = (bytes.len() as u64, table as u64 + 64);
        bytes[48..56].copy_from_slice(&length.to_le_bytes());
        bytes[56..64].copy_from_slice(&new_table.to_le_bytes());
        for entry in bytes[table + 64..].chunks_exact_mut(40).rev().take(entries) {
            let offset = u64::from_le_bytes(entry[16..24].try_into().unwrap()) + 64;
            entry[16..24].copy_from_slice(&offset.to_le_bytes());
        }
        damage::reseal(&mut bytes);
        File::from_bytes(&bytes, KIND, VERSION.0).unwrap_err().to_string()
    };
    assert!(shifted(0).contains("section `section table` begins at byte"), "{}", shifted(0));
    assert!(shifted(1).contains("section `meta` begins at byte"), "{}", shifted(1));
}
