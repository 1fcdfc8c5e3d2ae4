//! Documents side by side, in which pairs of tokens become one.

use crate::{Error, Result, TokenId};

/// A number that stands for a base token or a merge.
pub(super) type Symbol = u32;

/// What no merge crosses or contains.
pub(super) const BARRIER: Symbol = 0;

/// Neither a token's first cell nor its last.
const INSIDE: Symbol = u32::MAX;

/// Cells covered by one entry of `Text::blocks`.
const BLOCK: usize = 32;

/// Cells of symbols. A token of length n stands in n cells: its symbol is in the first and in the last, so that both
/// neighbours of a token are found from the lengths alone, without links.
pub(super) struct Text {
    cells: Vec<Symbol>,
    /// Length of each symbol in cells.
    lengths: Vec<u32>,
    /// Where each document ends, and its weight.
    ends: Vec<u32>,
    weights: Vec<u64>,
    /// The document that the first cell of each block belongs to.
    blocks: Vec<u32>,
    /// Every document has this weight.
    uniform: Option<u64>,
}

/// What is around the merged occurrences of a pair.
#[derive(Default)]
pub(super) struct Around {
    /// First cells of the merged tokens, ascending.
    pub(super) starts: Vec<u32>,
    /// The symbol before each: the merged one itself where two touch.
    pub(super) lefts: Vec<Symbol>,
    /// The symbol after each, as it was before the next was merged.
    pub(super) rights: Vec<Symbol>,
    /// Weight of each.
    pub(super) weights: Vec<u64>,
}

impl Text {
    /// Documents of symbols below `symbols`.
    pub(super) fn new(cells: Vec<Symbol>, ends: Vec<u32>, weights: Vec<u64>, symbols: usize) -> Self {
        let mut blocks = Vec::with_capacity(cells.len() / BLOCK + 1);
        let mut document = 0;
        for cell in (0..cells.len()).step_by(BLOCK) {
            while ends.get(document).is_some_and(|&end| end as usize <= cell) {
                document += 1;
            }
            blocks.push(document as u32);
        }
        let uniform = weights.first().copied().filter(|first| weights.iter().all(|w| w == first));
        Self { cells, lengths: vec![1; symbols], ends, weights, blocks, uniform }
    }

    pub(super) fn cells(&self) -> &[Symbol] {
        &self.cells
    }

    /// Number of symbols, merges among them.
    pub(super) fn symbols(&self) -> usize {
        self.lengths.len()
    }

    pub(super) fn length(&self, symbol: Symbol) -> u32 {
        self.lengths[symbol as usize]
    }

    /// The document of a cell.
    pub(super) fn document(&self, cell: u32) -> usize {
        let mut document = self.blocks[cell as usize / BLOCK] as usize;
        while self.ends[document] <= cell {
            document += 1;
        }
        document
    }

    pub(super) fn weight(&self, cell: u32) -> u64 {
        match self.uniform {
            Some(weight) => weight,
            None => self.weights[self.document(cell)],
        }
    }

    /// Whether this pair still stands at a place where it once stood.
    fn stands(&self, (left, right): (Symbol, Symbol), place: u32) -> bool {
        let next = place + self.lengths[left as usize];
        self.cells[place as usize] == left && self.cells[next as usize] == right
    }

    /// Weighted number of occurrences of a pair (x, x) that do not overlap: those that a merge from left to right takes.
    pub(super) fn count_apart(&self, pair: (Symbol, Symbol), places: &[u32]) -> u64 {
        let (mut count, mut free) = (0, 0);
        for &place in places {
            if place >= free && self.stands(pair, place) {
                count += self.weight(place);
                free = place + 2 * self.length(pair.0);
            }
        }
        count
    }

    /// Whether the documents that hold a pair have at least this weight together.
    pub(super) fn in_documents(&self, pair: (Symbol, Symbol), places: &[u32], floor: u64) -> bool {
        let (mut rows, mut seen) = (0, usize::MAX);
        for &place in places {
            if rows >= floor {
                break;
            }
            if self.stands(pair, place) {
                let document = self.document(place);
                if document != seen {
                    rows += self.weights[document];
                    seen = document;
                }
            }
        }
        rows >= floor
    }

    /// Makes one new symbol of a pair wherever it stands, from left to right.
    pub(super) fn merge(&mut self, pair: (Symbol, Symbol), places: &[u32], around: &mut Around) -> Symbol {
        let merged = self.lengths.len() as Symbol;
        let (first, second) = (self.lengths[pair.0 as usize], self.lengths[pair.1 as usize]);
        self.lengths.push(first + second);
        around.starts.clear();
        around.lefts.clear();
        around.rights.clear();
        around.weights.clear();
        for &place in places {
            if !self.stands(pair, place) {
                continue;
            }
            let (next, end) = (place + first, place + first + second);
            around.starts.push(place);
            around.lefts.push(self.cells[place as usize - 1]);
            around.rights.push(self.cells[end as usize]);
            around.weights.push(self.weight(place));
            self.cells[next as usize] = INSIDE;
            self.cells[place as usize] = merged;
            self.cells[end as usize - 1] = merged;
        }
        merged
    }
}

/// Base ids as symbols, in their order.
pub(super) struct Alphabet {
    ids: Vec<TokenId>,
    /// Symbols of ids by their upper bits, then by their lower ones: real vocabularies fill a few dozen pages.
    pages: Vec<Option<Box<[Symbol; PAGE]>>>,
}

/// Ids of a page.
const PAGE: usize = 1 << 12;

impl Alphabet {
    /// The ids that occur, without the barriers.
    pub(super) fn new<'a>(documents: impl Iterator<Item = &'a [TokenId]>, barriers: &[TokenId]) -> Self {
        let mut this = Self { ids: Vec::new(), pages: Vec::new() };
        for &id in documents.flatten() {
            *this.entry(id) = 1;
        }
        for &id in barriers {
            *this.entry(id) = BARRIER;
        }
        let Self { ids, pages } = &mut this;
        for (page, first) in pages.iter_mut().zip((0..).step_by(PAGE)) {
            for (symbol, id) in page.iter_mut().flat_map(|p| p.iter_mut()).zip(first..) {
                if *symbol != BARRIER {
                    ids.push(id);
                    *symbol = ids.len() as Symbol;
                }
            }
        }
        this
    }

    fn entry(&mut self, id: TokenId) -> &mut Symbol {
        let (page, place) = (id as usize / PAGE, id as usize % PAGE);
        if page >= self.pages.len() {
            self.pages.resize(page + 1, None);
        }
        &mut self.pages[page].get_or_insert_with(|| Box::new([BARRIER; PAGE]))[place]
    }

    /// Number of symbols, the barrier's among them.
    pub(super) fn len(&self) -> usize {
        self.ids.len() + 1
    }

    /// Of an id that occurs; the barrier's for one that is none.
    pub(super) fn symbol(&self, id: TokenId) -> Symbol {
        let page = self.pages.get(id as usize / PAGE).and_then(Option::as_ref);
        page.map_or(BARRIER, |p| p[id as usize % PAGE])
    }

    pub(super) fn id(&self, symbol: Symbol) -> TokenId {
        self.ids[symbol as usize - 1]
    }
}

/// As a cell number.
pub(super) fn cell(positions: usize) -> Result<u32> {
    let limit = (u32::MAX - 1) as usize;
    if positions > limit {
        return Err(Error::IndexTooLarge { positions, limit });
    }
    Ok(positions as u32)
}
