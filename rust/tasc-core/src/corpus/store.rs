//! A mapped store file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::format::{File, Kind, Section, is_ragged};
use crate::text::InputTemplate;
use crate::{Error, Result, TokenId};

/// Kind of a store file.
pub const KIND: Kind = Kind(*b"STOR");

/// Version of the sections written here; a reader takes any minor of its major.
pub const VERSION: (u16, u16) = (1, 0);

/// Ids that are compared between two calls of `check`.
const CHECK_EVERY: usize = 1 << 22;

/// The tokenizer that made a store (section `meta`, JSON).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreMeta {
    /// Version of tasc that wrote it.
    pub writer: String,
    /// Name of the tokenizer, for people; the fingerprint is what counts.
    pub tokenizer: String,
    /// Ids are below this; 0: unknown.
    pub vocab_size: u32,
    /// The token that ends every output, if one was appended.
    pub eos_id: Option<u32>,
    /// What is known of the rows' prompts; an index of the store holds it too. The core does not read it.
    #[serde(skip_serializing_if = "Notes::is_empty")]
    pub notes: Notes,
}

/// JSON values by name.
pub type Notes = serde_json::Map<String, serde_json::Value>;

/// One distinct (input, output) row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input<'a> {
    /// The input's text.
    pub text: &'a str,
    /// Index of the document that was the row's output.
    pub document: u32,
    /// How often the row occurred.
    pub weight: u64,
}

/// A range of a store's documents.
#[derive(Clone, Copy, Debug)]
pub struct Documents<'a> {
    /// Their tokens, one document after the other.
    pub tokens: &'a [TokenId],
    /// Document k is `tokens[offsets[k] - offsets[0] .. offsets[k + 1] - offsets[0]]`.
    pub offsets: &'a [u64],
    /// How often each occurred.
    pub weights: &'a [u64],
}

/// An open store. Cheap to share between threads; processes share its pages.
#[derive(Clone, Debug)]
pub struct Store {
    file: File,
    meta: StoreMeta,
    template: Option<InputTemplate>,
    tokens: Section<TokenId>,
    offsets: Section<u64>,
    weights: Section<u64>,
    inputs: Section<u8>,
    input_offsets: Section<u64>,
    input_documents: Section<u32>,
    input_weights: Section<u64>,
}

