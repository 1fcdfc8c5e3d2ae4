//! A file of counted n-grams.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::merge::EntryStream;
use super::page::{MAX_LENGTH, Page, PageCursor};
use crate::format::{File, Kind, Section};
use crate::{Result, TokenId};

/// Kind of a table of n-grams.
pub const KIND: Kind = Kind(*b"NGRM");

/// N-grams between two calls of `check`.
const CHECK_EVERY: u64 = 1 << 20;

/// Version of the sections written here; a reader takes any minor of its major.
pub const VERSION: (u16, u16) = (1, 0);

/// Metadata of a table (section `meta`, JSON).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableMeta {
    /// Version of tasc that wrote it.
    pub writer: String,
    /// Name of the tokenizer, for people; the fingerprint is what counts.
    pub tokenizer: String,
    /// Ids are below this; 0: unknown.
    pub vocab_size: u32,
    /// The token that ends every document, if there is one.
    pub eos_id: Option<u32>,
    /// Documents that were counted.
    pub documents: u64,
    /// How often they occurred in all.
    pub weight: u64,
    /// Tokens of these documents, each counted once.
    pub tokens: u64,
    /// N-grams of less weight were left out.
    pub min_count: u64,
    /// N-grams of fewer documents were left out.
    pub min_documents: u64,
    /// Number of n-grams, by length − 1.
    pub ngrams: Vec<u64>,
}

impl TableMeta {
    /// Whether n-grams were left out.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.min_count > 1 || self.min_documents > 1
    }
}

/// An n-gram and its counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ngram {
    /// Its tokens.
    pub ids: Vec<TokenId>,
    /// How often it occurs, by the documents' weights.
    pub count: u64,
    /// Number of documents that hold it.
    pub documents: u64,
}

/// An open table: n-grams of 1 to `max_length` tokens. Cheap to share between threads; processes share its pages.
#[derive(Clone, Debug)]
pub struct NgramTable {
    file: File,
    meta: TableMeta,
    pages: Vec<Section<Page>>,
}

/// Name of the section of n-grams of one length.
pub(crate) fn section(length: usize) -> String {
    format!("ngrams{length}")
}

