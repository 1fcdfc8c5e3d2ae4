//! A log of served rows: what a request asked and what the target said, kept durably until an index takes it in.
//!
//! It lies beside an index: `task.tasc` has `task.tasc.served`. One process writes, any number read.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::record::{HEADER_BYTES, Records, check_header, encode, header};
use super::writer::is_still;
use crate::format::temporary::{Temporary, folder, sync_folder};
use crate::format::{Fingerprint, Kind};
use crate::{Error, Result, TokenId};

/// Kind of a log of served rows.
pub const KIND: Kind = Kind(*b"SERV");

/// Version of the records written here; a reader takes any minor of its major.
pub const VERSION: (u16, u16) = (1, 0);

/// Most bytes of one row: 4, its input, and 4 for each id of its output.
pub const MAX_ROW_BYTES: u32 = 16 << 20;

/// Most bytes of a log unless told otherwise.
pub const LOG_BYTES: u64 = 256 << 20;

/// A row that was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedRow {
    /// What was asked.
    pub input: String,
    /// What the target said, with the end token.
    pub output: Vec<TokenId>,
}

/// An open log, writing. It holds an exclusive advisory lock, released when it is dropped or its process ends.
#[derive(Debug)]
pub struct ServedLog {
    path: PathBuf,
    file: File,
    fingerprint: Fingerprint,
    rows: u64,
    bytes: u64,
    limit: u64,
    /// Something failed and could not be taken back: the file may not be what the fields above say.
    broken: bool,
    /// Who opened it: a forked child shares the lock and must not write beside its parent.
    process: u32,
}

impl ServedLog {
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
    pub fn open(path: &Path, fingerprint: &Fingerprint) -> Result<(Self, Vec<ServedRow>)> {
        let mut rows = Vec::new();
        Ok((Self::open_each(path, fingerprint, |row| rows.push(row))?, rows))
    }

    /// The same; `each` is given the rows one after the other, the oldest first.
    ///
    /// # Errors
    /// As [`ServedLog::open`]; some rows may have been given then.
    pub fn open_each(path: &Path, fingerprint: &Fingerprint, each: impl FnMut(ServedRow)) -> Result<Self> {
        let failed = |source| Error::Io { path: path.into(), source };
        let mut file = lock(path, fingerprint)?;
        let length = file.metadata().map_err(failed)?.len();
        let (rows, mut bytes) = scan(path, &file, length, fingerprint, each)?;
        if bytes == 0 {
            let fresh = Fresh::create(path, fingerprint).map_err(failed)?;
            fresh.temporary.persist(path).map_err(failed)?;
            (file, bytes) = (fresh.file, HEADER_BYTES as u64);
        } else if bytes < length {
            file.set_len(bytes).map_err(failed)?;
        }
        sync_folder(folder(path)).map_err(failed)?; // who created it may have been killed before doing so
        let (path, fingerprint, process) = (path.into(), *fingerprint, std::process::id());
        Ok(Self { path, file, fingerprint, rows, bytes, limit: LOG_BYTES, broken: false, process })
    }

