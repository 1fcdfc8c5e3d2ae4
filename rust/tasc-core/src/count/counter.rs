//! Counts the n-grams of a store into a table, and adds up tables.

use std::path::Path;
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::chunk::Chunk;
use super::groups::Sink;
use super::merge::{merge, merge_runs};
use super::page::{MAX_LENGTH, PAGE_BYTES};
use super::spool::{Minimum, Spool};
use super::symbols::Symbols;
use super::table::{KIND, NgramTable, TableMeta, VERSION, section};
use super::workers;
use crate::corpus::Store;
use crate::format::{Fingerprint, Writer};
use crate::{Error, Result, TokenId, pool};

/// Options of counting.
#[derive(Clone, Copy, Debug)]
pub struct CountOptions {
    /// Length of the longest n-grams that are counted; at most [`MAX_LENGTH`].
    pub max_length: usize,
    /// Most bytes of memory to take, at least [`super::MIN_MEMORY`]. The store's mapped pages, which the system takes
    /// back when it needs them, are not part of it.
    pub memory_limit: usize,
    /// Threads that sort; fewer are used below 4 MiB of memory each.
    pub num_threads: usize,
    /// N-grams below this minimum are left out of the table.
    pub minimum: Minimum,
}

impl Default for CountOptions {
    fn default() -> Self {
        Self { max_length: 4, memory_limit: 512 << 20, num_threads: 1, minimum: Minimum::default() }
    }
}

/// Result of counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Sorted runs that were merged; 1: everything was sorted at once.
    pub runs: usize,
}

/// Share of the work that is done when the runs are sorted.
const SORTED: f64 = 0.7;

/// Pages that are copied to the table at a time.
const COPIED: usize = 64;

/// Counts the n-grams of a store's documents into a new table at `path`. N-grams do not cross documents; the end
/// token is a token as any other. Runs that memory cannot hold lie beside `path`, without a name, until they are merged.
///
/// `progress` is called on this thread with the share of work done, many times a second; its error ends the work. The
/// table is the same, byte for byte, for any memory limit and number of threads.
///
/// # Complexity
/// O(tokens · length · log runs) time. Memory is bounded by the limit; disk, besides the table, by twice its size
/// without a minimum, and more where n-grams occur in many runs.
///
/// # Errors
/// [`Error::NgramLength`]; [`Error::MemoryLimit`] for a limit that is too small, for anything or for the longest
/// document; [`Error::Io`]; [`Error::Format`] and [`Error::TokenId`] when the store is damaged; what `progress` returns.
/// Nothing is left behind then.
pub fn count(
    store: &Store,
    path: &Path,
    options: &CountOptions,
    progress: impl FnMut(f64) -> Result<()>,
) -> Result<Counted> {
    let length = options.max_length;
    if !(1..=MAX_LENGTH).contains(&length) {
        return Err(Error::NgramLength { length, limit: MAX_LENGTH });
    }
    store.check_contents()?;
    let limit = id_limit(store);
    let budget = Budget::new(options.memory_limit, options.num_threads, length, limit)?;
    count_within(store, path, options, &budget, progress)
}

/// Returns the number that all ids of a store are below.
fn id_limit(store: &Store) -> TokenId {
    if store.meta().vocab_size == 0 { TokenId::MAX } else { store.meta().vocab_size }
}

