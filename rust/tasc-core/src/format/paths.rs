//! Names of files, and what they name.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Returns whether `path` still names the open file: another process may have renamed another file over it.
pub(crate) fn is_still(path: &Path, file: &File) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (named, open) = (std::fs::metadata(path)?, file.metadata()?);
        Ok(named.ino() == open.ino() && named.dev() == open.dev())
    }
    #[cfg(not(unix))]
    Ok(true)
}

/// Makes the names in a folder durable: a rename itself must survive a crash.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Returns the folder that holds `path`.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the path to write a file at: the one that a symbolic link leads to, and any other path as it is.
///
/// # Errors
/// The link leads nowhere, or a pipe or a device is there, which a new file would replace.
pub(crate) fn behind_link(path: &Path) -> io::Result<PathBuf> {
    let target = if path.is_symlink() { path.canonicalize()? } else { path.into() };
    match std::fs::metadata(&target) {
        Ok(found) if !found.is_file() && !found.is_dir() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe or a device; name a file"))
        }
        _ => Ok(target),
    }
}
