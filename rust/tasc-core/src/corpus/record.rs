//! The bytes of a write-ahead log: a header, then records. docs/format.md specifies them.

use std::io::{self, Read};
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::merged::LogId;
use crate::error::Fault;
use crate::format::{Fingerprint, Kind, MAGIC};
use crate::text::InputTemplate;
use crate::{Error, Result, TokenId};

/// Kind of a write-ahead log.
pub const KIND: Kind = Kind(*b"SERV");

/// Version of the records written here; a reader takes any minor of its major.
pub const VERSION: (u16, u16) = (3, 0);

/// Most bytes of one row: 4, its input, 4 for each id of its output, and 4 with its key where it has one.
pub const MAX_ROW_BYTES: u32 = 16 << 20;

/// Largest number of a row.
pub(super) const MAX_NUMBER: u64 = 1 << 62;

/// The number of a row that was added at a time is this many bits longer than the seconds since 1970.
const TIME_BITS: u32 = 28;

/// Smallest number that says when its row was added (1987); smaller ones were counted from 0.
const FIRST_TIMED: u64 = 1 << 57;

/// Smallest number of a row that is added at a time, in seconds since 1970; 0 where numbers cannot say it.
#[must_use]
pub fn number_at(seconds: u64) -> u64 {
    let timed = FIRST_TIMED >> TIME_BITS..MAX_NUMBER >> (TIME_BITS + 1);
    if timed.contains(&seconds) { seconds << TIME_BITS } else { 0 }
}

/// When the row of this number was added, in seconds since 1970; `None`: the number does not say it.
#[must_use]
pub fn time_of(number: u64) -> Option<u64> {
    (number >= FIRST_TIMED).then_some(number >> TIME_BITS)
}

/// A row that was generated since the index was built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnlineRow {
    /// The request's input.
    pub input: String,
    /// The target's output, with the end token.
    pub output: Vec<TokenId>,
    /// What the row is removed by, such as the name of a user; empty: it has none.
    pub key: String,
}

impl OnlineRow {
    /// Cuts the input out of a whole prompt.
    pub(crate) fn cut(mut self, template: Option<&InputTemplate>) -> Self {
        if let Some(input) = template.and_then(|template| template.find(&self.input)) {
            self.input = input.to_owned();
        }
        self
    }
}

/// The first [`HEADER_BYTES`] of a log.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct RawLogHeader {
    magic: [u8; 8],
    kind: [u8; 4],
    major: u16,
    minor: u16,
    fingerprint: [u8; 32],
    id: [u8; 16],
    next: u64,
    /// xxh3-64 of the header before this field.
    checksum: u64,
}

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = size_of::<RawLogHeader>();

/// Bytes of the header's fields before the identity: they are the same in every log of a tokenizer.
const COMMON_BYTES: usize = 48;

/// Version 1 had a header of 64 bytes without an identity, and records without numbers.
const OLD_MAJOR: u16 = 1;
const OLD_HEADER_BYTES: usize = 64;

/// Version 2 had no keys; its records are the same otherwise.
const KEYLESS_MAJOR: u16 = 2;

/// Bit of an input's length that says that a key follows the input.
const KEYED: u32 = 1 << 31;

/// Bytes of a record before its payload: length, checksum, number.
const LEAD_BYTES: usize = 20;
const OLD_LEAD_BYTES: usize = 12;

/// What the header of a log says.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogHeader {
    /// Identity of the log; `None` in version 1.
    pub(super) id: Option<LogId>,
    /// Rows that are appended later have this number or a larger one.
    pub(super) next: u64,
    /// Bytes of the header.
    pub(super) bytes: usize,
    /// Whether it has an older version.
    pub(super) is_old: bool,
}

/// The bytes of a header.
pub(super) fn header(fingerprint: &Fingerprint, id: &LogId, next: u64) -> [u8; HEADER_BYTES] {
    let ((major, minor), fingerprint) = (VERSION, fingerprint.0);
    let mut header =
        RawLogHeader { magic: MAGIC, kind: KIND.0, major, minor, fingerprint, id: id.0, next, checksum: 0 };
    header.checksum = xxh3_64(&bytemuck::bytes_of(&header)[..HEADER_BYTES - 8]);
    let mut bytes = [0; HEADER_BYTES];
    bytes.copy_from_slice(bytemuck::bytes_of(&header));
    bytes
}

