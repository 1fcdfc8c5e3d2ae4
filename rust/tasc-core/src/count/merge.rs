//! Merges sorted runs into one; counts of equal n-grams are added.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;
use std::path::Path;

use super::page::{MAX_LENGTH, PAGE_BYTES, Page, PageCursor};
use super::spool::{Minimum, Spool};
use crate::error::Fault;
use crate::{Error, Result};

/// N-grams between two checks for a stop.
const CHECK_EVERY: u64 = 1 << 16;

/// Iterates over the n-grams of a run or of a table in ascending order.
pub(crate) struct EntryStream<'a> {
    source: PageSource<'a>,
    /// Number of loaded pages that were entered; the last of these is being read.
    entered: usize,
    cursor: PageCursor,
}

enum PageSource<'a> {
    Pages { path: &'a Path, pages: &'a [Page] },
    Run { spool: &'a Spool, left: Range<u64>, pages: Vec<Page> },
}

impl<'a> EntryStream<'a> {
    /// Iterates over pages in memory; `path` is for errors.
    pub(crate) fn of_pages(path: &'a Path, pages: &'a [Page], length: usize) -> Self {
        Self { source: PageSource::Pages { path, pages }, entered: 0, cursor: PageCursor::new(length) }
    }

    /// Iterates over a run; reads `pages` pages at a time.
    pub(crate) fn of_run(spool: &'a Spool, run: Range<u64>, buffer: usize, length: usize) -> Self {
        let pages = Vec::with_capacity(buffer.max(1));
        Self { source: PageSource::Run { spool, left: run, pages }, entered: 0, cursor: PageCursor::new(length) }
    }

    /// Returns the entry that was read last.
    pub(crate) fn entry(&self) -> &PageCursor {
        &self.cursor
    }

    /// Moves to the next entry; false after the last one.
    pub(crate) fn next(&mut self) -> Result<bool> {
        loop {
            let pages = self.source.pages();
            if let Some(page) = self.entered.checked_sub(1).and_then(|k| pages.get(k))
                && self.cursor.next(page).map_err(|why| self.source.damaged(why))?
            {
                return Ok(true);
            }
            if self.entered == pages.len() {
                if !self.source.read_on()? {
                    return Ok(false);
                }
                self.entered = 0;
            }
            self.cursor.enter(&self.source.pages()[self.entered]);
            self.entered += 1;
        }
    }
}

impl PageSource<'_> {
    fn pages(&self) -> &[Page] {
        match self {
            Self::Pages { pages, .. } => pages,
            Self::Run { pages, .. } => pages,
        }
    }

    /// Loads the pages that follow, if there are any.
    fn read_on(&mut self) -> Result<bool> {
        let Self::Run { spool, left, pages } = self else { return Ok(false) };
        if left.is_empty() {
            return Ok(false);
        }
        let some = (left.end - left.start).min(pages.capacity() as u64);
        pages.resize(some as usize, [0; PAGE_BYTES]);
        spool.read(left.start, pages)?;
        left.start += some;
        Ok(true)
    }

    fn damaged(&self, why: &'static str) -> Error {
        let path = match self {
            Self::Pages { path, .. } => path,
            Self::Run { spool, .. } => spool.path(),
        };
        Error::Format { path: path.into(), fault: Fault::Page { why } }
    }
}

impl PartialEq for EntryStream<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cursor.ids() == other.cursor.ids()
    }
}

impl Eq for EntryStream<'_> {}

impl PartialOrd for EntryStream<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for EntryStream<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cursor.ids().cmp(other.cursor.ids())
    }
}

