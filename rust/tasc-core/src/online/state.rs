//! Online rows in memory and in their write-ahead log. A drafter shares them with its successors.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::served::Served;
use crate::corpus::{MergedLogs, OnlineRow, WriteAheadLog};
use crate::format::Fingerprint;
use crate::index::inputs::Inputs;
use crate::mixture::TaskData;
use crate::{Error, Result};

/// The online rows of a drafter. Its successor has a copy of them, and gets the rows that either is served from then on.
#[derive(Clone)]
pub(crate) struct OnlineRows {
    state: Arc<Mutex<SharedState>>,
    rows: Arc<RwLock<Served>>,
}

/// State that a drafter and its successors share. A change of the rows locks it, so that slow work does not block readers.
struct SharedState {
    log: Option<WriteAheadLog>,
    /// Data of the latest drafter. Its inputs give the frequency of terms.
    task: Option<Arc<dyn TaskData>>,
    /// Rows of the latest drafter.
    rows: Arc<RwLock<Served>>,
}

impl OnlineRows {
    pub(crate) fn new(task: Option<Arc<dyn TaskData>>, rows: Served) -> Self {
        let rows = Arc::new(RwLock::new(rows));
        Self { state: Arc::new(Mutex::new(SharedState { log: None, task, rows: rows.clone() })), rows }
    }

    /// Adds the rows of a log that are not in the index. Later rows are appended to the log, up to `limit` bytes.
    pub(crate) fn open(&self, path: &Path, fingerprint: &Fingerprint, limit: u64) -> Result<()> {
        let mut state = self.state();
        if let Some(log) = &state.log {
            return Err(Error::Locked { path: log.path().into() });
        }
        let merged = state.task.as_ref().map_or(MergedLogs::none(), |task| task.merged_logs());
        let log = WriteAheadLog::open_each(path, fingerprint, merged, |number, row| state.add(&row, Some(number)))?;
        state.log = Some(log.bounded(limit));
        Ok(())
    }

    /// Adds rows, to the log first.
    pub(crate) fn serve(&self, rows: &[OnlineRow]) -> Result<()> {
        let mut state = self.state();
        let first = state.log.as_mut().map(|log| log.append(rows)).transpose()?;
        rows.iter().zip(0..).for_each(|(row, k)| state.add(row, first.map(|first| first + k)));
        Ok(())
    }

    /// Makes the rows of the next drafter over `task`, without those that were merged into it.
    pub(crate) fn with_index(&self, task: Arc<dyn TaskData>) -> Result<Self> {
        let mut state = self.state();
        let mut merged = 0;
        if let Some(log) = &mut state.log {
            merged = task.merged_logs().next(&log.id());
            if merged > 0 {
                log.forget(merged)?;
            }
        }
        state.task = Some(task);
        let mut rows = read(&state.rows).without_merged(merged);
        rows.set_norms(state.inputs().as_ref());
        state.rows = Arc::new(RwLock::new(rows));
        Ok(Self { state: self.state.clone(), rows: state.rows.clone() })
    }

    pub(crate) fn rows(&self) -> RwLockReadGuard<'_, Served> {
        read(&self.rows)
    }

    fn state(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(rows: &RwLock<Served>) -> RwLockReadGuard<'_, Served> {
    rows.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(rows: &RwLock<Served>) -> RwLockWriteGuard<'_, Served> {
    rows.write().unwrap_or_else(PoisonError::into_inner)
}

impl SharedState {
    fn inputs(&self) -> Option<Inputs<'_>> {
        self.task.as_ref()?.view().rows.map(|rows| rows.inputs)
    }

    fn add(&self, row: &OnlineRow, number: Option<u64>) {
        write(&self.rows).add(row, number, self.inputs().as_ref());
        while let Some(fewer) = self.fewer() {
            let old = std::mem::replace(&mut *write(&self.rows), fewer);
            drop(old); // after the lock is released
        }
    }

    fn fewer(&self) -> Option<Served> {
        read(&self.rows).fewer()
    }
}