    /// The same log with room for `limit` bytes ([`LOG_BYTES`] otherwise). One that has more loses its oldest rows when
    /// the next row is appended.
    #[must_use]
    pub fn bounded(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// Appends rows with one write and returns when they are on disk. After an error the file is put back to the
    /// length it had; where even that fails, the log takes no more rows and is to be opened again.
    ///
    /// Where they do not fit, the log is written anew, as [`ServedLog::forget`] does: its latest rows, half of what it
    /// may hold, and these. Of rows that do not fit all together, the later ones are written.
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
    pub fn append(&mut self, rows: &[ServedRow]) -> Result<()> {
        self.check_owner()?;
        if self.broken {
            let why = "an earlier write failed and could not be taken back; open the log again";
            return Err(self.failed(io::Error::other(why)));
        }
        let (bytes, rows) = self.encoded(rows)?;
        if rows == 0 {
            return Ok(());
        }
        if self.bytes + bytes.len() as u64 > self.limit {
            let kept = self.kept_beside(bytes.len() as u64)?;
            self.replace(kept, &bytes)?;
        } else {
            self.extend(&bytes)?;
        }
        self.rows += rows;
        Ok(())
    }

    /// The records of rows, the latest that fit the log, and how many these are.
    fn encoded(&self, rows: &[ServedRow]) -> Result<(Vec<u8>, u64)> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX).saturating_sub(HEADER_BYTES);
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for row in rows {
            starts.push(bytes.len());
            encode(row, &mut bytes)?;
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

    /// The place from which rows are kept where `needed` more bytes do not fit.
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

    /// Drops the first `taken` rows, after an index has taken them in; later ones stay. The rest is written anew and
    /// takes the place of the log whole: whoever reads it, or finds it after a crash, sees all of `taken` or none.
    ///
    /// # Complexity
    /// O(log).
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when there are fewer rows; [`Error::Format`] when a row was damaged since it was written;
    /// [`Error::Io`]; [`Error::Locked`] as [`ServedLog::append`].
    pub fn forget(&mut self, taken: u64) -> Result<()> {
        self.check_owner()?;
        if taken > self.rows {
            let number = |n| usize::try_from(n).unwrap_or(usize::MAX);
            return Err(Error::OutOfRange { what: "served row", index: number(taken), limit: number(self.rows) });
        }
        let kept = self.place(|rows, _| rows == taken)?;
        self.replace(kept, &[])
    }

    /// Puts a fresh log in place of this one: the rows from a place on, and `more` records, which the caller counts.
    fn replace(&mut self, (dropped, rest): (u64, u64), more: &[u8]) -> Result<()> {
        let fresh = self.copy_from(rest, more).map_err(|e| self.failed(e))?;
        if let Err(source) = fresh.temporary.persist(&self.path) {
            self.broken |= !is_still(&self.path, &self.file).unwrap_or(false); // renamed, perhaps not durably
            return Err(self.failed(source)); // all else is as it was, so that forgetting can be tried again
        }
        self.file = fresh.file;
        self.rows -= dropped;
        self.bytes = self.bytes - rest + HEADER_BYTES as u64 + more.len() as u64;
        self.broken = false;
        Ok(())
    }

    /// The first place between rows (how many stand before it, where it is in the file) that is as wanted, else the
    /// end; once all rows were found whole.
    fn place(&mut self, wanted: impl Fn(u64, u64) -> bool) -> Result<(u64, u64)> {
        let start = HEADER_BYTES as u64;
        self.file.seek(SeekFrom::Start(start)).map_err(|e| self.failed(e))?;
        let mut records = Records::new(BufReader::new(&self.file), self.bytes);
        let (mut seen, mut at) = (0, start);
        let mut found = wanted(seen, at).then_some((seen, at));
        while let Some(read) = records.next() {
            read.map_err(|e| self.failed(e))?;
            (seen, at) = (seen + 1, records.at);
            found = found.or_else(|| wanted(seen, at).then_some((seen, at)));
        }
        if seen != self.rows {
            let why = format!("row {seen} of {} was damaged since it was written; open the log again", self.rows);
            return Err(Error::Format { path: self.path.clone(), why });
        }
        Ok(found.unwrap_or((seen, at)))
    }

    /// A fresh log with the bytes from `offset` on, and `more`.
    fn copy_from(&mut self, offset: u64, more: &[u8]) -> io::Result<Fresh> {
        let mut fresh = Fresh::create(&self.path, &self.fingerprint)?;
        self.file.seek(SeekFrom::Start(offset))?;
        let left = self.bytes - offset;
        if io::copy(&mut (&self.file).take(left), &mut fresh.file)? != left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        fresh.file.write_all(more)?;
        Ok(fresh)
    }

    /// Number of rows.
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

/// The whole rows of a log, up to the first torn one; nothing is locked or changed, so that one can read beside the
/// process that writes. Rows that are being appended may be seen before they are durable.
///
/// # Complexity
/// O(log).
///
/// # Errors
/// As [`ServedLog::open`], less the lock; [`Error::Io`] also when there is no such file.
pub fn read(path: &Path, fingerprint: &Fingerprint) -> Result<Vec<ServedRow>> {
    let failed = |source| Error::Io { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut rows = Vec::new();
    scan(path, file, length, fingerprint, |row| rows.push(row))?;
    Ok(rows)
}

/// The same over bytes in memory.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(bytes: &[u8], fingerprint: &Fingerprint) -> Result<Vec<ServedRow>> {
    let mut rows = Vec::new();
    scan(Path::new("<memory>"), bytes, bytes.len() as u64, fingerprint, |row| rows.push(row))?;
    Ok(rows)
}

/// Number of whole rows, each given to `each`, and the length of the file up to their end: 0 without a whole header.
fn scan(
    path: &Path,
    from: impl Read,
    length: u64,
    fingerprint: &Fingerprint,
    mut each: impl FnMut(ServedRow),
) -> Result<(u64, u64)> {
    let failed = |source| Error::Io { path: path.into(), source };
    let mut from = BufReader::new(from);
    let mut head = Vec::with_capacity(HEADER_BYTES);
    from.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut head).map_err(failed)?;
    if !check_header(path, &head, fingerprint)? {
        return Ok((0, 0));
    }
    let (mut records, mut rows) = (Records::new(from, length), 0);
    for read in records.by_ref() {
        each(read.map_err(failed)?);
        rows += 1;
    }
    Ok((rows, records.at))
}

/// The file of this name, locked; created when there is none.
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
    match Fresh::create(path, fingerprint)?.temporary.persist_new(path) {
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
    fn create(path: &Path, fingerprint: &Fingerprint) -> io::Result<Self> {
        let temporary = Temporary::create(folder(path))?;
        let mut file = temporary.file.try_clone()?;
        file.try_lock()?;
        file.write_all(&header(fingerprint))?;
        Ok(Self { temporary, file })
    }
}

/// What no test from outside can bring about.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_cannot_be_taken_back_stops_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let row = [ServedRow { input: "a".into(), output: vec![1] }];
        let (mut log, _) = ServedLog::open(&path, &Fingerprint::default()).unwrap();
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
}
