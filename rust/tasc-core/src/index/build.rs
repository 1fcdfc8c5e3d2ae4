//! Documents → [`Ngrams`].

use libsais::SuffixArrayConstruction;
use rustc_hash::FxHashMap;

use super::ngrams::{
    BOUNDARY, ENTRY_WORDS, HEAVY, Interval, NgramArrays, Ngrams, RECORD_HEAD, SMALL, SUMMARY_ENTRIES, Symbol,
    WEIGHT_STRIDE, hash,
};
use crate::{Error, Result, TokenId};

/// Most positions (tokens plus documents) that one index can hold.
pub const MAX_POSITIONS: usize = i32::MAX as usize;

/// Collects documents, then sorts and summarises them.
#[derive(Debug, Default)]
pub struct NgramsBuilder {
    /// Every document reversed and closed by a boundary, as tokens + 1 (0 = boundary).
    text: Vec<u32>,
    weights: Vec<u64>,
}

impl NgramsBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of documents so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there is none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Adds a document that occurred `weight` times.
    ///
    /// # Errors
    /// [`Error::TokenId`] for the id `u32::MAX`; [`Error::IndexTooLarge`] past [`MAX_POSITIONS`].
    pub fn push(&mut self, document: &[TokenId], weight: u64) -> Result<()> {
        let len = self.text.len() + document.len() + 1;
        if len > MAX_POSITIONS {
            return Err(Error::IndexTooLarge { positions: len, limit: MAX_POSITIONS });
        }
        if document.contains(&TokenId::MAX) {
            return Err(Error::TokenId { id: TokenId::MAX, limit: TokenId::MAX });
        }
        self.text.extend(document.iter().rev().map(|t| t + 1));
        self.text.push(BOUNDARY);
        self.weights.push(weight);
        Ok(())
    }

    /// Sorts all positions and summarises the frequent contexts.
    ///
    /// `check` is called between phases with the fraction done; its error stops the build.
    ///
    /// # Complexity
    /// O(n) suffix sorting plus O(n + total summary size), n tokens; about 28 bytes per token at the peak.
    ///
    /// # Errors
    /// [`Error::EmptyCorpus`] without documents; what `check` returns.
    pub fn build(self, check: impl FnMut(f64) -> Result<()>) -> Result<NgramArrays> {
        Ok(self.build_with_starts(check)?.0)
    }

    /// The same, and the sorted position at which each document starts.
    ///
    /// # Errors
    /// As [`NgramsBuilder::build`].
    pub fn build_with_starts(self, mut check: impl FnMut(f64) -> Result<()>) -> Result<(NgramArrays, Vec<u32>)> {
        if self.weights.is_empty() {
            return Err(Error::EmptyCorpus);
        }
        let Self { text, weights } = self;
        let (tokens, mut symbols) = densify(text);
        check(0.05)?;
        let order = suffix_array(&mut symbols)?;
        check(0.5)?;
        let mut built = arrays(tokens, &symbols, &order);
        attach_weights(&mut built, &symbols, &order, &weights);
        check(0.65)?;
        let starts = document_starts(&symbols, &order, weights.len());
        let common = common_prefixes(&symbols, &order);
        drop((symbols, order));
        check(0.8)?;
        let (records, slots) = Summaries::collect(&built.view(), &common);
        (built.records, built.slots) = (records, slots);
        check(1.0)?;
        Ok((built, starts))
    }
}

/// Replaces tokens by dense symbols that keep their order; returns the distinct tokens.
fn densify(mut text: Vec<u32>) -> (Vec<TokenId>, Vec<i32>) {
    let mut seen: Vec<u32> = FxHashMap::from_iter(text.iter().map(|&t| (t, ()))).into_keys().collect();
    seen.sort_unstable();
    let dense: FxHashMap<u32, u32> = seen.iter().copied().zip(0..).collect();
    for t in &mut text {
        *t = dense[t];
    }
    let tokens = seen.iter().filter(|&&t| t != BOUNDARY).map(|t| t - 1).collect();
    (tokens, bytemuck::allocation::cast_vec(text)) // symbols < MAX_POSITIONS fit i32
}

fn suffix_array(symbols: &mut [i32]) -> Result<Vec<i32>> {
    let sorted = SuffixArrayConstruction::for_text_mut(symbols).in_owned_buffer32().single_threaded().run();
    Ok(sorted.map_err(|e| Error::Sort { why: format!("{e:?}") })?.into_vec())
}

