//! The index of a task as a file: written once, opened by mmap in constant time.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::build::{NgramsBuilder, OwnedNgrams};
use super::ngrams::Ngrams;
use crate::corpus::Store;
use crate::format::{File, Fingerprint, Kind, Section, Writer};
use crate::{Error, Result};

/// Kind of an index file.
pub const KIND: Kind = Kind(*b"INDX");

/// Version of the sections written here; a reader takes any minor of its major.
pub const VERSION: (u16, u16) = (1, 0);

/// What an index file says of itself (section `meta`, JSON).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// Version of tasc that wrote it.
    pub writer: String,
    /// Name of the tokenizer, for people; the fingerprint is what counts.
    pub tokenizer: String,
    /// Ids are below this.
    pub vocab_size: u32,
    /// The token that ends every output, if one was appended.
    pub eos_id: Option<u32>,
    /// Distinct outputs.
    pub documents: u64,
    /// Outputs, repeated ones counted.
    pub weight: u64,
    /// Tokens of the distinct outputs.
    pub tokens: u64,
}

/// An open index file. Cheap to share between threads; processes share its pages.
#[derive(Clone, Debug)]
pub struct TaskIndex {
    file: File,
    meta: Meta,
    tokens: Section<u32>,
    starts: Section<u32>,
    next: Section<u32>,
    step: Section<u32>,
    back: Section<u32>,
    weights: Section<u8>,
    weight_sums: Section<u64>,
    heavy_at: Section<u32>,
    heavy: Section<u64>,
    records: Section<u32>,
    slots: Section<u32>,
}

impl TaskIndex {
    /// Builds the index of a store's outputs, writes it and opens it. `check` hears of the progress (0 to 1) between
    /// phases; its error stops the build and nothing is written.
    ///
    /// # Complexity
    /// O(tokens); about 28 bytes of memory per token.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::IndexTooLarge`]; what `check` returns.
    pub fn build(store: &Store, path: &Path, check: impl FnMut(f64) -> Result<()>) -> Result<Self> {
        let mut builder = NgramsBuilder::new();
        let made = store.meta();
        let mut meta = Meta {
            writer: env!("CARGO_PKG_VERSION").into(),
            tokenizer: made.tokenizer.clone(),
            vocab_size: made.vocab_size,
            eos_id: made.eos_id,
            ..Meta::default()
        };
        for k in 0..store.num_documents() {
            let (document, weight) = (store.document(k)?, store.weight(k)?);
            builder.push(document, weight)?;
            meta.documents += 1;
            meta.weight = meta.weight.saturating_add(weight);
            meta.tokens += document.len() as u64;
        }
        let ngrams = builder.build(check)?;
        Self::write(path, &store.file().fingerprint(), &meta, &ngrams)?;
        Self::open(path)
    }

    /// Writes an index file: to a sibling temporary file, then renamed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(path: &Path, fingerprint: &Fingerprint, meta: &Meta, ngrams: &OwnedNgrams) -> Result<()> {
        let json = serde_json::to_vec(meta).map_err(|e| Error::Io { path: path.into(), source: e.into() })?;
        let mut out = Writer::create(path, KIND, VERSION.0, VERSION.1, fingerprint)?;
        out.section("meta", &json)?;
        out.section("tokens", &ngrams.tokens)?;
        out.section("starts", &ngrams.starts)?;
        out.section("next", &ngrams.next)?;
        out.section("step", &ngrams.step)?;
        out.section("back", &ngrams.back)?;
        out.section("weights", &ngrams.weights)?;
        out.section("weight_sums", &ngrams.weight_sums)?;
        out.section("heavy_at", &ngrams.heavy_at)?;
        out.section("heavy", &ngrams.heavy)?;
        out.section("records", &ngrams.records)?;
        out.section("slots", &ngrams.slots)?;
        out.finish()
    }

    /// Opens an index file.
    ///
    /// # Complexity
    /// O(1): contents are not read; [`TaskIndex::verify`] does that.
    ///
    /// # Errors
    /// [`Error::Io`]; a format error when it is no index of a known major version, is cut short or lacks a section.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_file(File::open(path, KIND, VERSION.0)?)
    }

    /// The same from an open container.
    ///
    /// # Errors
    /// A format error when a section is missing or its arrays cannot belong together.
    pub fn from_file(file: File) -> Result<Self> {
        let meta = serde_json::from_slice(file.section::<u8>("meta")?.get(&file));
        let meta = meta.map_err(|e| file.corrupt("meta", &e.to_string()))?;
        let index = Self {
            meta,
            tokens: file.section("tokens")?,
            starts: file.section("starts")?,
            next: file.section("next")?,
            step: file.section("step")?,
            back: file.section("back")?,
            weights: file.section("weights")?,
            weight_sums: file.section("weight_sums")?,
            heavy_at: file.section("heavy_at")?,
            heavy: file.section("heavy")?,
            records: file.section("records")?,
            slots: file.section("slots")?,
            file,
        };
        index.check_lengths()?;
        Ok(index)
    }

    fn check_lengths(&self) -> Result<()> {
        let n = self.ngrams();
        let positions = n.next.len();
        let wrong = |section: &str, found: usize, wanted: usize| {
            Err(self.file.corrupt(section, &format!("{found} elements, {wanted} belong there")))
        };
        match () {
            () if n.starts.len() != n.tokens.len() + 2 => wrong("starts", n.starts.len(), n.tokens.len() + 2),
            () if n.step.len() != positions => wrong("step", n.step.len(), positions),
            () if n.back.len() != positions => wrong("back", n.back.len(), positions),
            () if !n.weights.is_empty() && n.weights.len() != positions => wrong("weights", n.weights.len(), positions),
            () if n.heavy.len() != n.heavy_at.len() => wrong("heavy", n.heavy.len(), n.heavy_at.len()),
            () if !n.slots.len().is_power_of_two() => wrong("slots", n.slots.len(), n.slots.len().next_power_of_two()),
            () => Ok(()),
        }
    }

    /// Reads the whole file and compares its checksums.
    ///
    /// # Complexity
    /// O(file).
    ///
    /// # Errors
    /// A format error naming the damaged section.
    pub fn verify(&self) -> Result<()> {
        self.file.verify()
    }

    /// What the file says of itself.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The container.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The n-grams.
    #[must_use]
    pub fn ngrams(&self) -> Ngrams<'_> {
        Ngrams {
            tokens: self.tokens.get(&self.file),
            starts: self.starts.get(&self.file),
            next: self.next.get(&self.file),
            step: self.step.get(&self.file),
            back: self.back.get(&self.file),
            weights: self.weights.get(&self.file),
            weight_sums: self.weight_sums.get(&self.file),
            heavy_at: self.heavy_at.get(&self.file),
            heavy: self.heavy.get(&self.file),
            records: self.records.get(&self.file),
            slots: self.slots.get(&self.file),
        }
    }
}
