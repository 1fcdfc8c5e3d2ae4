//! The rows that were served, in memory and in their log: what a drafter hands on to the next one.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::served::Served;
use crate::corpus::{MergedLogs, OnlineRow, WriteAheadLog};
use crate::format::Fingerprint;
use crate::index::inputs::Inputs;
use crate::mixture::TaskData;
use crate::{Error, Result};

/// The served rows of a drafter. Its successor has a copy of them, and takes in what either is served from then on.
#[derive(Clone)]
pub(crate) struct Kept {
    ledger: Arc<Mutex<Ledger>>,
    rows: Arc<RwLock<Served>>,
}

/// What a drafter and its successors share. Whoever changes rows holds it, so that what is slow is done while others
/// read.
struct Ledger {
    log: Option<WriteAheadLog>,
    /// That of the latest drafter: it says how rare terms are.
    task: Option<Arc<dyn TaskData>>,
    /// Those of the latest drafter.
    rows: Arc<RwLock<Served>>,
}

impl Kept {
    pub(crate) fn new(task: Option<Arc<dyn TaskData>>, rows: Served) -> Self {
        let rows = Arc::new(RwLock::new(rows));
        Self { ledger: Arc::new(Mutex::new(Ledger { log: None, task, rows: rows.clone() })), rows }
    }

    /// Takes in the rows of a log that are not in the index, and appends to it from now on: at most `limit` bytes.
    pub(crate) fn open(&self, path: &Path, fingerprint: &Fingerprint, limit: u64) -> Result<()> {
        let mut ledger = self.ledger();
        if let Some(log) = &ledger.log {
            return Err(Error::Locked { path: log.path().into() });
        }
        let merged = ledger.task.as_ref().map_or(MergedLogs::none(), |task| task.merged_logs());
        let log = WriteAheadLog::open_each(path, fingerprint, merged, |number, row| ledger.add(&row, Some(number)))?;
        ledger.log = Some(log.bounded(limit));
        Ok(())
    }

    /// Adds rows, to the log first.
    pub(crate) fn serve(&self, rows: &[OnlineRow]) -> Result<()> {
        let mut ledger = self.ledger();
        let first = ledger.log.as_mut().map(|log| log.append(rows)).transpose()?;
        rows.iter().zip(0..).for_each(|(row, k)| ledger.add(row, first.map(|first| first + k)));
        Ok(())
    }

    /// Makes the rows of the next drafter, over `task`: those that were not merged into it.
    pub(crate) fn with_index(&self, task: Arc<dyn TaskData>) -> Result<Self> {
        let mut ledger = self.ledger();
        let mut merged = 0;
        if let Some(log) = &mut ledger.log {
            merged = task.merged_logs().next(&log.id());
            if merged > 0 {
                log.forget(merged)?;
            }
        }
        ledger.task = Some(task);
        let mut rows = read(&ledger.rows).without_merged(merged);
        rows.set_norms(ledger.inputs().as_ref());
        ledger.rows = Arc::new(RwLock::new(rows));
        Ok(Self { ledger: self.ledger.clone(), rows: ledger.rows.clone() })
    }

    pub(crate) fn rows(&self) -> RwLockReadGuard<'_, Served> {
        read(&self.rows)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(rows: &RwLock<Served>) -> RwLockReadGuard<'_, Served> {
    rows.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(rows: &RwLock<Served>) -> RwLockWriteGuard<'_, Served> {
    rows.write().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    fn inputs(&self) -> Option<Inputs<'_>> {
        self.task.as_ref()?.view().rows.map(|rows| rows.inputs)
    }

    fn add(&self, row: &OnlineRow, number: Option<u64>) {
        write(&self.rows).add(row, number, self.inputs().as_ref());
        while let Some(fewer) = self.fewer() {
            let old = std::mem::replace(&mut *write(&self.rows), fewer);
            drop(old); // only now: nobody waits for it
        }
    }

    fn fewer(&self) -> Option<Served> {
        read(&self.rows).fewer()
    }
}
