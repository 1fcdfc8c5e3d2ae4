//! Slow, obviously right twins of the fast paths; tests compare the two.
#![allow(dead_code)] // no test needs all of it

use std::collections::{BTreeMap, BTreeSet};

use tasc_core::TokenId;
use tasc_core::merge::MergerOptions;

/// What follows a context in weighted documents, found by looking everywhere.
///
/// `None` in a context is the start of a document, `None` as a successor its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct NaiveIndex {
    documents: Vec<(Vec<Option<TokenId>>, u64)>,
}

impl NaiveIndex {
    /// Adds a document.
    pub(crate) fn push(&mut self, document: &[TokenId], weight: u64) {
        let bounded = std::iter::once(None).chain(document.iter().copied().map(Some)).chain([None]);
        self.documents.push((bounded.collect(), weight));
    }

    /// Weighted counts of what follows `context`.
    ///
    /// # Complexity
    /// O(corpus · context).
    #[must_use]
    pub(crate) fn successors(&self, context: &[Option<TokenId>]) -> BTreeMap<Option<TokenId>, u64> {
        let mut counts = BTreeMap::new();
        for (document, weight) in &self.documents {
            for end in 1..document.len() {
                if document[..end].ends_with(context) {
                    *counts.entry(document[end]).or_insert(0) += weight;
                }
            }
        }
        counts
    }
}

/// Weighted count of every n-gram of 1 to `max_length` tokens, and number of documents that hold it.
///
/// # Complexity
/// O(tokens · length² · log n-grams).
#[must_use]
pub(crate) fn count_ngrams(documents: &[(Vec<TokenId>, u64)], max_length: usize) -> BTreeMap<Vec<TokenId>, (u64, u64)> {
    let mut counts = BTreeMap::new();
    for (ids, weight) in documents {
        let mut held = BTreeSet::new();
        for length in 1..=max_length {
            for ngram in ids.windows(length) {
                let figures = counts.entry(ngram.to_vec()).or_insert((0u64, 0));
                figures.0 = figures.0.saturating_add(*weight);
                figures.1 += u64::from(held.insert(ngram));
            }
        }
    }
    counts
}

/// Rows as sets of terms, compared with every one of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct NaiveInputs {
    rows: Vec<BTreeSet<u64>>,
    holding: BTreeMap<u64, u32>,
}

impl NaiveInputs {
    /// Adds a row.
    pub(crate) fn push(&mut self, terms: &[u64]) {
        let terms: BTreeSet<u64> = terms.iter().copied().collect();
        for &t in &terms {
            *self.holding.entry(t).or_insert(0) += 1;
        }
        self.rows.push(terms);
    }

    /// The squared inverse document frequencies of some terms, added up.
    fn squares<'a>(&self, terms: impl IntoIterator<Item = &'a u64>) -> f64 {
        let holding = |t| f64::from(self.holding.get(t).copied().unwrap_or(0));
        let idf = |t| ((1.0 + self.rows.len() as f64) / (1.0 + holding(t))).ln() + 1.0;
        terms.into_iter().map(|t| idf(t) * idf(t)).sum()
    }

    /// Cosine of every row's vector of idfs with that of some terms; 0 where nothing is shared.
    ///
    /// # Complexity
    /// O(terms of all rows · log terms).
    #[must_use]
    pub(crate) fn similarities(&self, terms: &[u64]) -> Vec<f64> {
        let terms: BTreeSet<u64> = terms.iter().copied().collect();
        let norm = self.squares(&terms).sqrt();
        let cosine = |row: &BTreeSet<u64>| match self.squares(row.intersection(&terms)) {
            0.0 => 0.0,
            shared => shared / (norm * self.squares(row).sqrt()),
        };
        self.rows.iter().map(cosine).collect()
    }
}

/// Interpolated Witten–Bell over back-off orders, from order 0 up: p_m = (c + T·p_{m−1}) / (N + T).
///
/// `orders[m]` holds the successor counts of the order-m context, the shortest first.
#[must_use]
pub(crate) fn witten_bell<T: Copy + Ord>(orders: &[BTreeMap<T, u64>]) -> BTreeMap<T, f64> {
    let mut p = BTreeMap::new();
    for counts in orders {
        let (n, t) = (counts.values().sum::<u64>() as f64, counts.len() as f64);
        for x in counts.keys() {
            p.entry(*x).or_insert(0.0);
        }
        for (x, p) in &mut p {
            *p = (counts.get(x).copied().unwrap_or(0) as f64 + t * *p) / (n + t);
        }
    }
    p
}

