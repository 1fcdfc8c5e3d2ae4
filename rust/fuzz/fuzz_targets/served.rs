//! Any bytes as a write-ahead log: what is read of it begins the file that those rows would make.
#![no_main]
use std::sync::LazyLock;

use hostile::written;
use libfuzzer_sys::fuzz_target;
use tasc_core::corpus::{OnlineRow, WriteAheadLog, online_log};
use tasc_core::format::Fingerprint;
use xxhash_rust::xxh3::xxh3_64;

const HEADER_BYTES: usize = 80;

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    written(|path| {
        let (mut log, _) = WriteAheadLog::open(path, &Fingerprint::default()).expect("created");
        for k in 0..4u32 {
            log.append(&[OnlineRow { input: "é input".into(), output: vec![1, 2, 3 + k], key: "k".repeat(k as usize % 2) }]).expect("appended");
        }
    })
});

/// A record of any payload, with a checksum that is right; its number is `number`.
fn record(number: u64, payload: &[u8]) -> Vec<u8> {
    let (length, number) = (u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes(), number.to_le_bytes());
    let sum = xxh3_64(&[&length, &number[..], payload].concat()).to_le_bytes();
    [&length, &sum[..], &number, payload].concat()
}

/// A row's payload.
fn encoded(row: &OnlineRow) -> Vec<u8> {
    let input = u32::try_from(row.input.len()).unwrap_or(u32::MAX).to_le_bytes();
    let ids: Vec<u8> = row.output.iter().flat_map(|id| id.to_le_bytes()).collect();
    if row.key.is_empty() {
        return [&input, row.input.as_bytes(), &ids].concat();
    }
    let key = u32::try_from(row.key.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&[input[0], input[1], input[2], input[3] | 0x80], row.input.as_bytes(), &key, row.key.as_bytes(), &ids].concat()
}

/// The good file with changes: each 3 bytes of `data` say where (2 bytes) and what is written there.
fn changed(data: &[u8]) -> Vec<u8> {
    let mut bytes = GOOD.clone();
    for change in data.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] = change[2];
    }
    bytes
}

fuzz_target!(|data: &[u8]| {
    let header = &GOOD[..HEADER_BYTES];
    let payloads = data.split(|&b| b == 0xFE);
    let sealed: Vec<u8> = (0..).zip(payloads).flat_map(|(number, payload)| record(number, payload)).collect();
    for bytes in [data.to_vec(), changed(data), [header, data].concat(), [header, &sealed].concat()] {
        let Ok(rows) = online_log::from_bytes(&bytes, &Fingerprint::default()) else { continue };
        let mut rest = bytes.get(HEADER_BYTES..).unwrap_or(&[]);
        for row in &rows {
            let number = u64::from_le_bytes(rest[12..20].try_into().expect("8 bytes"));
            rest = rest.strip_prefix(&record(number, &encoded(row))[..]).expect("the row's record");
        }
    }
});
