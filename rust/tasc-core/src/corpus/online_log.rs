//! A write-ahead log of online rows: request inputs and target outputs, kept durably until they are merged into an index.
//!
//! It lies beside an index: `task.tasc` has `task.tasc.served`. One process writes, any number read. Every row has a
//! number, which is never used again for another row; an index holds the numbers that it has merged ([`MergedLogs`]).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::merged::{LogId, MergedLogs};
use super::record::{HEADER_BYTES, LogHeader, MAX_NUMBER, Records, encode, header, read_header};
pub use super::record::{KIND, MAX_ROW_BYTES, OnlineRow, VERSION, number_at, time_of};
use crate::error::Fault;
use crate::format::Fingerprint;
use crate::format::file::{open_regular, regular_length};
use crate::format::scratch::behind_link;
use crate::format::temporary::{Temporary, folder, is_still, sync_folder};
use crate::{Error, Result};

/// Default limit of a log in bytes.
pub const LOG_BYTES: u64 = 256 << 20;

/// Numbers that are skipped where the end of a log is cut off: more than rows were there.
const CUT_NUMBERS: u64 = 1 << 32;

const DAY: u64 = 24 * 60 * 60;
const HOUR: u64 = 60 * 60;

/// An open log, writing. It holds an exclusive advisory lock, released when it is dropped or its process ends.
#[derive(Debug)]
pub struct WriteAheadLog {
    path: PathBuf,
    file: File,
    fingerprint: Fingerprint,
    id: LogId,
    rows: u64,
    /// Number of the next row.
    next: u64,
    bytes: u64,
    limit: u64,
    /// Whether rows get numbers that say when they were added.
    timed: bool,
    /// Days after which rows are dropped.
    days: Option<u32>,
    /// No row with a time has a smaller number; `None`: there is no such row.
    oldest: Option<u64>,
    /// Something failed and could not be taken back: the file may not be what the fields above say.
    broken: bool,
    /// Who opened it: a forked child shares the lock and must not write beside its parent.
    process: u32,
}

impl WriteAheadLog {
    /// Opens the log of this name, or creates it, and reads its rows. A torn tail (what a process wrote of a row when
    /// it was killed) is cut off, and so is everything after the first damaged record.
    ///
    /// # Complexity
    /// O(log).
    ///
    /// # Errors
    /// [`Error::Locked`] when it is open for writing already; [`Error::Fingerprint`] when another tokenizer made it;
    /// [`Error::Format`] when it is no log of a known major version or its header is damaged; [`Error::Io`]. The file
    /// is left as it was then.
    pub fn open(path: &Path, fingerprint: &Fingerprint) -> Result<(Self, Vec<OnlineRow>)> {
        let mut rows = Vec::new();
        Ok((Self::open_each(path, fingerprint, MergedLogs::none(), |_, row| rows.push(row))?, rows))
    }

    /// Opens a log as [`WriteAheadLog::open`] does, and calls `each` with the number of each row that is not `merged`
    /// and the row, in ascending order of numbers. All rows stay in the file.
    ///
    /// A log of version 1 or 2 becomes one of this version; that of version 1 gets an identity.
    ///
    /// # Errors
    /// As [`WriteAheadLog::open`]; `each` may have been called then.
    pub fn open_each(
        path: &Path,
        fingerprint: &Fingerprint,
        merged: &MergedLogs,
        mut each: impl FnMut(u64, OnlineRow),
    ) -> Result<Self> {
        let failed = |source| Error::Io { path: path.into(), source };
        let (mut file, id, reserved) = identified(path, lock(path, fingerprint)?, fingerprint)?;
        file.rewind().map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let (first, mut rows, mut bytes, mut next) = (merged.next(&id), 0, HEADER_BYTES as u64, reserved);
        let mut oldest = None;
        if let Some((_, mut records)) = records(path, &file, length, fingerprint)? {
            for read in records.by_ref() {
                let (number, row) = read.map_err(failed)?;
                if number >= first {
                    each(number, row);
                }
                oldest = oldest.or(time_of(number).map(|_| number));
                rows += 1;
            }
            (bytes, next) = (records.at, next.max(records.next));
        }
        sync_folder(folder(path)).map_err(failed)?; // who created it may have been killed before doing so
        let torn = bytes < length;
        // What is cut off may have been rows that a reader has merged: their numbers must not be used again.
        next = (if torn { next + CUT_NUMBERS } else { next }).max(first).min(MAX_NUMBER);
        let (path, fingerprint, process) = (path.into(), *fingerprint, std::process::id());
        let (limit, timed, days, broken) = (LOG_BYTES, false, None, false);
        let mut this =
            Self { path, file, fingerprint, id, rows, next, bytes, limit, timed, days, oldest, broken, process };
        if torn {
            this.replace((0, HEADER_BYTES as u64), &[])?;
        }
        Ok(this)
    }

