//! Builds a store file from rows.

use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::store::{KIND, Notes, Store, StoreMeta, VERSION};
use crate::format::file::open_regular;
use crate::format::temporary::{folder, is_still};
use crate::format::{Fingerprint, Writer};
use crate::{Error, Result, TokenId};

/// Rows between two calls of `check`: well under a millisecond.
const CHECK_EVERY: usize = 1024;

/// Streams rows into a store. Tokens go straight to the (temporary) file, inputs to another one. Memory
/// holds about 100 bytes per distinct output and as many per distinct row.
///
/// Equal outputs become one document, equal rows one row. Equality is compared by 128-bit XXH3 digests.
pub struct StoreWriter {
    path: PathBuf,
    out: Writer,
    meta: StoreMeta,
    offsets: Vec<u64>,
    weights: Vec<u64>,
    documents: FxHashMap<u128, u32>,
    inputs: BufWriter<std::fs::File>,
    input_offsets: Vec<u64>,
    input_documents: Vec<u32>,
    input_weights: Vec<u64>,
    rows: FxHashMap<u128, u32>,
    /// Lock on a store that is being appended to.
    _lock: Option<std::fs::File>,
}

impl StoreWriter {
    /// Begins a new store; one that exists under this name is replaced by [`StoreWriter::finish`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(path: &Path, fingerprint: &Fingerprint, meta: StoreMeta) -> Result<Self> {
        let mut out = Writer::create(path, KIND, VERSION.0, VERSION.1, fingerprint)?;
        out.begin("tokens")?;
        let spill = tempfile::tempfile_in(folder(path)).map_err(|source| Error::Io { path: path.into(), source })?;
        Ok(Self {
            path: path.into(),
            out,
            meta,
            offsets: vec![0],
            weights: Vec::new(),
            documents: FxHashMap::default(),
            inputs: BufWriter::new(spill),
            input_offsets: vec![0],
            input_documents: Vec::new(),
            input_weights: Vec::new(),
            rows: FxHashMap::default(),
            _lock: None,
        })
    }

    /// Begins to append to the store of this name. The store is written anew beside the old one and takes its place
    /// whole, so that readers see all of the new rows or none. A second append, also from another process, waits until
    /// this one is finished or dropped. `check` is called repeatedly; its error ends the append.
    ///
    /// # Complexity
    /// O(store).
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`]; [`Error::Fingerprint`] when another tokenizer made it; what `check` returns.
    pub fn append(path: &Path, fingerprint: &Fingerprint, mut check: impl FnMut() -> Result<()>) -> Result<Self> {
        let lock = lock(path, &mut check)?;
        let old = Store::open(path)?;
        let found = old.file().fingerprint();
        if found != *fingerprint {
            return Err(Error::Fingerprint { path: path.into(), found, wanted: *fingerprint });
        }
        old.verify_with(&mut check)?; // damage must not be carried over under fresh checksums
        let meta = StoreMeta { writer: env!("CARGO_PKG_VERSION").into(), ..old.meta().clone() };
        let mut this = Self::create(path, fingerprint, meta)?;
        this._lock = Some(lock);
        for k in 0..old.num_documents() {
            this.document(old.document(k)?, old.weight(k)?)?;
            if k % CHECK_EVERY == 0 {
                check()?;
            }
        }
        for k in 0..old.num_inputs() {
            let input = old.input(k)?;
            this.row(input.text, input.document, input.weight)?;
            if k % CHECK_EVERY == 0 {
                check()?;
            }
        }
        Ok(this)
    }

    /// Replaces the notes that the store will hold.
    pub fn set_notes(&mut self, notes: Notes) {
        self.meta.notes = notes;
    }

    /// Adds a row that occurred `weight` times.
    ///
    /// # Errors
    /// [`Error::TokenId`] for an id that the vocabulary does not hold; [`Error::Io`].
    pub fn push(&mut self, output: &[TokenId], input: Option<&str>, weight: u64) -> Result<()> {
        self.push_numbered(output, input, weight).map(drop)
    }

    /// Adds a row as [`StoreWriter::push`] does, and returns the number of its document.
    pub(crate) fn push_numbered(&mut self, output: &[TokenId], input: Option<&str>, weight: u64) -> Result<u32> {
        let limit = if self.meta.vocab_size == 0 { TokenId::MAX } else { self.meta.vocab_size };
        if let Some(&id) = output.iter().find(|&&id| id >= limit) {
            return Err(Error::TokenId { id, limit });
        }
        let document = self.document(output, weight)?;
        if let Some(text) = input {
            self.row(text, document, weight)?;
        }
        Ok(document)
    }

    /// Adds a row whose output is a document that was added before.
    pub(crate) fn push_again(&mut self, document: u32, input: Option<&str>, weight: u64) -> Result<()> {
        let total = &mut self.weights[document as usize];
        *total = total.saturating_add(weight);
        input.map_or(Ok(()), |text| self.row(text, document, weight))
    }

    fn document(&mut self, output: &[TokenId], weight: u64) -> Result<u32> {
        let bytes: &[u8] = bytemuck::cast_slice(output);
        let fresh = next(&self.weights)?;
        let document = *self.documents.entry(xxh3_128(bytes)).or_insert(fresh);
        if document == fresh {
            self.out.write(bytes)?;
            self.offsets.push(self.offsets.last().copied().unwrap_or(0) + output.len() as u64);
            self.weights.push(0);
        }
        let total = &mut self.weights[document as usize];
        *total = total.saturating_add(weight);
        Ok(document)
    }

    fn row(&mut self, text: &str, document: u32, weight: u64) -> Result<()> {
        let mut digest = Xxh3::new();
        digest.update(&document.to_le_bytes());
        digest.update(text.as_bytes());
        let fresh = next(&self.input_weights)?;
        let row = *self.rows.entry(digest.digest128()).or_insert(fresh);
        if row == fresh {
            let written = self.inputs.write_all(text.as_bytes());
            written.map_err(|source| Error::Io { path: self.path.clone(), source })?;
            self.input_offsets.push(self.input_offsets.last().copied().unwrap_or(0) + text.len() as u64);
            self.input_documents.push(document);
            self.input_weights.push(0);
        }
        let total = &mut self.input_weights[row as usize];
        *total = total.saturating_add(weight);
        Ok(())
    }

    /// Number of distinct outputs so far.
    #[must_use]
    pub fn num_documents(&self) -> usize {
        self.weights.len()
    }

    /// Writes the rest and gives the file its name.
    ///
    /// # Errors
    /// [`Error::EmptyCorpus`] without rows; [`Error::Io`]. Nothing is left behind then.
    pub fn finish(self) -> Result<()> {
        let Self { path, mut out, meta, inputs, _lock, .. } = self;
        if self.weights.is_empty() {
            return Err(Error::EmptyCorpus);
        }
        let failed = |source| Error::Io { path: path.clone(), source };
        out.section("offsets", &self.offsets)?;
        out.section("weights", &self.weights)?;
        out.begin("inputs")?;
        let mut spill = inputs.into_inner().map_err(|e| failed(e.into_error()))?;
        spill.rewind().map_err(failed)?;
        let mut spill = BufReader::new(spill);
        let mut chunk = vec![0; 1 << 16];
        loop {
            let read = spill.read(&mut chunk).map_err(failed)?;
            if read == 0 {
                break;
            }
            out.write(&chunk[..read])?;
        }
        out.section("input_offsets", &self.input_offsets)?;
        out.section("input_documents", &self.input_documents)?;
        out.section("input_weights", &self.input_weights)?;
        out.meta(&meta)?;
        out.finish()
    }
}

/// Returns the index of the next element.
fn next(elements: &[u64]) -> Result<u32> {
    let positions = elements.len();
    u32::try_from(positions).map_err(|_| Error::IndexTooLarge { positions, limit: u32::MAX as usize })
}

/// Waits until no other process appends to the store of this name. After a signal `check` decides whether to go on.
fn lock(path: &Path, mut check: impl FnMut() -> Result<()>) -> Result<std::fs::File> {
    let failed = |source| Error::Io { path: path.into(), source };
    loop {
        let (file, _) = open_regular(path)?;
        match file.lock() {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => check()?,
            locked => {
                locked.map_err(failed)?;
                if is_still(path, &file).map_err(failed)? {
                    return Ok(file);
                }
            }
        }
    }
}
