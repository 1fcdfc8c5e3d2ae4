//! Files that have no name until they are whole.

use std::fs::File;
use std::io;
use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem, Unsupported};
use std::path::{Path, PathBuf};

pub(crate) use super::paths::{folder, is_still, sync_folder};
use super::scratch::{ScratchFolder, behind_link};

/// A file on its way to a name in the same folder.
///
/// It takes the mode, and where allowed the owner, of the file that it replaces. A symbolic link stays, and leads to the
/// new file afterwards.
///
/// On Linux the file has no name at all before [`Temporary::persist`] (`O_TMPFILE`), so that a killed process leaves
/// nothing behind; elsewhere, and on file systems that lack this, it lies in a [`ScratchFolder`].
pub(crate) struct Temporary {
    pub(crate) file: File,
    scratch: Option<ScratchFolder>,
    target: PathBuf,
}

impl Temporary {
    /// Creates an empty file beside `path`, which it will be named.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let target = behind_link(path)?;
        match nameless(folder(&target)) {
            Ok(file) => Ok(Self { file, scratch: None, target }),
            Err(e) if matches!(e.kind(), NotFound | PermissionDenied | NotADirectory | ReadOnlyFilesystem) => Err(e),
            Err(_) => Self::in_scratch(target), // this file system has no nameless files
        }
    }

    fn in_scratch(target: PathBuf) -> io::Result<Self> {
        let scratch = ScratchFolder::beside(&target)?;
        let file = File::options().read(true).write(true).create_new(true).open(scratch.path().join(FILE))?;
        Ok(Self { file, scratch: Some(scratch), target })
    }

    /// Lets nobody but the owner read and write the file, unless it replaces one with another mode.
    pub(crate) fn private(self) -> io::Result<Self> {
        #[cfg(unix)]
        self.file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(self)
    }

    /// Makes the file durable and gives it its name, in place of a file that has the name.
    pub(crate) fn persist(self) -> io::Result<()> {
        take_access(&self.file, &self.target)?;
        self.file.sync_all()?;
        let scratch = match self.scratch {
            Some(scratch) => scratch,
            None => {
                let scratch = ScratchFolder::beside(&self.target)?;
                link(&self.file, &scratch.path().join(FILE))?;
                scratch
            }
        };
        std::fs::rename(scratch.path().join(FILE), &self.target)?;
        sync_folder(folder(&self.target))
    }

    /// Makes the file durable and gives it its name; `AlreadyExists` where another file has the name.
    pub(crate) fn persist_new(self) -> io::Result<()> {
        self.file.sync_all()?;
        match self.scratch {
            Some(scratch) => std::fs::hard_link(scratch.path().join(FILE), &self.target)?,
            None => link(&self.file, &self.target)?,
        }
        sync_folder(folder(&self.target))
    }
}

/// Name in a [`ScratchFolder`].
const FILE: &str = "file";

/// Gives a file the mode of another one, if that is there, and its owner and group where that is allowed. Where the
/// group cannot be given, the file's own group gets no access.
fn take_access(file: &File, of: &Path) -> io::Result<()> {
    let Ok(old) = std::fs::metadata(of) else { return Ok(()) };
    #[cfg_attr(not(unix), expect(unused_mut))]
    let mut access = old.permissions();
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        let given = fchown(file, Some(old.uid()), Some(old.gid())).or_else(|_| fchown(file, None, Some(old.gid())));
        if given.is_err() {
            access.set_mode(old.mode() & !0o070);
        }
    }
    file.set_permissions(access)
}

#[cfg(target_os = "linux")]
fn nameless(folder: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    if !Path::new("/proc/self/fd").exists() {
        return Err(Unsupported.into()); // `link` goes through it
    }
    let file = rustix::fs::open(folder, OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, Mode::from(0o666))?;
    Ok(file.into())
}

#[cfg(target_os = "linux")]
fn link(file: &File, name: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    use std::os::fd::AsRawFd;
    Ok(linkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn nameless(_: &Path) -> io::Result<File> {
    Err(Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn link(_: &File, _: &Path) -> io::Result<()> {
    Err(Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn files_without_a_name_and_files_in_a_scratch_folder_end_alike() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("task.tasc");
        for create in [|target: &Path| Temporary::create(target), |target: &Path| Temporary::in_scratch(target.into())]
        {
            let mut new = create(&target).unwrap();
            new.file.write_all(b"new").unwrap();
            new.persist_new().unwrap();
            assert_eq!(create(&target).unwrap().persist_new().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            let mut other = create(&target).unwrap().private().unwrap();
            other.file.write_all(b"other").unwrap();
            assert_eq!(std::fs::read(&target).unwrap(), b"new");
            other.persist().unwrap();
            assert_eq!(std::fs::read(&target).unwrap(), b"other");
            drop(create(&target).unwrap());
            assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
            std::fs::remove_file(&target).unwrap();
        }
    }
}