    /// Limits the log to `limit` bytes ([`LOG_BYTES`] otherwise). A log that has more loses its oldest rows when the
    /// next row is appended.
    #[must_use]
    pub fn bounded(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// Gives rows that are appended from now on numbers that say when that was ([`time_of`]). With `days`, rows that are
    /// older leave the log: now, and when rows are appended, at most an hour late. Rows without a time are older than the
    /// others; they leave with the first of these.
    ///
    /// # Errors
    /// As [`WriteAheadLog::forget`].
    pub fn timed(mut self, days: Option<u32>) -> Result<Self> {
        (self.timed, self.days) = (true, days);
        self.expire(0)?;
        Ok(self)
    }

    fn expire(&mut self, late: u64) -> Result<()> {
        let before = self.days.map_or(0, expired_before);
        if self.oldest.and_then(time_of).is_some_and(|oldest| number_at(oldest + late) < before) {
            self.forget(before)?;
            self.oldest = Some(before);
        }
        Ok(())
    }

    /// Appends rows with one write and returns when they are on disk: the number of the first row; the others follow it.
    /// After an error the file is put back to the length it had; where even that fails, the log takes no more rows and
    /// must be opened again.
    ///
    /// Where the rows do not fit, the log is written anew, as [`WriteAheadLog::forget`] does: with its latest rows, half
    /// of the limit at most, and these. If the appended rows do not fit all together, the later ones are written.
    ///
    /// # Complexity
    /// O(rows), and one `fdatasync`, however many rows there are: hand over several at once where there are several.
    /// Writing anew is O(log), once for every half of it that is appended.
    ///
    /// # Errors
    /// [`Error::RowTooLarge`], [`Error::TokenId`] for the reserved id 2³² − 1; [`Error::Io`]; [`Error::Locked`] in a
    /// forked child of the process that opened the log; [`Error::Format`] when the log is full and a row of it was
    /// damaged since it was written. The rows before this call are there then, and none of this call, unless the log is
    /// to be opened again: then this call may have done its work, but not durably.
    pub fn append(&mut self, rows: &[OnlineRow]) -> Result<u64> {
        self.check_owner()?;
        if self.broken {
            let why = "an earlier write failed and could not be taken back; open the log again";
            return Err(self.failed(io::Error::other(why)));
        }
        if self.timed {
            self.expire(HOUR)?;
            self.next = self.next.max(number_at(now()));
        }
        let (bytes, written) = self.encoded(rows)?;
        let (first, next) = (self.next, self.next + rows.len() as u64);
        if next > MAX_NUMBER {
            let why = "the log has used up its numbers; merge its rows into the index, then remove it";
            return Err(self.failed(io::Error::other(why)));
        }
        self.next = next; // even if writing fails: a reader may have seen these rows
        if written == 0 {
            return Ok(first);
        }
        if self.bytes + bytes.len() as u64 > self.limit {
            let kept = self.kept_beside(bytes.len() as u64)?;
            self.replace(kept, &bytes)?;
        } else {
            self.extend(&bytes)?;
        }
        self.rows += written;
        self.oldest = self.oldest.or(time_of(first).map(|_| first));
        Ok(first)
    }

    /// Encodes the latest of `rows` that fit the log. Returns their records and how many these are.
    fn encoded(&self, rows: &[OnlineRow]) -> Result<(Vec<u8>, u64)> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX).saturating_sub(HEADER_BYTES);
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for (number, row) in (self.next..).zip(rows) {
            starts.push(bytes.len());
            encode(number, row, &mut bytes)?;
            let bytes = starts.last().map_or(0, |start| bytes.len() - start);
            if bytes > limit {
                return Err(Error::RowTooLarge { bytes, limit });
            }
        }
        let pushed_out = starts.partition_point(|start| bytes.len() - start > limit);
        if let Some(&start) = starts.get(pushed_out) {
            bytes.drain(..start);
        }
        Ok((bytes, (rows.len() - pushed_out) as u64))
    }

    /// Finds the place from which rows are kept where `needed` more bytes do not fit.
    fn kept_beside(&mut self, needed: u64) -> Result<(u64, u64)> {
        let header = HEADER_BYTES as u64;
        let kept = (self.limit / 2).min(self.limit - needed).max(header) - header;
        let bytes = self.bytes;
        self.place(|_, at| bytes - at <= kept)
    }

    /// Writes records behind the others.
    fn extend(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(source) = self.write(bytes) {
            self.broken = self.file.set_len(self.bytes).and_then(|()| self.file.sync_all()).is_err();
            return Err(self.failed(source));
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.bytes))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }

    /// Drops the rows with a number below `before`, after they were merged into an index; later rows stay, and later
    /// numbers are not smaller than `before`. The rest is written anew and takes the place of the log whole: whoever
    /// reads it, or finds it after a crash, sees all of the dropped rows or none.
    ///
    /// # Complexity
    /// O(log).
    ///
    /// # Errors
    /// [`Error::Format`] when a row was damaged since it was written; [`Error::Io`]; [`Error::Locked`] as
    /// [`WriteAheadLog::append`].
    pub fn forget(&mut self, before: u64) -> Result<()> {
        self.check_owner()?;
        let kept = self.place(|number, _| number >= before)?;
        self.next = self.next.max(before.min(MAX_NUMBER));
        self.replace(kept, &[])
    }

    /// Drops the rows whose numbers are not to be kept. All else is as with [`WriteAheadLog::forget`].
    ///
    /// # Errors
    /// As [`WriteAheadLog::forget`].
    pub fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) -> Result<()> {
        self.check_owner()?;
        self.file.rewind().map_err(|e| self.failed(e))?;
        let found = records(&self.path, &self.file, self.bytes, &self.fingerprint)?;
        let (mut seen, mut kept) = (0, 0);
        let rows = found.into_iter().flat_map(|(_, records)| records).filter(|read| {
            let keeps = read.as_ref().map_or(true, |(number, _)| keep(*number));
            (seen, kept) = (seen + 1, kept + u64::from(keeps));
            keeps
        });
        let (fresh, bytes) = rewritten(&self.path, &self.fingerprint, self.id, self.next, rows)?;
        if seen != self.rows {
            let fault = Fault::Row { row: seen, rows: self.rows };
            return Err(Error::Format { path: self.path.clone(), fault });
        }
        self.adopt(fresh, kept, bytes)
    }

    /// Puts a fresh log in place of this one, with the rows from a place on and `more` records, which the caller counts.
    fn replace(&mut self, (dropped, rest): (u64, u64), more: &[u8]) -> Result<()> {
        let fresh = self.copy_from(rest, more).map_err(|e| self.failed(e))?;
        self.adopt(fresh, self.rows - dropped, self.bytes - rest + HEADER_BYTES as u64 + more.len() as u64)
    }

    fn adopt(&mut self, fresh: Fresh, rows: u64, bytes: u64) -> Result<()> {
        if let Err(source) = fresh.temporary.persist() {
            self.broken |= !is_still(&self.path, &self.file).unwrap_or(false); // renamed, perhaps not durably
            return Err(self.failed(source)); // all else is as it was, so that forgetting can be tried again
        }
        self.file = fresh.file;
        (self.rows, self.bytes) = (rows, bytes);
        self.broken = false;
        Ok(())
    }

    /// Finds the first place between rows that is as `wanted` (by the number of the next row and the offset in the
    /// file), else the end, once all rows were found whole. Returns how many rows stand before it, and its offset.
    fn place(&mut self, wanted: impl Fn(u64, u64) -> bool) -> Result<(u64, u64)> {
        self.file.rewind().map_err(|e| self.failed(e))?;
        let (mut seen, mut at, mut found) = (0, HEADER_BYTES as u64, None);
        if let Some((_, mut records)) = records(&self.path, &self.file, self.bytes, &self.fingerprint)? {
            while let Some(read) = records.next() {
                let (number, _) = read.map_err(|e| self.failed(e))?;
                found = found.or_else(|| wanted(number, at).then_some((seen, at)));
                (seen, at) = (seen + 1, records.at);
            }
        }
        if seen != self.rows {
            let fault = Fault::Row { row: seen, rows: self.rows };
            return Err(Error::Format { path: self.path.clone(), fault });
        }
        Ok(found.unwrap_or((seen, at)))
    }

    /// Writes a fresh log with the bytes from `offset` on, and `more`.
    fn copy_from(&mut self, offset: u64, more: &[u8]) -> io::Result<Fresh> {
        let mut fresh = Fresh::create(&self.path, &self.fingerprint, self.id, self.next)?;
        self.file.seek(SeekFrom::Start(offset))?;
        let left = self.bytes - offset;
        if io::copy(&mut (&self.file).take(left), &mut fresh.file)? != left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        fresh.file.write_all(more)?;
        Ok(fresh)
    }

    /// Identity of the log.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.id
    }

    /// Number of the next row.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Number of rows in the file.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Length of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_owner(&self) -> Result<()> {
        if std::process::id() == self.process { Ok(()) } else { Err(Error::Locked { path: self.path.clone() }) }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Io { path: self.path.clone(), source }
    }
}

