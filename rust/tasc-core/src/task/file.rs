//! The index of a task as a file: written once, opened by mmap in constant time.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::build::{self, LeftOut};
use super::train::{self, FitReport, TrainOptions};
use crate::corpus::store::Notes;
use crate::corpus::{MergedLogs, Store};
use crate::format::{File, Fingerprint, Kind, Mapped, Writer};
use crate::index::ngrams::Ngrams;
use crate::index::origins::RowOrigin;
use crate::index::safety;
use crate::index::view::{TaskArrays, TaskView};
use crate::mixture::TaskData;
use crate::mixture::features::VARIANTS;
use crate::mixture::features::{FEATURES, GROUPS};
use crate::mixture::mixer::Weights;
use crate::mixture::weights::MixtureWeights;
use crate::text::InputTemplate;
use crate::text::pieces::{PieceTokenizer, TokenizationCache};
use crate::{Error, Result, TokenId};

/// Kind of an index file.
pub const KIND: Kind = Kind(*b"INDX");

/// Format version of an index: a reader accepts every minor version of its major version.
pub const VERSION: (u16, u16) = (2, 2);

/// Metadata of an index (section `meta`, JSON).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexMeta {
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
    /// Distinct rows whose inputs are in it.
    pub inputs: u64,
    /// Features and states of each group of the fitted weights.
    pub mixture: Option<WeightLayout>,
    /// What the fit found.
    pub fit: Option<FitReport>,
    /// Rows of write-ahead logs that it holds.
    pub merged_logs: MergedLogs,
    /// Notes of the store that it was built from.
    #[serde(skip_serializing_if = "Notes::is_empty")]
    pub notes: Notes,
    /// What surrounds the input in prompts, where the rows' inputs were whole prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_template: Option<InputTemplate>,
}

/// What the index of a store takes from the index that its rows are from.
#[derive(Clone, Debug, Default)]
pub(super) struct Inherited {
    /// Rows of logs that the store holds.
    pub merged_logs: MergedLogs,
    /// Their times and keys.
    pub origins: Vec<RowOrigin>,
    /// What surrounds the input in prompts; the store's inputs are cut already.
    pub input_template: Option<InputTemplate>,
}

/// Shape of the weight tables in section `mixture`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightLayout {
    /// Features per candidate.
    pub features: usize,
    /// States of each group.
    pub groups: Vec<usize>,
}

/// Options of [`TaskIndex::build`].
#[derive(Clone, Copy, Default)]
pub struct BuildOptions<'a> {
    /// Whether inputs are left out: nothing of them is stored, and drafts do not use the input of a request.
    pub no_inputs: bool,
    /// How weights are fitted; `None`: the general weights are used.
    pub train: Option<&'a TrainOptions>,
    /// The tokenizer, for copying; `None`: inputs are used for retrieval alone.
    pub tokenizer: Option<&'a dyn PieceTokenizer>,
}

/// A row's input as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputRow<'a> {
    /// The text.
    pub text: &'a str,
    /// The sorted position at which the row's output starts.
    pub start: u32,
    /// How often the row occurred.
    pub weight: u64,
}

/// The index of a task: an open file. It is cheap to clone and to share between threads; processes share its pages.
///
/// # Examples
///
/// ```
/// # use tasc_core::{BuildOptions, Fingerprint, Store, StoreMeta, StoreWriter};
/// use tasc_core::TaskIndex;
///
/// # fn main() -> tasc_core::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let mut rows = StoreWriter::create(&folder.path().join("rows"), &Fingerprint::default(), StoreMeta::default())?;
/// # for output in [[7, 8, 9], [7, 8, 5], [7, 8, 9]] {
/// #     rows.push(&output, None, 1)?;
/// # }
/// # rows.finish()?;
/// # let store = Store::open(&folder.path().join("rows"))?;
/// # let path = folder.path().join("task.tasc");
/// TaskIndex::build(&store, &path, &BuildOptions::default(), |fraction| {
///     assert!((0.0..=1.0).contains(&fraction)); // an error returned here stops the build
///     Ok(())
/// })?;
/// let index = TaskIndex::open(&path)?;
/// index.verify()?;
/// assert_eq!((index.meta().documents, index.meta().weight, index.meta().tokens), (2, 3, 6));
///
/// // every row comes back, equal ones as one document with a weight
/// let rows = index.to_store(&folder.path().join("copy"), &[], || Ok(()))?;
/// let mut documents: Vec<_> = (0..2).map(|k| (rows.document(k).unwrap(), rows.weight(k).unwrap())).collect();
/// documents.sort();
/// assert_eq!(documents, [(&[7, 8, 5][..], 1), (&[7, 8, 9][..], 2)]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TaskIndex {
    file: File,
    meta: IndexMeta,
    arrays: TaskArrays<Mapped>,
    weights: Option<MixtureWeights>,
}