/// Writes the n-grams of all streams as one run. `check` is called repeatedly; its error ends the merge.
///
/// # Complexity
/// O(entries · log streams).
pub(crate) fn merge(
    streams: Vec<EntryStream<'_>>,
    to: &mut Spool,
    mut check: impl FnMut() -> Result<()>,
) -> Result<u64> {
    let mut heap = Heap::with_capacity(streams.len());
    for mut stream in streams {
        if stream.next()? {
            heap.push(Reverse(Box::new(stream)));
        }
    }
    let mut ids = [0; MAX_LENGTH];
    let mut merged = 0u64;
    while let Some(least) = heap.peek() {
        let least = least.0.entry().ids();
        let ids = &mut ids[..least.len()];
        ids.copy_from_slice(least);
        let (mut count, mut documents) = (0u64, 0u64);
        while heap.peek().is_some_and(|least| least.0.entry().ids() == ids) {
            let more = take(&mut heap)?;
            count = count.saturating_add(more.0);
            documents = documents.saturating_add(more.1);
        }
        to.push(ids, count, documents)?;
        merged += 1;
        if merged.is_multiple_of(CHECK_EVERY) {
            check()?;
        }
    }
    to.end_run()
}

/// Streams as a heap, with the smallest entry on top.
type Heap<'a> = BinaryHeap<Reverse<Box<EntryStream<'a>>>>;

/// Removes the smallest entry and returns its count and documents; its stream moves on.
fn take(heap: &mut Heap<'_>) -> Result<(u64, u64)> {
    let Some(mut least) = heap.peek_mut() else { return Ok((0, 0)) };
    let figures = (least.0.entry().count, least.0.entry().documents);
    if !least.0.next()? {
        PeekMut::pop(least);
    }
    Ok(figures)
}

/// Merges the runs of a spool into one of a new spool, at most `ways` (≥ 2) at a time, each reading some pages at once.
pub(crate) fn merge_runs(
    mut spool: Spool,
    length: usize,
    ways: usize,
    buffer: usize,
    minimum: Minimum,
    mut check: impl FnMut() -> Result<()>,
) -> Result<(Spool, u64)> {
    loop {
        let last = spool.runs().len() <= ways;
        let least = if last { minimum } else { Minimum::default() };
        let mut to = Spool::create(spool.path(), length, least, buffer)?;
        let mut grams = 0;
        for runs in spool.runs().chunks(ways) {
            let streams = runs.iter().map(|run| EntryStream::of_run(&spool, run.clone(), buffer, length)).collect();
            grams = merge(streams, &mut to, &mut check)?;
        }
        if last {
            return Ok((to, grams));
        }
        spool = to;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::TokenId;
    use proptest::prelude::*;

    type Run = BTreeMap<Vec<TokenId>, (u64, u64)>;

    proptest! {
        #[test]
        fn runs_add_up_however_few_are_merged_at_a_time(
            runs in prop::collection::vec(
                prop::collection::btree_map(prop::collection::vec(0..9u32, 3), (0..200u64, 0..3u64), 0..300), 0..12),
            ways in 2..5usize,
            buffer in 1..3usize,
            count in 0..100u64,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut spool = Spool::create(&folder.path().join("t"), 3, Minimum::default(), buffer).unwrap();
            for run in &runs {
                run.iter().try_for_each(|(ids, n)| spool.push(ids, n.0, n.1)).unwrap();
                prop_assert_eq!(spool.end_run().unwrap(), run.len() as u64);
            }
            let minimum = Minimum { count, documents: 2 };
            let (merged, grams) = merge_runs(spool, 3, ways, buffer, minimum, || Ok(())).unwrap();
            let mut sums = Run::new();
            for (ids, n) in runs.into_iter().flatten() {
                let sum = sums.entry(ids).or_default();
                *sum = (sum.0 + n.0, sum.1 + n.1);
            }
            sums.retain(|_, n| n.0 >= count && n.1 >= 2);
            prop_assert_eq!(grams, sums.len() as u64);
            let mut read = Run::new();
            for run in merged.runs() {
                let mut stream = EntryStream::of_run(&merged, run.clone(), buffer, 3);
                while stream.next().unwrap() {
                    let entry = stream.entry();
                    read.insert(entry.ids().to_vec(), (entry.count, entry.documents));
                }
                prop_assert!(!stream.next().unwrap());
            }
            prop_assert_eq!(read, sums);
        }
    }
}
