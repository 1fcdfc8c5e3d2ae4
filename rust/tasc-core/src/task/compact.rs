//! An index and the rows served since → a new index.

use std::collections::hash_map::Entry;
use std::path::Path;

use rustc_hash::FxHashMap;

use super::file::{BuildOptions, Inherited, InputRow, TaskIndex};
use crate::corpus::store::StoreMeta;
use crate::corpus::{OnlineRow, Store, StoreWriter, WriteAheadLog, online_log};
use crate::format::ScratchFolder;
use crate::format::scratch::behind_link;
use crate::index::ngrams::{BOUNDARY, Ngrams};
use crate::index::origins::RowOrigin;
use crate::{Error, Result, TokenId};

/// Tokens of an output between two calls of `check`.
const CHECK_EVERY: usize = 1 << 16;

impl TaskIndex {
    /// The store that this index could have been built from: its outputs with their weights and, where it has them,
    /// its rows' inputs.
    ///
    /// # Complexity
    /// O(file), tokens read out of order. The store is no larger than the index, whoever wrote that.
    ///
    /// # Errors
    /// [`Error::Io`]; a format error when the index is damaged, as [`TaskIndex::verify`] finds it; what `check` returns.
    pub fn to_store(&self, path: &Path, served: &[OnlineRow], check: impl FnMut() -> Result<()>) -> Result<Store> {
        let mut writer = self.store_writer(path)?;
        let mut documents: FxHashMap<u32, u32> = FxHashMap::default(); // by their start
        self.each_row(check, |start, input, output, weight| match documents.entry(start) {
            Entry::Occupied(document) => writer.push_again(*document.get(), input, weight),
            Entry::Vacant(new) => {
                new.insert(writer.push_numbered(output, input, weight)?);
                Ok(())
            }
        })?;
        for row in served {
            writer.push(&row.output, Some(row.input.as_str()).filter(|i| !i.is_empty()), 1)?;
        }
        writer.finish()?;
        Store::open(path)
    }

    /// Begins a store for rows of this index.
    pub(super) fn store_writer(&self, path: &Path) -> Result<StoreWriter> {
        let meta = StoreMeta {
            writer: env!("CARGO_PKG_VERSION").into(),
            tokenizer: self.meta().tokenizer.clone(),
            vocab_size: self.meta().vocab_size,
            eos_id: self.meta().eos_id,
            notes: self.meta().notes.clone(),
        };
        StoreWriter::create(path, &self.file().fingerprint(), meta)
    }

