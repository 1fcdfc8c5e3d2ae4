//! Merging: the pair of neighbours whose merge saves most tokens becomes one token, repeatedly.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::documents::documents;
use super::pairs::{Pair, Pairs, Tally, key, symbols};
use super::text::{Alphabet, Around, BARRIER, MergeSymbol, Text};
use crate::corpus::Store;
use crate::{Result, TokenId};

/// What merges are allowed.
#[derive(Clone, Debug)]
pub struct MergerOptions {
    /// Fewest occurrences of a pair, each as often as its document occurred.
    pub min_count: u64,
    /// Least weight of the documents that hold a pair: in so many rows it must stand.
    pub min_documents: u64,
    /// Longest expansion in base tokens.
    pub max_length: u32,
    /// Ids that no merge contains.
    pub barriers: Vec<TokenId>,
}

impl Default for MergerOptions {
    fn default() -> Self {
        Self { min_count: 10, min_documents: 5, max_length: 64, barriers: Vec::new() }
    }
}

/// A merge as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The new symbol's base ids.
    pub expansion: Vec<TokenId>,
    /// Tokens that it saved: weighted occurrences that do not overlap.
    pub count: u64,
    /// The merges that it joined; `None`: a base id.
    pub parts: [Option<usize>; 2],
}

/// Merges weighted documents.
///
/// Every step takes the pair with the largest weighted count of occurrences that do not overlap; ties go to the
/// smaller left symbol, then the smaller right one, where merges come after base ids in the order in which they were
/// made. Every merge is a symbol of its own, so counts only fall and the heap can be lazy: what is popped is counted
/// again and goes back when it has become less.
///
/// # Examples
/// ```
/// use tasc_core::merge::{Merger, MergerOptions};
/// let options = MergerOptions { min_count: 2, min_documents: 1, ..MergerOptions::default() };
/// let mut merger = Merger::new(&[(&[7, 8, 9, 7, 8], 3)], &options)?;
/// let merge = merger.step().unwrap();
/// assert_eq!((merge.expansion.as_slice(), merge.count), (&[7, 8][..], 6));
/// # Ok::<(), tasc_core::Error>(())
/// ```
pub struct Merger {
    text: Text,
    alphabet: Alphabet,
    pairs: Pairs,
    heap: BinaryHeap<(u64, Reverse<u64>)>,
    options: MergerOptions,
    merges: Vec<Merge>,
    /// Weighted occurrences of each merge in the text as it is.
    uses: Vec<u64>,
    around: Around,
    tally: Tally,
    found: FxHashMap<MergeSymbol, Pair>,
}

impl Merger {
    /// Counts the pairs of documents and weights.
    ///
    /// # Complexity
    /// O(tokens) time. About 60 bytes per token at most, where all pairs of neighbours differ and are frequent enough.
    ///
    /// # Errors
    /// [`crate::Error::IndexTooLarge`] for more than 2³² − 2 tokens and documents.
    pub fn new(documents: &[(&[TokenId], u64)], options: &MergerOptions) -> Result<Self> {
        let options = MergerOptions { min_count: options.min_count.max(1), ..options.clone() };
        let alphabet = Alphabet::new(documents.iter().map(|d| d.0), &options.barriers);
        let text = Text::new(documents.to_vec(), &alphabet)?;
        let pairs = if options.max_length < 2 { Pairs::none() } else { Pairs::count(&text, options.min_count) };
        let mut heap = Vec::with_capacity(pairs.base().count());
        heap.extend(pairs.base().map(|(key, count)| (count, Reverse(key))));
        Ok(Self {
            text,
            alphabet,
            pairs,
            heap: heap.into(),
            options,
            merges: Vec::new(),
            uses: Vec::new(),
            around: Around::default(),
            tally: Tally::default(),
            found: FxHashMap::default(),
        })
    }

    /// Counts the pairs of a store's documents; its end token is a barrier.
    ///
    /// # Errors
    /// As [`Merger::new`]; [`crate::Error::TokenId`] for an id that the store's vocabulary does not hold; a format error
    /// when the store is damaged.
    pub fn of_store(store: &Store, options: &MergerOptions) -> Result<Self> {
        let mut options = options.clone();
        options.barriers.extend(store.meta().eos_id);
        Self::new(&documents(store)?, &options)
    }