/// Reads the whole rows of a log, up to the first torn one. Nothing is locked or changed, so that one can read beside
/// the process that writes. Rows that are being appended may be seen before they are durable.
///
/// # Complexity
/// O(log).
///
/// # Errors
/// As [`WriteAheadLog::open`], less the lock; [`Error::Io`] also when there is no such file.
pub fn read(path: &Path, fingerprint: &Fingerprint) -> Result<Vec<OnlineRow>> {
    let (file, length) = open_regular(path)?;
    all_rows(path, file, length, fingerprint)
}

/// Reads a log as [`read`] does, from bytes in memory.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(bytes: &[u8], fingerprint: &Fingerprint) -> Result<Vec<OnlineRow>> {
    all_rows(Path::new("<memory>"), bytes, bytes.len() as u64, fingerprint)
}

/// Reads the rows that are not `merged`, with their numbers, as [`read`] does, and notes them there. They are durable when this returns.
///
/// # Errors
/// As [`read`]; [`Error::Format`] also for a log of version 1, which has no identity yet.
pub fn read_unmerged(path: &Path, fingerprint: &Fingerprint, merged: &mut MergedLogs) -> Result<Vec<(u64, OnlineRow)>> {
    let failed = |source| Error::Io { path: path.into(), source };
    let (file, length) = open_regular(path)?;
    #[cfg(unix)]
    file.sync_data().map_err(failed)?; // a row that a crash takes away would leave its number to another one
    let Some((header, mut records)) = records(path, file, length, fingerprint)? else { return Ok(Vec::new()) };
    let Some(id) = header.id else {
        let fix = "merge it over its index (without -o), or serve from it once";
        let fault = Fault::Version { found: (1, 0), expected: VERSION.0, fix };
        return Err(Error::Format { path: path.into(), fault });
    };
    let mut rows = Vec::new();
    for read in records.by_ref() {
        let (number, row) = read.map_err(failed)?;
        rows.extend((number >= merged.next(&id)).then_some((number, row)));
    }
    merged.advance(id, records.next);
    Ok(rows)
}

