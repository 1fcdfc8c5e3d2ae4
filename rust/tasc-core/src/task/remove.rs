//! An index and its logs → the same without some rows.

use std::path::Path;

use rustc_hash::{FxHashMap, FxHashSet};

use super::file::{BuildOptions, Inherited, TaskIndex};
use crate::corpus::online_log::time_of;
use crate::corpus::{OnlineRow, Store, WriteAheadLog};
use crate::format::ScratchFolder;
use crate::format::scratch::behind_link;
use crate::index::origins::{RowOrigin, digest, key_hash};
use crate::{Error, Result};

/// Rows that are asked about at a time, and their tokens.
const BATCH: usize = 1024;
const BATCH_TOKENS: usize = 1 << 20;

/// Which rows are removed: each that one of these picks.
pub struct Removal<'a> {
    /// Says of each of some rows whether it is removed, however often it occurred. The input of a row without one is
    /// empty; rows of an index have no key.
    pub picks: &'a mut dyn FnMut(&[OnlineRow]) -> Result<Vec<bool>>,
    /// Rows with these keys.
    pub keys: &'a [String],
    /// Rows that were added before this time, in seconds since 1970. Rows without a time stay.
    pub before: Option<u64>,
}

/// Numbers of rows, repeated ones counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Removed from the index.
    pub from_index: u64,
    /// Removed from logs.
    pub from_logs: u64,
    /// Left, without a time.
    pub untimed: u64,
}

impl Removal<'_> {
    fn goes(&self, time: Option<u64>, key: u64) -> bool {
        let old = time.zip(self.before).is_some_and(|(time, before)| time < before);
        old || (key != 0 && self.keys.iter().any(|wanted| key_hash(wanted) == key))
    }

    /// Numbers of the rows of a log that are removed.
    fn of_log(&mut self, rows: &[(u64, OnlineRow)], removed: &mut Removed) -> Result<FxHashSet<u64>> {
        let mut gone = FxHashSet::default();
        for rows in rows.chunks(BATCH) {
            let asked: Vec<OnlineRow> = rows.iter().map(|(_, row)| row.clone()).collect();
            let picked = (self.picks)(&asked)?;
            for (k, (number, row)) in rows.iter().enumerate() {
                if picked.get(k) == Some(&true) || self.goes(time_of(*number), key_hash(&row.key)) {
                    gone.insert(*number);
                } else {
                    removed.untimed += u64::from(time_of(*number).is_none());
                }
            }
        }
        removed.from_logs += gone.len() as u64;
        Ok(gone)
    }
}

/// What is left of an index.
struct Kept {
    store: Store,
    origins: Vec<RowOrigin>,
}

