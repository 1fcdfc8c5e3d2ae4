//! The arrays of the n-gram section and the queries on one interval of contexts.

use prefetch_index::prefetch_index;

use crate::TokenId;
use crate::format::sections;

/// A symbol: 0 is the document boundary (start and end of an output), `s > 0` is the token `tokens[s - 1]`.
pub type Symbol = u32;

/// The document boundary: left of an output's first token and right of its last.
pub const BOUNDARY: Symbol = 0;

/// Intervals up to this size are enumerated; larger ones carry a precomputed summary.
pub const SMALL: u32 = 32;

/// At most this many best successors are stored in a summary.
pub const SUMMARY_ENTRIES: usize = 12;

/// `u32` words of a summary record before its entries: lo, hi, distinct, entries, total (two words).
pub(super) const RECORD_HEAD: usize = 6;

/// `u32` words of one entry of a summary record: symbol, first, size, weight (two words).
pub(super) const ENTRY_WORDS: usize = 5;

/// Positions between two stored cumulative weights.
pub(super) const WEIGHT_STRIDE: usize = 64;

/// So many values, which share a line or two of the cache, are looked through, not searched.
const LINEAR: usize = 16;

/// Slots of a hash table that a look-up reads at most. In a table that is two thirds full, as ours at most are, no run of
/// full slots is nearly as long.
pub(super) const MAX_PROBES: usize = 1024;

/// Words in a line of the cache.
const LINE: usize = 16;

/// A weight byte of this value means: look the weight up among the heavy positions.
pub(super) const HEAVY: u8 = u8::MAX;

/// A half-open interval of sorted positions: all the places whose context ends in the same tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interval {
    /// First position.
    pub lo: u32,
    /// One past the last position.
    pub hi: u32,
}

impl Interval {
    /// Number of positions.
    #[must_use]
    pub fn size(self) -> u32 {
        self.hi.saturating_sub(self.lo)
    }
}

/// One successor of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The symbol that follows ([`BOUNDARY`]: the output ends).
    pub symbol: Symbol,
    /// How often, by document weight.
    pub weight: u64,
    /// The interval of the context extended by this symbol; meaningless for [`BOUNDARY`].
    pub child: Interval,
}

/// The successors of a context: all of them when the context is rare, the best ones when it is frequent.
#[derive(Clone, Debug, Default)]
pub struct Successors {
    /// Weighted number of occurrences of the context.
    pub total: u64,
    /// Number of distinct successors.
    pub distinct: u32,
    /// Successors: in order of position for rare contexts, best first for frequent ones.
    pub entries: Vec<Successor>,
}

impl Successors {
    /// The context extended by a symbol, as [`Ngrams::child`] finds it; `None` when these do not tell.
    pub(super) fn child(&self, symbol: Symbol) -> Option<Option<Interval>> {
        let found = self.entries.iter().find(|e| e.symbol == symbol).map(|e| e.child);
        let complete = self.distinct > 0 && self.entries.len() >= self.distinct as usize;
        (found.is_some() || complete).then_some(found)
    }
}

sections! {
    /// The arrays of the n-grams. Contents may come from a hostile file: every access is checked, every loop is bounded,
    /// and nonsense yields missing successors, never a panic.
    pub struct NgramArrays as Ngrams {
        /// Distinct tokens, ascending; symbol `s` is `tokens[s - 1]`.
        tokens: [TokenId],
        /// `starts[s]..starts[s + 1]` holds the positions whose context ends in `s`; length `tokens + 2`.
        starts: [u32],
        /// Burrows–Wheeler transform: the successor symbol of every position (`n`).
        bwt: [Symbol],
        /// LF mapping: the position of the context extended by its successor (`n`).
        lf: [u32],
        /// Inverse of `lf` (`n`): ascending within each `starts` range.
        lf_inverse: [u32],
        /// Weight of every position, 255 for those in `heavy_at`; empty when every weight is 1.
        weights: [u8],
        /// Weight before every 64th position; empty when every weight is 1.
        weight_sums: [u64],
        /// Positions of weight ≥ 255, ascending.
        heavy_at: [u32],
        /// Their weights.
        heavy: [u64],
        /// Summary records, see docs/format.md.
        records: [u32],
        /// Hash slots into `records` (word offset + 1; 0 is empty); a power of two, or empty.
        slots: [u32],
    }
}