fn all_rows(path: &Path, from: impl Read, length: u64, fingerprint: &Fingerprint) -> Result<Vec<OnlineRow>> {
    let Some((_, records)) = records(path, from, length, fingerprint)? else { return Ok(Vec::new()) };
    let rows = records.map(|read| read.map(|(_, row)| row)).collect::<io::Result<_>>();
    rows.map_err(|source| Error::Io { path: path.into(), source })
}

/// Reads the header of a log with `length` bytes. Returns it with the records that follow; `None` without a whole header.
fn records<R: Read>(
    path: &Path,
    from: R,
    length: u64,
    fingerprint: &Fingerprint,
) -> Result<Option<(LogHeader, Records<impl Read + use<R>>)>> {
    let mut from = BufReader::new(from);
    let mut head = Vec::with_capacity(HEADER_BYTES);
    let read = from.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut head);
    read.map_err(|source| Error::Io { path: path.into(), source })?;
    let Some(header) = read_header(path, &head, fingerprint)? else { return Ok(None) };
    let behind = head.split_off(header.bytes);
    Ok(Some((header, Records::new(io::Cursor::new(behind).chain(from), length, header.id.is_some()))))
}

/// Deletes a log to which nobody writes, and a link to it; does nothing where there is none.
///
/// # Errors
/// [`Error::Locked`] when it is open for writing; [`Error::Io`].
pub fn delete(path: &Path, fingerprint: &Fingerprint) -> Result<()> {
    let failed = |source| Error::Io { path: path.into(), source };
    if !path.exists() {
        return Ok(());
    }
    let _lock = lock(path, fingerprint)?;
    std::fs::remove_file(behind_link(path).map_err(failed)?).map_err(failed)?;
    if path.is_symlink() {
        std::fs::remove_file(path).map_err(failed)?;
    }
    sync_folder(folder(path)).map_err(failed)
}

