//! A store's rows → a [`TaskArrays`]: n-grams of the outputs, and what the inputs add to them.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::Result;
use crate::corpus::Store;
use crate::index::build::NgramsBuilder;
use crate::index::copies::CopyModelBuilder;
use crate::index::inputs::InputsBuilder;
use crate::index::view::{RowArrays, TaskArrays, TextArrays};
use crate::text::pieces::{PieceTokenizer, Pieces, TokenizationCache};
use crate::text::source_text::Start;
use crate::text::template::MAX_PROMPTS;
use crate::text::{Case, Cases, InputTemplate, SourceText};

/// CopyState is learnt from rows of at most this many output tokens in all, spread over the store.
const MAX_COPY_TOKENS: usize = 4_000_000;

/// StoreRows by which it is judged whether outputs write words otherwise than inputs.
const MAX_CASE_ROWS: usize = 1000;

/// A way to write words pays when so many copies need it, and one in so many.
const MIN_RECASED: usize = 10;
const RECASED_SHARE: usize = 5;

/// StoreRows whose words are spelled in one call.
const BATCH: usize = 512;

/// StoreRows of a store that are left out, each so many times.
pub type LeftOut = FxHashMap<usize, u64>;

/// Builds what a drafter reads, from all rows but those left out. `check` hears of the progress (0 to 1) and may stop.
///
/// # Complexity
/// O(tokens + words); about 28 bytes of memory per output token, then 16 per word of the inputs, then up to about 200
/// per output token that copying is learnt from, of which there are at most 4 million.
///
/// # Errors
/// [`crate::Error::EmptyCorpus`] when nothing is left; a damaged store's; what `check` and the tokenizer return.
pub fn build(
    store: &Store,
    left_out: &LeftOut,
    inputs: bool,
    cache: &mut TokenizationCache,
    tokenizer: Option<&dyn PieceTokenizer>,
    mut check: impl FnMut(f64) -> Result<()>,
) -> Result<TaskArrays> {
    let mut less: FxHashMap<u32, u64> = FxHashMap::default();
    for (&row, &times) in left_out {
        *less.entry(store.input(row)?.document).or_default() += times;
    }
    let mut builder = NgramsBuilder::new();
    let mut place = Vec::with_capacity(store.num_documents()); // where a document is in the builder
    for k in 0..store.num_documents() {
        let gone = u32::try_from(k).ok().and_then(|k| less.get(&k)).copied().unwrap_or(0);
        let weight = store.weight(k)?.saturating_sub(gone);
        place.push(builder.len());
        if weight > 0 {
            builder.push(store.document(k)?, weight)?;
        }
    }
    let share = if inputs && store.num_inputs() > 0 { 0.5 } else { 1.0 };
    let (ngrams, starts) = builder.build_with_starts(|done| check(share * done))?;
    let mut task = TaskArrays { ngrams, ..TaskArrays::default() };
    if share < 1.0 {
        let start_of = |document: u32| starts.get(*place.get(document as usize)?).copied();
        let rows = StoreRows { store, left_out };
        task.rows = Some(rows.build(start_of, cache, tokenizer, |done| check(share + (1.0 - share) * done))?);
    }
    Ok(task)
}

/// Learns what surrounds the input in a store's inputs, where they are whole prompts.
///
/// # Complexity
/// O(bytes of up to 1,024 inputs).
///
/// # Errors
/// A damaged store's.
pub fn learn_template(store: &Store) -> Result<Option<InputTemplate>> {
    let stride = store.num_inputs().div_ceil(MAX_PROMPTS).max(1);
    let sample = (0..store.num_inputs()).step_by(stride).map(|row| Ok(store.input(row)?.text));
    let distinct: BTreeSet<&str> = sample.collect::<Result<_>>()?;
    Ok(InputTemplate::learn(&distinct.into_iter().collect::<Vec<_>>()))
}

/// Spells the words of some rows, in one call.
///
/// # Errors
/// A damaged store's, the tokenizer's.
pub fn tokenize(
    store: &Store,
    rows: &[usize],
    source_text: &mut SourceText,
    cache: &mut TokenizationCache,
    tokenizer: Option<&dyn PieceTokenizer>,
) -> Result<()> {
    let Some(tokenizer) = tokenizer else { return Ok(()) };
    let mut missing = FxHashSet::default();
    for &row in rows {
        source_text.missing(store.input(row)?.text, &Pieces::default(), cache, &mut missing);
    }
    let mut missing: Vec<&str> = missing.iter().map(AsRef::as_ref).collect();
    missing.sort_unstable();
    if missing.is_empty() { Ok(()) } else { cache.learn(&missing, tokenizer) }
}

