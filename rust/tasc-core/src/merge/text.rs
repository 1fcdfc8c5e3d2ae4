//! Concatenated documents in which pairs of tokens are merged.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{Error, Result, TokenId};

/// A number that stands for a base token or a merge.
pub(super) type MergeSymbol = u32;

/// Symbol that no merge crosses or contains.
pub(super) const BARRIER: MergeSymbol = 0;

/// Neither a token's first cell nor its last.
const INSIDE: MergeSymbol = u32::MAX;

/// Cells covered by one entry of `Text::blocks`.
const BLOCK: usize = 32;

/// Cells of symbols. A token of length n stands in n cells: its symbol is in the first and in the last, so that both
/// neighbours of a token are found from the lengths alone, without links.
pub(super) struct Text {
    cells: Vec<MergeSymbol>,
    /// Number of base symbols, each of them one cell long.
    base: usize,
    /// Length of each merge in cells.
    lengths: Vec<u32>,
    /// Where each document ends, and its weight.
    ends: Vec<u32>,
    weights: Vec<u64>,
    /// The document that the first cell of each block belongs to.
    blocks: Vec<u32>,
    /// Documents of equal weight stand together: where they end, and their weight.
    groups: Vec<(u32, u64)>,
}

/// Neighbours of the merged occurrences of a pair.
#[derive(Default)]
pub(super) struct Around {
    /// First cells of the merged tokens, ascending.
    pub(super) starts: Vec<u32>,
    /// The symbol before each: the merged one itself where two touch.
    pub(super) lefts: Vec<MergeSymbol>,
    /// The symbol after each, as it was before the next was merged.
    pub(super) rights: Vec<MergeSymbol>,
    /// Weight of each.
    pub(super) weights: Vec<u64>,
}

impl Around {
    fn clear(&mut self) {
        self.starts.clear();
        self.lefts.clear();
        self.rights.clear();
        self.weights.clear();
    }
}

impl Text {
    /// Concatenates documents with weights, as symbols of `alphabet`.
    pub(super) fn new(mut documents: Vec<(&[TokenId], u64)>, alphabet: &Alphabet) -> Result<Self> {
        let size = documents.iter().fold(1usize, |size, d| size.saturating_add(d.0.len() + 1));
        let limit = (u32::MAX - 1) as usize;
        if size > limit {
            return Err(Error::IndexTooLarge { positions: size, limit });
        }
        let most = u64::MAX / size as u64; // so that no sum overflows
        documents.sort_by_key(|d| d.1);
        let symbols = alphabet.symbols();
        let mut cells = Vec::with_capacity(size);
        let (mut ends, mut weights) = (Vec::with_capacity(documents.len()), Vec::with_capacity(documents.len()));
        let (mut blocks, mut groups): (Vec<u32>, Vec<(u32, u64)>) = (Vec::with_capacity(size / BLOCK + 1), Vec::new());
        cells.push(BARRIER);
        for (number, (ids, weight)) in (0..).zip(documents) {
            let weight = weight.min(most);
            cells.extend(ids.iter().map(|id| symbols.get(id).copied().unwrap_or(BARRIER)));
            cells.push(BARRIER);
            let end = cells.len() as u32;
            blocks.resize(cells.len().div_ceil(BLOCK), number);
            ends.push(end);
            weights.push(weight);
            groups.pop_if(|group| group.1 == weight);
            groups.push((end, weight));
        }
        Ok(Self { cells, base: alphabet.len(), lengths: Vec::new(), ends, weights, blocks, groups })
    }

    /// Returns a reader of the weights of cells.
    pub(super) fn weights(&self) -> impl FnMut(u32) -> u64 {
        by_group(&self.groups)
    }

    pub(super) fn cells(&self) -> &[MergeSymbol] {
        &self.cells
    }

    /// Number of symbols, merges among them.
    pub(super) fn symbols(&self) -> usize {
        self.base + self.lengths.len()
    }

    pub(super) fn length(&self, symbol: MergeSymbol) -> u32 {
        (symbol as usize).checked_sub(self.base).map_or(1, |merge| self.lengths[merge])
    }

