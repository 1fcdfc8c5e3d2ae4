//! The distinct tokens of some documents, numbered in the order of their ids.

use crate::{Error, Result, TokenId};

/// Tokens between two checks for a stop.
const AT_ONCE: usize = 1 << 22;

/// Symbol s > 0 is the s-th smallest token id that occurs; 0 stands for the end of a document.
pub(crate) struct Symbols {
    /// Token ids by symbol − 1.
    ids: Vec<TokenId>,
    /// How often each occurs, by symbol − 1.
    counts: Vec<u32>,
    /// Symbols by token id; empty where ids are too far apart for a table, and searched for then.
    table: Vec<u32>,
}

impl Symbols {
    /// Upper bound of the bytes of symbols with a table for ids below `limit`, partitions included.
    pub(crate) fn bytes(limit: TokenId) -> usize {
        (limit as usize).saturating_mul(16)
    }

    /// Upper bound of the bytes per token of symbols without a table, partitions included.
    pub(crate) const BYTES_PER_TOKEN: usize = 12;

    /// Numbers the tokens: fewer than 2³², with ids below `limit`. `check` is called repeatedly; its error ends the work.
    pub(crate) fn new(
        tokens: &[TokenId],
        limit: TokenId,
        table: bool,
        check: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        if table { Self::by_table(tokens, limit, check) } else { Self::by_sorting(tokens, limit, check) }
    }

    fn by_table(tokens: &[TokenId], limit: TokenId, mut check: impl FnMut() -> Result<()>) -> Result<Self> {
        let mut table = vec![0u32; limit as usize];
        for some in tokens.chunks(AT_ONCE) {
            check()?;
            for &id in some {
                *table.get_mut(id as usize).ok_or(Error::TokenId { id, limit })? += 1;
            }
        }
        let distinct = table.iter().filter(|&&count| count > 0).count();
        let (mut ids, mut counts) = (Vec::with_capacity(distinct), Vec::with_capacity(distinct));
        for (id, entry) in (0..limit).zip(&mut table) {
            if *entry > 0 {
                ids.push(id);
                counts.push(std::mem::replace(entry, ids.len() as u32));
            }
        }
        Ok(Self { ids, counts, table })
    }

    fn by_sorting(tokens: &[TokenId], limit: TokenId, mut check: impl FnMut() -> Result<()>) -> Result<Self> {
        let mut sorted = tokens.to_vec();
        check()?;
        sorted.sort_unstable();
        check()?;
        if let Some(&id) = sorted.last().filter(|&&id| id >= limit) {
            return Err(Error::TokenId { id, limit });
        }
        let distinct = sorted.chunk_by(|a, b| a == b).count();
        let (mut ids, mut counts) = (Vec::with_capacity(distinct), Vec::with_capacity(distinct));
        for equal in sorted.chunk_by(|a, b| a == b) {
            ids.push(equal[0]);
            counts.push(equal.len() as u32);
        }
        Ok(Self { ids, counts, table: Vec::new() })
    }

    /// Returns the symbol of a token that occurs.
    pub(crate) fn symbol(&self, id: TokenId) -> u32 {
        match self.table.get(id as usize) {
            Some(&symbol) => symbol,
            None => self.ids.partition_point(|&other| other <= id) as u32,
        }
    }

    /// Returns the token id of a symbol > 0.
    pub(crate) fn id(&self, symbol: u64) -> TokenId {
        self.ids[symbol as usize - 1]
    }

    /// Returns how often each symbol occurs, by symbol − 1.
    pub(crate) fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Returns the number of bits that hold any symbol.
    pub(crate) fn bits(&self) -> u32 {
        (u32::BITS - (self.ids.len() as u32).leading_zeros()).max(1)
    }
}