impl TaskData for TaskIndex {
    fn view(&self) -> TaskView<'_> {
        self.arrays.view()
    }

    fn weights(&self) -> Option<&MixtureWeights> {
        self.weights.as_ref()
    }

    fn merged_logs(&self) -> &MergedLogs {
        &self.meta.merged_logs
    }

    fn input_template(&self) -> Option<&InputTemplate> {
        self.meta.input_template.as_ref()
    }
}

impl IndexMeta {
    fn of(store: &Store) -> Result<Self> {
        let made = store.meta();
        let mut meta = Self {
            writer: env!("CARGO_PKG_VERSION").into(),
            tokenizer: made.tokenizer.clone(),
            vocab_size: made.vocab_size,
            eos_id: made.eos_id,
            documents: store.num_documents() as u64,
            tokens: store.num_tokens() as u64,
            notes: made.notes.clone(),
            ..Self::default()
        };
        for k in 0..store.num_documents() {
            meta.weight = meta.weight.saturating_add(store.weight(k)?);
        }
        Ok(meta)
    }
}

impl TaskIndex {
    /// Builds the index of a store, writes it and opens it. `check` is called between phases with the fraction done (0 to
    /// 1); an error that it returns stops the build, and nothing is written.
    ///
    /// # Complexity
    /// O(tokens + words) for n-grams and inputs: about 28 bytes of memory per output token, then 16 per word of the inputs,
    /// then up to about 200 per output token that copying is learned from, of which there are at most 4 million. Where
    /// weights are fitted, the same once more for a part of the rows, and O(tokens fitted · candidates · iterations).
    ///
    /// # Errors
    /// [`Error::EmptyCorpus`], [`Error::Io`], [`Error::Format`], [`Error::IndexTooLarge`]; errors of `check` and of the
    /// tokenizer.
    pub fn build(
        store: &Store,
        path: &Path,
        options: &BuildOptions<'_>,
        check: impl FnMut(f64) -> Result<()>,
    ) -> Result<Self> {
        let input_template = if options.no_inputs { None } else { build::learn_template(store)? };
        let store = store.with_template(input_template.clone());
        Self::build_with(&store, path, options, Inherited { input_template, ..Inherited::default() }, check)
    }

    /// Builds an index as [`TaskIndex::build`] does, with what it takes from another index.
    pub(super) fn build_with(
        store: &Store,
        path: &Path,
        options: &BuildOptions<'_>,
        inherited: Inherited,
        mut check: impl FnMut(f64) -> Result<()>,
    ) -> Result<Self> {
        store.check_contents()?;
        let mut cache = TokenizationCache::default();
        let inputs = !options.no_inputs && store.num_inputs() > 0;
        let trained = match options.train.filter(|_| inputs) {
            Some(train) => train::train(store, train, &mut cache, options.tokenizer, |done| check(0.6 * done))?,
            None => None,
        };
        let before = if trained.is_some() { 0.6 } else { 0.0 };
        let mut task = build::build(store, &LeftOut::default(), inputs, &mut cache, options.tokenizer, |done| {
            check(before + (1.0 - before) * done)
        })?;
        let mut meta = IndexMeta::of(store)?;
        meta.inputs = task.rows.as_ref().map_or(0, |r| r.inputs.norms.len() as u64);
        meta.merged_logs = inherited.merged_logs;
        meta.input_template = inherited.input_template;
        task.origins = inherited.origins;
        if let Some((weights, report)) = trained {
            meta.mixture = Some(WeightLayout { features: FEATURES, groups: GROUPS.to_vec() });
            task.mixture = weights.weights().flat_map(Weights::table).copied().collect();
            meta.fit = Some(report);
        }
        Self::write(path, &store.file().fingerprint(), &meta, &task)?;
        Self::open(path)
    }

