//! The sections that a task's inputs add to an index file.

use crate::format::{File, Section, Writer};
use crate::index::conditional::Conditional;
use crate::index::copies::Copies;
use crate::index::inputs::Inputs;
use crate::index::view::{OwnedTexts, RowsView};
use crate::text::{Cases, Spellings};
use crate::{Error, Result};

/// A row's input as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// The text.
    pub text: &'a str,
    /// The sorted position at which the row's output starts.
    pub start: u32,
    /// How often the row occurred.
    pub weight: u64,
}

/// The sections that the inputs add.
#[derive(Clone, Debug)]
pub(super) struct RowSections {
    terms: Section<u64>,
    term_starts: Section<u64>,
    postings: Section<u32>,
    norms: Section<f32>,
    row_starts: Section<u32>,
    spelling_keys: Section<u64>,
    spelling_starts: Section<u32>,
    spelling_ids: Section<u32>,
    copy_words: Section<u64>,
    copy_rates: Section<f32>,
    copy_tokens: Section<u8>,
    pointer_slots: Section<u32>,
    pointers: Section<u32>,
    coverage_slots: Section<u32>,
    coverages: Section<u32>,
    cases: Section<u8>,
    texts: Section<u8>,
    text_offsets: Section<u64>,
    text_starts: Section<u32>,
    text_weights: Section<u64>,
}

impl RowSections {
    pub(super) fn open(file: &File) -> Result<Option<Self>> {
        if !file.sections().any(|s| s.0 == "terms") {
            return Ok(None);
        }
        Ok(Some(Self {
            terms: file.section("terms")?,
            term_starts: file.section("term_starts")?,
            postings: file.section("postings")?,
            norms: file.section("norms")?,
            row_starts: file.section("row_starts")?,
            spelling_keys: file.section("spelling_keys")?,
            spelling_starts: file.section("spelling_starts")?,
            spelling_ids: file.section("spelling_ids")?,
            copy_words: file.section("copy_words")?,
            copy_rates: file.section("copy_rates")?,
            copy_tokens: file.section("copy_tokens")?,
            pointer_slots: file.section("pointer_slots")?,
            pointers: file.section("pointers")?,
            coverage_slots: file.section("coverage_slots")?,
            coverages: file.section("coverages")?,
            cases: file.section("copy_cases")?,
            texts: file.section("texts")?,
            text_offsets: file.section("text_offsets")?,
            text_starts: file.section("text_starts")?,
            text_weights: file.section("text_weights")?,
        }))
    }

    pub(super) fn write(rows: &RowsView<'_>, texts: &OwnedTexts, out: &mut Writer) -> Result<()> {
        out.section("terms", rows.inputs.terms)?;
        out.section("term_starts", rows.inputs.term_starts)?;
        out.section("postings", rows.inputs.postings)?;
        out.section("norms", rows.inputs.norms)?;
        out.section("row_starts", rows.inputs.row_documents)?;
        out.section("spelling_keys", rows.spellings.keys)?;
        out.section("spelling_starts", rows.spellings.starts)?;
        out.section("spelling_ids", rows.spellings.ids)?;
        out.section("copy_words", rows.copies.words)?;
        out.section("copy_rates", rows.copies.rates)?;
        out.section("copy_tokens", rows.copies.tokens)?;
        out.section("pointer_slots", rows.copies.pointer.slots)?;
        out.section("pointers", rows.copies.pointer.records)?;
        out.section("coverage_slots", rows.copies.coverage.slots)?;
        out.section("coverages", rows.copies.coverage.records)?;
        out.section("copy_cases", &[rows.cases.bits()])?;
        out.section("texts", &texts.texts)?;
        out.section("text_offsets", &texts.offsets)?;
        out.section("text_starts", &texts.starts)?;
        out.section("text_weights", &texts.weights)
    }

    pub(super) fn view<'f>(&self, file: &'f File) -> RowsView<'f> {
        RowsView {
            inputs: Inputs {
                terms: self.terms.get(file),
                term_starts: self.term_starts.get(file),
                postings: self.postings.get(file),
                norms: self.norms.get(file),
                row_documents: self.row_starts.get(file),
            },
            spellings: Spellings {
                keys: self.spelling_keys.get(file),
                starts: self.spelling_starts.get(file),
                ids: self.spelling_ids.get(file),
            },
            copies: Copies {
                words: self.copy_words.get(file),
                rates: self.copy_rates.get(file),
                tokens: self.copy_tokens.get(file),
                pointer: Conditional { slots: self.pointer_slots.get(file), records: self.pointers.get(file) },
                coverage: Conditional { slots: self.coverage_slots.get(file), records: self.coverages.get(file) },
            },
            cases: Cases::from_bits(self.cases.get(file).first().copied().unwrap_or(0)),
        }
    }

    pub(super) fn num_texts(&self, file: &File) -> usize {
        self.text_starts.get(file).len().min(self.text_weights.get(file).len())
    }

    pub(super) fn text<'f>(&self, file: &'f File, row: usize) -> Result<Text<'f>> {
        let limit = self.num_texts(file);
        let missing = Error::OutOfRange { what: "input", index: row, limit };
        let (Some(&start), Some(&weight)) = (self.text_starts.get(file).get(row), self.text_weights.get(file).get(row))
        else {
            return Err(missing);
        };
        let offsets = self.text_offsets.get(file).get(row..).and_then(|o| o.first_chunk::<2>());
        let range = offsets.and_then(|o| Some(usize::try_from(o[0]).ok()?..usize::try_from(o[1]).ok()?));
        let bytes = range.and_then(|r| self.texts.get(file).get(r));
        let bytes = bytes.ok_or_else(|| file.corrupt("texts", &format!("input {row} lies outside of it")))?;
        let text = std::str::from_utf8(bytes).map_err(|e| file.corrupt("texts", &e.to_string()))?;
        Ok(Text { text, start, weight })
    }
}
