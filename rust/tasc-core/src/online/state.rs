//! The rows that were served, in memory and in their log: what a drafter hands on to the next one.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::served::Served;
use crate::corpus::{ServedLog, ServedRow};
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
    log: Option<ServedLog>,
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

    /// Takes in the rows of a log, and appends to it from now on: at most `limit` bytes.
    pub(crate) fn open(&self, path: &Path, fingerprint: &Fingerprint, limit: u64) -> Result<()> {
        let mut ledger = self.ledger();
        let log = ServedLog::open_each(path, fingerprint, |row| ledger.add(&row))?;
        ledger.log = Some(log.bounded(limit));
        Ok(())
    }

    /// Adds rows, to the log first.
    pub(crate) fn serve(&self, rows: &[ServedRow]) -> Result<()> {
        let mut ledger = self.ledger();
        if let Some(log) = &mut ledger.log {
            log.append(rows)?;
        }
        rows.iter().for_each(|row| ledger.add(row));
        Ok(())
    }

    /// Those of the next drafter, over `task`, which has taken in the log's oldest `taken` rows.
    pub(crate) fn over(&self, task: Arc<dyn TaskData>, taken: u64) -> Result<Self> {
        let mut ledger = self.ledger();
        let left = if taken > 0 { ledger.forget(taken)? } else { usize::MAX };
        ledger.task = Some(task);
        let mut rows = read(&ledger.rows).latest(left);
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

    fn add(&self, row: &ServedRow) {
        write(&self.rows).add(row, self.inputs().as_ref());
        while let Some(fewer) = self.fewer() {
            let old = std::mem::replace(&mut *write(&self.rows), fewer);
            drop(old); // only now: nobody waits for it
        }
    }

    fn fewer(&self) -> Option<Served> {
        read(&self.rows).fewer()
    }

    /// Drops the oldest rows of the log; returns how many are left.
    fn forget(&mut self, taken: u64) -> Result<usize> {
        let number = |n| usize::try_from(n).unwrap_or(usize::MAX);
        let Some(log) = &mut self.log else {
            return Err(Error::OutOfRange { what: "served row", index: number(taken), limit: 0 });
        };
        log.forget(taken)?;
        Ok(number(log.rows()))
    }
}