impl Store {
    /// Opens a store file.
    ///
    /// # Complexity
    /// O(1): contents are checked where they are read.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] when it is no store of a known major version, is cut short or lacks a section.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_file(File::open(path, KIND, VERSION.0)?)
    }

    /// Opens a store in an open container.
    ///
    /// # Errors
    /// [`Error::Format`] when a section is missing or the arrays cannot belong together.
    pub fn from_file(file: File) -> Result<Self> {
        let store = Self {
            meta: file.meta()?,
            template: None,
            tokens: file.section("tokens")?,
            offsets: file.section("offsets")?,
            weights: file.section("weights")?,
            inputs: file.section("inputs")?,
            input_offsets: file.section("input_offsets")?,
            input_documents: file.section("input_documents")?,
            input_weights: file.section("input_weights")?,
            file,
        };
        let (documents, rows) = (store.num_documents(), store.num_inputs());
        let wrong = |section, found: usize, wanted: usize| {
            Err(store.file.corrupt(section, &format!("{found} elements, {wanted} belong there")))
        };
        let lengths = [
            ("offsets", store.offsets.get(&store.file).len(), documents + 1),
            ("input_offsets", store.input_offsets.get(&store.file).len(), rows + 1),
            ("input_weights", store.input_weights.get(&store.file).len(), rows),
        ];
        match lengths.into_iter().find(|l| l.1 != l.2) {
            Some((section, found, wanted)) => wrong(section, found, wanted),
            None => Ok(store),
        }
    }

    /// Reads the whole file, compares its checksums, and proves that documents and inputs do not overlap and that ids and
    /// document numbers are in range.
    ///
    /// # Errors
    /// [`Error::Format`] naming the damaged section.
    pub fn verify(&self) -> Result<()> {
        self.verify_with(|| Ok(()))
    }

    /// Verifies as [`Store::verify`] does. `check` is called repeatedly; its error ends the work.
    ///
    /// # Errors
    /// As [`Store::verify`]; what `check` returns.
    pub fn verify_with(&self, mut check: impl FnMut() -> Result<()>) -> Result<()> {
        self.file.verify_with(&mut check)?;
        self.check_contents()?;
        let limit = if self.meta.vocab_size == 0 { TokenId::MAX } else { self.meta.vocab_size };
        for part in self.tokens.get(&self.file).chunks(CHECK_EVERY) {
            check()?;
            if let Some(id) = part.iter().find(|&&id| id >= limit) {
                return Err(self.file.corrupt("tokens", &format!("id {id} is not below {limit}")));
            }
        }
        Ok(())
    }

    /// Proves that documents and inputs do not overlap, so that all of them together are no larger than the file.
    ///
    /// # Complexity
    /// O(documents + rows).
    ///
    /// # Errors
    /// [`Error::Format`] naming the damaged section.
    pub(crate) fn check_contents(&self) -> Result<()> {
        let wrong = |section, why| Err(self.file.corrupt(section, why));
        if !is_ragged(self.offsets.get(&self.file), self.num_documents(), self.num_tokens()) {
            return wrong("offsets", "documents do not follow one another");
        }
        if !is_ragged(self.input_offsets.get(&self.file), self.num_inputs(), self.inputs.get(&self.file).len()) {
            return wrong("input_offsets", "inputs do not follow one another");
        }
        let documents = self.num_documents();
        if self.input_documents.get(&self.file).iter().any(|&document| document as usize >= documents) {
            return wrong("input_documents", "a row belongs to a document that is not there");
        }
        Ok(())
    }

    /// Returns the tokenizer that made the store.
    #[must_use]
    pub fn meta(&self) -> &StoreMeta {
        &self.meta
    }

    /// The container.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Number of distinct outputs.
    #[must_use]
    pub fn num_documents(&self) -> usize {
        self.weights.get(&self.file).len()
    }

    /// Number of tokens of all distinct outputs.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.tokens.get(&self.file).len()
    }

    /// Number of distinct rows that have an input.
    #[must_use]
    pub fn num_inputs(&self) -> usize {
        self.input_documents.get(&self.file).len()
    }

    /// Returns the tokens of an output.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a document that is not there; [`Error::Format`] when the file is damaged.
    pub fn document(&self, index: usize) -> Result<&[TokenId]> {
        self.slice("tokens", self.tokens.get(&self.file), self.offsets.get(&self.file), index, "document")
    }

    /// Returns a range of outputs. Their bounds are checked once, so that they can be used without further checks.
    ///
    /// # Complexity
    /// O(documents of the range).
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for documents that are not there; [`Error::Format`] when the file is damaged.
    pub fn documents(&self, range: std::ops::Range<usize>) -> Result<Documents<'_>> {
        let (offsets, weights) = (self.offsets.get(&self.file), self.weights.get(&self.file));
        let limit = weights.len();
        let found =
            range.end.checked_add(1).and_then(|end| offsets.get(range.start..end)).zip(weights.get(range.clone()));
        let (offsets, weights) = found.ok_or(Error::OutOfRange { what: "document", index: range.end, limit })?;
        let all = self.tokens.get(&self.file);
        let inside = |start: u64, end: u64| all.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?);
        let tokens = offsets.first().zip(offsets.last()).and_then(|(&start, &end)| inside(start, end));
        let tokens = tokens.filter(|_| offsets.is_sorted());
        let tokens = tokens.ok_or_else(|| self.file.corrupt("offsets", "documents do not follow one another"))?;
        Ok(Documents { tokens, offsets, weights })
    }

    /// Returns how often an output occurred.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a document that is not there.
    pub fn weight(&self, index: usize) -> Result<u64> {
        let weights = self.weights.get(&self.file);
        weights.get(index).copied().ok_or(Error::OutOfRange { what: "document", index, limit: weights.len() })
    }

    /// Returns the same rows; inputs that match the template are cut to what it surrounds.
    pub(crate) fn with_template(&self, template: Option<InputTemplate>) -> Self {
        Self { template, ..self.clone() }
    }

    /// Returns a row that has an input.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a row that is not there; [`Error::Format`] when the file is damaged.
    pub fn input(&self, index: usize) -> Result<Input<'_>> {
        let offsets = self.input_offsets.get(&self.file);
        let bytes = self.slice("inputs", self.inputs.get(&self.file), offsets, index, "input")?;
        let text = std::str::from_utf8(bytes).map_err(|e| self.file.corrupt("inputs", &e.to_string()))?;
        let damaged = || self.file.corrupt("input_documents", "it is too short");
        let document = *self.input_documents.get(&self.file).get(index).ok_or_else(damaged)?;
        if document as usize >= self.num_documents() {
            let why = format!("row {index} belongs to document {document}, there are {}", self.num_documents());
            return Err(self.file.corrupt("input_documents", &why));
        }
        let weight = *self.input_weights.get(&self.file).get(index).ok_or_else(damaged)?;
        let text = self.template.as_ref().map_or(text, |template| template.input(text));
        Ok(Input { text, document, weight })
    }

    fn slice<'a, T>(
        &self,
        section: &str,
        all: &'a [T],
        offsets: &[u64],
        index: usize,
        what: &'static str,
    ) -> Result<&'a [T]> {
        let limit = offsets.len().saturating_sub(1);
        let Some(&[start, end]) = offsets.get(index..).and_then(|o| o.first_chunk()) else {
            return Err(Error::OutOfRange { what, index, limit });
        };
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let found = range.and_then(|(start, end)| all.get(start..end));
        found.ok_or_else(|| self.file.corrupt(section, &format!("{what} {index} lies outside of it")))
    }
}
