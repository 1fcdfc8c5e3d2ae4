//! Writing a container.

use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use bytemuck::{Pod, Zeroable};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use super::temporary::Temporary;
use super::{ALIGNMENT, Entry, Fingerprint, HEADER_BYTES, Header, Kind, MAGIC, MAX_SECTIONS, NAME_BYTES, checksum};
use crate::{Error, Result};

/// Writes a file section by section. Nothing appears under its name before [`Writer::finish`]; a writer that is
/// dropped leaves nothing behind.
pub struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
    temporary: Temporary,
    header: Header,
    table: Vec<Entry>,
    at: u64,
    hash: Option<Xxh3>,
}

impl Writer {
    /// Begins a file of this kind and version in the folder of `path`.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be written.
    pub fn create(path: &Path, kind: Kind, major: u16, minor: u16, fingerprint: &Fingerprint) -> Result<Self> {
        let failed = |source| Error::Io { path: path.into(), source };
        let temporary = Temporary::create(path).map_err(failed)?;
        let out = temporary.file.try_clone().map_err(failed)?;
        let header =
            Header { magic: MAGIC, kind: kind.0, major, minor, fingerprint: fingerprint.0, ..Header::zeroed() };
        let mut this = Self {
            path: path.into(),
            out: BufWriter::with_capacity(1 << 18, out),
            temporary,
            header,
            table: Vec::new(),
            at: 0,
            hash: None,
        };
        this.put(&[0; HEADER_BYTES])?;
        Ok(this)
    }

    /// Begins a section; the bytes that follow belong to it.
    ///
    /// # Errors
    /// [`Error::Section`] for a name that is empty, too long or taken, or too many sections.
    pub fn begin(&mut self, name: &str) -> Result<()> {
        self.end();
        let mut stored = [0; NAME_BYTES];
        let refuse = |why: String| Err(Error::Section { name: name.into(), why });
        if name.is_empty() || name.len() > NAME_BYTES {
            return refuse(format!("names have 1 to {NAME_BYTES} bytes"));
        }
        stored[..name.len()].copy_from_slice(name.as_bytes());
        if self.table.iter().any(|e| e.name == stored) {
            return refuse("the file has a section of that name".into());
        }
        if self.table.len() as u64 >= u64::from(MAX_SECTIONS) {
            return refuse(format!("a file has at most {MAX_SECTIONS} sections"));
        }
        self.align()?;
        self.table.push(Entry { name: stored, offset: self.at, bytes: 0, checksum: 0 });
        self.hash = Some(Xxh3::new());
        Ok(())
    }

    /// Appends to the section begun last.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Section`] before the first section.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(hash) = &mut self.hash else {
            return Err(Error::Section { name: String::new(), why: "no section was begun".into() });
        };
        hash.update(bytes);
        self.put(bytes)
    }

    /// Writes a whole section.
    ///
    /// # Errors
    /// As [`Writer::begin`] and [`Writer::write`].
    pub fn section<T: Pod>(&mut self, name: &str, data: &[T]) -> Result<()> {
        self.begin(name)?;
        self.write(bytemuck::cast_slice(data))
    }

    /// Writes the section `meta`, JSON.
    ///
    /// # Errors
    /// As [`Writer::section`].
    pub fn meta(&mut self, meta: &impl Serialize) -> Result<()> {
        let json = serde_json::to_vec(meta).map_err(|e| Error::Io { path: self.path.clone(), source: e.into() })?;
        self.section("meta", &json)
    }

    /// Writes table and header, makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`Error::Io`]; the temporary file is removed then.
    pub fn finish(mut self) -> Result<()> {
        self.end();
        self.align()?;
        let table: Vec<u8> = bytemuck::cast_slice(&self.table).to_vec();
        self.header.table_offset = self.at;
        self.header.sections = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
        self.header.file_bytes = self.at + table.len() as u64;
        self.header.checksum = checksum(&self.header, &table);
        self.put(&table)?;
        let Self { path, out, temporary, header, .. } = self;
        let failed = |source| Error::Io { path: path.clone(), source };
        let mut file = out.into_inner().map_err(|e| failed(e.into_error()))?;
        file.rewind().map_err(failed)?;
        file.write_all(bytemuck::bytes_of(&header)).map_err(failed)?;
        temporary.persist().map_err(failed)
    }

    fn end(&mut self) {
        if let (Some(hash), Some(entry)) = (self.hash.take(), self.table.last_mut()) {
            entry.bytes = self.at - entry.offset;
            entry.checksum = hash.digest();
        }
    }

    fn align(&mut self) -> Result<()> {
        let past = usize::try_from(self.at % ALIGNMENT as u64).unwrap_or(0);
        if past > 0 { self.put(&[0; ALIGNMENT][past..]) } else { Ok(()) }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|source| Error::Io { path: self.path.clone(), source })
    }
}
