//! The rows that were served, in memory and in their log: what a drafter hands on to the next one.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::served::Served;
use crate::corpus::{ServedLog, ServedRow};
use crate::format::Fingerprint;
use crate::index::inputs::Inputs;
use crate::index::view::Task;
use crate::{Error, Result};

/// Served rows, shared by drafters. Whoever changes them holds `ledger`, so that what is slow is done while others read.
pub(super) struct Kept {
    ledger: Mutex<Ledger>,
    rows: RwLock<Served>,
}

struct Ledger {
    log: Option<ServedLog>,
    /// That of the latest drafter: it says how rare terms are.
    task: Option<Arc<dyn Task>>,
}

impl Ledger {
    fn inputs(&self) -> Option<Inputs<'_>> {
        self.task.as_ref()?.view().rows.map(|rows| rows.inputs)
    }
}

impl Kept {
    pub(super) fn new(task: Option<Arc<dyn Task>>, rows: Served) -> Self {
        Self { ledger: Mutex::new(Ledger { log: None, task }), rows: RwLock::new(rows) }
    }

    /// Takes in the rows of a log, and appends to it from now on: at most `limit` bytes.
    pub(super) fn open(&self, path: &Path, fingerprint: &Fingerprint, limit: u64) -> Result<()> {
        let mut ledger = self.ledger();
        let log = ServedLog::open_each(path, fingerprint, |row| self.add(&row, &ledger))?;
        ledger.log = Some(log.bounded(limit));
        Ok(())
    }

    /// Adds rows, to the log first.
    pub(super) fn serve(&self, rows: &[ServedRow]) -> Result<()> {
        let mut ledger = self.ledger();
        if let Some(log) = &mut ledger.log {
            log.append(rows)?;
        }
        rows.iter().for_each(|row| self.add(row, &ledger));
        Ok(())
    }

    fn add(&self, row: &ServedRow, ledger: &Ledger) {
        self.write().add(row, ledger.inputs().as_ref());
        while let Some(fewer) = self.fewer() {
            self.replace(fewer);
        }
    }

    fn fewer(&self) -> Option<Served> {
        self.rows().fewer()
    }

    /// `task` has taken in the oldest `taken` rows of the log, and says from now on how rare terms are.
    pub(super) fn move_to(&self, task: Arc<dyn Task>, taken: u64) -> Result<()> {
        let mut ledger = self.ledger();
        if taken > 0 {
            let left = ledger.forget(taken)?;
            let latest = self.rows().latest(left);
            self.replace(latest);
        }
        ledger.task = Some(task);
        let norms = self.rows().norms(ledger.inputs().as_ref());
        self.write().set_norms(&norms);
        Ok(())
    }

    fn replace(&self, rows: Served) {
        let old = std::mem::replace(&mut *self.write(), rows);
        drop(old); // only now: nobody waits for it
    }

    pub(super) fn rows(&self) -> RwLockReadGuard<'_, Served> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Served> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
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
