//! Plan files.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::segment::Segmenter;
use crate::format::{File, Fingerprint, Kind, Writer};
use crate::{Result, TokenId};

/// Kind of a plan file.
pub const KIND: Kind = Kind(*b"PLAN");

/// Version of the sections written here; a reader takes any minor of its major.
pub const VERSION: (u16, u16) = (1, 0);

/// Metadata of a plan (section `meta`, JSON).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanMeta {
    /// Version of tasc that wrote it.
    pub writer: String,
    /// Name of the base tokenizer, for people; the fingerprint is what counts.
    pub tokenizer: String,
    /// The first new id: base ids are below it.
    pub base_vocab_size: u32,
    /// Number of active tokens asked for.
    pub wanted: u64,
    /// Reason why there are no more new tokens: `size`, `thresholds` or `held-out`.
    pub stopped_by: String,
    /// Tokens of the documents, each as often as it occurred.
    pub tokens: u64,
    /// Tokens of the documents after segmentation into the new tokens.
    pub tokens_after: u64,
}

/// A point of the curve: the share of tokens that a number of new tokens saves.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Point {
    /// Number of active tokens.
    pub size: u64,
    /// Share of the tokens saved on the documents learned from.
    pub train: f64,
    /// Share of the tokens saved on held-out documents.
    pub held_out: f64,
}

/// New tokens of a task: their expansions, their uses in the documents, and the tokens that they save.
#[derive(Clone, Debug)]
pub struct MergePlan {
    file: File,
    meta: PlanMeta,
    segmenter: Arc<Segmenter>,
    counts: Vec<u64>,
    documents: Vec<u64>,
    curve: Vec<Point>,
}

/// Contents of a plan file.
pub(super) struct Contents<'a> {
    pub(super) meta: PlanMeta,
    pub(super) expansions: Vec<&'a [TokenId]>,
    pub(super) counts: Vec<u64>,
    pub(super) documents: Vec<u64>,
    pub(super) curve: &'a [Point],
}

impl Contents<'_> {
    pub(super) fn write(&self, path: &Path, fingerprint: &Fingerprint) -> Result<()> {
        let mut out = Writer::create(path, KIND, VERSION.0, VERSION.1, fingerprint)?;
        let mut offsets = vec![0u64];
        out.begin("expansions")?;
        for expansion in &self.expansions {
            out.write(bytemuck::cast_slice(expansion))?;
            offsets.push(offsets.last().copied().unwrap_or(0) + expansion.len() as u64);
        }
        out.section("offsets", &offsets)?;
        out.section("counts", &self.counts)?;
        out.section("documents", &self.documents)?;
        out.section("curve", self.curve)?;
        out.meta(&self.meta)?;
        out.finish()
    }
}

impl MergePlan {
    /// Opens a plan file.
    ///
    /// # Complexity
    /// O(file): a plan is small, and all of it is checked.
    ///
    /// # Errors
    /// [`crate::Error::Io`]; [`crate::Error::Format`] when it is no plan of a known major version, is cut short, lacks a section, or
    /// its expansions are none: shorter than two ids, of ids outside the base vocabulary, or there twice.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_file(File::open(path, KIND, VERSION.0)?)
    }

    /// Opens a plan in an open container.
    ///
    /// # Errors
    /// [`crate::Error::Format`], as [`MergePlan::open`].
    pub fn from_file(file: File) -> Result<Self> {
        let meta: PlanMeta = file.meta()?;
        let (ids, offsets) = (file.section::<TokenId>("expansions")?, file.section::<u64>("offsets")?);
        let (ids, offsets) = (ids.get(&file), offsets.get(&file));
        let size = offsets.len().checked_sub(1).ok_or_else(|| file.corrupt("offsets", "it is empty"))?;
        if u32::try_from(size).ok().and_then(|size| meta.base_vocab_size.checked_add(size)).is_none() {
            let why = format!("{size} new tokens after base id {} do not fit 32 bits", meta.base_vocab_size);
            return Err(file.corrupt("offsets", &why));
        }
        let mut expansions = Vec::with_capacity(size);
        for k in 0..size {
            let range = usize::try_from(offsets[k]).ok().zip(usize::try_from(offsets[k + 1]).ok());
            let found = range.and_then(|(start, end)| ids.get(start..end));
            expansions.push(found.ok_or_else(|| file.corrupt("expansions", &format!("{k} lies outside of it")))?);
        }
        // Overlapping ranges must not make more of the file than it holds.
        if offsets[0] != 0 || offsets[size] != ids.len() as u64 {
            return Err(file.corrupt("offsets", "they do not cover the expansions"));
        }
        let segmenter = Segmenter::new(meta.base_vocab_size, &expansions);
        let segmenter = segmenter.map_err(|e| file.corrupt("expansions", &e.to_string()))?;
        let numbers = |name| -> Result<Vec<u64>> {
            let section = file.section::<u64>(name)?;
            let numbers = section.get(&file);
            if numbers.len() == size {
                return Ok(numbers.to_vec());
            }
            Err(file.corrupt(name, &format!("{} elements, {size} belong there", numbers.len())))
        };
        let (counts, documents) = (numbers("counts")?, numbers("documents")?);
        let curve = file.section::<Point>("curve")?.get(&file).to_vec();
        Ok(Self { meta, segmenter: Arc::new(segmenter), counts, documents, curve, file })
    }

    /// Writes a plan with only these new tokens, in this order, and opens it. The uses are copied from this plan.
    ///
    /// # Errors
    /// [`crate::Error::OutOfRange`]; [`crate::Error::Plan`] for an index that is there twice; [`crate::Error::Io`].
    pub fn keep(&self, indices: &[usize], path: &Path) -> Result<Self> {
        let expansions: Vec<_> = indices.iter().map(|&k| self.segmenter.expansion(k)).collect::<Result<_>>()?;
        Segmenter::new(self.base_vocab_size(), &expansions)?;
        let pick = |numbers: &[u64]| indices.iter().map(|&k| numbers[k]).collect();
        Contents {
            meta: PlanMeta { writer: env!("CARGO_PKG_VERSION").into(), ..self.meta.clone() },
            expansions,
            counts: pick(&self.counts),
            documents: pick(&self.documents),
            curve: &self.curve,
        }
        .write(path, &self.file.fingerprint())?;
        Self::open(path)
    }

    /// Reads the whole file and compares its checksums.
    ///
    /// # Errors
    /// [`crate::Error::Format`] naming the damaged section.
    pub fn verify(&self) -> Result<()> {
        self.file.verify()
    }

    /// The container.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns the plan's metadata.
    #[must_use]
    pub fn meta(&self) -> &PlanMeta {
        &self.meta
    }

    /// Returns the first new id: base ids are below it.
    #[must_use]
    pub fn base_vocab_size(&self) -> u32 {
        self.meta.base_vocab_size
    }

    /// Returns the segmenter of the new tokens.
    #[must_use]
    pub fn segmenter(&self) -> &Arc<Segmenter> {
        &self.segmenter
    }

    /// Returns the uses of each new token in the documents that the plan was learned from.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Returns the number of rows that use each new token.
    #[must_use]
    pub fn documents(&self) -> &[u64] {
        &self.documents
    }

    /// Returns the share of tokens that fewer new tokens would have saved.
    #[must_use]
    pub fn curve(&self) -> &[Point] {
        &self.curve
    }
}