/// Counts as [`count`] does, with a budget that may be smaller than any limit allows.
pub(super) fn count_within(
    store: &Store,
    path: &Path,
    options: &CountOptions,
    budget: &Budget,
    progress: impl FnMut(f64) -> Result<()>,
) -> Result<Counted> {
    let mut pulse = Pulse::new(progress);
    let all = store.num_documents();
    let first = chunk_end(store, 0, budget, options)?;
    let whole = first == all;
    let minimum = if whole { options.minimum } else { Minimum::default() };
    let mut spools = Spools::create(path, options.max_length, minimum, budget.buffer)?;
    let (mut start, mut end, mut runs, mut weight) = (0, first, 0, 0u64);
    let mut grams = vec![0; options.max_length];
    while start < all {
        weight = store.documents(start..end)?.weights.iter().fold(weight, |sum, &w| sum.saturating_add(w));
        let share = |done: f64| SORTED * (start as f64 + done * (end - start) as f64) / all as f64;
        sort_chunk(store, start..end, budget, &mut spools, |done| pulse.at(share(done)))?;
        grams = spools.end_run()?;
        runs += 1;
        start = end;
        end = chunk_end(store, start, budget, options)?;
    }
    if !whole {
        (spools, grams) = merged(spools, options, budget, runs, || pulse.at(SORTED))?;
    }
    let meta = TableMeta {
        writer: env!("CARGO_PKG_VERSION").into(),
        tokenizer: store.meta().tokenizer.clone(),
        vocab_size: store.meta().vocab_size,
        eos_id: store.meta().eos_id,
        documents: all as u64,
        weight,
        tokens: store.num_tokens() as u64,
        min_count: options.minimum.count.max(1),
        min_documents: options.minimum.documents.max(1),
        ngrams: grams,
    };
    write(spools, path, &store.file().fingerprint(), &meta, || pulse.at(0.9))?;
    Ok(Counted { runs })
}

/// Returns the end of the documents that are sorted together, beginning with `start`.
fn chunk_end(store: &Store, start: usize, budget: &Budget, options: &CountOptions) -> Result<usize> {
    let (mut bytes, mut places) = (0usize, 0usize);
    for end in start..store.num_documents() {
        let length = store.document(end)?.len();
        bytes = bytes.saturating_add(budget.document(length));
        places = places.saturating_add(length + 1);
        if bytes > budget.chunk || places >= u32::MAX as usize {
            if end == start {
                let needed = options.memory_limit.saturating_add(bytes.saturating_sub(budget.chunk));
                let what = format!("document {end}, which has {length} tokens,");
                return Err(Error::MemoryLimit { limit: options.memory_limit, needed, what });
            }
            return Ok(end);
        }
    }
    Ok(store.num_documents())
}

fn sort_chunk(
    store: &Store,
    documents: std::ops::Range<usize>,
    budget: &Budget,
    spools: &mut Spools,
    mut progress: impl FnMut(f64) -> Result<()>,
) -> Result<()> {
    let documents = store.documents(documents)?;
    let symbols = Symbols::new(documents.tokens, id_limit(store), budget.table, || progress(0.0))?;
    let chunk = Chunk::new(documents, symbols, spools.0.len());
    workers::group(&chunk, budget.threads, spools, progress)
}

/// Merges the runs of all lengths, several lengths at a time.
fn merged(
    spools: Spools,
    options: &CountOptions,
    budget: &Budget,
    runs: usize,
    check: impl FnMut() -> Result<()>,
) -> Result<(Spools, Vec<u64>)> {
    let (at_once, ways, buffer) = budget.merging(runs, spools.0.len());
    let lengths = (1..).zip(spools.0).collect();
    let work = |(length, spool), check: &mut dyn FnMut() -> Result<()>| {
        merge_runs(spool, length, ways, buffer, options.minimum, check)
    };
    let (spools, grams) = pool::all(at_once, lengths, work, check)?.into_iter().unzip();
    Ok((Spools(spools), grams))
}

/// Adds up tables of different documents into a new table at `path`. A document that two tables counted is two
/// documents of the sum.
///
/// `progress` is called with the share of work done; its error ends the work.
///
/// # Complexity
/// O(n-grams · log tables) time; a few buffers of memory.
///
/// # Errors
/// [`Error::NothingToMerge`] without tables; [`Error::Fingerprint`] for tables of two tokenizers;
/// [`Error::NgramLengths`] for tables of different lengths; [`Error::CutTable`] for one that left n-grams out;
/// [`Error::Format`] for a damaged one; [`Error::Io`]; what `progress` returns. Nothing is left behind then.
pub fn merge_tables(
    tables: &[&NgramTable],
    path: &Path,
    minimum: Minimum,
    num_threads: usize,
    progress: impl FnMut(f64) -> Result<()>,
) -> Result<()> {
    let mut pulse = Pulse::new(progress);
    let meta = sum(tables, minimum)?;
    for table in tables {
        table.file().verify_with(|| pulse.at(0.0))?; // damage must not be carried over under fresh checksums
    }
    let work = |length: usize, check: &mut dyn FnMut() -> Result<()>| {
        let mut to = Spool::create(path, length, minimum, COPIED)?;
        let grams = merge(tables.iter().map(|table| table.stream(length)).collect(), &mut to, check)?;
        Ok((to, grams))
    };
    let lengths = (1..=meta.ngrams.len()).collect();
    let (spools, ngrams) = pool::all(num_threads, lengths, work, || pulse.at(0.5))?.into_iter().unzip();
    let fingerprint = tables.first().ok_or(Error::NothingToMerge)?.file().fingerprint();
    write(Spools(spools), path, &fingerprint, &TableMeta { ngrams, ..meta }, || pulse.at(0.9))
}