impl TaskIndex {
    /// Writes the index that has this index's path now, and its logs, anew without some rows. What is fitted is fitted to
    /// the rows that are left. Files of which no row is removed stay as they are, but rows that the index has merged leave the logs.
    ///
    /// The index gets its name before the logs do, each whole. After a crash in between, removing again does the rest.
    ///
    /// # Complexity
    /// As [`TaskIndex::build`] where a row of the index is removed, otherwise O(index + logs).
    ///
    /// # Errors
    /// [`Error::NothingLeft`]; [`Error::Locked`] while a log is open for writing; [`Error::Written`] as
    /// [`TaskIndex::compact`]; format errors of damaged files; what `picks`, `check` and the tokenizer return. Unless
    /// writing a log failed, nothing has changed then.
    pub fn remove(
        &self,
        logs: &[impl AsRef<Path>],
        removal: &mut Removal<'_>,
        options: &BuildOptions<'_>,
        mut check: impl FnMut(f64) -> Result<()>,
    ) -> Result<Removed> {
        let path = self.file().path();
        let target = behind_link(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let scratch = ScratchFolder::exclusive(&target)?;
        let index = self.current()?; // nobody else replaces it from here on
        index.verify_with(|| check(0.0))?; // damage must not get new checksums
        let (fingerprint, merged) = (index.file().fingerprint(), index.meta().merged_logs.clone());
        let (mut removed, mut opened) = (Removed::default(), Vec::new());
        for log in logs {
            let mut rows = Vec::new();
            let log = WriteAheadLog::open_each(log.as_ref(), &fingerprint, &merged, |k, row| rows.push((k, row)))?;
            opened.push((log, removal.of_log(&rows, &mut removed)?));
        }
        let kept = index.without(&scratch.path().join("rows.store"), removal, &mut removed, || check(0.0))?;
        if let Some(Kept { store, origins }) = kept {
            let no_inputs = options.no_inputs || index.num_inputs() == 0;
            let input_template = index.meta().input_template.clone();
            let inherited = Inherited { merged_logs: merged.clone(), origins, input_template };
            Self::build_with(&store, path, &BuildOptions { no_inputs, ..*options }, inherited, check)?;
        }
        for (log, gone) in &mut opened {
            let first = merged.next(&log.id());
            log.retain(|number| number >= first && !gone.contains(&number))?;
        }
        Ok(removed)
    }

    /// Writes a store of the rows that are left; `None` where all are.
    fn without(
        &self,
        path: &Path,
        removal: &mut Removal<'_>,
        removed: &mut Removed,
        check: impl FnMut() -> Result<()>,
    ) -> Result<Option<Kept>> {
        let mut origins = Vec::new();
        let mut occurrences: FxHashMap<[u64; 2], u64> = FxHashMap::default(); // that are removed, by row
        for origin in self.origins() {
            if removal.goes(Some(origin.time).filter(|&t| t > 0), origin.key) {
                *occurrences.entry(origin.row).or_default() += 1;
            } else {
                origins.push(*origin);
            }
        }
        let (mut writer, mut left, mut gone) = (self.store_writer(path)?, 0u64, FxHashSet::default());
        let mut take = |rows: &mut Vec<OnlineRow>, weights: &mut Vec<(bool, u64)>| {
            let picked = (removal.picks)(rows)?;
            for (k, (row, (has_input, weight))) in rows.drain(..).zip(weights.drain(..)).enumerate() {
                let digest = digest(&row.input, &row.output);
                let stays = if picked.get(k) == Some(&true) {
                    gone.insert(digest);
                    0
                } else {
                    let less = occurrences.get_mut(&digest).map_or(0, |less| {
                        let now = weight.min(*less);
                        *less -= now;
                        now
                    });
                    weight - less
                };
                removed.from_index = removed.from_index.saturating_add(weight - stays);
                left = left.saturating_add(stays);
                if stays > 0 {
                    writer.push(&row.output, has_input.then_some(row.input.as_str()), stays)?;
                }
            }
            Ok(())
        };
        let (mut rows, mut weights, mut tokens) = (Vec::new(), Vec::new(), 0);
        self.each_row(check, |_, input, output, weight| {
            tokens += output.len();
            weights.push((input.is_some(), weight));
            let (input, output) = (input.unwrap_or_default().to_owned(), output.to_vec());
            rows.push(OnlineRow { input, output, ..OnlineRow::default() });
            if rows.len() < BATCH && tokens < BATCH_TOKENS {
                return Ok(());
            }
            tokens = 0;
            take(&mut rows, &mut weights)
        })?;
        take(&mut rows, &mut weights)?;
        origins.retain(|origin| !gone.contains(&origin.row));
        let timed = origins.iter().filter(|origin| origin.time > 0).count() as u64;
        removed.untimed = removed.untimed.saturating_add(left.saturating_sub(timed));
        if removed.from_index == 0 {
            return Ok(None);
        }
        if left == 0 {
            return Err(Error::NothingLeft { path: self.file().path().into() });
        }
        writer.finish()?;
        Ok(Some(Kept { store: Store::open(path)?, origins }))
    }
}
