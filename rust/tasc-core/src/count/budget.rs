//! Division of a memory limit among the structures of counting.

use super::chunk::Window;
use super::groups::BYTES_PER_DOCUMENT;
use super::page::PAGE_BYTES;
use super::symbols::Symbols;
use super::workers::BYTES_PER_WORKER;
use crate::{Error, Result, TokenId};

/// The least memory limit, in bytes.
pub const MIN_MEMORY: usize = 1 << 20;

/// Memory for small things: stacks, tables of partitions, records of runs.
const SMALL: usize = 1 << 16;

/// Shares of the memory limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Threads that sort.
    pub(crate) threads: usize,
    /// Pages that a spool buffers while chunks are sorted.
    pub(crate) buffer: usize,
    /// Whether symbols are looked up in a table.
    pub(crate) table: bool,
    /// Bytes for the tokens and documents of a chunk.
    pub(crate) chunk: usize,
    /// Bytes for merging.
    merge: usize,
}

impl Budget {
    /// Divides a limit for n-grams of up to `lengths` tokens with ids below `limit`.
    ///
    /// # Errors
    /// [`Error::MemoryLimit`] below [`MIN_MEMORY`].
    pub(crate) fn new(memory: usize, threads: usize, lengths: usize, limit: TokenId) -> Result<Self> {
        if memory < MIN_MEMORY {
            return Err(Error::MemoryLimit { limit: memory, needed: MIN_MEMORY, what: "counting".into() });
        }
        let threads = threads.clamp(1, (memory >> 22).max(1));
        let buffer = (memory / 32 / lengths / PAGE_BYTES).clamp(1, 64);
        let table = Symbols::bytes(limit) <= memory / 4;
        let workers = if threads > 1 { threads * BYTES_PER_WORKER } else { 0 };
        let spent = workers + lengths * (buffer + 2) * PAGE_BYTES + if table { Symbols::bytes(limit) } else { 0 };
        let chunk = memory - spent - SMALL;
        Ok(Self { threads, buffer, table, chunk, merge: memory - SMALL })
    }

    /// Returns the bytes that a document of this many tokens takes.
    pub(crate) fn document(&self, tokens: usize) -> usize {
        let symbols = if self.table { 0 } else { Symbols::BYTES_PER_TOKEN };
        (size_of::<Window>() + symbols).saturating_mul(tokens).saturating_add(BYTES_PER_DOCUMENT * self.threads)
    }

    /// Returns how runs are merged: lengths at a time, runs at a time, and pages that each run reads at once.
    pub(crate) fn merging(&self, runs: usize, lengths: usize) -> (usize, usize, usize) {
        /// A stream or spool beside its buffer.
        const STREAM: usize = 4 * PAGE_BYTES;
        /// Fewest pages per read.
        const ENOUGH: usize = 16;
        let pages =
            |at_once: usize, runs: usize| (self.merge / at_once / (runs + 1)).saturating_sub(STREAM) / PAGE_BYTES;
        let at_once = (1..=self.threads.min(lengths)).rev().find(|&k| pages(k, runs) >= ENOUGH).unwrap_or(1);
        let ways = (self.merge / (ENOUGH * PAGE_BYTES + STREAM)).saturating_sub(1).clamp(2, runs.max(2));
        (at_once, ways, pages(at_once, ways).clamp(1, 256))
    }
}
