//! N-grams of one length on their way to disk: sorted runs of pages in a file without a name.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::page::{PAGE_BYTES, Page, PageWriter};
use crate::format::temporary::folder;
use crate::{Error, Result, TokenId};

/// Minimum that an n-gram must reach to be in a table. Zero and one leave nothing out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minimum {
    /// Least weighted count.
    pub count: u64,
    /// Least number of documents that hold it.
    pub documents: u64,
}

/// Sorted runs in a file without a name beside the file that is to be written. The runs are gone when this is dropped,
/// or with the process.
pub(crate) struct Spool {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    capacity: usize,
    writer: PageWriter,
    minimum: Minimum,
    /// Pages written so far.
    pages: u64,
    /// N-grams of the run begun last.
    grams: u64,
    runs: Vec<Range<u64>>,
}

impl Spool {
    /// Creates a spool beside `path`, for n-grams of one length that reach a minimum, with a buffer of `buffer` pages.
    pub(crate) fn create(path: &Path, length: usize, minimum: Minimum, buffer: usize) -> Result<Self> {
        let file = tempfile::tempfile_in(folder(path)).map_err(|source| Error::Io { path: path.into(), source })?;
        let capacity = buffer.max(1) * PAGE_BYTES;
        Ok(Self {
            path: path.into(),
            file,
            buffer: Vec::new(),
            capacity,
            writer: PageWriter::new(length),
            minimum,
            pages: 0,
            grams: 0,
            runs: Vec::new(),
        })
    }

    /// Adds an n-gram greater than the one before it in its run.
    pub(crate) fn push(&mut self, ids: &[TokenId], count: u64, documents: u64) -> Result<()> {
        if count < self.minimum.count || documents < self.minimum.documents {
            return Ok(());
        }
        self.grams += 1;
        let Self { writer, buffer, file, path, capacity, .. } = self;
        writer.push(ids, count, documents, |page| put(path, file, buffer, *capacity, page))
    }

    /// Ends a run and returns how many n-grams it has.
    pub(crate) fn end_run(&mut self) -> Result<u64> {
        let Self { writer, buffer, file, path, capacity, .. } = self;
        writer.flush(|page| put(path, file, buffer, *capacity, page))?;
        file.write_all(buffer).map_err(|source| Error::Io { path: path.clone(), source })?;
        *buffer = Vec::new(); // this may have been the last run
        let bytes = file.stream_position().map_err(|source| Error::Io { path: path.clone(), source })?;
        let end = bytes / PAGE_BYTES as u64;
        self.runs.push(self.pages..end);
        self.pages = end;
        Ok(std::mem::take(&mut self.grams))
    }

    /// Returns the range of pages of each run.
    pub(crate) fn runs(&self) -> &[Range<u64>] {
        &self.runs
    }

    /// Reads pages of ended runs.
    pub(crate) fn read(&self, first: u64, pages: &mut [Page]) -> Result<()> {
        let failed = |source| Error::Io { path: self.path.clone(), source };
        let mut file = &self.file;
        file.seek(SeekFrom::Start(first * PAGE_BYTES as u64)).map_err(failed)?;
        file.read_exact(pages.as_flattened_mut()).map_err(failed)
    }

    /// Path of the file that is to be written.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn put(path: &Path, file: &mut File, buffer: &mut Vec<u8>, capacity: usize, page: &Page) -> Result<()> {
    if buffer.len() + PAGE_BYTES > capacity {
        file.write_all(buffer).map_err(|source| Error::Io { path: path.into(), source })?;
        buffer.clear();
    }
    buffer.reserve_exact(capacity - buffer.len());
    buffer.extend_from_slice(page);
    Ok(())
}
