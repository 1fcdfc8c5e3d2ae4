//! Sorted windows → n-grams with their counts.

use super::chunk::Chunk;
use super::page::MAX_LENGTH;
use super::radix::Window;
use crate::{Result, TokenId};

/// Takes n-grams: ids, weighted count, number of documents. Those of one length come in ascending order.
pub(crate) trait Sink {
    /// The next n-gram.
    fn push(&mut self, ids: &[TokenId], count: u64, documents: u64) -> Result<()>;
}

/// Reads off the n-grams of all lengths at once: those that begin a window are a path of nested groups.
///
/// Documents are counted as leaves of a tree are counted by colour (Hui, "Color set size problem", 1992): a document
/// counts in every group, less once in the smallest group that holds two successive windows of it.
pub(crate) struct Grouper<'a> {
    chunk: &'a Chunk<'a>,
    /// By document: the number of windows before its latest one, plus one; 0: there was none.
    latest: Vec<u32>,
    /// Windows seen so far.
    seen: u32,
    path: [TokenId; MAX_LENGTH],
    groups: [Group; MAX_LENGTH + 1],
    /// Length of the path.
    open: usize,
}

/// Windows that begin with the same n-gram. Its figures are complete once those of longer ones are added.
#[derive(Clone, Copy, Default)]
struct Group {
    start: u32,
    count: u64,
    /// May be negative, before longer n-grams are added.
    documents: i64,
}

impl<'a> Grouper<'a> {
    /// For the windows of a chunk.
    pub(crate) fn new(chunk: &'a Chunk<'a>) -> Self {
        let latest = vec![0; chunk.num_documents()];
        Self { chunk, latest, seen: 0, path: [0; _], groups: [Group::default(); _], open: 0 }
    }

    /// Gives `sink` the n-grams of a sorted partition, which has `before` windows before it.
    pub(crate) fn emit(&mut self, windows: &[Window], before: usize, sink: &mut impl Sink) -> Result<()> {
        self.seen = before as u32;
        let mut last = Window::default();
        for window in windows {
            let common = if self.open == 0 { 0 } else { self.common(&last, window) };
            self.close(common, sink)?;
            self.open(common, window);
            self.take(common, window.document);
            last = *window;
        }
        self.close(0, sink)
    }

    /// How many of their first tokens two neighbouring windows share.
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
            let Group { count, documents, .. } = self.groups[n];
            sink.push(&self.path[..n], count, documents.unsigned_abs())?;
            let outer = &mut self.groups[n - 1];
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
        self.groups[depth + 1..=self.open].fill(Group { start: self.seen, count: 0, documents: 0 });
    }

    /// Counts a window, whose first `common` tokens are those of the window before.
    fn take(&mut self, common: usize, document: u32) {
        let group = &mut self.groups[self.open];
        group.count = group.count.saturating_add(self.chunk.weight(document));
        group.documents += 1;
        let latest = std::mem::replace(&mut self.latest[document as usize], self.seen + 1);
        let shared = (1..=common).rev().find(|&n| self.groups[n].start < latest);
        if let Some(n) = shared {
            self.groups[n].documents -= 1;
        }
        self.seen += 1;
    }
}
