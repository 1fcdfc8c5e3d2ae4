//! Segmentation of ids into the fewest tokens, and back.

use std::sync::OnceLock;

use super::automaton::{Automaton, ROOT};
use crate::{Error, Result, TokenId, pool};

/// Parts of a batch for each thread: sequences differ in length.
const PARTS: usize = 4;

/// Writes base ids with as few tokens as possible: base ids, and new ids `base + i` that stand for expansions. Among
/// segmentations of equal length the one with the longest first token wins, then the one with the longest second token, and
/// so on.
///
/// # Examples
/// ```
/// use tasc_core::merge::Segmenter;
/// let segmenter = Segmenter::new(100, &[vec![1, 2], vec![2, 3, 4]])?;
/// assert_eq!(segmenter.segment(&[1, 2, 3, 4, 1, 2])?, [1, 101, 100]);
/// assert_eq!(segmenter.expand(&[1, 101, 100])?, [1, 2, 3, 4, 1, 2]);
/// # Ok::<(), tasc_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Segmenter {
    base: TokenId,
    expansions: Vec<TokenId>,
    offsets: Vec<usize>,
    /// Reads from the end: the best segmentation of every suffix is computed first.
    backwards: Automaton,
    /// Reads from the start, for streams; made for the first stream.
    forwards: OnceLock<Automaton>,
}

/// Buffers that calls share.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Fewest tokens from each position to the end.
    costs: Vec<u32>,
    /// First token of that segmentation: its length, and its id.
    first: Vec<(u32, TokenId)>,
}

impl Segmenter {
    /// Makes a segmenter of the expansions of the ids from `base` on, each of two base ids or more.
    ///
    /// # Errors
    /// [`Error::Plan`] for an expansion that is too short or occurs twice; [`Error::TokenId`] for an id in one that is
    /// not below `base`.
    pub fn new<E: AsRef<[TokenId]>>(base: TokenId, expansions: &[E]) -> Result<Self> {
        if u32::try_from(expansions.len()).ok().and_then(|n| base.checked_add(n)).is_none() {
            let why = format!("{} new ids from {base} on do not fit 32 bits", expansions.len());
            return Err(Error::Plan { why });
        }
        let (mut ids, mut offsets) = (Vec::new(), vec![0]);
        for (k, expansion) in expansions.iter().map(AsRef::as_ref).enumerate() {
            if expansion.len() < 2 {
                let why = format!("the expansion of new token {k} has {} ids, it needs at least 2", expansion.len());
                return Err(Error::Plan { why });
            }
            if let Some(&id) = expansion.iter().find(|&&id| id >= base) {
                return Err(Error::TokenId { id, limit: base });
            }
            ids.extend_from_slice(expansion);
            offsets.push(ids.len());
        }
        let mut order: Vec<&[TokenId]> = expansions.iter().map(AsRef::as_ref).collect();
        order.sort_unstable();
        if let Some(twice) = order.windows(2).find(|two| two[0] == two[1]) {
            return Err(Error::Plan { why: format!("two new tokens have the expansion {:?}", twice[0]) });
        }
        let backwards = Automaton::new(expansions.iter().map(|e| e.as_ref().iter().rev().copied()));
        Ok(Self { base, expansions: ids, offsets, backwards, forwards: OnceLock::new() })
    }

    /// Number of new tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no new token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first new id.
    #[must_use]
    pub fn base(&self) -> TokenId {
        self.base
    }