    /// Makes the next merge; `None` when no pair is left that passes the thresholds.
    ///
    /// # Complexity
    /// O(occurrences of the pair · log pairs).
    pub fn step(&mut self) -> Option<&Merge> {
        let pair = self.best()?;
        let places = self.pairs.get(key(pair)).map_or(&[][..], |found| found.1);
        let merged = self.text.merge(pair, places, &mut self.around);
        self.pairs.remove(key(pair));
        let count = self.around.weights.iter().sum();
        let mut expansion = Vec::with_capacity(self.text.length(merged) as usize);
        let parts = [pair.0, pair.1].map(|symbol| self.merge_of(symbol));
        for (part, symbol) in parts.iter().zip([pair.0, pair.1]) {
            match *part {
                Some(of) => {
                    self.uses[of] -= count;
                    expansion.extend_from_slice(&self.merges[of].expansion);
                }
                None => expansion.push(self.alphabet.id(symbol)),
            }
        }
        self.uses.push(count);
        self.merges.push(Merge { expansion, count, parts });
        self.update(pair, merged);
        self.merges.last()
    }

    /// Returns the merges made so far.
    #[must_use]
    pub fn merges(&self) -> &[Merge] {
        &self.merges
    }

    /// Returns how often each merge occurs in the present segmentation of the documents.
    #[must_use]
    pub fn uses(&self) -> &[u64] {
        &self.uses
    }

    fn merge_of(&self, symbol: MergeSymbol) -> Option<usize> {
        (symbol as usize).checked_sub(self.alphabet.len())
    }

    /// Finds the best pair.
    fn best(&mut self) -> Option<(MergeSymbol, MergeSymbol)> {
        loop {
            let (was, Reverse(key)) = self.heap.pop()?;
            let Some((found, places)) = self.pairs.get(key) else { continue };
            let pair = symbols(key);
            let count = if pair.0 == pair.1 { self.text.count_apart(pair, places) } else { found };
            let enough = count >= self.options.min_count;
            if enough && count < was {
                self.heap.push((count, Reverse(key)));
            } else if enough && self.text.in_documents(pair, places, self.options.min_documents) {
                return Some(pair);
            } else {
                self.pairs.remove(key);
            }
        }
    }

    /// Counts the pairs that a merge removed, and those that it made.
    fn update(&mut self, pair: (MergeSymbol, MergeSymbol), merged: MergeSymbol) {
        let around = &mut self.around;
        for k in 0..around.starts.len() {
            if around.lefts[k] == merged {
                around.rights[k - 1] = merged; // (pair.1, pair.0) between the two was the right pair of the first
            } else {
                self.tally.add(around.lefts[k], around.weights[k]);
            }
        }
        self.tally.drain(|left, weight, _| self.pairs.lose(key((left, pair.0)), weight, self.options.min_count));
        for k in 0..around.starts.len() {
            let right = if around.rights[k] == merged { pair.0 } else { around.rights[k] };
            self.tally.add(right, around.weights[k]);
        }
        self.tally.drain(|right, weight, _| self.pairs.lose(key((pair.1, right)), weight, self.options.min_count));
        self.gain(merged, true);
        self.gain(merged, false);
    }

    /// Makes the pairs of a merged symbol and its left or right neighbours.
    fn gain(&mut self, merged: MergeSymbol, left: bool) {
        let Self { text, pairs, heap, around, tally, options, .. } = self;
        let neighbours = if left { &around.lefts } else { &around.rights };
        let counts = |symbol| symbol != BARRIER && (left || symbol != merged);
        for (&symbol, &weight) in neighbours.iter().zip(&around.weights).filter(|n| counts(*n.0)) {
            tally.add(symbol, weight);
        }
        let pair_key = |symbol| if left { key((symbol, merged)) } else { key((merged, symbol)) };
        let mut found = std::mem::take(&mut self.found);
        tally.drain(|symbol, count, number| {
            let length = text.length(symbol).saturating_add(text.length(merged));
            if count >= options.min_count && length <= options.max_length {
                found.insert(symbol, Pair { count, places: Vec::with_capacity(number as usize) });
            }
        });
        for (&start, symbol) in around.starts.iter().zip(neighbours).filter(|n| counts(*n.1)) {
            if let Some(pair) = found.get_mut(symbol) {
                pair.places.push(if left { start - text.length(*symbol) } else { start });
            }
        }
        for (symbol, pair) in found.drain() {
            heap.push((pair.count, Reverse(pair_key(symbol))));
            pairs.insert(pair_key(symbol), pair);
        }
        self.found = found;
    }
}
