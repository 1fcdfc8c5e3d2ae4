//! Finds the n-grams of sorted windows and their counts.

use super::chunk::{Chunk, Window};
use super::page::MAX_LENGTH;
use crate::{Result, TokenId};

/// Receives n-grams: ids, weighted count, number of documents. N-grams of one length come in ascending order.
pub(crate) trait Sink {
    /// Takes the next n-gram.
    fn push(&mut self, ids: &[TokenId], count: u64, documents: u64) -> Result<()>;
}

/// Finds the n-grams of all lengths in one pass: the n-grams that begin a window form a path of nested groups.
///
/// Documents are counted by the method for coloured leaves of a tree (Hui, "Color set size problem", 1992): every
/// window of a document adds 1 to its groups, and every two successive windows subtract 1 from the smallest group that
/// holds both.
pub(crate) struct Grouper<'a> {
    chunk: &'a Chunk<'a>,
    documents: Vec<Seen>,
    /// Windows seen so far.
    seen: u32,
    path: [TokenId; MAX_LENGTH],
    /// Length of the path.
    open: usize,
    /// By length: the window at which the group on the path begins; the maximum where no group is open.
    starts: [u32; MAX_LENGTH + 1],
    /// By length: the group's figures, complete once those of longer groups are added.
    figures: [Figures; MAX_LENGTH + 1],
}

/// Windows whose documents are prefetched together.
const TOUCHED: usize = 64;

/// A document's state. Fields that are read together lie together.
#[derive(Clone, Copy)]
struct Seen {
    /// The number of windows before its latest one, plus one; 0: there was none.
    latest: u32,
    /// The document's weight; the maximum stands for a larger one, which is looked up.
    weight: u32,
}

#[derive(Clone, Copy, Default)]
struct Figures {
    count: u64,
    /// May be negative, before longer n-grams are added.
    documents: i64,
}

/// Bytes of a grouper per document.
pub(crate) const BYTES_PER_DOCUMENT: usize = size_of::<Seen>();

impl<'a> Grouper<'a> {
    /// Makes a grouper for the windows of a chunk.
    pub(crate) fn new(chunk: &'a Chunk<'a>) -> Self {
        let seen = |&weight: &u64| Seen { latest: 0, weight: u32::try_from(weight).unwrap_or(u32::MAX) };
        Self {
            chunk,
            documents: chunk.weights().iter().map(seen).collect(),
            seen: 0,
            path: [0; _],
            open: 0,
            starts: [u32::MAX; _],
            figures: [Figures::default(); _],
        }
    }

    /// Gives `sink` the n-grams of a sorted partition, which has `before` windows before it.
    pub(crate) fn emit(&mut self, windows: &[Window], before: usize, sink: &mut impl Sink) -> Result<()> {
        self.seen = before as u32;
        let mut last = Window::default();
        for some in windows.chunks(TOUCHED) {
            self.touch(some);
            for window in some {
                let common = if self.open == 0 { 0 } else { self.common(&last, window) };
                self.close(common, sink)?;
                self.open(common, window);
                self.take(window.document);
                last = *window;
            }
        }
        self.close(0, sink)
    }

    /// Prefetches the documents of some windows, so that their cache misses overlap.
    fn touch(&self, windows: &[Window]) {
        std::hint::black_box(windows.iter().fold(0, |any, w| any | self.documents[w.document as usize].latest));
    }

    /// Returns how many leading tokens two neighbouring windows share.
    fn common(&self, a: &Window, b: &Window) -> usize {
        if self.chunk.is_packed() {
            let bits = self.chunk.bits;
            let unused = u64::BITS - self.chunk.packed as u32 * bits;
            let equal = (a.key ^ b.key).leading_zeros() - unused;
            return ((equal / bits) as usize).min(self.open);
        }
        let (a, b) = (self.chunk.tokens(a), self.chunk.tokens(b));
        a.iter().zip(b).take_while(|(a, b)| a == b).count()
    }

    /// Ends the groups of more than `depth` tokens.
    fn close(&mut self, depth: usize, sink: &mut impl Sink) -> Result<()> {
        for n in (depth + 1..=self.open).rev() {
            let Figures { count, documents } = std::mem::take(&mut self.figures[n]);
            self.starts[n] = u32::MAX;
            sink.push(&self.path[..n], count, documents.unsigned_abs())?;
            let outer = &mut self.figures[n - 1];
            outer.count = outer.count.saturating_add(count);
            outer.documents += documents;
        }
        self.open = depth;
        Ok(())
    }

    /// Begins the groups of more than `depth` tokens.
    fn open(&mut self, depth: usize, window: &Window) {
        let chunk = self.chunk;
        if chunk.is_packed() {
            let ended = window.key.trailing_zeros() / chunk.bits;
            self.open = chunk.packed - ended as usize;
            for n in depth..self.open {
                let symbol = window.key >> (chunk.bits * (chunk.packed - 1 - n) as u32) & ((1 << chunk.bits) - 1);
                self.path[n] = chunk.symbols.id(symbol);
            }
        } else {
            let tokens = chunk.tokens(window);
            self.open = tokens.len();
            self.path[depth..self.open].copy_from_slice(&tokens[depth..]);
        }
        self.starts[depth + 1..=self.open].fill(self.seen);
    }

    /// Counts a window, without branches: whether a document was seen before cannot be predicted.
    fn take(&mut self, document: u32) {
        let seen = &mut self.documents[document as usize];
        let latest = std::mem::replace(&mut seen.latest, self.seen + 1);
        let weight =
            if seen.weight < u32::MAX { u64::from(seen.weight) } else { self.chunk.weights()[document as usize] };
        let figures = &mut self.figures[self.open];
        figures.count = figures.count.saturating_add(weight);
        figures.documents += 1;
        let starts = &self.starts[1..=self.chunk.length];
        let shared = starts.iter().map(|&start| usize::from(start < latest)).sum::<usize>();
        self.figures[shared].documents -= 1; // figures of length 0 are not used
        self.seen += 1;
    }
}
