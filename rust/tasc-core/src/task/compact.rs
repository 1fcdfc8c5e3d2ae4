//! An index and the rows served since → a new index.

use std::path::Path;

use rustc_hash::FxHashMap;

use super::file::{BuildOptions, TaskIndex};
use crate::corpus::store::Meta;
use crate::corpus::{ServedRow, Store, StoreWriter};
use crate::format::temporary::folder;
use crate::index::ngrams::{BOUNDARY, Ngrams};
use crate::{Error, Result, TokenId};

impl TaskIndex {
    /// The store that this index could have been built from: its outputs with their weights and, where it has them,
    /// its rows' inputs.
    ///
    /// # Complexity
    /// O(tokens), read out of order.
    ///
    /// # Errors
    /// [`Error::Io`]; a format error when the index is damaged.
    pub fn to_store(&self, path: &Path, served: &[ServedRow], mut check: impl FnMut() -> Result<()>) -> Result<Store> {
        let meta = Meta {
            writer: env!("CARGO_PKG_VERSION").into(),
            tokenizer: self.meta().tokenizer.clone(),
            vocab_size: self.meta().vocab_size,
            eos_id: self.meta().eos_id,
        };
        let mut writer = StoreWriter::create(path, &self.file().fingerprint(), meta)?;
        let ngrams = self.ngrams();
        let mut with_input: FxHashMap<u32, u64> = FxHashMap::default();
        for row in 0..self.num_inputs() {
            let input = self.input(row)?;
            let total = with_input.entry(input.start).or_default();
            *total = total.saturating_add(input.weight);
            writer.push(&self.output(&ngrams, input.start)?, Some(input.text), input.weight)?;
            check()?;
        }
        let starts = ngrams.start();
        for start in starts.lo..starts.hi {
            let weight = ngrams.weight_at(start as usize).saturating_sub(with_input.get(&start).copied().unwrap_or(0));
            if weight > 0 {
                writer.push(&self.output(&ngrams, start)?, None, weight)?;
            }
            check()?;
        }
        for row in served {
            writer.push(&row.output, Some(row.input.as_str()).filter(|i| !i.is_empty()), 1)?;
        }
        writer.finish()?;
        Store::open(path)
    }

    /// Builds a new index of everything that this one holds and the rows served since. Where this one has no inputs,
    /// neither has the new one.
    ///
    /// # Errors
    /// As [`TaskIndex::to_store`] and [`TaskIndex::build`]; nothing is written then.
    pub fn compact(
        &self,
        served: &[ServedRow],
        path: &Path,
        options: &BuildOptions<'_>,
        mut check: impl FnMut(f64) -> Result<()>,
    ) -> Result<Self> {
        let temporary = tempfile::tempdir_in(folder(path)).map_err(|source| Error::Io { path: path.into(), source })?;
        let store = self.to_store(&temporary.path().join("rows.store"), served, || check(0.0))?;
        let no_inputs = options.no_inputs || self.num_inputs() == 0;
        Self::build(&store, path, &BuildOptions { no_inputs, ..*options }, check)
    }

    fn output(&self, ngrams: &Ngrams<'_>, start: u32) -> Result<Vec<TokenId>> {
        let mut tokens = Vec::new();
        let mut at = start as usize;
        while tokens.len() <= ngrams.bwt.len() {
            let (Some(&symbol), Some(&next)) = (ngrams.bwt.get(at), ngrams.lf.get(at)) else { break };
            if symbol == BOUNDARY {
                return Ok(tokens);
            }
            tokens.extend(ngrams.token(symbol));
            at = next as usize;
        }
        Err(self.file().corrupt("bwt", &format!("the output that starts at {start} has no end")))
    }
}