/// Reads a header from `head`, the first bytes of the file. `None` when a header was begun and cut short, or was not
/// even begun.
pub(super) fn read_header(path: &Path, head: &[u8], fingerprint: &Fingerprint) -> Result<Option<LogHeader>> {
    let refuse = |fault| Err(Error::Format { path: path.into(), fault });
    let old = head.get(12..14) == Some(&OLD_MAJOR.to_le_bytes());
    let bytes = if old { OLD_HEADER_BYTES } else { HEADER_BYTES };
    if head.len() < bytes {
        let known = head.len().min(COMMON_BYTES);
        if header(fingerprint, &LogId::default(), 0)[..known] == head[..known] || head.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        return refuse(Fault::Header { found: head.len(), expected: bytes });
    }
    let mut padded = [0; HEADER_BYTES];
    padded[..bytes].copy_from_slice(&head[..bytes]);
    let found: RawLogHeader = bytemuck::pod_read_unaligned(&padded);
    if found.magic != MAGIC {
        return refuse(Fault::Magic);
    }
    if found.kind != KIND.0 {
        return refuse(Fault::Kind { found: found.kind, expected: KIND.0 });
    }
    if found.major != VERSION.0 && found.major != KEYLESS_MAJOR && !old {
        let (found, fix) = ((found.major, found.minor), "use the tasc that wrote it, or another name");
        return refuse(Fault::Version { found, expected: VERSION.0, fix });
    }
    let checked = xxh3_64(&head[..bytes - 8]).to_le_bytes() == head[bytes - 8..bytes];
    if !checked || (!old && found.next > MAX_NUMBER) {
        return refuse(Fault::Checksum { part: "header" });
    }
    if found.fingerprint != fingerprint.0 {
        let found = Fingerprint(found.fingerprint);
        return Err(Error::Fingerprint { path: path.into(), found, wanted: *fingerprint });
    }
    let (id, next) = if old { (None, 0) } else { (Some(LogId(found.id)), found.next) };
    Ok(Some(LogHeader { id, next, bytes, is_old: found.major != VERSION.0 }))
}

/// Appends the record of a row with this number to `out`.
pub(super) fn encode(number: u64, row: &OnlineRow, out: &mut Vec<u8>) -> Result<()> {
    let keyed = !row.key.is_empty();
    let key_bytes = if keyed { 4 + row.key.len() } else { 0 };
    let bytes = 4 + row.input.len() + key_bytes + size_of_val(row.output.as_slice());
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
    out.extend(number.to_le_bytes());
    out.extend((if keyed { input | KEYED } else { input }).to_le_bytes());
    out.extend(row.input.as_bytes());
    if keyed {
        out.extend(u32::try_from(row.key.len()).unwrap_or_default().to_le_bytes());
        out.extend(row.key.as_bytes());
    }
    out.extend_from_slice(bytemuck::cast_slice(&row.output));
    let sum = checksum(length, &out[start + OLD_LEAD_BYTES..]);
    out[start + 4..start + OLD_LEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// Reads the records of a log one after the other, up to the first torn one.
pub(super) struct Records<R> {
    from: R,
    /// Where the next record begins: the length of the whole records so far, with the header.
    pub(super) at: u64,
    /// The smallest number that the next record may have.
    pub(super) next: u64,
    /// Length of the file.
    bytes: u64,
    /// Whether records have numbers; in version 1 their position is their number.
    numbered: bool,
    payload: Vec<u8>,
}

impl<R: Read> Records<R> {
    /// `from` stands behind the header of a file with `bytes` bytes.
    pub(super) fn new(from: R, bytes: u64, numbered: bool) -> Self {
        let at = if numbered { HEADER_BYTES } else { OLD_HEADER_BYTES } as u64;
        Self { from, at, next: 0, bytes, numbered, payload: Vec::new() }
    }

    fn record(&mut self) -> io::Result<Option<(u64, OnlineRow)>> {
        let lead = if self.numbered { LEAD_BYTES } else { OLD_LEAD_BYTES };
        let Some(left) = self.bytes.checked_sub(self.at + lead as u64) else { return Ok(None) };
        let (mut length, mut sum) = ([0; 4], [0; 8]);
        if !(fill(&mut self.from, &mut length)? && fill(&mut self.from, &mut sum)?) {
            return Ok(None);
        }
        let (length, sum) = (u32::from_le_bytes(length), u64::from_le_bytes(sum));
        if length > MAX_ROW_BYTES || u64::from(length) > left {
            return Ok(None);
        }
        self.payload.resize(lead - OLD_LEAD_BYTES + length as usize, 0);
        if !fill(&mut self.from, &mut self.payload)? || checksum(length, &self.payload) != sum {
            return Ok(None);
        }
        let (number, row) = self.payload.split_at(lead - OLD_LEAD_BYTES);
        let number = number.try_into().map_or(self.next, u64::from_le_bytes);
        let row = decode(row).filter(|_| (self.next..=MAX_NUMBER).contains(&number));
        if row.is_some() {
            self.at += lead as u64 + u64::from(length);
            self.next = number + 1;
        }
        Ok(row.map(|row| (number, row)))
    }
}

impl<R: Read> Iterator for Records<R> {
    type Item = io::Result<(u64, OnlineRow)>;

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

fn decode(payload: &[u8]) -> Option<OnlineRow> {
    let (length, rest) = split_length(payload)?;
    let (input, rest) = rest.split_at_checked(usize::try_from(length & !KEYED).ok()?)?;
    let (key, ids) = if length & KEYED == 0 {
        (&[][..], rest)
    } else {
        let (length, rest) = split_length(rest)?;
        rest.split_at_checked(usize::try_from(length).ok()?).filter(|(key, _)| !key.is_empty())?
    };
    let (ids, odd) = ids.as_chunks();
    let output: Vec<TokenId> = ids.iter().map(|id| TokenId::from_le_bytes(*id)).collect();
    if !odd.is_empty() || output.contains(&TokenId::MAX) {
        return None;
    }
    let text = |bytes| std::str::from_utf8(bytes).map(str::to_owned).ok();
    Some(OnlineRow { input: text(input)?, output, key: text(key)? })
}

fn split_length(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*length), rest))
}

/// Checksum of a record's length and of all that follows the checksum.
fn checksum(length: u32, rest: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&length.to_le_bytes());
    hash.update(rest);
    hash.digest()
}
