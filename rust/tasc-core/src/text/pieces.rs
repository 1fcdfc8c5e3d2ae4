//! How pieces of text are spelled in token ids *inside an output*: `boston` after a quotation mark and ` boston` after a
//! word are different ids. What the index has seen is stored; anything else is asked of the tokenizer.

use std::ops::Range;

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::format::sections;
use crate::{Result, TokenId};

/// Longest piece that is spelled, in bytes; what is longer cannot be copied.
pub const MAX_PIECE: usize = 256;

/// Most ids of a piece that are read from an index: tokenizers make no more of it than one for each byte, and a few. A
/// file whose pieces overlap would make every word of an input as long as the file.
const MAX_IDS: usize = 2 * MAX_PIECE;

/// A tokenizer, seen from here.
pub trait PieceTokenizer: Send + Sync {
    /// The ids of each piece as it stands in running text: one that begins with a letter or digit follows a
    /// punctuation mark there, any other follows a word.
    ///
    /// # Errors
    /// Whatever keeps the tokenizer from answering.
    fn tokenize_pieces(&self, pieces: &[&str]) -> Result<Vec<Vec<TokenId>>>;
}

sections! {
    /// The pieces of an index with their token ids. Arrays may come from a hostile file: every access is checked.
    pub struct PieceArrays as Pieces {
        /// Hash of each piece, ascending.
        keys: [u64],
        /// `starts[k]..starts[k + 1]` are the ids of piece k; length `keys + 1`.
        starts: [u32],
        /// Token ids of all pieces.
        ids: [TokenId],
    }
}

impl<'a> Pieces<'a> {
    /// The ids of a piece.
    ///
    /// # Complexity
    /// O(log pieces).
    #[must_use]
    pub fn get(&self, key: u64) -> Option<&'a [TokenId]> {
        let at = self.keys.binary_search(&key).ok()?;
        let &[start, end] = self.starts.get(at..)?.first_chunk()?;
        self.ids.get(start as usize..end as usize).filter(|ids| ids.len() <= MAX_IDS)
    }
}

/// The key of a piece.
#[must_use]
pub fn key(piece: &str) -> u64 {
    xxh3_64(piece.as_bytes())
}

/// Pieces spelled at run time, beside those of an index.
#[derive(Clone, Debug, Default)]
pub struct TokenizationCache {
    ids: Vec<TokenId>,
    at: FxHashMap<u64, Range<usize>>,
}

impl TokenizationCache {
    /// The ids of a piece.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<&[TokenId]> {
        self.ids.get(self.at.get(&key)?.clone())
    }

    /// Forgets everything once it holds more than `limit` pieces.
    pub fn bound(&mut self, limit: usize) {
        if self.at.len() > limit {
            *self = Self::default();
        }
    }

    /// Number of pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Asks the tokenizer for pieces.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn learn(&mut self, pieces: &[&str], tokenizer: &dyn PieceTokenizer) -> Result<()> {
        self.extend(pieces, &tokenizer.tokenize_pieces(pieces)?);
        Ok(())
    }

    /// Adds pieces with their ids.
    pub(crate) fn extend(&mut self, pieces: &[&str], ids: &[Vec<TokenId>]) {
        for (piece, ids) in pieces.iter().zip(ids) {
            self.insert(key(piece), ids);
        }
    }

    fn insert(&mut self, key: u64, ids: &[TokenId]) {
        self.at.entry(key).or_insert_with(|| {
            let start = self.ids.len();
            self.ids.extend_from_slice(ids);
            start..self.ids.len()
        });
    }

    /// The stored form: pieces in order of their keys.
    #[must_use]
    pub fn freeze(&self) -> PieceArrays {
        let mut keys: Vec<u64> = self.at.keys().copied().collect();
        keys.sort_unstable();
        let mut frozen = PieceArrays { starts: vec![0], ..<PieceArrays>::default() };
        for &key in &keys {
            frozen.ids.extend_from_slice(self.get(key).unwrap_or(&[]));
            frozen.starts.push(u32::try_from(frozen.ids.len()).unwrap_or(u32::MAX));
        }
        frozen.keys = keys;
        frozen
    }
}
