//! Everything that a drafter reads of a task: one list of arrays, in memory, in a mapped file, or borrowed.

use super::copies::CopyArrays;
use super::inputs::InputArrays;
use super::ngrams::NgramArrays;
use super::origins::RowOrigin;
use crate::format::{Storage, sections};
use crate::text::Cases;
use crate::text::pieces::PieceArrays;

sections! {
    /// The arrays of a task.
    pub struct TaskArrays as TaskView {}
    nested {
        /// n-grams of the outputs.
        ngrams: NgramArrays = "",
    }
    optional {
        /// Fitted weights of the mixture, table after table; empty when none were fitted.
        mixture: [f32],
        /// Times and keys of the rows that were merged from logs.
        origins: [RowOrigin],
    }
    optional nested {
        /// What the inputs add; `None` when the index has seen none.
        rows: RowArrays = "",
    }
}

sections! {
    /// What a task's inputs add to its outputs.
    pub struct RowArrays as Rows {
        /// The ways, besides as they stand, in which outputs write words of the inputs: one byte, see [`Cases::bits`].
        copy_cases: [u8],
    }
    nested {
        /// The inputs, to retrieve from; a row's document is the sorted position at which its output starts.
        inputs: InputArrays = "",
        /// Pieces of their text as token ids.
        pieces: PieceArrays = "piece_",
        /// What is copied from them.
        copies: CopyArrays = "copy_",
        /// Their texts.
        texts: TextArrays = "text_",
    }
}

sections! {
    /// The rows' inputs as they were given: an index can be built again from them.
    pub struct TextArrays as Texts {
        /// All texts, one after the other.
        bytes: [u8],
        /// Where each begins, and the end.
        offsets: [u64],
        /// The sorted position at which each row's output starts.
        starts: [u32],
        /// How often each row occurred.
        weights: [u64],
    }
}

impl<S: Storage> RowArrays<S> {
    /// The ways, besides as they stand, in which outputs write words of the inputs.
    #[must_use]
    pub fn cases(&self) -> Cases {
        Cases::from_bits(self.copy_cases.first().copied().unwrap_or(0))
    }
}

impl TextArrays {
    /// Adds a row.
    pub fn push(&mut self, text: &str, start: u32, weight: u64) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        self.bytes.extend_from_slice(text.as_bytes());
        self.offsets.push(self.bytes.len() as u64);
        self.starts.push(start);
        self.weights.push(weight);
    }
}

impl<'a> Texts<'a> {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len().min(self.weights.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text of a row; `None` when there is none or the arrays do not fit.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&'a [u8]> {
        let &[start, end] = self.offsets.get(row..)?.first_chunk()?;
        self.bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }
}
