//! Proof that the arrays of an index can be used without a bound on any loop.
//!
//! The LF mapping of a Burrows–Wheeler transform follows from the transform: position i goes to the place of `bwt[i]`
//! among the equal symbols before it. A mapping that is so is one to one. Walks from different starts therefore never
//! meet, and each ends at a boundary. If the walks from all starts make as many steps as there are positions, no
//! position lies on a cycle. Counts are not compared: wrong ones make drafts worse, and nothing else.

use super::build::MAX_POSITIONS;
use super::conditional::Conditional;
use super::ngrams::Ngrams;
use super::view::{Rows, TaskView};
use crate::Result;
use crate::format::{File, is_ragged};

/// Elements between two calls of `check`.
const CHECK_EVERY: usize = 1 << 20;

/// Distance of the positions at which walks are cut.
const ANCHOR: u32 = 1 << 10;

/// Walks that are followed in step, so that they wait for memory together.
const WALKS: usize = 32;

/// Proves that offsets, positions and symbols of a task's arrays are in range, that `lf` is one to one and `lf_inverse`
/// its inverse, that every walk ends at a boundary, and that ragged arrays are cut without gaps or overlaps. `check` is
/// called repeatedly; its error ends the work.
///
/// # Complexity
/// O(file); memory: 4 bytes per distinct token, and 16 per 1024 positions.
///
/// # Errors
/// A format error naming the section; what `check` returns.
pub fn check_task(task: &TaskView<'_>, file: &File, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let ngrams = &task.ngrams;
    check_symbols(ngrams, file)?;
    check_mapping(ngrams, file, &mut check)?;
    check_walks(ngrams, file, &mut check)?;
    check_weights(ngrams, file)?;
    check()?;
    check_summaries(ngrams, file)?;
    check()?;
    task.rows.map_or(Ok(()), |rows| check_rows(&rows, starts_below(ngrams), file, &mut check))
}

/// The number of documents: they start at the positions below it.
fn starts_below(ngrams: &Ngrams<'_>) -> u32 {
    ngrams.start().hi
}

fn check_symbols(ngrams: &Ngrams<'_>, file: &File) -> Result<()> {
    if ngrams.bwt.len() > MAX_POSITIONS {
        return Err(file.corrupt("bwt", &format!("{} positions, the limit is {MAX_POSITIONS}", ngrams.bwt.len())));
    }
    if !ngrams.tokens.is_sorted_by(|a, b| a < b) {
        return Err(file.corrupt("tokens", "ids do not ascend"));
    }
    if !is_ragged(ngrams.starts, ngrams.tokens.len() + 1, ngrams.bwt.len()) {
        return Err(file.corrupt("starts", "the ranges do not cover all positions one after the other"));
    }
    Ok(())
}

/// Proves that `lf` is the mapping that follows from `bwt`, and `lf_inverse` its inverse.
fn check_mapping(ngrams: &Ngrams<'_>, file: &File, check: &mut impl FnMut() -> Result<()>) -> Result<()> {
    let (_, ends) = ngrams.starts.split_first().unwrap_or((&0, &[]));
    let mut next = ngrams.starts.get(..ends.len()).unwrap_or(&[]).to_vec();
    let positions = (0u32..).zip(ngrams.bwt.iter().zip(ngrams.lf));
    for (at, (&symbol, &to)) in positions {
        if (at as usize).is_multiple_of(CHECK_EVERY) {
            check()?;
        }
        let Some((expected, &end)) = next.get_mut(symbol as usize).zip(ends.get(symbol as usize)) else {
            let why = format!("position {at} has symbol {symbol}, there are {}", ends.len());
            return Err(file.corrupt("bwt", &why));
        };
        if to != *expected || to >= end {
            return Err(file.corrupt("lf", &format!("position {at} leads to {to}, which does not follow from `bwt`")));
        }
        if ngrams.lf_inverse.get(to as usize) != Some(&at) {
            return Err(file.corrupt("lf_inverse", &format!("element {to} is not {at}: it is no inverse of `lf`")));
        }
        *expected += 1;
    }
    Ok(())
}