/// Smallest number of a row that is not older than so many days.
#[must_use]
pub fn expired_before(days: u32) -> u64 {
    number_at(now().saturating_sub(u64::from(days) * DAY))
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns the file, its identity and the number in its header; a fresh one in its place where it has no whole header,
/// or is of an older version.
fn identified(path: &Path, file: File, fingerprint: &Fingerprint) -> Result<(File, LogId, u64)> {
    let failed = |source| Error::Io { path: path.into(), source };
    let length = file.metadata().map_err(failed)?.len();
    let current = match records(path, &file, length, fingerprint)? {
        Some((LogHeader { id: Some(id), next, is_old: false, .. }, _)) => Ok((id, next)),
        old => Err(renewed(path, fingerprint, old)?),
    };
    match current {
        Ok((id, next)) => Ok((file, id, next)),
        Err((fresh, id, next)) => {
            fresh.temporary.persist().map_err(failed)?;
            Ok((fresh.file, id, next))
        }
    }
}

/// Writes a fresh log of the rows of one of an older version, with its identity and the number in its header.
fn renewed(
    path: &Path,
    fingerprint: &Fingerprint,
    old: Option<(LogHeader, Records<impl Read>)>,
) -> Result<(Fresh, LogId, u64)> {
    let (known, next) = old.as_ref().map_or((None, 0), |(header, _)| (header.id, header.next));
    let id = known.map_or_else(LogId::random, Ok).map_err(|source| Error::Io { path: path.into(), source })?;
    let rows = old.into_iter().flat_map(|(_, rows)| rows);
    Ok((rewritten(path, fingerprint, id, next, rows)?.0, id, next))
}

/// Writes a fresh log of these rows. Returns it and its length.
fn rewritten(
    path: &Path,
    fingerprint: &Fingerprint,
    id: LogId,
    next: u64,
    rows: impl Iterator<Item = io::Result<(u64, OnlineRow)>>,
) -> Result<(Fresh, u64)> {
    let failed = |source| Error::Io { path: path.into(), source };
    let fresh = Fresh::create(path, fingerprint, id, next).map_err(failed)?;
    let (mut out, mut record, mut bytes) = (BufWriter::new(&fresh.file), Vec::new(), HEADER_BYTES);
    for read in rows {
        let (number, row) = read.map_err(failed)?;
        record.clear();
        encode(number, &row, &mut record)?;
        bytes += record.len();
        out.write_all(&record).map_err(failed)?;
    }
    out.flush().map_err(failed)?;
    drop(out);
    Ok((fresh, bytes as u64))
}

/// Opens the file of this name and locks it; creates it when there is none.
fn lock(path: &Path, fingerprint: &Fingerprint) -> Result<File> {
    let failed = |source| Error::Io { path: path.into(), source };
    loop {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                create(path, fingerprint).map_err(failed)?;
                continue;
            }
            opened => opened.map_err(failed)?,
        };
        regular_length(path, &file)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: path.into() }),
            locked => locked.map_err(|e| failed(e.into()))?,
        }
        match is_still(path, &file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Ok(false) => {} // `replace` gave the name to another file in between
            still => return still.map(|_| file).map_err(failed),
        }
    }
}

