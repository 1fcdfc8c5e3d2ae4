//! Bytes with a file length and header checksum that are right: no fuzzer guesses those, and what lies behind them is
//! of interest.
use tasc_core::format::{HEADER_BYTES, MAGIC};

/// The bytes as a container of this kind and major version that opens, unless its table is damaged.
#[must_use]
pub fn resealed(data: &[u8], kind: [u8; 4], major: u16) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if bytes.len() < HEADER_BYTES {
        return bytes;
    }
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&kind);
    bytes[12..14].copy_from_slice(&major.to_le_bytes());
    let len = bytes.len() as u64;
    bytes[48..56].copy_from_slice(&len.to_le_bytes());
    let word = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    let sections = word(64) & 0xFFFF_FFFF;
    let start = usize::try_from(word(56)).unwrap_or(usize::MAX);
    let end = start.saturating_add(usize::try_from(sections).unwrap_or(usize::MAX).saturating_mul(40));
    let mut hashed = bytes[..HEADER_BYTES - 8].to_vec();
    hashed.extend(bytes.get(start..end).unwrap_or(&[]));
    bytes[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&xxhash_rust::xxh3::xxh3_64(&hashed).to_le_bytes());
    bytes
}