impl<'a> Ngrams<'a> {
    /// Number of positions: tokens plus one per document.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.bwt.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bwt.is_empty()
    }

    /// All positions: the empty context.
    #[must_use]
    pub fn all(&self) -> Interval {
        Interval { lo: 0, hi: self.len() }
    }

    /// The positions at the start of an output.
    #[must_use]
    pub fn start(&self) -> Interval {
        self.ending_in(BOUNDARY)
    }

    /// The positions whose context ends in `symbol`.
    #[must_use]
    pub fn ending_in(&self, symbol: Symbol) -> Interval {
        let at = symbol as usize;
        match (self.starts.get(at), self.starts.get(at + 1)) {
            (Some(&lo), Some(&hi)) => self.checked(Interval { lo, hi }).unwrap_or(Interval { lo: 0, hi: 0 }),
            _ => Interval { lo: 0, hi: 0 },
        }
    }

    /// The symbol of a token, `None` when the corpus never holds it. O(log vocabulary).
    #[must_use]
    pub fn symbol(&self, token: TokenId) -> Option<Symbol> {
        let at = self.tokens.binary_search(&token).ok()?;
        u32::try_from(at + 1).ok()
    }

    /// The token of a symbol; `None` for [`BOUNDARY`].
    #[must_use]
    pub fn token(&self, symbol: Symbol) -> Option<TokenId> {
        self.tokens.get((symbol as usize).checked_sub(1)?).copied()
    }

    /// The interval, if there is such a one.
    pub(super) fn checked(&self, i: Interval) -> Option<Interval> {
        (i.lo < i.hi && i.hi <= self.len()).then_some(i)
    }

    fn sized(&self, lo: u32, size: u32) -> Option<Interval> {
        self.checked(Interval { lo, hi: lo.checked_add(size)? })
    }

    /// Weighted number of positions in an interval.
    ///
    /// # Complexity
    /// O(1): two stored sums and fewer than two strides of bytes.
    #[must_use]
    pub fn weight(&self, i: Interval) -> u64 {
        if self.weights.is_empty() {
            return u64::from(i.size());
        }
        self.weight_before(i.hi).saturating_sub(self.weight_before(i.lo))
    }

    fn weight_before(&self, at: u32) -> u64 {
        let at = (at as usize).min(self.weights.len());
        let stride = at / WEIGHT_STRIDE;
        let sum = self.weight_sums.get(stride).copied().unwrap_or(0);
        let rest = self.weights.get(stride * WEIGHT_STRIDE..at).unwrap_or(&[]);
        rest.iter().zip(stride * WEIGHT_STRIDE..).fold(sum, |s, (&w, i)| s.saturating_add(self.expand(w, i)))
    }

    fn expand(&self, byte: u8, at: usize) -> u64 {
        if byte < HEAVY {
            return u64::from(byte);
        }
        let found = u32::try_from(at).ok().and_then(|at| self.heavy_at.binary_search(&at).ok());
        found.and_then(|k| self.heavy.get(k)).copied().unwrap_or(0)
    }

    /// Weight of a position.
    #[must_use]
    pub fn weight_at(&self, at: usize) -> u64 {
        self.weights.get(at).map_or(1, |&byte| self.expand(byte, at))
    }

    /// The positions of `i` that `symbol` follows, seen from one token later: the context extended by it. It is sought
    /// within `outer`: [`Ngrams::ending_in`] of the symbol, or the same of a shorter context.
    ///
    /// # Complexity
    /// O([`SMALL`]) for rare contexts; a hash look-up for a frequent context's best successors; else O(log size of
    /// `outer`).
    #[must_use]
    pub fn child(&self, i: Interval, symbol: Symbol, outer: Interval) -> Option<Interval> {
        if i.size() <= SMALL {
            let bwt = self.bwt.get(i.lo as usize..i.hi as usize)?;
            let first = bwt.iter().position(|&s| s == symbol)?;
            let count = bwt.get(first..)?.iter().filter(|&&s| s == symbol).count();
            let lo = *self.lf.get(i.lo as usize + first)?;
            return self.sized(lo, u32::try_from(count).ok()?);
        }
        if let Some(record) = self.record(i) {
            if let Some(e) = record.entries.chunks_exact(ENTRY_WORDS).find(|e| e[0] == symbol) {
                return self.sized(e[1], e[2]);
            }
            if record.is_complete() {
                return None;
            }
        }
        let positions = self.lf_inverse.get(outer.lo as usize..outer.hi as usize)?;
        let from = below(positions, i.lo);
        let count = few_below(positions.get(from..)?, i.hi);
        let lo = outer.lo.checked_add(u32::try_from(from).ok()?)?;
        self.sized(lo, u32::try_from(count).ok()?)
    }

    /// Fills `out` with the successors of a context: exact weighted counts.
    ///
    /// # Complexity
    /// O([`SMALL`] · distinct) for rare contexts, O([`SUMMARY_ENTRIES`]) for frequent ones.
    pub fn successors(&self, i: Interval, out: &mut Successors) {
        out.entries.clear();
        (out.total, out.distinct) = (0, 0);
        if i.size() <= SMALL {
            let Some(bwt) = self.bwt.get(i.lo as usize..i.hi as usize) else {
                return;
            };
            for (&symbol, at) in bwt.iter().zip(i.lo as usize..) {
                let weight = self.weight_at(at);
                out.total = out.total.saturating_add(weight);
                if let Some(e) = out.entries.iter_mut().find(|e| e.symbol == symbol) {
                    e.weight = e.weight.saturating_add(weight);
                    e.child.hi = e.child.hi.saturating_add(1);
                } else {
                    let lo = self.lf.get(at).copied().unwrap_or(0);
                    let child = Interval { lo, hi: lo.saturating_add(1) };
                    out.entries.push(Successor { symbol, weight, child });
                }
            }
            out.distinct = u32::try_from(out.entries.len()).unwrap_or(u32::MAX);
        } else if let Some(record) = self.record(i) {
            out.total = record.total;
            out.distinct = record.distinct;
            out.entries.extend(record.entries.chunks_exact(ENTRY_WORDS).map(|e| {
                let child = Interval { lo: e[1], hi: e[1].saturating_add(e[2]) };
                Successor { symbol: e[0], weight: wide(e[3], e[4]), child }
            }));
        }
    }

    /// Begins to fetch what [`Ngrams::successors`] and [`Ngrams::child`] will read of a context; of a frequent one where
    /// its summary lies. Nothing waits for it.
    pub(super) fn prefetch(&self, i: Interval) {
        if i.size() <= SMALL {
            for at in [i.lo as usize, (i.hi as usize).saturating_sub(1)] {
                prefetch_index(self.bwt, at);
                prefetch_index(self.lf, at);
            }
            prefetch_index(self.weights, i.lo as usize);
        } else if let Some(mask) = self.slots.len().checked_sub(1) {
            prefetch_index(self.slots, hash(i) & mask);
        }
    }

    /// Begins to fetch a frequent context's summary, once [`Ngrams::prefetch`] has had its time.
    pub(super) fn prefetch_summary(&self, i: Interval) {
        let slot = self.slots.len().checked_sub(1).and_then(|mask| self.slots.get(hash(i) & mask));
        if let Some(&slot) = slot.filter(|_| i.size() > SMALL) {
            for line in 0..4 {
                prefetch_index(self.records, slot as usize + line * LINE);
            }
        }
    }

    fn record(&self, i: Interval) -> Option<Record<'a>> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = hash(i) & mask;
        for _ in 0..self.slots.len().min(MAX_PROBES) {
            let (of, record) = self.record_at(*self.slots.get(slot)?)?;
            if of == i {
                return Some(record);
            }
            slot = (slot + 1) & mask;
        }
        None
    }

    /// The interval that a slot stands for, and its summary; `None` for an empty slot, or when the arrays do not fit.
    #[inline]
    fn record_at(&self, slot: u32) -> Option<(Interval, Record<'a>)> {
        let words = self.records.get((slot as usize).checked_sub(1)?..)?;
        let head = words.get(..RECORD_HEAD)?;
        let len = (head[3] as usize).min(SUMMARY_ENTRIES) * ENTRY_WORDS;
        let entries = words.get(RECORD_HEAD..RECORD_HEAD + len)?;
        let record = Record { distinct: head[2], total: wide(head[4], head[5]), entries };
        Some((Interval { lo: head[0], hi: head[1] }, record))
    }

    /// Whether a slot stands for a summary whose symbols and intervals are there.
    pub(super) fn has_summary(&self, slot: u32) -> bool {
        let follows = |e: &[u32]| e[0] as usize <= self.tokens.len() && self.sized(e[1], e[2]).is_some();
        self.record_at(slot).is_some_and(|(of, record)| {
            self.checked(of).is_some() && record.entries.chunks_exact(ENTRY_WORDS).all(follows)
        })
    }
}

