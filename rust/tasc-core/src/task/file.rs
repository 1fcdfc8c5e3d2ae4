//! The index of a task as a file: written once, opened by mmap in constant time.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::build::{self, LeftOut};
use super::train::{self, FitReport, TrainOptions};
use crate::corpus::{MergedLogs, Store};
use crate::format::{File, Fingerprint, Kind, Mapped, Writer};
use crate::index::ngrams::Ngrams;
use crate::index::view::{TaskArrays, TaskView};
use crate::mixture::TaskData;
use crate::mixture::features::{FEATURES, GROUPS};
use crate::mixture::mixer::Weights;
use crate::mixture::source::VARIANTS;
use crate::mixture::weights::MixtureWeights;
use crate::text::pieces::{PieceTokenizer, TokenizationCache};
use crate::{Error, Result};

/// Kind of an index file.
pub const KIND: Kind = Kind(*b"INDX");

/// Version of the sections written here; a reader takes any minor of its major.
pub const VERSION: (u16, u16) = (2, 0);

/// What an index file says of itself (section `meta`, JSON).
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
}

/// Shape of the weight tables in section `mixture`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightLayout {
    /// Features per candidate.
    pub features: usize,
    /// States of each group.
    pub groups: Vec<usize>,
}

/// What goes into an index.
#[derive(Clone, Copy, Default)]
pub struct BuildOptions<'a> {
    /// Leave the inputs out: nothing of them is stored, and drafts do not know theirs.
    pub no_inputs: bool,
    /// How the weights are fitted; `None`: they are not, the general ones serve.
    pub train: Option<&'a TrainOptions>,
    /// The tokenizer, for copying; without it the inputs serve for retrieval alone.
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

/// An open index file. Cheap to share between threads; processes share its pages.
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
            ..Self::default()
        };
        for k in 0..store.num_documents() {
            meta.weight = meta.weight.saturating_add(store.weight(k)?);
        }
        Ok(meta)
    }
}

impl TaskIndex {
    /// Builds the index of a store, writes it and opens it. `check` hears of the progress (0 to 1) between phases; its
    /// error stops the build and nothing is written.
    ///
    /// # Complexity
    /// That of [`build::build`], and of [`train::train`] where weights are fitted.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::IndexTooLarge`]; what `check` returns.
    pub fn build(
        store: &Store,
        path: &Path,
        options: &BuildOptions<'_>,
        check: impl FnMut(f64) -> Result<()>,
    ) -> Result<Self> {
        Self::build_merged(store, path, options, MergedLogs::default(), check)
    }

    /// Builds an index as [`TaskIndex::build`] does. The store holds these rows of logs.
    pub(super) fn build_merged(
        store: &Store,
        path: &Path,
        options: &BuildOptions<'_>,
        merged_logs: MergedLogs,
        mut check: impl FnMut(f64) -> Result<()>,
    ) -> Result<Self> {
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
        meta.merged_logs = merged_logs;
        if let Some((weights, report)) = trained {
            meta.mixture = Some(WeightLayout { features: FEATURES, groups: GROUPS.to_vec() });
            task.mixture = weights.weights().flat_map(Weights::table).copied().collect();
            meta.fit = Some(report);
        }
        Self::write(path, &store.file().fingerprint(), &meta, &task)?;
        Self::open(path)
    }

    /// Writes an index file: to a sibling temporary file, then renamed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(path: &Path, fingerprint: &Fingerprint, meta: &IndexMeta, task: &TaskArrays) -> Result<()> {
        let mut out = Writer::create(path, KIND, VERSION.0, VERSION.1, fingerprint)?;
        let json = serde_json::to_vec(meta).map_err(|e| Error::Io { path: path.into(), source: e.into() })?;
        out.section("meta", &json)?;
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
        Self::from_file(File::open(path, KIND, VERSION.0)?)
    }

    /// The same from an open container.
    ///
    /// # Errors
    /// A format error when a section is missing or its arrays cannot belong together.
    pub fn from_file(file: File) -> Result<Self> {
        let meta = serde_json::from_slice(file.section::<u8>("meta")?.get(&file));
        let meta = meta.map_err(|e| file.corrupt("meta", &e.to_string()))?;
        let index = Self { meta, arrays: TaskArrays::open(&file, "")?, weights: None, file };
        index.check_lengths()?;
        Ok(Self { weights: index.stored_weights(), ..index })
    }

    /// The fitted weights. Those of an older version, which knew fewer sources, are padded with zeros; a set of sources
    /// that it did not know gets the weights of all. `None` when they are for other sources than this version knows: the
    /// general weights serve then.
    fn stored_weights(&self) -> Option<MixtureWeights> {
        let WeightLayout { features, groups } = self.meta.mixture.as_ref()?;
        let each = groups.iter().try_fold(1usize, |sum, &n| sum.checked_add(n))?.checked_mul(*features)?;
        let tables = self.arrays.mixture.chunks(each.max(1));
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
    pub fn meta(&self) -> &IndexMeta {
        &self.meta
    }

    /// Number of rows whose inputs the index holds.
    #[must_use]
    pub fn num_inputs(&self) -> usize {
        self.arrays.rows.as_ref().map_or(0, |rows| rows.texts.view().len())
    }

    /// A row: its input's text, the sorted position at which its output starts, how often it occurred.
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

    /// The container.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The n-grams.
    #[must_use]
    pub fn ngrams(&self) -> Ngrams<'_> {
        self.arrays.ngrams.view()
    }
}
