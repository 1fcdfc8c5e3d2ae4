//! What the fuzzer's bytes become: a file from nothing, and a good file with changes. In both, kind, version, length
//! and header checksum are made right: no fuzzer guesses those, and what lies behind them is of interest.
use tasc_core::format::{HEADER_BYTES, Kind, MAGIC};

/// `data` as a file.
#[must_use]
pub fn from_nothing(data: &[u8], kind: Kind, major: u16) -> Vec<u8> {
    let mut bytes = data.to_vec();
    seal(&mut bytes, kind, major);
    bytes
}

/// `good` with changes: each 6 bytes of `data` say where (2 bytes) and what is written there (4 bytes).
#[must_use]
pub fn changed(good: &[u8], data: &[u8], kind: Kind, major: u16) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for change in data.chunks_exact(6) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % (good.len() - 3);
        bytes[at..at + 4].copy_from_slice(&change[2..]);
    }
    seal(&mut bytes, kind, major);
    bytes
}

/// The bytes of the file that `write` writes.
#[must_use]
pub fn written(write: impl FnOnce(&std::path::Path)) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("good");
    write(&path);
    std::fs::read(path).expect("the file was written")
}

fn seal(bytes: &mut [u8], kind: Kind, major: u16) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&kind.0);
    bytes[12..14].copy_from_slice(&major.to_le_bytes());
    let len = bytes.len() as u64;
    bytes[48..56].copy_from_slice(&len.to_le_bytes());
    let word = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    let start = usize::try_from(word(56)).unwrap_or(usize::MAX);
    let sections = usize::try_from(word(64) & 0xFFFF_FFFF).unwrap_or(usize::MAX);
    let end = start.saturating_add(sections.saturating_mul(40));
    let mut hashed = bytes[..HEADER_BYTES - 8].to_vec();
    hashed.extend(bytes.get(start..end).unwrap_or(&[]));
    bytes[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&xxhash_rust::xxh3::xxh3_64(&hashed).to_le_bytes());
}