/// Gives the name to a log without rows, unless another process was faster.
fn create(path: &Path, fingerprint: &Fingerprint) -> io::Result<()> {
    match Fresh::create(path, fingerprint, LogId::random()?, 0)?.temporary.persist_new() {
        // A link that leads nowhere exists too, and would have us try for ever.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !path.is_symlink() => Ok(()),
        created => created,
    }
}

/// A log on its way to its name, locked: the lock is there before anybody can open it.
struct Fresh {
    temporary: Temporary,
    file: File,
}

impl Fresh {
    fn create(path: &Path, fingerprint: &Fingerprint, id: LogId, next: u64) -> io::Result<Self> {
        let temporary = Temporary::create(path)?.private()?; // it holds inputs and outputs as they are
        let mut file = temporary.file.try_clone()?;
        file.try_lock()?;
        file.write_all(&header(fingerprint, &id, next))?;
        Ok(Self { temporary, file })
    }
}

/// Failures that no test from outside can cause.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_cannot_be_taken_back_stops_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let row = [OnlineRow { input: "a".into(), output: vec![1], ..OnlineRow::default() }];
        let (mut log, _) = WriteAheadLog::open(&path, &Fingerprint::default()).unwrap();
        log.append(&row).unwrap();
        let writable = std::mem::replace(&mut log.file, File::open(&path).unwrap());
        assert!(matches!(log.append(&row), Err(Error::Io { .. })));
        log.file = writable;
        let message = log.append(&row).unwrap_err().to_string();
        assert!(message.contains("open the log again"), "{message}");
        assert_eq!(log.rows(), 1);
        log.forget(0).unwrap(); // a fresh file
        log.append(&row).unwrap();
        log.process += 1;
        assert!(matches!(log.append(&row), Err(Error::Locked { .. })));
        assert!(matches!(log.forget(1), Err(Error::Locked { .. })));
        assert_eq!(read(&path, &Fingerprint::default()).unwrap(), [&row[..], &row].concat());
    }

    #[test]
    fn rows_leave_an_open_log_an_hour_after_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = WriteAheadLog::open(&folder.path().join("t.served"), &Fingerprint::default()).unwrap();
        let row = |id| [OnlineRow { output: vec![id], ..OnlineRow::default() }];
        for (id, late) in [(1, HOUR + 60), (2, HOUR / 2)] {
            log.next = number_at(now() - DAY - late);
            log.append(&row(id)).unwrap();
        }
        log.timed = true;
        log.days = Some(2);
        log.append(&row(3)).unwrap();
        assert_eq!(log.rows(), 3);
        log.days = Some(1);
        log.append(&row(4)).unwrap();
        assert_eq!(log.rows(), 2, "with the row whose hour has come goes the one whose day has come");
        assert_eq!(read(log.path(), &Fingerprint::default()).unwrap(), [row(3), row(4)].concat());
        log.next = 0;
        log.append(&row(5)).unwrap();
        assert_eq!(log.rows(), 3);
    }
}