    /// Returns the base ids that new token `index` stands for.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn expansion(&self, index: usize) -> Result<&[TokenId]> {
        match self.offsets.get(index..).and_then(|o| o.first_chunk()) {
            Some(&[start, end]) => Ok(&self.expansions[start..end]),
            None => Err(Error::OutOfRange { what: "new token", index, limit: self.len() }),
        }
    }

    /// Returns the index of the new token with this id.
    #[must_use]
    pub fn new_token(&self, id: TokenId) -> Option<usize> {
        id.checked_sub(self.base).map(|new| new as usize).filter(|&new| new < self.len())
    }

    pub(super) fn forwards(&self) -> &Automaton {
        let expansions = || self.offsets.windows(2).map(|o| self.expansions[o[0]..o[1]].iter().copied());
        self.forwards.get_or_init(|| Automaton::new(expansions()))
    }

    /// Segments `ids` into the fewest tokens.
    ///
    /// # Complexity
    /// O(ids + occurrences of expansions).
    ///
    /// # Errors
    /// [`Error::TokenId`] for an id that is not a base id.
    pub fn segment(&self, ids: &[TokenId]) -> Result<Vec<TokenId>> {
        let mut out = Vec::new();
        self.segment_into(ids, &mut Scratch::default(), &mut out)?;
        Ok(out)
    }

    /// Segments `ids` and appends the tokens to `out`; `scratch` is reused.
    ///
    /// # Errors
    /// As [`Segmenter::segment`]; nothing is appended then.
    pub fn segment_into(&self, ids: &[TokenId], scratch: &mut Scratch, out: &mut Vec<TokenId>) -> Result<()> {
        if let Some(&id) = ids.iter().find(|&&id| id >= self.base) {
            return Err(Error::TokenId { id, limit: self.base });
        }
        self.shortest(ids, None, scratch, out);
        Ok(())
    }

    /// Segments many sequences on up to `num_threads` threads. The result does not depend on their number.
    ///
    /// # Errors
    /// As [`Segmenter::segment`], for the first sequence that has one.
    pub fn segment_batch<I: AsRef<[TokenId]> + Sync>(
        &self,
        batch: &[I],
        num_threads: usize,
    ) -> Result<Vec<Vec<TokenId>>> {
        let one = |scratch: &mut Scratch, ids: &I| {
            let mut out = Vec::new();
            self.segment_into(ids.as_ref(), scratch, &mut out).map(|()| out)
        };
        let parts: Vec<_> = batch.chunks(batch.len().div_ceil(num_threads.max(1) * PARTS).max(1)).collect();
        let segmented = pool::map(&parts, num_threads, |part| {
            let mut scratch = Scratch::default();
            part.iter().map(|ids| one(&mut scratch, ids)).collect::<Vec<_>>()
        });
        segmented.into_iter().flatten().collect()
    }

    /// Segments the expansion of a new token without that token.
    pub(super) fn segment_without(&self, index: usize) -> Result<Vec<TokenId>> {
        let mut out = Vec::new();
        self.shortest(self.expansion(index)?, Some(index as u32), &mut Scratch::default(), &mut out);
        Ok(out)
    }

    fn shortest(&self, ids: &[TokenId], without: Option<u32>, scratch: &mut Scratch, out: &mut Vec<TokenId>) {
        let Scratch { costs, first } = scratch;
        costs.clear();
        costs.resize(ids.len() + 1, 0);
        first.clear();
        first.resize(ids.len(), (1, 0));
        let mut state = ROOT;
        for at in (0..ids.len()).rev() {
            state = self.backwards.step(state, ids[at]);
            let (mut cost, mut best) = (u32::MAX, (1, ids[at]));
            for (pattern, length) in self.backwards.ending(state) {
                let way = costs[at + length as usize];
                if way < cost && Some(pattern) != without {
                    (cost, best) = (way, (length, self.base + pattern));
                }
            }
            if costs[at + 1] < cost {
                (cost, best) = (costs[at + 1], (1, ids[at]));
            }
            (costs[at], first[at]) = (cost + 1, best);
        }
        let mut at = 0;
        while let Some(&(length, id)) = first.get(at) {
            out.push(id);
            at += length as usize;
        }
    }

    /// Returns the base ids of a segmentation.
    ///
    /// # Complexity
    /// O(result).
    ///
    /// # Errors
    /// [`Error::TokenId`] for an id that is neither a base id nor a new one.
    pub fn expand(&self, ids: &[TokenId]) -> Result<Vec<TokenId>> {
        let mut out = Vec::with_capacity(ids.len());
        for &id in ids {
            match id.checked_sub(self.base) {
                None => out.push(id),
                Some(new) => match self.expansion(new as usize) {
                    Ok(expansion) => out.extend_from_slice(expansion),
                    Err(_) => return Err(Error::TokenId { id, limit: self.base + self.len() as u32 }),
                },
            }
        }
        Ok(out)
    }
}