    /// Writes an index file: to a temporary file in the same folder, which is then renamed.
    ///
    /// # Complexity
    /// O(file).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(path: &Path, fingerprint: &Fingerprint, meta: &IndexMeta, task: &TaskArrays) -> Result<()> {
        let mut out = Writer::create(path, KIND, VERSION.0, VERSION.1, fingerprint)?;
        out.meta(meta)?;
        task.write(&mut out, "")?;
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
        Self::open_within(path, 0)
    }

    /// Opens an index file; one of at most `memory` bytes is read into memory and its checksums are compared, see
    /// [`File::open_within`].
    ///
    /// # Complexity
    /// As [`TaskIndex::open`]; O(file) where it is read.
    ///
    /// # Errors
    /// As [`TaskIndex::open`]; a format error where a file that is read does not match its checksums.
    pub fn open_within(path: &Path, memory: u64) -> Result<Self> {
        Self::from_file(File::open_within(path, KIND, VERSION.0, memory)?)
    }

    /// Opens an index in an open container, on disk or in memory.
    ///
    /// # Complexity
    /// O(sections).
    ///
    /// # Errors
    /// A format error when a section is missing or its arrays cannot belong together.
    pub fn from_file(file: File) -> Result<Self> {
        let index = Self { meta: file.meta()?, arrays: TaskArrays::open(&file, "")?, weights: None, file };
        index.check_lengths()?;
        Ok(Self { weights: index.stored_weights(), ..index })
    }

    /// The fitted weights. Those of an older version, which knew fewer sources, are padded with zeros; a set of sources
    /// that it did not know gets the weights of all. `None` when they are for other sources than this version knows: the
    /// general weights serve then.
    fn stored_weights(&self) -> Option<MixtureWeights> {
        let WeightLayout { features, groups } = self.meta.mixture.as_ref()?;
        let each = groups.iter().try_fold(1usize, |sum, &n| sum.checked_add(n))?.checked_mul(*features)?;
        let tables = self.arrays.mixture.chunks(each.max(1)).take(VARIANTS + 1); // padding makes a few bytes many
        let padded = |t: &[f32]| Weights::new(*features, groups.clone(), t.to_vec()).ok()?.padded(FEATURES, &GROUPS);
        let mut tables: Vec<Weights> = tables.map(padded).collect::<Option<_>>()?;
        let all = tables.first()?.clone();
        tables.resize(VARIANTS.max(tables.len()), all);
        MixtureWeights::new(tables).ok()
    }

    fn check_lengths(&self) -> Result<()> {
        let n = self.ngrams();
        let positions = n.bwt.len();
        let wrong = |section: &str, found: usize, wanted: usize| {
            Err(self.file.corrupt(section, &format!("{found} elements, {wanted} belong there")))
        };
        match () {
            () if n.starts.len() != n.tokens.len() + 2 => wrong("starts", n.starts.len(), n.tokens.len() + 2),
            () if n.lf.len() != positions => wrong("lf", n.lf.len(), positions),
            () if n.lf_inverse.len() != positions => wrong("lf_inverse", n.lf_inverse.len(), positions),
            () if !n.weights.is_empty() && n.weights.len() != positions => wrong("weights", n.weights.len(), positions),
            () if n.heavy.len() != n.heavy_at.len() => wrong("heavy", n.heavy.len(), n.heavy_at.len()),
            () if !n.slots.len().is_power_of_two() => wrong("slots", n.slots.len(), n.slots.len().next_power_of_two()),
            () => Ok(()),
        }
    }

    /// Reads the whole file, compares its checksums, and proves that it is safe to use, whoever wrote it.
    ///
    /// # Complexity
    /// O(file): 0.2 s per 10 million tokens; 4 bytes of memory per distinct token.
    ///
    /// # Errors
    /// A format error naming the damaged section.
    pub fn verify(&self) -> Result<()> {
        self.verify_with(|| Ok(()))
    }

    /// Verifies as [`TaskIndex::verify`] does. `check` is called repeatedly; its error ends the work.
    ///
    /// # Errors
    /// As [`TaskIndex::verify`]; what `check` returns.
    pub fn verify_with(&self, mut check: impl FnMut() -> Result<()>) -> Result<()> {
        self.file.verify_with(&mut check)?;
        self.check_contents(check)
    }

    /// Proves what [`safety::check_task`] proves, and that ids are in the vocabulary. Checksums are not compared.
    pub(super) fn check_contents(&self, check: impl FnMut() -> Result<()>) -> Result<()> {
        safety::check_task(&self.arrays.view(), &self.file, check)?;
        let limit = if self.meta.vocab_size == 0 { TokenId::MAX } else { self.meta.vocab_size };
        match self.ngrams().tokens.last() {
            Some(id) if *id >= limit => Err(self.file.corrupt("tokens", &format!("id {id} is not below {limit}"))),
            _ => Ok(()),
        }
    }

    /// Metadata of the index.
    #[must_use]
    pub fn meta(&self) -> &IndexMeta {
        &self.meta
    }

    /// Number of rows whose inputs the index holds.
    #[must_use]
    pub fn num_inputs(&self) -> usize {
        self.arrays.rows.as_ref().map_or(0, |rows| rows.texts.view().len())
    }

    /// A row with an input: text, sorted position at which its output starts, number of occurrences.
    ///
    /// # Complexity
    /// O(text), to check that it is UTF-8.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a row that is not there; a format error when the file is damaged.
    pub fn input(&self, row: usize) -> Result<InputRow<'_>> {
        let limit = self.num_inputs();
        let texts = self.arrays.rows.as_ref().map(|rows| rows.texts.view()).filter(|_| row < limit);
        let texts = texts.ok_or(Error::OutOfRange { what: "input", index: row, limit })?;
        let damaged = |why: String| self.file.corrupt("text_bytes", &why);
        let bytes = texts.get(row).ok_or_else(|| damaged(format!("input {row} lies outside of it")))?;
        let text = std::str::from_utf8(bytes).map_err(|e| damaged(e.to_string()))?;
        Ok(InputRow { text, start: texts.starts[row], weight: texts.weights[row] })
    }

    /// Times and keys of the rows that were merged from logs.
    #[must_use]
    pub fn origins(&self) -> &[RowOrigin] {
        &self.arrays.origins
    }

    /// The open container.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The n-grams of the outputs.
    #[must_use]
    pub fn ngrams(&self) -> Ngrams<'_> {
        self.arrays.ngrams.view()
    }
}
