//! Documents that are sorted together. Every position becomes a window, windows are divided into partitions by their
//! first symbol, and each partition is sorted by itself.

use std::ops::Range;

use super::symbols::Symbols;
use crate::corpus::Documents;
use crate::{Result, TokenId};

/// A window of tokens: its first symbols packed into a key, its document and its position.
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Window {
    pub(crate) key: u64,
    pub(crate) document: u32,
    pub(crate) at: u32,
}

/// Documents of a chunk as symbols.
pub(crate) struct Chunk<'a> {
    documents: Documents<'a>,
    pub(crate) symbols: Symbols,
    /// Tokens of a window.
    pub(crate) length: usize,
    /// Symbols of a key.
    pub(crate) packed: usize,
    pub(crate) bits: u32,
}

/// The windows whose first symbols lie in a range.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Partition {
    /// Symbols − 1.
    symbols: Range<usize>,
    /// Number of windows.
    pub(crate) windows: usize,
}

impl<'a> Chunk<'a> {
    pub(crate) fn new(documents: Documents<'a>, symbols: Symbols, length: usize) -> Self {
        let bits = symbols.bits();
        Self { documents, length, packed: length.min((u64::BITS / bits) as usize), bits, symbols }
    }

    pub(crate) fn len(&self) -> usize {
        self.documents.tokens.len()
    }

    /// How often each document occurred.
    pub(crate) fn weights(&self) -> &'a [u64] {
        self.documents.weights
    }

    /// Whether a key holds a whole window.
    pub(crate) fn is_packed(&self) -> bool {
        self.packed == self.length
    }

    /// Returns the position in the chunk at which a document ends.
    fn end(&self, document: usize) -> usize {
        (self.documents.offsets[document + 1] - self.documents.offsets[0]) as usize
    }

    /// Returns the tokens of a window; fewer where its document ends.
    pub(crate) fn tokens(&self, window: &Window) -> &'a [TokenId] {
        let start = window.at as usize;
        &self.documents.tokens[start..self.end(window.document as usize).min(start + self.length)]
    }

    /// Groups neighbouring symbols into partitions of at most `most` windows.
    pub(crate) fn partitions(&self, most: usize) -> Vec<Partition> {
        let mut partitions: Vec<Partition> = Vec::new();
        for (symbol, &count) in self.symbols.counts().iter().enumerate() {
            let count = count as usize;
            match partitions.last_mut() {
                Some(last) if last.windows + count <= most => {
                    last.windows += count;
                    last.symbols.end = symbol + 1;
                }
                _ => partitions.push(Partition { symbols: symbol..symbol + 1, windows: count }),
            }
        }
        partitions
    }

    /// Writes the windows of successive partitions, one partition after the other. `check` is called repeatedly.
    pub(crate) fn fill(
        &self,
        partitions: &[Partition],
        windows: &mut [Window],
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let Some((first, last)) = partitions.first().zip(partitions.last()) else { return Ok(()) };
        let wanted = first.symbols.start..last.symbols.end;
        let mut partition_of = vec![0u32; wanted.len()];
        let mut places = Vec::with_capacity(partitions.len());
        let mut place = 0;
        for (k, partition) in partitions.iter().enumerate() {
            partition_of[partition.symbols.start - wanted.start..partition.symbols.end - wanted.start].fill(k as u32);
            places.push(place);
            place += partition.windows;
        }
        let shift = self.bits * (self.packed as u32 - 1);
        let mut start = 0;
        for document in 0..self.weights().len() {
            if document % 4096 == 0 {
                check()?;
            }
            let end = self.end(document);
            let mut key = 0;
            for at in (start..end).rev() {
                let symbol = self.symbols.symbol(self.documents.tokens[at]);
                key = u64::from(symbol) << shift | key >> self.bits;
                let from = (symbol as usize - 1).wrapping_sub(wanted.start);
                if let Some(&partition) = partition_of.get(from) {
                    let place = &mut places[partition as usize];
                    windows[*place] = Window { key, document: document as u32, at: at as u32 };
                    *place += 1;
                }
            }
            start = end;
        }
        Ok(())
    }

    /// Sorts the windows of a partition by their tokens, in any order where these are equal.
    pub(crate) fn sort(&self, windows: &mut [Window]) {
        windows.sort_unstable_by_key(|w| w.key);
        if !self.is_packed() {
            self.refine(windows, self.packed);
        }
    }

    /// Sorts windows with equal keys by the symbols from `depth` on, which take the place of the keys.
    fn refine(&self, windows: &mut [Window], depth: usize) {
        let ended = |key: u64| key & ((1 << self.bits) - 1) == 0;
        for group in windows.chunk_by_mut(|a, b| a.key == b.key) {
            if group.len() == 1 || ended(group[0].key) {
                continue;
            }
            for window in group.iter_mut() {
                window.key = self.pack(self.tokens(window).get(depth..).unwrap_or(&[]));
            }
            group.sort_unstable_by_key(|w| w.key);
            if depth + self.packed < self.length {
                self.refine(group, depth + self.packed);
            }
        }
    }

    fn pack(&self, tokens: &[TokenId]) -> u64 {
        let mut key = 0;
        for k in 0..self.packed {
            key = key << self.bits | tokens.get(k).map_or(0, |&id| u64::from(self.symbols.symbol(id)));
        }
        key
    }
}