/// Proves that the walks from all starts pass every position.
///
/// Walks are cut at the positions that are multiples of [`ANCHOR`], so that one long output is followed in step too:
/// from each start and each anchor to the next anchor or boundary. Together they must pass every position, and every
/// anchor must follow from a start.
fn check_walks(ngrams: &Ngrams<'_>, file: &File, check: &mut impl FnMut() -> Result<()>) -> Result<()> {
    let (documents, positions) = (starts_below(ngrams), ngrams.len());
    let anchors = (0..positions).step_by(ANCHOR as usize).filter(|&at| at >= documents);
    // the anchor behind each anchor, where no boundary comes first; the anchors behind starts
    let (mut behind, mut first) = (vec![None; (positions / ANCHOR) as usize + 1], Vec::new());
    let mut waiting = (0..documents).chain(anchors.clone());
    let mut walks: Vec<(u32, u32)> = waiting.by_ref().take(WALKS).map(|at| (at, at)).collect();
    let (mut passed, mut next_check) = (0, 0);
    while !walks.is_empty() && passed <= ngrams.lf.len() {
        if passed >= next_check {
            check()?;
            next_check = passed + CHECK_EVERY;
        }
        passed += walks.len();
        walks.retain_mut(|(from, at)| {
            *at = ngrams.lf.get(*at as usize).copied().unwrap_or(0);
            if *at >= documents && !at.is_multiple_of(ANCHOR) {
                return true;
            }
            match *at {
                start if start < documents => {} // the boundary behind an output leads to a start
                anchor if *from < documents => first.push(anchor),
                anchor => behind[(*from / ANCHOR) as usize] = Some(anchor),
            }
            let next = waiting.next();
            next.inspect(|&start| (*from, *at) = (start, start)).is_some()
        });
    }
    let mut reached = 0;
    for anchor in first {
        let chain = std::iter::successors(Some(anchor), |&at| behind[(at / ANCHOR) as usize]);
        reached += chain.take(behind.len()).count();
    }
    if passed == ngrams.lf.len() && reached == anchors.count() {
        return Ok(());
    }
    Err(file.corrupt("lf", "not every position follows from the start of an output: some lead in a circle"))
}

fn check_weights(ngrams: &Ngrams<'_>, file: &File) -> Result<()> {
    let inside = ngrams.heavy_at.last().is_none_or(|&at| (at as usize) < ngrams.weights.len());
    if inside && ngrams.heavy_at.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    Err(file.corrupt("heavy_at", "positions do not ascend, or are out of range"))
}

fn check_summaries(ngrams: &Ngrams<'_>, file: &File) -> Result<()> {
    match ngrams.slots.iter().find(|&&slot| slot > 0 && !ngrams.has_summary(slot)) {
        Some(slot) => Err(file.corrupt("records", &format!("no summary of intervals stands at word {}", slot - 1))),
        None => Ok(()),
    }
}

fn check_rows(rows: &Rows<'_>, documents: u32, file: &File, check: &mut impl FnMut() -> Result<()>) -> Result<()> {
    let wrong = |section: &str, why: &str| Err(file.corrupt(section, why));
    let (inputs, pieces, copies, texts) = (&rows.inputs, &rows.pieces, &rows.copies, &rows.texts);
    let number = texts.starts.len();
    let starts = |starts: &[u32]| starts.iter().all(|&start| start < documents);
    if !inputs.terms.is_sorted_by(|a, b| a < b) {
        return wrong("terms", "keys do not ascend");
    }
    if !is_ragged(inputs.term_starts, inputs.terms.len(), inputs.postings.len()) {
        return wrong("term_starts", "the ranges do not cover the postings one after the other");
    }
    check()?;
    let ascending = |t: usize| inputs.postings.get(inputs.range(t)).is_some_and(|rows| rows.is_sorted_by(|a, b| a < b));
    if inputs.postings.iter().any(|&row| row as usize >= number) || !(0..inputs.terms.len()).all(ascending) {
        return wrong("postings", "rows of a term do not ascend, or are out of range");
    }
    check()?;
    if inputs.norms.len() != number || inputs.row_documents.len() != number || !starts(inputs.row_documents) {
        return wrong("row_documents", "not every row has a norm and a start of an output");
    }
    if !pieces.keys.is_sorted_by(|a, b| a < b) || !is_ragged(pieces.starts, pieces.keys.len(), pieces.ids.len()) {
        return wrong("piece_starts", "keys do not ascend, or the ranges do not cover the ids one after the other");
    }
    if !copies.words.is_sorted() || copies.rates.len() != copies.words.len() {
        return wrong("copy_words", "keys do not ascend, or not each has a rate");
    }
    for (name, table) in [("pointer_records", &copies.pointer), ("coverage_records", &copies.coverage)] {
        check_conditional(name, table, file)?;
    }
    check()?;
    if texts.weights.len() != number || !starts(texts.starts) {
        return wrong("text_starts", "not every row has a weight and a start of an output");
    }
    let no_text = number == 0 && texts.offsets.is_empty() && texts.bytes.is_empty();
    if !no_text && !is_ragged(texts.offsets, number, texts.bytes.len()) {
        return wrong("text_offsets", "the ranges do not cover the texts one after the other");
    }
    for row in 0..number {
        if row.is_multiple_of(CHECK_EVERY) {
            check()?;
        }
        if texts.get(row).is_none_or(|text| std::str::from_utf8(text).is_err()) {
            return wrong("text_bytes", &format!("input {row} is not UTF-8"));
        }
    }
    Ok(())
}

fn check_conditional(name: &str, table: &Conditional<'_>, file: &File) -> Result<()> {
    let broken = table.slots.iter().find(|&&slot| slot > 0 && table.record(slot).is_none());
    match broken {
        _ if !table.slots.is_empty() && !table.slots.len().is_power_of_two() => {
            Err(file.corrupt(name, &format!("{} slots are not a power of two", table.slots.len())))
        }
        Some(slot) => Err(file.corrupt(name, &format!("no counts stand at word {}", slot - 1))),
        None => Ok(()),
    }
}