/// Returns the metadata of the sum of tables, without the number of n-grams; an error where they cannot be added.
fn sum(tables: &[&NgramTable], minimum: Minimum) -> Result<TableMeta> {
    let (first, others) = tables.split_first().ok_or(Error::NothingToMerge)?;
    let mut meta = TableMeta {
        writer: env!("CARGO_PKG_VERSION").into(),
        min_count: minimum.count.max(1),
        min_documents: minimum.documents.max(1),
        ..first.meta().clone()
    };
    let (wanted, lengths) = (first.file().fingerprint(), first.max_length());
    for table in tables {
        let (path, found, other) = (table.file().path().into(), table.file().fingerprint(), table.meta());
        if found != wanted {
            return Err(Error::Fingerprint { path, found, wanted });
        }
        if table.max_length() != lengths {
            return Err(Error::NgramLengths { path, found: table.max_length(), wanted: lengths });
        }
        if other.is_cut() {
            return Err(Error::CutTable { path, min_count: other.min_count, min_documents: other.min_documents });
        }
    }
    for other in others.iter().map(|table| table.meta()) {
        meta.documents = meta.documents.saturating_add(other.documents);
        meta.weight = meta.weight.saturating_add(other.weight);
        meta.tokens = meta.tokens.saturating_add(other.tokens);
        meta.eos_id = meta.eos_id.filter(|_| meta.eos_id == other.eos_id);
    }
    Ok(meta)
}

/// One spool per length.
struct Spools(Vec<Spool>);

impl Spools {
    fn create(path: &Path, lengths: usize, minimum: Minimum, buffer: usize) -> Result<Self> {
        (1..=lengths).map(|length| Spool::create(path, length, minimum, buffer)).collect::<Result<_>>().map(Self)
    }

    /// Ends the runs of all lengths and returns how many n-grams each has.
    fn end_run(&mut self) -> Result<Vec<u64>> {
        self.0.iter_mut().map(Spool::end_run).collect()
    }
}

impl Sink for Spools {
    fn push(&mut self, ids: &[TokenId], count: u64, documents: u64) -> Result<()> {
        self.0[ids.len() - 1].push(ids, count, documents)
    }
}

/// Writes a table from spools of one run each.
fn write(
    spools: Spools,
    path: &Path,
    fingerprint: &Fingerprint,
    meta: &TableMeta,
    mut check: impl FnMut() -> Result<()>,
) -> Result<()> {
    let mut out = Writer::create(path, KIND, VERSION.0, VERSION.1, fingerprint)?;
    let mut pages = vec![[0; PAGE_BYTES]; COPIED];
    for (length, spool) in (1..).zip(spools.0) {
        out.begin(&section(length))?;
        for run in spool.runs() {
            for first in run.clone().step_by(COPIED) {
                let some = &mut pages[..(run.end - first).min(COPIED as u64) as usize];
                spool.read(first, some)?;
                out.write(some.as_flattened())?;
                check()?;
            }
        }
    }
    out.meta(meta)?;
    out.finish()
}

/// Reports progress, at most 50 times a second.
struct Pulse<P> {
    progress: P,
    last: Option<Instant>,
}

impl<P: FnMut(f64) -> Result<()>> Pulse<P> {
    fn new(progress: P) -> Self {
        Self { progress, last: None }
    }

    fn at(&mut self, done: f64) -> Result<()> {
        if self.last.is_some_and(|last| last.elapsed() < Duration::from_millis(20)) {
            return Ok(());
        }
        self.last = Some(Instant::now());
        (self.progress)(done)
    }
}