/// Everything that follows from the sorted order alone.
#[allow(clippy::cast_sign_loss)] // libsais speaks i32; symbols and positions are never negative
fn arrays(tokens: Vec<TokenId>, symbols: &[i32], order: &[i32]) -> NgramArrays {
    let n = symbols.len();
    let mut starts = vec![0u32; tokens.len() + 2];
    for &s in symbols {
        starts[s as usize + 1] += 1;
    }
    for s in 1..starts.len() {
        starts[s] += starts[s - 1];
    }
    let mut free = starts.clone();
    let (mut bwt, mut lf, mut lf_inverse) = (Vec::with_capacity(n), Vec::with_capacity(n), vec![0u32; n]);
    for (at, &p) in (0u32..).zip(order) {
        let symbol = if p == 0 { BOUNDARY } else { symbols[p as usize - 1] as u32 };
        let to = free[symbol as usize];
        free[symbol as usize] += 1;
        bwt.push(symbol);
        lf.push(to);
        lf_inverse[to as usize] = at;
    }
    NgramArrays { tokens, starts, bwt, lf, lf_inverse, ..<NgramArrays>::default() }
}

/// The sorted position of each document's start: of the boundary that closes it in the reversed text.
#[allow(clippy::cast_sign_loss)]
fn document_starts(symbols: &[i32], order: &[i32], documents: usize) -> Vec<u32> {
    let boundaries: Vec<u32> = (0u32..).zip(symbols).filter(|s| *s.1 == 0).map(|s| s.0).collect();
    let mut starts = vec![0u32; documents];
    for (at, &p) in (0u32..).zip(order).take(boundaries.len()) {
        if let Ok(document) = boundaries.binary_search(&(p as u32)) {
            starts[document] = at;
        }
    }
    starts
}

/// Gives every position the weight of its document; nothing is stored when all weights are 1.
#[allow(clippy::cast_sign_loss)]
fn attach_weights(built: &mut NgramArrays, symbols: &[i32], order: &[i32], weights: &[u64]) {
    if weights.iter().all(|&w| w == 1) {
        return;
    }
    let mut document = vec![0u32; symbols.len()];
    let mut current = 0;
    for (d, &s) in document.iter_mut().zip(symbols) {
        *d = current;
        current += u32::from(s == 0);
    }
    let mut sum = 0u64;
    for (at, &p) in (0u32..).zip(order) {
        if (at as usize).is_multiple_of(WEIGHT_STRIDE) {
            built.weight_sums.push(sum);
        }
        let weight = weights[document[p as usize] as usize];
        sum = sum.saturating_add(weight);
        built.weights.push(u8::try_from(weight).unwrap_or(HEAVY));
        if weight >= u64::from(HEAVY) {
            built.heavy_at.push(at);
            built.heavy.push(weight);
        }
    }
    built.weight_sums.push(sum);
}

/// `common[k]`: length of the common prefix of the reversed contexts at sorted places k − 1 and k, the boundary
/// counted and nothing beyond it (Kärkkäinen, Manzini, Puglisi: Permuted longest-common-prefix array).
#[allow(clippy::cast_sign_loss)]
fn common_prefixes(symbols: &[i32], order: &[i32]) -> Vec<u32> {
    let n = symbols.len();
    let mut permuted = vec![u32::MAX; n]; // first: who sorts right before me; then: the length shared with it
    for pair in order.windows(2) {
        permuted[pair[1] as usize] = pair[0] as u32;
    }
    let mut len = 0usize;
    for i in 0..n {
        let before = permuted[i];
        if before == u32::MAX {
            (permuted[i], len) = (0, 0);
            continue;
        }
        let before = before as usize;
        while let (Some(&a), Some(&b)) = (symbols.get(i + len), symbols.get(before + len)) {
            if a != b || (len > 0 && symbols[i + len - 1] == 0) {
                break;
            }
            len += 1;
        }
        permuted[i] = u32::try_from(len).unwrap_or(u32::MAX);
        len = len.saturating_sub(1);
    }
    order.iter().map(|&p| permuted[p as usize]).collect()
}

/// Successors gathered for one frequent context: symbol → (first position after it, positions, weight).
type Gathered = FxHashMap<Symbol, (u32, u32, u64)>;

/// An interval whose right end is not known yet.
struct Open {
    depth: u32,
    lo: u32,
    /// Positions before this one are in `gathered` already.
    covered: u32,
    gathered: Gathered,
}

