//! The bytes of a log of served rows: a header, then records. docs/format.md is their law.

use std::io::{self, Read};
use std::path::Path;

use bytemuck::Zeroable;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::served::{KIND, MAX_ROW_BYTES, ServedRow, VERSION};
use crate::format::{Fingerprint, Kind, MAGIC};
use crate::{Error, Result, TokenId};

/// The first [`HEADER_BYTES`] of a log.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    kind: [u8; 4],
    major: u16,
    minor: u16,
    fingerprint: [u8; 32],
    reserved: u64,
    /// xxh3-64 of the header before this field.
    checksum: u64,
}

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = size_of::<Header>();

/// Bytes of a record before its payload: length and checksum.
const LEAD_BYTES: usize = 12;

/// The header of a log of this tokenizer.
pub(super) fn header(fingerprint: &Fingerprint) -> [u8; HEADER_BYTES] {
    let (major, minor) = VERSION;
    let header = Header { magic: MAGIC, kind: KIND.0, major, minor, fingerprint: fingerprint.0, ..Header::zeroed() };
    let checksum = xxh3_64(&bytemuck::bytes_of(&header)[..HEADER_BYTES - 8]);
    bytemuck::cast(Header { checksum, ..header })
}

/// Whether `head`, the first bytes of the file, is a whole header of this tokenizer's log; `false` when a header was
/// begun and cut short, or not even begun.
pub(super) fn check_header(path: &Path, head: &[u8], fingerprint: &Fingerprint) -> Result<bool> {
    let refuse = |why: String| Err(Error::Format { path: path.into(), why });
    if head.len() < HEADER_BYTES {
        if header(fingerprint).starts_with(head) || head.iter().all(|&b| b == 0) {
            return Ok(false);
        }
        return refuse(format!("it has {} bytes, a header has {HEADER_BYTES}", head.len()));
    }
    let found: Header = bytemuck::pod_read_unaligned(&head[..HEADER_BYTES]);
    if found.magic != MAGIC {
        return refuse("it is not a tasc file".into());
    }
    if found.kind != KIND.0 {
        return refuse(format!("it is of kind {}, {KIND} is wanted here", Kind(found.kind)));
    }
    if found.major != VERSION.0 {
        let version = format!("{}.{}", found.major, found.minor);
        let fix = "use the tasc that wrote it, or another name";
        return refuse(format!("it has format version {version}, this tasc reads {}.x; {fix}", VERSION.0));
    }
    if found.checksum != xxh3_64(&head[..HEADER_BYTES - 8]) {
        return refuse("its header is damaged (checksum)".into());
    }
    if found.fingerprint != fingerprint.0 {
        let found = Fingerprint(found.fingerprint);
        return Err(Error::Fingerprint { path: path.into(), found, wanted: *fingerprint });
    }
    Ok(true)
}

/// Appends the record of a row to `out`.
pub(super) fn encode(row: &ServedRow, out: &mut Vec<u8>) -> Result<()> {
    let bytes = 4 + row.input.len() + size_of_val(row.output.as_slice());
    let sizes = u32::try_from(bytes).ok().zip(u32::try_from(row.input.len()).ok());
    let Some((length, input)) = sizes.filter(|s| s.0 <= MAX_ROW_BYTES) else {
        return Err(Error::RowTooLarge { bytes, limit: MAX_ROW_BYTES as usize });
    };
    if row.output.contains(&TokenId::MAX) {
        return Err(Error::TokenId { id: TokenId::MAX, limit: TokenId::MAX });
    }
    let start = out.len();
    out.reserve(LEAD_BYTES + bytes);
    out.extend(length.to_le_bytes());
    out.extend([0; 8]);
    out.extend(input.to_le_bytes());
    out.extend(row.input.as_bytes());
    out.extend_from_slice(bytemuck::cast_slice(&row.output));
    let sum = checksum(length, &out[start + LEAD_BYTES..]);
    out[start + 4..start + LEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// Reads the records of a log one after the other. It ends at the end and at the first torn record.
pub(super) struct Records<R> {
    from: R,
    /// Where the next record begins: the length of the whole records so far, with the header.
    pub(super) at: u64,
    /// Length of the file.
    bytes: u64,
    payload: Vec<u8>,
}

impl<R: Read> Records<R> {
    /// `from` stands behind the header of a file of this length.
    pub(super) fn new(from: R, bytes: u64) -> Self {
        Self { from, at: HEADER_BYTES as u64, bytes, payload: Vec::new() }
    }

    fn record(&mut self) -> io::Result<Option<ServedRow>> {
        let Some(left) = self.bytes.checked_sub(self.at + LEAD_BYTES as u64) else { return Ok(None) };
        let (mut length, mut sum) = ([0; 4], [0; 8]);
        if !(fill(&mut self.from, &mut length)? && fill(&mut self.from, &mut sum)?) {
            return Ok(None);
        }
        let (length, sum) = (u32::from_le_bytes(length), u64::from_le_bytes(sum));
        if length > MAX_ROW_BYTES || u64::from(length) > left {
            return Ok(None);
        }
        self.payload.resize(length as usize, 0);
        if !fill(&mut self.from, &mut self.payload)? || checksum(length, &self.payload) != sum {
            return Ok(None);
        }
        let row = decode(&self.payload);
        if row.is_some() {
            self.at += LEAD_BYTES as u64 + u64::from(length);
        }
        Ok(row)
    }
}

impl<R: Read> Iterator for Records<R> {
    type Item = io::Result<ServedRow>;

    fn next(&mut self) -> Option<Self::Item> {
        self.record().transpose()
    }
}

/// Whether `buffer` could be filled: a file may have become shorter since its length was asked for.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

fn decode(payload: &[u8]) -> Option<ServedRow> {
    let (length, rest) = payload.split_first_chunk()?;
    let (input, ids) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let (ids, odd) = ids.as_chunks();
    let output: Vec<TokenId> = ids.iter().map(|id| TokenId::from_le_bytes(*id)).collect();
    if !odd.is_empty() || output.contains(&TokenId::MAX) {
        return None;
    }
    Some(ServedRow { input: std::str::from_utf8(input).ok()?.to_owned(), output })
}

fn checksum(length: u32, payload: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&length.to_le_bytes());
    hash.update(payload);
    hash.digest()
}