/// A token of a text that is being merged: base ids come before merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Base(TokenId),
    Merge(usize),
}

/// Merges by counting everything anew before each merge.
#[derive(Clone, Debug)]
pub(crate) struct NaiveMerger {
    documents: Vec<(Vec<Unit>, u64)>,
    options: MergerOptions,
    merges: Vec<Vec<TokenId>>,
}

impl NaiveMerger {
    /// Of documents and weights.
    #[must_use]
    pub(crate) fn new(documents: &[(&[TokenId], u64)], options: &MergerOptions) -> Self {
        let units = |ids: &[TokenId]| ids.iter().map(|&id| Unit::Base(id)).collect();
        let documents = documents.iter().map(|&(ids, weight)| (units(ids), weight)).collect();
        Self { documents, options: options.clone(), merges: Vec::new() }
    }

    fn ids(&self, unit: Unit) -> Vec<TokenId> {
        match unit {
            Unit::Base(id) => vec![id],
            Unit::Merge(k) => self.merges[k].clone(),
        }
    }

    /// Expansion of the next merge and the tokens it saves.
    ///
    /// # Complexity
    /// O(pairs · corpus).
    pub(crate) fn step(&mut self) -> Option<(Vec<TokenId>, u64)> {
        let pairs: BTreeSet<(Unit, Unit)> =
            self.documents.iter().flat_map(|d| d.0.windows(2).map(|w| (w[0], w[1]))).collect();
        let mut best: Option<(u64, (Unit, Unit))> = None;
        for pair in pairs {
            let ids = [self.ids(pair.0), self.ids(pair.1)].concat();
            if ids.len() > self.options.max_length as usize || ids.iter().any(|id| self.options.barriers.contains(id)) {
                continue;
            }
            let (mut count, mut rows) = (0, 0);
            for (document, weight) in &self.documents {
                let found = (document.len() - merged(document, pair, pair.0).len()) as u64;
                count += found * weight;
                rows += if found > 0 { *weight } else { 0 };
            }
            let enough = count >= self.options.min_count.max(1) && rows >= self.options.min_documents;
            if enough && best.is_none_or(|b| count > b.0) {
                best = Some((count, pair)); // pairs come in order: ties stay with the first
            }
        }
        let (count, pair) = best?;
        let unit = Unit::Merge(self.merges.len());
        self.merges.push([self.ids(pair.0), self.ids(pair.1)].concat());
        for (document, _) in &mut self.documents {
            *document = merged(document, pair, unit);
        }
        Some((self.merges.last()?.clone(), count))
    }

    /// How often each merge stands in the documents as they are now.
    #[must_use]
    pub(crate) fn uses(&self) -> Vec<u64> {
        let mut uses = vec![0; self.merges.len()];
        for (document, weight) in &self.documents {
            for unit in document {
                if let Unit::Merge(k) = unit {
                    uses[*k] += weight;
                }
            }
        }
        uses
    }
}

/// A document with one unit for every pair, from left to right.
fn merged(document: &[Unit], pair: (Unit, Unit), unit: Unit) -> Vec<Unit> {
    let (mut out, mut rest) = (Vec::new(), document);
    while let Some((&first, after)) = rest.split_first() {
        let found = (first, after.first().copied()) == (pair.0, Some(pair.1));
        out.push(if found { unit } else { first });
        rest = if found { &after[1..] } else { after };
    }
    out
}

/// The fewest tokens that expand to `ids`, ties to the longest first one: the new id `base + k` stands for expansion k.
///
/// # Complexity
/// O(ids · letters of all expansions).
#[must_use]
pub(crate) fn segment(base: TokenId, expansions: &[Vec<TokenId>], ids: &[TokenId]) -> Vec<TokenId> {
    let mut ways: Vec<Vec<TokenId>> = vec![Vec::new()]; // from each place to the end, the last place first
    for at in (0..ids.len()).rev() {
        let way = |length: usize| &ways[ids.len() - at - length];
        let news = expansions.iter().zip(base..).filter(|e| ids[at..].starts_with(e.0)).map(|(e, id)| (e.len(), id));
        let all = news.chain([(1, ids[at])]);
        let best = all.min_by_key(|&(length, _)| (way(length).len(), std::cmp::Reverse(length)));
        let whole = best.map(|(length, id)| [&[id], way(length).as_slice()].concat());
        ways.push(whole.unwrap_or_default());
    }
    ways.pop().unwrap_or_default()
}
