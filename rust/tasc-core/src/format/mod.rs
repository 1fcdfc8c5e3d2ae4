//! The container of every tasc file: a header, named sections, a table of them, as docs/format.md specifies.
//!
//! - [`writer`]: sections → a temporary file in the same folder → named when whole
//! - [`file`]: an mmapped (or in-memory) file, opened in constant time
//! - [`scratch`]: hidden folders beside what is being written, and the end of those that killed processes left
//! - [`sections`](mod@sections): structures of arrays, the same in memory and in a file

pub mod file;
pub(crate) mod paths;
pub mod scratch;
pub mod sections;
pub(crate) mod temporary;
pub mod writer;

pub use file::{File, Section};
pub use scratch::ScratchFolder;
pub(crate) use sections::sections;
pub use sections::{Borrowed, Mapped, MappedArray, Owned, Storage};
pub use writer::Writer;

pub use crate::token::Fingerprint;

#[cfg(target_endian = "big")]
compile_error!("tasc files are little-endian and read in place: big-endian machines are not supported");

/// The first eight bytes of every tasc file.
pub const MAGIC: [u8; 8] = *b"tasc\r\n\x1a\n";

/// Sections begin at multiples of this many bytes.
pub const ALIGNMENT: usize = 64;

/// Longest section name in bytes.
pub const NAME_BYTES: usize = 16;

/// Most sections of a file.
pub const MAX_SECTIONS: u32 = 1024;

/// Whether `starts` cuts an array of `length` elements into `parts` parts, without gaps or overlaps: part k is
/// `starts[k]..starts[k + 1]`.
pub(crate) fn is_ragged<T: Copy + Into<u64> + PartialOrd>(starts: &[T], parts: usize, length: usize) -> bool {
    let ends = starts.first().zip(starts.last()).map(|(&first, &last)| (first.into(), last.into()));
    starts.len() == parts.saturating_add(1) && ends == Some((0, length as u64)) && starts.is_sorted()
}

/// Kind of a file: what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub [u8; 4]);

impl Kind {
    /// Returns the command that makes a file of this kind again.
    fn command(self) -> &'static str {
        match &self.0 {
            b"INDX" => "build it again: tasc index build",
            _ => "build it again",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// The first [`HEADER_BYTES`] of a file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    kind: [u8; 4],
    major: u16,
    minor: u16,
    fingerprint: [u8; 32],
    file_bytes: u64,
    table_offset: u64,
    sections: u32,
    reserved: u32,
    /// xxh3-64 of the header before this field, then the table.
    checksum: u64,
}

/// Bytes of the header.
pub const HEADER_BYTES: usize = size_of::<Header>();

/// One row of the section table.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Entry {
    name: [u8; NAME_BYTES],
    offset: u64,
    bytes: u64,
    /// xxh3-64 of the section's bytes.
    checksum: u64,
}

fn checksum(header: &Header, table: &[u8]) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(&bytemuck::bytes_of(header)[..HEADER_BYTES - 8]);
    hash.update(table);
    hash.digest()
}
