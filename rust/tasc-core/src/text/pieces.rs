//! How pieces of text are spelled in token ids *inside an output*: `boston` after a quotation mark and ` boston` after a
//! word are different ids. What the index has seen is stored; anything else is asked of the tokenizer.

use std::ops::Range;

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::{Result, TokenId};

/// Longest piece that is spelled, in bytes; what is longer cannot be copied.
pub const MAX_PIECE: usize = 256;

/// A tokenizer, seen from here.
pub trait Speller: Send + Sync {
    /// The ids of each piece as it stands in running text: one that begins with a letter or digit follows a
    /// punctuation mark there, any other follows a word.
    ///
    /// # Errors
    /// Whatever keeps the tokenizer from answering.
    fn spell(&self, pieces: &[&str]) -> Result<Vec<Vec<TokenId>>>;
}

/// Spellings stored in an index. Arrays may come from a hostile file: every access is checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spellings<'a> {
    /// Hash of each piece, ascending.
    pub keys: &'a [u64],
    /// `starts[k]..starts[k + 1]` are the ids of piece k; length `keys + 1`.
    pub starts: &'a [u32],
    /// Token ids of all pieces.
    pub ids: &'a [TokenId],
}

/// The arrays of [`Spellings`], owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // each field is described at `Spellings`
pub struct OwnedSpellings {
    pub keys: Vec<u64>,
    pub starts: Vec<u32>,
    pub ids: Vec<TokenId>,
}

impl<'a> Spellings<'a> {
    /// The ids of a piece.
    ///
    /// # Complexity
    /// O(log pieces).
    #[must_use]
    pub fn get(&self, key: u64) -> Option<&'a [TokenId]> {
        let at = self.keys.binary_search(&key).ok()?;
        let &[start, end] = self.starts.get(at..)?.first_chunk()?;
        self.ids.get(start as usize..end as usize)
    }
}

impl OwnedSpellings {
    /// The borrowed form.
    #[must_use]
    pub fn view(&self) -> Spellings<'_> {
        Spellings { keys: &self.keys, starts: &self.starts, ids: &self.ids }
    }
}

/// The key of a piece.
#[must_use]
pub fn key(piece: &str) -> u64 {
    xxh3_64(piece.as_bytes())
}

/// Pieces spelled at run time, beside those of an index.
#[derive(Clone, Debug, Default)]
pub struct Learnt {
    ids: Vec<TokenId>,
    at: FxHashMap<u64, Range<usize>>,
}

impl Learnt {
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
    pub fn learn(&mut self, pieces: &[&str], speller: &dyn Speller) -> Result<()> {
        for (piece, ids) in pieces.iter().zip(speller.spell(pieces)?) {
            self.insert(key(piece), &ids);
        }
        Ok(())
    }

    fn insert(&mut self, key: u64, ids: &[TokenId]) {
        let start = self.ids.len();
        self.ids.extend_from_slice(ids);
        self.at.insert(key, start..self.ids.len());
    }

    /// The stored form: pieces in order of their keys.
    #[must_use]
    pub fn freeze(&self) -> OwnedSpellings {
        let mut keys: Vec<u64> = self.at.keys().copied().collect();
        keys.sort_unstable();
        let mut frozen = OwnedSpellings { starts: vec![0], ..OwnedSpellings::default() };
        for &key in &keys {
            frozen.ids.extend_from_slice(self.get(key).unwrap_or(&[]));
            frozen.starts.push(u32::try_from(frozen.ids.len()).unwrap_or(u32::MAX));
        }
        frozen.keys = keys;
        frozen
    }
}
