//! Ascending n-grams of one length, front-coded in pages of fixed size that are read one by one.

use crate::TokenId;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 1024;

/// Longest n-gram that a page can hold.
pub const MAX_LENGTH: usize = 32;

/// Entries of one length: their number as u16, the entries, zeros.
pub(crate) type Page = [u8; PAGE_BYTES];

/// Bytes of an entry: its head, at most 5 per id and 10 for each of the two numbers.
const MAX_ENTRY: usize = 1 + 5 * MAX_LENGTH + 20;

/// Low bits of an entry's head: how many of its first ids are those of the entry before.
const COMMON: u8 = 31;

/// Flag of a head: the count is 1, and is not stored.
const ONCE: u8 = 32;

/// Flag of a head: as many documents as the count says, and not stored.
const EACH: u8 = 64;

/// Fills pages with ascending n-grams of one length.
pub(crate) struct PageWriter {
    length: usize,
    page: [u8; PAGE_BYTES + MAX_ENTRY],
    used: usize,
    entries: u16,
    last: [TokenId; MAX_LENGTH],
}

impl PageWriter {
    /// Makes a writer for n-grams of this length, 1 to [`MAX_LENGTH`].
    pub(crate) fn new(length: usize) -> Self {
        Self { length, page: [0; _], used: 2, entries: 0, last: [0; MAX_LENGTH] }
    }

    /// Adds an entry greater than the one before; gives `out` the page that it does not fit into any more.
    pub(crate) fn push<E>(
        &mut self,
        ids: &[TokenId],
        count: u64,
        documents: u64,
        out: impl FnOnce(&Page) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut end = self.encode(ids, count, documents);
        if end > PAGE_BYTES {
            self.flush(out)?;
            end = self.encode(ids, count, documents);
        }
        self.used = end;
        self.entries += 1;
        self.last[..ids.len()].copy_from_slice(ids);
        Ok(())
    }

    /// Gives `out` the last page, if there is one.
    pub(crate) fn flush<E>(&mut self, out: impl FnOnce(&Page) -> Result<(), E>) -> Result<(), E> {
        if self.entries > 0 {
            self.page[self.used..].fill(0);
            self.page[..2].copy_from_slice(&self.entries.to_le_bytes());
            out(self.page.first_chunk().unwrap_or(&[0; PAGE_BYTES]))?;
            (self.used, self.entries) = (2, 0);
        }
        Ok(())
    }

    /// Writes an entry behind the used part and returns where it ends.
    fn encode(&mut self, ids: &[TokenId], count: u64, documents: u64) -> usize {
        debug_assert_eq!(ids.len(), self.length);
        let last = &self.last[..ids.len()];
        let (common, base) = if self.entries == 0 {
            (0, 0)
        } else {
            let common = ids.iter().zip(last).take_while(|(a, b)| a == b).count().min(ids.len() - 1);
            (common, last[common].wrapping_add(1))
        };
        let (once, each) = (count == 1, documents == count);
        let flags = if once { ONCE } else { 0 } | if each { EACH } else { 0 };
        self.page[self.used] = common as u8 | flags;
        let mut at = varint(&mut self.page, self.used + 1, u64::from(ids[common].wrapping_sub(base)));
        for &id in &ids[common + 1..] {
            at = varint(&mut self.page, at, u64::from(id));
        }
        if !once {
            at = varint(&mut self.page, at, count);
        }
        if each { at } else { varint(&mut self.page, at, documents) }
    }
}

/// Writes seven bits a byte, the lowest first; all bytes but the last have their high bit set.
fn varint(out: &mut [u8], mut at: usize, mut value: u64) -> usize {
    while value >= 128 {
        out[at] = value as u8 | 128;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

/// Description of a damaged page.
pub(crate) type Damage = &'static str;

/// A position in a page, and the entry that was read there last.
#[derive(Clone, Debug)]
pub(crate) struct PageCursor {
    length: usize,
    ids: [TokenId; MAX_LENGTH],
    /// Weighted number of occurrences of the entry.
    pub(crate) count: u64,
    /// Number of documents that hold it.
    pub(crate) documents: u64,
    at: usize,
    left: u16,
    first: bool,
}

impl PageCursor {
    /// Makes a cursor before the first page: it has nothing to read.
    pub(crate) fn new(length: usize) -> Self {
        Self { length, ids: [0; MAX_LENGTH], count: 0, documents: 0, at: 0, left: 0, first: false }
    }

    /// Moves to the beginning of a page.
    pub(crate) fn enter(&mut self, page: &Page) {
        self.left = u16::from_le_bytes([page[0], page[1]]);
        self.at = 2;
        self.first = true;
    }

    /// Returns the entry's ids.
    pub(crate) fn ids(&self) -> &[TokenId] {
        &self.ids[..self.length]
    }

    /// Reads the next entry of the page entered last; false after its last one.
    pub(crate) fn next(&mut self, page: &Page) -> Result<bool, Damage> {
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        let head = self.byte(page)?;
        let common = usize::from(head & COMMON);
        if common >= self.length || (self.first && common > 0) {
            return Err("an entry shares more ids than there are");
        }
        let base = if self.first { Some(0) } else { self.ids[common].checked_add(1) };
        self.first = false;
        let id = base.zip(self.id(page)?).and_then(|(base, delta)| base.checked_add(delta));
        self.ids[common] = id.ok_or("an id is too large")?;
        for k in common + 1..self.length {
            self.ids[k] = self.id(page)?.ok_or("an id is too large")?;
        }
        self.count = if head & ONCE > 0 { 1 } else { self.varint(page)? };
        self.documents = if head & EACH > 0 { self.count } else { self.varint(page)? };
        Ok(true)
    }

    fn id(&mut self, page: &Page) -> Result<Option<TokenId>, Damage> {
        Ok(TokenId::try_from(self.varint(page)?).ok())
    }

    fn varint(&mut self, page: &Page) -> Result<u64, Damage> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(page)?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err("a number is too long")
    }

    fn byte(&mut self, page: &Page) -> Result<u8, Damage> {
        let byte = *page.get(self.at).ok_or("an entry ends behind its page")?;
        self.at += 1;
        Ok(byte)
    }
}