    /// Calls `each` with the start, the input, the output and the weight of every row. Each output is read once, and only
    /// when [`TaskIndex::check_contents`] has proved that outputs do not overlap.
    pub(super) fn each_row(
        &self,
        mut check: impl FnMut() -> Result<()>,
        mut each: impl FnMut(u32, Option<&str>, &[TokenId], u64) -> Result<()>,
    ) -> Result<()> {
        self.check_contents(&mut check)?;
        let ngrams = self.ngrams();
        let mut with_input: FxHashMap<u32, (Vec<TokenId>, u64)> = FxHashMap::default();
        for row in 0..self.num_inputs() {
            let InputRow { text, start, weight } = self.input(row)?;
            let (output, total) = match with_input.entry(start) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert((self.output(&ngrams, start, &mut check)?, 0)),
            };
            *total = total.saturating_add(weight);
            each(start, Some(text), output, weight)?;
            check()?;
        }
        let starts = ngrams.start();
        for start in starts.lo..starts.hi {
            let weight = ngrams.weight_at(start as usize);
            match with_input.get(&start) {
                Some((_, total)) if *total >= weight => {}
                Some((output, total)) => each(start, None, output, weight - total)?,
                None if weight > 0 => each(start, None, &self.output(&ngrams, start, &mut check)?, weight)?,
                None => {}
            }
            check()?;
        }
        Ok(())
    }

    /// Builds a new index of everything that this one holds and the rows of write-ahead logs that it does not hold yet.
    /// Where this one has no inputs, neither has the new one. Returns the new index and the number of rows merged.
    ///
    /// The new index says which rows of which logs it holds, so that nobody counts them twice. Over this index's own
    /// path, what is compacted is the file that has this path now; the logs are locked, and lose the merged rows once the
    /// new index has its name. Elsewhere they are only read, beside the processes that write to them.
    ///
    /// # Errors
    /// As [`TaskIndex::to_store`] and [`TaskIndex::build`]; [`Error::Written`] while another compaction, or a command,
    /// writes the same path; those of [`WriteAheadLog::open`] over its own path,
    /// otherwise those of [`online_log::read_unmerged`]. Nothing is written then, unless dropping the rows from a log
    /// failed, which is harmless.
    pub fn compact(
        &self,
        logs: &[impl AsRef<Path>],
        path: &Path,
        options: &BuildOptions<'_>,
        check: impl FnMut(f64) -> Result<()>,
    ) -> Result<(Self, u64)> {
        let target = behind_link(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let scratch = ScratchFolder::exclusive(&target)?;
        if path == self.file().path() {
            self.current()?.compact_in(&scratch, logs, path, options, check)
        } else {
            self.compact_in(&scratch, logs, path, options, check)
        }
    }

    /// Opens the file that has this index's path now: another compaction may have put it there.
    pub(super) fn current(&self) -> Result<Self> {
        let now = Self::open(self.file().path())?;
        let (found, wanted) = (now.file().fingerprint(), self.file().fingerprint());
        if found == wanted {
            Ok(now)
        } else {
            Err(Error::Fingerprint { path: now.file().path().into(), found, wanted })
        }
    }

    fn compact_in(
        &self,
        scratch: &ScratchFolder,
        logs: &[impl AsRef<Path>],
        path: &Path,
        options: &BuildOptions<'_>,
        mut check: impl FnMut(f64) -> Result<()>,
    ) -> Result<(Self, u64)> {
        let fingerprint = self.file().fingerprint();
        let (mut merged, mut rows, mut locked) = (self.meta().merged_logs.clone(), Vec::new(), Vec::new());
        let template = self.meta().input_template.as_ref();
        for (k, log) in logs.iter().map(AsRef::as_ref).enumerate() {
            if logs[..k].iter().any(|other| other.as_ref() == log) {
                continue;
            }
            if path == self.file().path() {
                let log = WriteAheadLog::open_each(log, &fingerprint, &merged, |number, row| rows.push((number, row)))?;
                merged.advance(log.id(), log.next());
                locked.push(log);
            } else {
                rows.extend(online_log::read_unmerged(log, &fingerprint, &mut merged)?);
            }
        }
        let rows: Vec<(u64, OnlineRow)> = rows.into_iter().map(|(number, row)| (number, row.cut(template))).collect();
        let no_inputs = options.no_inputs || self.num_inputs() == 0;
        let new_origins = rows.iter().map(|(number, row)| RowOrigin::new(*number, row, !no_inputs));
        let origins = self.origins().iter().copied().chain(new_origins).collect();
        let inherited = Inherited { merged_logs: merged, origins, input_template: template.cloned() };
        let rows: Vec<OnlineRow> = rows.into_iter().map(|(_, row)| row).collect();
        let store = self.to_store(&scratch.path().join("rows.store"), &rows, || check(0.0))?;
        let new = Self::build_with(&store, path, &BuildOptions { no_inputs, ..*options }, inherited, check)?;
        for log in &mut locked {
            log.forget(log.next())?;
        }
        Ok((new, rows.len() as u64))
    }

    fn output(&self, ngrams: &Ngrams<'_>, start: u32, check: &mut impl FnMut() -> Result<()>) -> Result<Vec<TokenId>> {
        let mut tokens = Vec::new();
        let mut at = start as usize;
        for passed in 1..=ngrams.bwt.len() {
            let (Some(&symbol), Some(&next)) = (ngrams.bwt.get(at), ngrams.lf.get(at)) else { break };
            if symbol == BOUNDARY {
                return Ok(tokens);
            }
            tokens.extend(ngrams.token(symbol));
            at = next as usize;
            if passed.is_multiple_of(CHECK_EVERY) {
                check()?;
            }
        }
        Err(self.file().corrupt("bwt", &format!("the output that starts at {start} has no end")))
    }
}
