//! The index of a task as a file: written once, opened by mmap in constant time.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::build::{self, LeftOut};
use super::row_sections::{RowSections, Text};
use super::train::{self, Figures, TrainOptions};
use crate::corpus::{MergedLogs, Store};
use crate::format::{File, Fingerprint, Kind, Section, Writer};
use crate::index::ngrams::Ngrams;
use crate::index::view::{OwnedTask, Task, TaskView};
use crate::mixture::mixer::Weights;
use crate::mixture::weights::{Mixtures, variants};
use crate::text::pieces::{Learnt, Speller};
use crate::{Error, Result};

/// Kind of an index file.
pub const KIND: Kind = Kind(*b"INDX");

/// Version of the sections written here; a reader takes any minor of its major.
pub const VERSION: (u16, u16) = (1, 1);

/// What an index file says of itself (section `meta`, JSON).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Distinct rows whose inputs are in it.
    pub inputs: u64,
    /// Features and states of each group of the fitted weights.
    pub mixtures: Option<Layout>,
    /// What the fit found.
    pub fit: Option<Figures>,
    /// Rows of write-ahead logs that it holds.
    pub merged_logs: MergedLogs,
}

/// Shape of the weight tables in section `mixtures`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
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
    pub speller: Option<&'a dyn Speller>,
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
    rows: Option<RowSections>,
    mixtures: Option<Mixtures>,
}

impl Task for TaskIndex {
    fn view(&self) -> TaskView<'_> {
        TaskView { ngrams: self.ngrams(), rows: self.rows.as_ref().map(|r| r.view(&self.file)) }
    }

    fn mixtures(&self) -> Option<&Mixtures> {
        self.mixtures.as_ref()
    }

    fn merged_logs(&self) -> &MergedLogs {
        &self.meta.merged_logs
    }
}

impl Meta {
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
        let mut learnt = Learnt::default();
        let inputs = !options.no_inputs && store.num_inputs() > 0;
        let trained = match options.train.filter(|_| inputs) {
            Some(train) => train::train(store, train, &mut learnt, options.speller, |done| check(0.6 * done))?,
            None => None,
        };
        let before = if trained.is_some() { 0.6 } else { 0.0 };
        let task = build::build(store, &LeftOut::default(), inputs, &mut learnt, options.speller, |done| {
            check(before + (1.0 - before) * done)
        })?;
        let mut meta = Meta::of(store)?;
        meta.inputs = task.rows.as_ref().map_or(0, |r| r.inputs.norms.len() as u64);
        let (mixtures, figures) = trained.unzip();
        meta.fit = figures;
        meta.merged_logs = merged_logs;
        Self::write(path, &store.file().fingerprint(), meta, &task, mixtures.as_ref())?;
        Self::open(path)
    }

    /// Writes an index file: to a sibling temporary file, then renamed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(
        path: &Path,
        fingerprint: &Fingerprint,
        mut meta: Meta,
        task: &OwnedTask,
        mixtures: Option<&Mixtures>,
    ) -> Result<()> {
        let mut tables: Vec<f32> = Vec::new();
        for weights in mixtures.into_iter().flat_map(Mixtures::weights) {
            meta.mixtures = Some(Layout { features: weights.features(), groups: weights.groups().to_vec() });
            tables.extend(weights.table());
        }
        let json = serde_json::to_vec(&meta).map_err(|e| Error::Io { path: path.into(), source: e.into() })?;
        let mut out = Writer::create(path, KIND, VERSION.0, VERSION.1, fingerprint)?;
        let ngrams = &task.ngrams;
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
        if let Some(rows) = &task.rows {
            RowSections::write(&rows.view(), &rows.texts, &mut out)?;
        }
        if !tables.is_empty() {
            out.section("mixtures", &tables)?;
        }
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
            rows: RowSections::open(&file)?,
            mixtures: None,
            file,
        };
        index.check_lengths()?;
        let mixtures = index.stored_mixtures()?;
        let index = Self { mixtures, ..index };
        Ok(index)
    }

    /// The fitted weights; `None` too when they are for other sources than this version knows: the general ones serve
    /// then.
    fn stored_mixtures(&self) -> Result<Option<Mixtures>> {
        let Some(Layout { features, groups }) = &self.meta.mixtures else { return Ok(None) };
        let tables = self.file.section::<f32>("mixtures")?;
        let tables = tables.get(&self.file);
        let each = tables.len() / variants().len();
        let weights = |t: &[f32]| Weights::new(*features, groups.clone(), t.to_vec());
        let tables = tables.chunks_exact(each.max(1)).map(weights).collect::<Result<Vec<_>>>();
        Ok(tables.and_then(Mixtures::new).ok())
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

    /// The rows' inputs as they were given, in that order.
    #[must_use]
    pub fn num_inputs(&self) -> usize {
        self.rows.as_ref().map_or(0, |r| r.num_texts(&self.file))
    }

    /// A row: its input's text, the sorted position at which its output starts, how often it occurred.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a row that is not there; a format error when the file is damaged.
    pub fn input(&self, row: usize) -> Result<Text<'_>> {
        let rows = self.rows.as_ref().ok_or(Error::OutOfRange { what: "input", index: row, limit: 0 })?;
        rows.text(&self.file, row)
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
