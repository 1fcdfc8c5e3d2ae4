//! Online rows in memory and in their write-ahead log: the state that a drafter shares with its successors.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::served::IndexedRows;
use crate::corpus::online_log::{expired_before, time_of};
use crate::corpus::{MergedLogs, OnlineRow, WriteAheadLog};
use crate::format::Fingerprint;
use crate::index::inputs::Inputs;
use crate::mixture::TaskData;
use crate::text::InputTemplate;
use crate::{Error, Result};

/// The online rows of a drafter. Its successor has a copy of them, and gets the rows that either is served from then on.
#[derive(Clone)]
pub(crate) struct OnlineRows {
    shared: Arc<Mutex<SharedState>>,
    rows: Arc<RwLock<IndexedRows>>,
}

/// What a drafter and its successors share. Whoever changes rows holds it, so that what is slow is done while others
/// read.
struct SharedState {
    log: Option<WriteAheadLog>,
    /// The data of the latest drafter: it gives the inverse document frequency of terms.
    task: Option<Arc<dyn TaskData>>,
    /// The rows of the latest drafter.
    rows: Arc<RwLock<IndexedRows>>,
}

impl OnlineRows {
    pub(crate) fn new(task: Option<Arc<dyn TaskData>>, rows: IndexedRows) -> Self {
        let rows = Arc::new(RwLock::new(rows));
        Self { shared: Arc::new(Mutex::new(SharedState { log: None, task, rows: rows.clone() })), rows }
    }

    /// Adds the rows of a log that are not in the index. Later rows are appended to the log, up to `limit` bytes; rows
    /// leave it after so many days.
    pub(crate) fn open(&self, path: &Path, fingerprint: &Fingerprint, limit: u64, days: Option<u32>) -> Result<()> {
        let mut shared = self.shared();
        if let Some(log) = &shared.log {
            return Err(Error::Locked { path: log.path().into() });
        }
        let merged = shared.task.as_ref().map_or(MergedLogs::none(), |task| task.merged_logs());
        let expired = days.map_or(0, expired_before);
        let log = WriteAheadLog::open_each(path, fingerprint, merged, |number, row| {
            if number >= expired || time_of(number).is_none() {
                shared.add(&row.cut(shared.template()), Some(number));
            }
        })?;
        shared.log = Some(log.bounded(limit).timed(days)?);
        Ok(())
    }

    /// Adds rows, to the log first.
    pub(crate) fn serve(&self, rows: &[OnlineRow]) -> Result<()> {
        let mut shared = self.shared();
        let template = shared.template();
        let cut: Option<Vec<OnlineRow>> = template.map(|_| rows.iter().map(|r| r.clone().cut(template)).collect());
        let rows = cut.as_deref().unwrap_or(rows);
        let first = shared.log.as_mut().map(|log| log.append(rows)).transpose()?;
        rows.iter().zip(0..).for_each(|(row, k)| shared.add(row, first.map(|first| first + k)));
        Ok(())
    }

    /// Makes the rows of the next drafter over `task`, without those that were merged into it.
    pub(crate) fn with_index(&self, task: Arc<dyn TaskData>) -> Result<Self> {
        let mut shared = self.shared();
        let mut merged = 0;
        if let Some(log) = &mut shared.log {
            merged = task.merged_logs().next(&log.id());
            if merged > 0 {
                log.forget(merged)?;
            }
        }
        shared.task = Some(task);
        let mut rows = read(&shared.rows).without_merged(merged);
        rows.set_norms(shared.inputs().as_ref());
        shared.rows = Arc::new(RwLock::new(rows));
        Ok(Self { shared: self.shared.clone(), rows: shared.rows.clone() })
    }

    pub(crate) fn rows(&self) -> RwLockReadGuard<'_, IndexedRows> {
        read(&self.rows)
    }

    fn shared(&self) -> MutexGuard<'_, SharedState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(rows: &RwLock<IndexedRows>) -> RwLockReadGuard<'_, IndexedRows> {
    rows.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(rows: &RwLock<IndexedRows>) -> RwLockWriteGuard<'_, IndexedRows> {
    rows.write().unwrap_or_else(PoisonError::into_inner)
}

impl SharedState {
    fn inputs(&self) -> Option<Inputs<'_>> {
        self.task.as_ref()?.view().rows.map(|rows| rows.inputs)
    }

    fn template(&self) -> Option<&InputTemplate> {
        self.task.as_ref()?.input_template()
    }

    fn add(&self, row: &OnlineRow, number: Option<u64>) {
        write(&self.rows).add(row, number, self.inputs().as_ref());
        while let Some(fewer) = self.fewer() {
            let old = std::mem::replace(&mut *write(&self.rows), fewer);
            drop(old); // after the lock is released
        }
    }

    fn fewer(&self) -> Option<IndexedRows> {
        read(&self.rows).fewer()
    }
}
