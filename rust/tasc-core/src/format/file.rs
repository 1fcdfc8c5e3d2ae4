//! Reading a container.

use std::io::Read;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::Pod;
use memmap2::{Mmap, MmapMut};
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::Xxh3;

use super::{ALIGNMENT, Entry, Fingerprint, HEADER_BYTES, Header, Kind, MAGIC, MAX_SECTIONS, checksum};
use crate::error::Fault;
use crate::{Error, Result};

/// Bytes that are hashed between two calls of `check`.
const HASHED_AT_ONCE: usize = 1 << 24;

/// An open container: header and table are checked, contents are not (see [`File::verify`]).
#[derive(Clone, Debug)]
pub struct File {
    bytes: Bytes,
    path: PathBuf,
    header: Header,
    table: Arc<[Entry]>,
    in_memory: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Bytes {
    Mapped(Arc<Mmap>),
    Owned(Arc<[u64]>, usize),
}

impl Default for Bytes {
    fn default() -> Self {
        Self::Owned(Arc::default(), 0)
    }
}

/// Range of a section's elements in the file. It is found once, so that reading needs no look-up.
#[derive(Clone, Debug)]
pub struct Section<T> {
    bytes: Range<usize>,
    of: PhantomData<fn() -> T>,
}

impl<T> Default for Section<T> {
    fn default() -> Self {
        Self { bytes: 0..0, of: PhantomData }
    }
}

impl<T: Pod> Section<T> {
    /// Returns the elements.
    #[must_use]
    pub fn get<'a>(&self, file: &'a File) -> &'a [T] {
        self.within(file.bytes())
    }

    /// Returns the elements in the bytes of the section's file.
    pub(super) fn within<'a>(&self, bytes: &'a [u8]) -> &'a [T] {
        bytes.get(self.bytes.clone()).and_then(|b| bytemuck::try_cast_slice(b).ok()).unwrap_or(&[])
    }
}

