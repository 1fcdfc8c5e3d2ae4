//! What a drafter reads of a task, wherever it is kept: in a mapped file or in memory.

use super::build::OwnedNgrams;
use super::copies::{Copies, OwnedCopies};
use super::inputs::{Inputs, OwnedInputs};
use super::ngrams::Ngrams;
use crate::corpus::MergedLogs;
use crate::mixture::weights::Mixtures;
use crate::text::{Cases, OwnedSpellings, Spellings};

/// A task's data.
#[derive(Clone, Copy, Debug)]
pub struct TaskView<'a> {
    /// n-grams of the outputs.
    pub ngrams: Ngrams<'a>,
    /// What the inputs add; `None` when the index has seen none.
    pub rows: Option<RowsView<'a>>,
}

/// What a task's inputs add to its outputs.
#[derive(Clone, Copy, Debug)]
pub struct RowsView<'a> {
    /// The inputs, to retrieve from; a row's document is the sorted position at which its output starts.
    pub inputs: Inputs<'a>,
    /// How their words are spelled.
    pub spellings: Spellings<'a>,
    /// What is copied from them.
    pub copies: Copies<'a>,
    /// The ways, besides as they stand, in which outputs write them.
    pub cases: Cases,
}

/// Holds a task's data.
pub trait Task: Send + Sync {
    /// The arrays.
    fn view(&self) -> TaskView<'_>;

    /// Weights fitted to the task; `None`: the general ones serve.
    fn mixtures(&self) -> Option<&Mixtures> {
        None
    }

    /// Rows of write-ahead logs that the data holds.
    fn merged_logs(&self) -> &MergedLogs {
        MergedLogs::none()
    }
}

/// The rows' inputs as they were given: an index can be built again from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedTexts {
    /// All texts, one after the other.
    pub texts: Vec<u8>,
    /// Where each begins, and the end.
    pub offsets: Vec<u64>,
    /// The sorted position at which each row's output starts.
    pub starts: Vec<u32>,
    /// How often each row occurred.
    pub weights: Vec<u64>,
}

impl OwnedTexts {
    /// Adds a row.
    pub fn push(&mut self, text: &str, start: u32, weight: u64) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        self.texts.extend_from_slice(text.as_bytes());
        self.offsets.push(self.texts.len() as u64);
        self.starts.push(start);
        self.weights.push(weight);
    }
}

/// What a task's inputs add, in memory.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // each field is described at `RowsView`
pub struct OwnedRows {
    pub inputs: OwnedInputs,
    pub spellings: OwnedSpellings,
    pub copies: OwnedCopies,
    pub texts: OwnedTexts,
    pub cases: Cases,
}

impl OwnedRows {
    /// The borrowed form.
    #[must_use]
    pub fn view(&self) -> RowsView<'_> {
        RowsView {
            inputs: self.inputs.view(),
            spellings: self.spellings.view(),
            copies: self.copies.view(),
            cases: self.cases,
        }
    }
}

/// A task in memory.
#[derive(Clone, Debug, Default)]
pub struct OwnedTask {
    /// n-grams of the outputs.
    pub ngrams: OwnedNgrams,
    /// What the inputs add.
    pub rows: Option<OwnedRows>,
}

impl Task for OwnedTask {
    fn view(&self) -> TaskView<'_> {
        TaskView { ngrams: self.ngrams.view(), rows: self.rows.as_ref().map(OwnedRows::view) }
    }
}

impl Task for OwnedNgrams {
    fn view(&self) -> TaskView<'_> {
        TaskView { ngrams: self.view(), rows: None }
    }
}