/// Number of ascending `values` below `least`. While one is compared, both that may come next are fetched.
fn below(values: &[u32], least: u32) -> usize {
    let (mut passed, mut left) = (0, values.len());
    while left > LINEAR {
        let half = left / 2;
        prefetch_index(values, passed + half / 2);
        prefetch_index(values, passed + half + half / 2);
        passed += if values[passed + half - 1] < least { half } else { 0 };
        left -= half;
    }
    passed + values[passed..][..left].iter().filter(|&&v| v < least).count()
}

/// The same where few are below: in doubling steps from the first on.
fn few_below(values: &[u32], least: u32) -> usize {
    let mut end = 1;
    while values.get(end - 1).is_some_and(|&v| v < least) {
        end *= 2;
    }
    let passed = end / 2;
    passed + below(&values[passed..values.len().min(end)], least)
}

/// A stored summary.
struct Record<'a> {
    distinct: u32,
    total: u64,
    entries: &'a [u32],
}

impl Record<'_> {
    fn is_complete(&self) -> bool {
        self.entries.len() / ENTRY_WORDS >= self.distinct as usize
    }
}

fn wide(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// First slot of an interval's record.
pub(super) fn hash(i: Interval) -> usize {
    let key = u64::from(i.lo) << 32 | u64::from(i.hi);
    let mixed = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as usize
}