impl File {
    /// Maps a file of this kind and major version.
    ///
    /// The file must not be changed in place while it is open (tasc itself only ever renames whole files): a process that
    /// reads a part which is cut off meanwhile is ended by the system.
    ///
    /// # Complexity
    /// O(sections).
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] when it is not such a file, is cut short, or its header or table is damaged.
    pub fn open(path: &Path, kind: Kind, major: u16) -> Result<Self> {
        Self::open_within(path, kind, major, 0)
    }

    /// Opens a file as [`File::open`] does; one of at most `memory` bytes is read into memory and verified. What happens to
    /// it afterwards is of no account.
    ///
    /// # Complexity
    /// O(sections); O(file) where it is read.
    ///
    /// # Errors
    /// As [`File::open`]; [`Error::Format`] also where a file that is read does not match its checksums, as one that is
    /// being written.
    pub fn open_within(path: &Path, kind: Kind, major: u16, memory: u64) -> Result<Self> {
        let failed = |source| Error::Io { path: path.into(), source };
        let (mut file, length) = open_regular(path)?;
        if length == 0 {
            return Err(Error::Format { path: path.into(), fault: Fault::Empty });
        }
        let in_memory = length <= memory;
        let map = if in_memory {
            read(&mut file, length)
        } else {
            // SAFETY: contents are never trusted (every read is checked), and files are replaced by renaming only.
            unsafe { Mmap::map(&file) }
        };
        let map = map.map_err(failed)?;
        // random reads are faster in large pages; without them reading works as well
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let opened = Self::parse(Bytes::Mapped(Arc::new(map)), path.into(), kind, major)?;
        if in_memory {
            opened.verify()?;
        }
        Ok(Self { in_memory, ..opened })
    }

    /// Opens a container in memory.
    ///
    /// # Errors
    /// As [`File::open`].
    pub fn from_bytes(bytes: &[u8], kind: Kind, major: u16) -> Result<Self> {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self::parse(Bytes::Owned(words.into(), bytes.len()), PathBuf::from("<memory>"), kind, major)
    }

    fn parse(bytes: Bytes, path: PathBuf, kind: Kind, major: u16) -> Result<Self> {
        let refuse = |fault| Error::Format { path: path.clone(), fault };
        let data = bytes.get();
        let (found, expected) = (data.len(), HEADER_BYTES);
        let head = data.get(..HEADER_BYTES).ok_or_else(|| refuse(Fault::Header { found, expected }))?;
        let header: Header = bytemuck::pod_read_unaligned(head);
        if header.magic != MAGIC {
            return Err(refuse(Fault::Magic));
        }
        if header.kind != kind.0 {
            return Err(refuse(Fault::Kind { found: header.kind, expected: kind.0 }));
        }
        if header.major != major {
            let found = (header.major, header.minor);
            return Err(refuse(Fault::Version { found, expected: major, fix: kind.command() }));
        }
        if header.file_bytes != data.len() as u64 {
            return Err(refuse(Fault::Length { found: data.len() as u64, expected: header.file_bytes }));
        }
        if header.sections > MAX_SECTIONS {
            return Err(refuse(Fault::Sections { found: header.sections, limit: MAX_SECTIONS }));
        }
        let table = usize::try_from(header.table_offset).ok().and_then(|start| {
            let end = start.checked_add(header.sections as usize * size_of::<Entry>())?;
            data.get(start..end)
        });
        let table = table.ok_or_else(|| refuse(Fault::Table))?;
        if checksum(&header, table) != header.checksum {
            return Err(refuse(Fault::Checksum { part: "header or section table" }));
        }
        let table: Arc<[Entry]> = table.chunks_exact(size_of::<Entry>()).map(bytemuck::pod_read_unaligned).collect();
        let file = Self { bytes, path, header, table, in_memory: true };
        file.check_places()?;
        Ok(file)
    }

    /// Checks that every section lies inside the file, and that nothing but alignment lies between them.
    fn check_places(&self) -> Result<()> {
        let mut expected = aligned(HEADER_BYTES as u64);
        for entry in self.table.iter() {
            let range = self.range(entry)?;
            self.check_place(name(entry), entry.offset, expected)?;
            expected = aligned(range.end as u64);
        }
        self.check_place("section table".into(), self.header.table_offset, expected)
    }

    fn check_place(&self, section: String, found: u64, expected: u64) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(Error::Format { path: self.path.clone(), fault: Fault::Gap { section, found, expected } })
    }

    /// Returns all bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get()
    }

    /// Returns all bytes; the result keeps them alive.
    pub(super) fn shared(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Path that the file was opened at.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its bytes are in memory, where no change of the file reaches them.
    #[must_use]
    pub fn in_memory(&self) -> bool {
        self.in_memory
    }

    /// Identity of the tokenizer that made it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.header.fingerprint)
    }

    /// Format version: (major, minor).
    #[must_use]
    pub fn version(&self) -> (u16, u16) {
        (self.header.major, self.header.minor)
    }

    /// Names and sizes in bytes of the sections, in file order.
    pub fn sections(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.table.iter().map(|e| (name(e), e.bytes))
    }

    /// Finds a section.
    ///
    /// # Errors
    /// [`Error::Format`] when it is missing or does not hold whole, aligned elements.
    pub fn section<T: Pod>(&self, wanted: &str) -> Result<Section<T>> {
        let entry = self.table.iter().find(|e| name(e) == wanted);
        let entry = entry.ok_or_else(|| self.corrupt(wanted, "the section is missing"))?;
        let bytes = self.range(entry)?;
        let section = Section { bytes: bytes.clone(), of: PhantomData };
        if self.bytes().get(bytes).is_none_or(|b| bytemuck::try_cast_slice::<_, T>(b).is_err()) {
            let why = format!("{} bytes at {} are not whole elements of {}", entry.bytes, entry.offset, size_of::<T>());
            return Err(self.corrupt(wanted, &why));
        }
        Ok(section)
    }

    /// Reads the section `meta`, JSON.
    ///
    /// # Errors
    /// [`Error::Format`] when it is missing or does not describe a `T`.
    pub fn meta<T: DeserializeOwned>(&self) -> Result<T> {
        let found = serde_json::from_slice(self.section::<u8>("meta")?.get(self));
        found.map_err(|e| self.corrupt("meta", &e.to_string()))
    }

    fn range(&self, entry: &Entry) -> Result<Range<usize>> {
        let place = usize::try_from(entry.offset).ok().zip(usize::try_from(entry.bytes).ok());
        let range = place.and_then(|(start, len)| Some(start..start.checked_add(len)?));
        let inside = range.filter(|r| r.end <= self.bytes().len());
        inside.ok_or_else(|| self.corrupt(&name(entry), "it lies outside the file"))
    }

    /// Reads everything and compares the checksums.
    ///
    /// # Complexity
    /// O(file).
    ///
    /// # Errors
    /// [`Error::Format`] naming the first damaged section.
    pub fn verify(&self) -> Result<()> {
        self.verify_with(|| Ok(()))
    }

    /// Verifies as [`File::verify`] does. `check` is called repeatedly; its error ends the work.
    ///
    /// # Errors
    /// As [`File::verify`]; what `check` returns.
    pub fn verify_with(&self, mut check: impl FnMut() -> Result<()>) -> Result<()> {
        for entry in self.table.iter() {
            let mut hash = Xxh3::new();
            for part in self.bytes().get(self.range(entry)?).unwrap_or(&[]).chunks(HASHED_AT_ONCE) {
                check()?;
                hash.update(part);
            }
            if hash.digest() != entry.checksum {
                return Err(self.corrupt(&name(entry), "its bytes do not match their checksum"));
            }
        }
        Ok(())
    }

    /// Makes an error about one section of this file.
    #[must_use]
    pub fn corrupt(&self, section: &str, why: &str) -> Error {
        let fault = Fault::Section { section: section.into(), why: why.into() };
        Error::Format { path: self.path.clone(), fault }
    }
}

impl Bytes {
    pub(super) fn get(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(words, len) => &bytemuck::cast_slice(words)[..*len],
        }
    }
}

/// Reads a file of a length into memory, not by the allocator: it could not give the memory back, nor use large pages.
fn read(file: &mut std::fs::File, length: u64) -> std::io::Result<Mmap> {
    let mut memory = MmapMut::map_anon(usize::try_from(length).map_err(std::io::Error::other)?)?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    file.read_exact(&mut memory)?;
    memory.make_read_only()
}

/// Opens a file to read, and returns its length. What is no file is refused: opening a pipe would wait for its writer.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a folder, a pipe or a device.
pub(crate) fn open_regular(path: &Path) -> Result<(std::fs::File, u64)> {
    let mut options = std::fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let file = options.read(true).open(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let length = regular_length(path, &file)?;
    Ok((file, length))
}

/// Returns the length of an open file, as [`open_regular`] does.
pub(crate) fn regular_length(path: &Path, file: &std::fs::File) -> Result<u64> {
    let found = file.metadata().map_err(|source| Error::Io { path: path.into(), source })?;
    if found.is_file() { Ok(found.len()) } else { Err(Error::Format { path: path.into(), fault: Fault::NoFile }) }
}

/// Rounds `end` up to an offset at which a section can begin.
fn aligned(end: u64) -> u64 {
    end.next_multiple_of(ALIGNMENT as u64)
}

fn name(entry: &Entry) -> String {
    let len = entry.name.iter().position(|&b| b == 0).unwrap_or(entry.name.len());
    String::from_utf8_lossy(&entry.name[..len]).into_owned()
}