/// Walks all context intervals bottom-up and writes a record for each frequent one.
struct Summaries<'a> {
    ngrams: &'a Ngrams<'a>,
    records: Vec<u32>,
    at: Vec<(Interval, u32)>,
}

impl<'a> Summaries<'a> {
    fn collect(ngrams: &'a Ngrams<'a>, common: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let mut this = Self { ngrams, records: Vec::new(), at: Vec::new() };
        let open = |depth, lo| Open { depth, lo, covered: lo, gathered: Gathered::default() };
        let mut stack = vec![open(0, 0)];
        let ends = common.iter().copied().zip(0u32..).skip(1).chain([(0, ngrams.len())]);
        for (shared, hi) in ends {
            let mut lo = hi - 1;
            while stack.last().is_some_and(|top| top.depth > shared) {
                let Some(closed) = stack.pop() else { break };
                lo = closed.lo;
                if hi - lo <= SMALL {
                    continue;
                }
                if stack.last().is_none_or(|below| below.depth < shared) {
                    stack.push(open(shared, lo));
                }
                let gathered = this.close(closed, hi);
                if let Some(parent) = stack.last_mut() {
                    this.absorb(parent, lo, hi, gathered);
                }
            }
            if stack.last().is_none_or(|top| top.depth < shared) {
                stack.push(open(shared, lo));
            }
        }
        while let Some(last) = stack.pop() {
            if ngrams.len() - last.lo > SMALL {
                this.close(last, ngrams.len());
            }
        }
        let slots = this.slots();
        (this.records, slots)
    }

    /// Counts the positions of `open` up to `end` that no frequent child has counted.
    fn cover(&self, open: &mut Open, end: u32) {
        for at in open.covered as usize..end as usize {
            let entry = open.gathered.entry(self.ngrams.bwt[at]).or_insert((self.ngrams.lf[at], 0, 0));
            entry.0 = entry.0.min(self.ngrams.lf[at]);
            entry.1 += 1;
            entry.2 = entry.2.saturating_add(self.ngrams.weight_at(at));
        }
        open.covered = end;
    }

    fn absorb(&self, parent: &mut Open, lo: u32, hi: u32, mut child: Gathered) {
        self.cover(parent, lo);
        parent.covered = hi;
        if child.len() > parent.gathered.len() {
            std::mem::swap(&mut child, &mut parent.gathered);
        }
        for (symbol, (first, size, weight)) in child {
            let entry = parent.gathered.entry(symbol).or_insert((first, 0, 0));
            entry.0 = entry.0.min(first);
            entry.1 += size;
            entry.2 = entry.2.saturating_add(weight);
        }
    }

    fn close(&mut self, mut open: Open, hi: u32) -> Gathered {
        self.cover(&mut open, hi);
        let interval = Interval { lo: open.lo, hi };
        let total = self.ngrams.weight(interval);
        let mut best: Vec<_> = open.gathered.iter().map(|(&s, &(first, size, w))| (w, s, first, size)).collect();
        let better = |a: &(u64, u32, u32, u32), b: &(u64, u32, u32, u32)| b.0.cmp(&a.0).then(a.1.cmp(&b.1));
        if best.len() > SUMMARY_ENTRIES {
            best.select_nth_unstable_by(SUMMARY_ENTRIES - 1, better);
            best.truncate(SUMMARY_ENTRIES);
        }
        best.sort_unstable_by(better);
        self.at.push((interval, u32::try_from(self.records.len()).unwrap_or(u32::MAX)));
        let words = |x: u64| [x as u32, (x >> 32) as u32]; // low and high half
        let distinct = u32::try_from(open.gathered.len()).unwrap_or(u32::MAX);
        let entries = u32::try_from(best.len()).unwrap_or(u32::MAX);
        let [low, high] = words(total);
        let head: [u32; RECORD_HEAD] = [interval.lo, interval.hi, distinct, entries, low, high];
        self.records.extend(head);
        for (weight, symbol, first, size) in best {
            let [low, high] = words(weight);
            let entry: [u32; ENTRY_WORDS] = [symbol, first, size, low, high];
            self.records.extend(entry);
        }
        open.gathered
    }

    fn slots(&self) -> Vec<u32> {
        let size = (self.at.len() * 3 / 2 + 1).next_power_of_two();
        let mut slots = vec![0u32; size];
        for &(interval, at) in &self.at {
            let mut slot = hash(interval) & (size - 1);
            while slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            slots[slot] = at + 1;
        }
        slots
    }
}