impl NgramTable {
    /// Opens a table.
    ///
    /// # Complexity
    /// O(lengths): contents are checked where they are read.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; [`crate::Error::Format`] when it is no table of a known major version, is cut short or lacks a section.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_file(File::open(path, KIND, VERSION.0)?)
    }

    /// The same from an open container.
    ///
    /// # Errors
    /// [`crate::Error::Format`] when a section is missing or has no whole pages.
    pub fn from_file(file: File) -> Result<Self> {
        let meta: TableMeta = file.meta()?;
        let lengths = meta.ngrams.len();
        if !(1..=MAX_LENGTH).contains(&lengths) {
            return Err(file.corrupt("meta", &format!("n-grams of {lengths} lengths: 1 to {MAX_LENGTH} are possible")));
        }
        let pages = (1..=lengths).map(|length| file.section(&section(length))).collect::<Result<_>>()?;
        Ok(Self { file, meta, pages })
    }

    /// The container.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What it says of itself.
    #[must_use]
    pub fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// Length of its longest n-grams, in tokens.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.pages.len()
    }

    fn pages(&self, length: usize) -> &[Page] {
        let section = length.checked_sub(1).and_then(|k| self.pages.get(k));
        section.map_or(&[], |section| section.get(&self.file))
    }

    /// Weighted count of an n-gram, and number of documents that hold it; zeros if the table does not have it.
    ///
    /// # Complexity
    /// O(log pages + entries of a page).
    ///
    /// # Errors
    /// [`crate::Error::Format`] when the file is damaged.
    pub fn lookup(&self, ids: &[TokenId]) -> Result<(u64, u64)> {
        let pages = self.pages(ids.len());
        let mut cursor = PageCursor::new(ids.len().clamp(1, MAX_LENGTH));
        let (mut low, mut high) = (0, pages.len());
        while low < high {
            let middle = low + (high - low) / 2;
            cursor.enter(&pages[middle]);
            if self.step(&mut cursor, &pages[middle])? && cursor.ids() <= ids {
                low = middle + 1
            } else {
                high = middle
            }
        }
        let Some(page) = low.checked_sub(1).and_then(|k| pages.get(k)) else { return Ok((0, 0)) };
        cursor.enter(page);
        while self.step(&mut cursor, page)? {
            if cursor.ids() >= ids {
                return Ok(if cursor.ids() == ids { (cursor.count, cursor.documents) } else { (0, 0) });
            }
        }
        Ok((0, 0))
    }

    fn step(&self, cursor: &mut PageCursor, page: &Page) -> Result<bool> {
        cursor.next(page).map_err(|why| self.file.corrupt(&section(cursor.ids().len()), why))
    }

    /// The k most frequent n-grams of some lengths: by count, then by documents, then the shorter, then the smaller ids.
    /// `check` is called now and then; its error ends it.
    ///
    /// # Complexity
    /// O(n-grams · log k) time, O(k) memory.
    ///
    /// # Errors
    /// [`crate::Error::Format`] when the file is damaged; what `check` returns.
    pub fn top(
        &self,
        k: usize,
        lengths: impl IntoIterator<Item = usize>,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<Vec<Ngram>> {
        type Rank = (u64, u64, Reverse<usize>, Reverse<Vec<TokenId>>);
        let mut best: BinaryHeap<Reverse<Rank>> = BinaryHeap::new();
        for length in lengths {
            let mut ngrams = Place::new(length);
            let mut seen = 0u64;
            while let Some((ids, count, documents)) = ngrams.next(self)? {
                seen += 1;
                if seen.is_multiple_of(1 << 16) {
                    check()?;
                }
                let full = best.len() == k;
                if full && best.peek().is_none_or(|least| (count, documents) < (least.0.0, least.0.1)) {
                    continue;
                }
                best.push(Reverse((count, documents, Reverse(length), Reverse(ids.to_vec()))));
                if full {
                    best.pop();
                }
            }
        }
        let ngram = |Reverse((count, documents, _, Reverse(ids))): Reverse<Rank>| Ngram { ids, count, documents };
        Ok(best.into_sorted_vec().into_iter().map(ngram).collect())
    }

    /// Reads everything: checksums, and whether n-grams ascend and are as many as the table says.
    ///
    /// # Complexity
    /// O(file).
    ///
    /// # Errors
    /// [`crate::Error::Format`] naming the first damaged section.
    pub fn verify(&self) -> Result<()> {
        self.verify_with(|| Ok(()))
    }

    /// Verifies as [`NgramTable::verify`] does. `check` is called repeatedly; its error ends the work.
    ///
    /// # Errors
    /// As [`NgramTable::verify`]; what `check` returns.
    pub fn verify_with(&self, mut check: impl FnMut() -> Result<()>) -> Result<()> {
        self.file.verify_with(&mut check)?;
        for length in 1..=self.max_length() {
            let damaged = |why: &str| self.file.corrupt(&section(length), why);
            let (mut ngrams, mut last, mut found) = (Place::new(length), Vec::new(), 0u64);
            while let Some((ids, ..)) = ngrams.next(self)? {
                if found.is_multiple_of(CHECK_EVERY) {
                    check()?;
                }
                if found > 0 && last.as_slice() >= ids {
                    return Err(damaged("its n-grams do not ascend"));
                }
                last.clear();
                last.extend_from_slice(ids);
                found += 1;
            }
            let said = self.meta.ngrams[length - 1];
            if found != said {
                return Err(damaged(&format!("it has {found} n-grams, `meta` says {said}")));
            }
        }
        Ok(())
    }

    /// For merging.
    pub(crate) fn stream(&self, length: usize) -> EntryStream<'_> {
        EntryStream::of_pages(self.file.path(), self.pages(length), length)
    }
}

/// A place among the n-grams of one length, which are read in ascending order of their ids.
///
/// # Examples
/// ```no_run
/// # use tasc_core::count::{NgramTable, Place};
/// let table = NgramTable::open("pairs.ngrams".as_ref())?;
/// let mut pairs = Place::new(2);
/// while let Some((ids, count, documents)) = pairs.next(&table)? {
///     println!("{ids:?} {count} {documents}");
/// }
/// # Ok::<(), tasc_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Place {
    length: usize,
    /// How many pages were entered; the last of them is being read.
    entered: usize,
    cursor: PageCursor,
}

impl Place {
    /// Before the first n-gram of a length; a table that lacks the length has none.
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self { length, entered: 0, cursor: PageCursor::new(length.clamp(1, MAX_LENGTH)) }
    }

    /// Reads the next n-gram: ids, count, documents; `None` after the last one.
    ///
    /// # Errors
    /// [`crate::Error::Format`] when the file is damaged.
    pub fn next<'a>(&'a mut self, table: &NgramTable) -> Result<Option<(&'a [TokenId], u64, u64)>> {
        let pages = table.pages(self.length);
        loop {
            if let Some(page) = self.entered.checked_sub(1).and_then(|k| pages.get(k))
                && table.step(&mut self.cursor, page)?
            {
                return Ok(Some((self.cursor.ids(), self.cursor.count, self.cursor.documents)));
            }
            let Some(page) = pages.get(self.entered) else { return Ok(None) };
            self.cursor.enter(page);
            self.entered += 1;
        }
    }
}
