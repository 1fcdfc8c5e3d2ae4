//! Hidden folders for what is being written.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use tempfile::{Builder, TempDir};

pub(crate) use super::paths::behind_link;
use super::paths::{folder, is_still};
use crate::{Error, Result};

/// A hidden folder `.tasc-*.tmp` beside a file or folder that is being written, removed on drop. No other user may
/// enter it.
///
/// The file `.tasc-lock` in it is locked while the writer lives. So a hidden folder with a free lock is what a killed process
/// has left: the next one that is created beside it removes it.
#[derive(Debug)]
pub struct ScratchFolder {
    folder: TempDir,
    lock: File,
}

impl ScratchFolder {
    /// Creates a folder beside `target`.
    ///
    /// # Errors
    /// The folder of `target` cannot be written.
    pub fn beside(target: &Path) -> io::Result<Self> {
        let this = Self::locked(folder(target))?;
        this.clear_dead(|_| {});
        Ok(this)
    }

    /// Creates a folder beside `target`, unless another one lives that was created by this function for the same
    /// `target`. If two are created at the same moment, both may fail.
    ///
    /// # Errors
    /// [`Error::Written`] names the process of the other folder; [`Error::Io`].
    pub fn exclusive(target: &Path) -> Result<Self> {
        let failed = |source| Error::Io { path: target.into(), source };
        let mut this = Self::locked(folder(target)).map_err(failed)?;
        let name = target.file_name().unwrap_or_default().as_encoded_bytes();
        let note = [format!("{} ", std::process::id()).as_bytes(), name].concat();
        this.lock.write_all(&note).map_err(failed)?; // before looking for others: one of two sees the other
        let mut process = None;
        this.clear_dead(|other| {
            if let Some(blank) = other.iter().position(|&b| b == b' ').filter(|&at| &other[at + 1..] == name) {
                process = Some(String::from_utf8_lossy(&other[..blank]).into_owned());
            }
        });
        match process {
            Some(process) => Err(Error::Written { path: target.into(), process }),
            None => Ok(this),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Creates a folder in `parent` and locks it. Someone may take it for a leftover before it is locked; then another
    /// one is created. Where the file system has no locks, it stays unlocked, and nobody can take it for a leftover.
    fn locked(parent: &Path) -> io::Result<Self> {
        let mut builder = Builder::new();
        builder.prefix(PREFIX).suffix(SUFFIX);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        loop {
            let folder = builder.tempdir_in(parent)?;
            let path = folder.path().join(LOCK);
            let lock = match open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            if !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) && is_still(&path, &lock).unwrap_or(false) {
                return Ok(Self { folder, lock });
            }
        }
    }

    /// Removes the folders of dead processes of the same user beside this one, and calls `living` with the notes of the
    /// others. What cannot be looked at or removed stays.
    fn clear_dead(&self, mut living: impl FnMut(&[u8])) {
        let own = self.path();
        for path in std::fs::read_dir(folder(own)).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path == own || !is_scratch(&path) || !same_owner(&path, own) {
                continue;
            }
            let at = path.join(LOCK);
            let Ok(lock) = open(&at) else { continue };
            match lock.try_lock() {
                Ok(()) if is_still(&at, &lock).unwrap_or(false) => drop(std::fs::remove_dir_all(&path)),
                Err(TryLockError::WouldBlock) => {
                    let mut note = Vec::new();
                    if lock.take(4096).read_to_end(&mut note).is_ok() {
                        living(&note);
                    }
                }
                _ => {}
            }
        }
    }
}

const PREFIX: &str = ".tasc-";
const SUFFIX: &str = ".tmp";
const LOCK: &str = ".tasc-lock";

fn open(lock: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock)
}

fn is_scratch(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// Returns whether two paths are folders, not links, of the same user.
fn same_owner(one: &Path, other: &Path) -> bool {
    let (Ok(one), Ok(other)) = (one.symlink_metadata(), other.symlink_metadata()) else { return false };
    #[cfg(unix)]
    let same = std::os::unix::fs::MetadataExt::uid(&one) == std::os::unix::fs::MetadataExt::uid(&other);
    #[cfg(not(unix))]
    let same = true;
    same && one.is_dir() && other.is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_dead_writer_goes_and_those_of_living_ones_stay() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("task.tasc");
        let living = ScratchFolder::exclusive(&target).unwrap();
        std::fs::write(living.path().join("half"), "x").unwrap();
        for dead in [".tasc-dead.tmp", ".tasc-unlocked.tmp", "other.tmp"] {
            std::fs::create_dir(place.path().join(dead)).unwrap();
        }
        std::fs::write(place.path().join(".tasc-dead.tmp/.tasc-lock"), "1 task.tasc").unwrap();
        std::fs::write(place.path().join(".tasc-file.tmp"), "").unwrap(); // nobody makes such a file
        let message = ScratchFolder::exclusive(&target).unwrap_err().to_string();
        assert!(message.contains(&format!("is being written by process {}", std::process::id())), "{message}");
        drop(ScratchFolder::beside(&target).unwrap());
        drop(ScratchFolder::exclusive(&place.path().join("other")).unwrap());
        assert!(living.path().join("half").exists());
        drop(living);
        let left = std::fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, [".tasc-file.tmp", "other.tmp"]);
        drop(ScratchFolder::exclusive(&target).unwrap());
    }

    #[test]
    fn many_writers_at_once_never_remove_each_other() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("task.tasc");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let own = ScratchFolder::beside(&target).unwrap();
                        let file = own.path().join("file");
                        std::fs::write(&file, "x").unwrap();
                        assert!(file.exists());
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
