//! Times and keys of the rows that an index has merged from logs.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::TokenId;
use crate::corpus::OnlineRow;
use crate::corpus::online_log::time_of;

/// When a row was added to a log, and by which key. A row that was added twice has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct RowOrigin {
    /// The row: [`digest`].
    pub row: [u64; 2],
    /// Seconds since 1970; 0: unknown.
    pub time: u64,
    /// [`key_hash`] of its key; 0 where it has none.
    pub key: u64,
}

impl RowOrigin {
    /// Origin of a row of a log, with its number there; `with_input`: whether the index holds its input.
    #[must_use]
    pub fn new(number: u64, row: &OnlineRow, with_input: bool) -> Self {
        let input = if with_input { row.input.as_str() } else { "" };
        Self { row: digest(input, &row.output), time: time_of(number).unwrap_or(0), key: key_hash(&row.key) }
    }
}

/// 128-bit XXH3 digest of a row as an index holds it.
#[must_use]
pub fn digest(input: &str, output: &[TokenId]) -> [u64; 2] {
    let mut hash = Xxh3::new();
    hash.update(&(input.len() as u64).to_le_bytes());
    hash.update(input.as_bytes());
    hash.update(bytemuck::cast_slice(output));
    let sum = hash.digest128().to_le_bytes();
    bytemuck::cast(sum)
}

/// Hash of a key; 0 for the empty one.
#[must_use]
pub fn key_hash(key: &str) -> u64 {
    if key.is_empty() { 0 } else { xxh3_64(key.as_bytes()).max(1) }
}