struct StoreRows<'a> {
    store: &'a Store,
    left_out: &'a LeftOut,
}

impl StoreRows<'_> {
    fn weight(&self, row: usize) -> Result<u64> {
        let gone = self.left_out.get(&row).copied().unwrap_or(0);
        Ok(self.store.input(row)?.weight.saturating_sub(gone))
    }

    fn build(
        &self,
        start_of: impl Fn(u32) -> Option<u32>,
        cache: &mut TokenizationCache,
        tokenizer: Option<&dyn PieceTokenizer>,
        mut check: impl FnMut(f64) -> Result<()>,
    ) -> Result<RowArrays> {
        let rows = self.store.num_inputs();
        let mut inputs = InputsBuilder::new();
        let mut texts = TextArrays::default();
        let mut tokens = 0usize;
        for row in 0..rows {
            let input = self.store.input(row)?;
            let weight = self.weight(row)?;
            tokens = tokens.saturating_add(self.store.document(input.document as usize)?.len());
            if let Some(start) = start_of(input.document).filter(|_| weight > 0) {
                inputs.push(input.text, start, weight)?;
                texts.push(input.text, start, weight);
            }
        }
        check(0.1)?;
        let inputs = inputs.build();
        check(0.3)?;
        let stride = tokens.div_ceil(MAX_COPY_TOKENS).max(1);
        let sample: Vec<usize> = (0..rows).step_by(stride).collect();
        let cases = self.cases(&sample, cache, tokenizer)?;
        let mut copies = CopyModelBuilder::default();
        self.each(&sample, cases, cache, tokenizer, |source_text, output, weight| {
            copies.count(source_text, output, weight)
        })?;
        copies.counted();
        check(0.6)?;
        self.each(&sample, cases, cache, tokenizer, |source_text, output, weight| {
            copies.learn(source_text, output, weight)
        })?;
        check(0.9)?;
        Ok(RowArrays { copy_cases: vec![cases.bits()], inputs, pieces: cache.freeze(), copies: copies.build(), texts })
    }

    /// The ways in which outputs write words of their inputs, besides as they stand there: those that a share of the
    /// copies needs.
    fn cases(
        &self,
        sample: &[usize],
        cache: &mut TokenizationCache,
        tokenizer: Option<&dyn PieceTokenizer>,
    ) -> Result<Cases> {
        let judged: Vec<usize> = sample.iter().copied().step_by(sample.len().div_ceil(MAX_CASE_ROWS).max(1)).collect();
        let (mut copies, mut recased) = (0usize, [0usize; Case::ALL.len()]);
        // what is spelled here is forgotten: most of it will not be needed
        self.each(
            &judged,
            Case::ALL.into_iter().collect(),
            &mut cache.clone(),
            tokenizer,
            |source_text, output, _| {
                for (at, &token) in output.iter().enumerate() {
                    let whole = |s: &&Start| output[at..].starts_with(source_text.first_word(**s));
                    let found: Vec<&Start> = source_text.starting_with(token).iter().filter(whole).collect();
                    copies += usize::from(!found.is_empty());
                    if found.iter().all(|s| s.case.is_some()) {
                        found.iter().filter_map(|s| s.case).for_each(|case| recased[case as usize] += 1);
                    }
                }
            },
        )?;
        let pays = |case: &Case| recased[*case as usize] >= MIN_RECASED.max(copies / RECASED_SHARE);
        Ok(Case::ALL.into_iter().filter(pays).collect())
    }

    /// Shows the rows of a sample, spelled.
    fn each(
        &self,
        sample: &[usize],
        cases: Cases,
        cache: &mut TokenizationCache,
        tokenizer: Option<&dyn PieceTokenizer>,
        mut show: impl FnMut(&SourceText, &[u32], u32),
    ) -> Result<()> {
        let mut source_text = SourceText::default();
        source_text.set_cases(cases);
        for batch in sample.chunks(BATCH) {
            tokenize(self.store, batch, &mut source_text, cache, tokenizer)?;
            for &row in batch {
                let input = self.store.input(row)?;
                let weight = u32::try_from(self.weight(row)?).unwrap_or(u32::MAX);
                if weight > 0 {
                    source_text.read(input.text, &Pieces::default(), cache, None)?;
                    show(&source_text, self.store.document(input.document as usize)?, weight);
                }
            }
        }
        Ok(())
    }
}