    /// Returns the document of a cell.
    pub(super) fn document(&self, cell: u32) -> usize {
        let mut document = self.blocks[cell as usize / BLOCK] as usize;
        while self.ends[document] <= cell {
            document += 1;
        }
        document
    }

    /// Counts the weighted occurrences of a pair (x, x) that do not overlap, as a merge from left to right finds them.
    pub(super) fn count_apart(&self, pair: (MergeSymbol, MergeSymbol), places: &[u32]) -> u64 {
        let (mut count, mut free, mut weight) = (0, 0, self.weights());
        let length = self.length(pair.0);
        for &place in places {
            if place >= free && stands(&self.cells, length, pair, place) {
                count += weight(place);
                free = place + 2 * length;
            }
        }
        count
    }

    /// Whether the documents that hold a pair have at least this weight together.
    pub(super) fn in_documents(&self, pair: (MergeSymbol, MergeSymbol), places: &[u32], threshold: u64) -> bool {
        let (mut rows, mut seen, length) = (0, usize::MAX, self.length(pair.0));
        for &place in places {
            if rows >= threshold {
                break;
            }
            if stands(&self.cells, length, pair, place) {
                let document = self.document(place);
                if document != seen {
                    rows += self.weights[document];
                    seen = document;
                }
            }
        }
        rows >= threshold
    }

    /// Replaces a pair by a new symbol at all its positions, from left to right.
    pub(super) fn merge(
        &mut self,
        pair: (MergeSymbol, MergeSymbol),
        places: &[u32],
        around: &mut Around,
    ) -> MergeSymbol {
        let merged = self.symbols() as MergeSymbol;
        let (first, second) = (self.length(pair.0), self.length(pair.1));
        self.lengths.push(first + second);
        let Self { cells, groups, .. } = self;
        let mut weight = by_group(groups);
        around.clear();
        for &place in places.iter() {
            if !stands(cells, first, pair, place) {
                continue;
            }
            let (next, end) = (place + first, place + first + second);
            around.starts.push(place);
            around.lefts.push(cells[place as usize - 1]);
            around.rights.push(cells[end as usize]);
            around.weights.push(weight(place));
            cells[next as usize] = INSIDE;
            cells[place as usize] = merged;
            cells[end as usize - 1] = merged;
        }
        merged
    }
}

/// Returns whether a pair, whose left symbol has this length, still stands at a position where it was found.
fn stands(cells: &[MergeSymbol], length: u32, (left, right): (MergeSymbol, MergeSymbol), place: u32) -> bool {
    cells[place as usize] == left && cells[(place + length) as usize] == right
}

/// Reads the weights of cells; fastest where one cell follows another of the same group.
fn by_group(groups: &[(u32, u64)]) -> impl FnMut(u32) -> u64 {
    let (mut group, mut weight) = (0..0, 0);
    move |cell| {
        if !group.contains(&cell) {
            let k = groups.partition_point(|group| group.0 <= cell);
            group = k.checked_sub(1).map_or(0, |before| groups[before].0)..groups[k].0;
            weight = groups[k].1;
        }
        weight
    }
}

/// Base ids as symbols, in their order.
pub(super) struct Alphabet {
    ids: Vec<TokenId>,
}

impl Alphabet {
    /// Numbers the ids that occur, without the barriers.
    ///
    /// # Complexity
    /// O(tokens) time; memory for the distinct ids alone, however far apart they are.
    pub(super) fn new<'a>(documents: impl Iterator<Item = &'a [TokenId]>, barriers: &[TokenId]) -> Self {
        let mut seen: FxHashSet<TokenId> = documents.flatten().copied().collect();
        seen.retain(|id| !barriers.contains(id));
        let mut ids: Vec<TokenId> = seen.into_iter().collect();
        ids.sort_unstable();
        Self { ids }
    }

    /// Number of symbols, the barrier's among them.
    pub(super) fn len(&self) -> usize {
        self.ids.len() + 1
    }

    /// Returns the symbols of the ids that occur. Other ids have the barrier's.
    pub(super) fn symbols(&self) -> FxHashMap<TokenId, MergeSymbol> {
        self.ids.iter().copied().zip(BARRIER + 1..).collect()
    }

    pub(super) fn id(&self, symbol: MergeSymbol) -> TokenId {
        self.ids[symbol as usize - 1]
    }
}
