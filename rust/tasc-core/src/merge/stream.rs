//! Segmentation of ids that arrive one after the other.

use std::sync::Arc;

use super::automaton::ROOT;
use super::segment::Segmenter;
use crate::{Error, Result, TokenId};

/// Segments ids piece by piece. Its tokens together are [`Segmenter::segment`] of all ids.
///
/// A token is returned as soon as it is part of the best segmentation up to every position at which a token can begin or
/// end near the end of the known ids: the end itself, and each position from which the ids are the beginning of an
/// expansion.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use tasc_core::merge::{SegmentStream, Segmenter};
/// let mut stream = SegmentStream::new(Arc::new(Segmenter::new(100, &[vec![1, 2], vec![2, 3, 4]])?));
/// assert!(stream.push(&[1, 2])?.is_empty()); // 1 2, or 1 and 2 3 4
/// assert_eq!(stream.push(&[3, 4])?, [1, 101]);
/// assert!(stream.finish().is_empty());
/// # Ok::<(), tasc_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SegmentStream {
    segmenter: Arc<Segmenter>,
    state: u32,
    /// The best way to each place from where the tokens are decided on; the first is that place. What can still become
    /// part of the whole is a tree.
    ways: Vec<Way>,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    /// Tokens up to here.
    cost: u32,
    /// Where the last of them begins.
    from: usize,
    /// The last of them.
    token: TokenId,
}

const START: Way = Way { cost: 0, from: 0, token: 0 };

impl SegmentStream {
    /// Makes a stream at the start of a document.
    #[must_use]
    pub fn new(segmenter: Arc<Segmenter>) -> Self {
        Self { segmenter, state: ROOT, ways: vec![START] }
    }

    /// Adds base ids and returns the tokens that are decided now.
    ///
    /// # Complexity
    /// Linear in the ids for expansions of bounded length, as long as tokens are decided; memory grows with what is
    /// undecided.
    ///
    /// # Errors
    /// [`Error::TokenId`] for an id that is not a base id; nothing was added then.
    pub fn push(&mut self, ids: &[TokenId]) -> Result<Vec<TokenId>> {
        let limit = self.segmenter.base();
        if let Some(&id) = ids.iter().find(|&&id| id >= limit) {
            return Err(Error::TokenId { id, limit });
        }
        let mut out = Vec::new();
        for &id in ids {
            self.read(id);
            let decided = self.decided();
            self.give(decided, &mut out);
        }
        Ok(out)
    }

    /// Ends the document and returns its last tokens. The stream is then at the start of another document.
    pub fn finish(&mut self) -> Vec<TokenId> {
        let mut out = Vec::new();
        self.give(self.ways.len() - 1, &mut out);
        self.state = ROOT;
        out
    }

    /// Finds the best segmentation up to the position behind one more id.
    fn read(&mut self, id: TokenId) {
        let forwards = self.segmenter.forwards();
        self.state = forwards.step(self.state, id);
        let place = self.ways.len();
        let mut best = Way { cost: self.ways[place - 1].cost + 1, from: place - 1, token: id };
        for (pattern, length) in forwards.ending(self.state) {
            let Some(from) = place.checked_sub(length as usize) else { continue };
            let cost = self.ways[from].cost + 1;
            if cost < best.cost || (cost == best.cost && self.longer(from, best.from)) {
                best = Way { cost, from, token: self.segmenter.base() + pattern };
            }
        }
        self.ways.push(best);
    }

    /// Whether the way to `a` has the longer token than the way to `b` where they first differ; both have as many.
    fn longer(&self, mut a: usize, mut b: usize) -> bool {
        while self.ways[a].from != self.ways[b].from {
            (a, b) = (self.ways[a].from, self.ways[b].from);
        }
        a > b
    }

    /// The last place that every way that may go on leads through.
    fn decided(&self) -> usize {
        let end = self.ways.len() - 1;
        let mut trunk = end;
        for length in self.segmenter.forwards().open(self.state) {
            let Some(mut other) = end.checked_sub(length as usize) else { continue };
            while trunk != other {
                let deeper = if self.ways[trunk].cost > self.ways[other].cost { &mut trunk } else { &mut other };
                *deeper = self.ways[*deeper].from;
            }
        }
        trunk
    }

    /// Returns the tokens up to a position and starts from there.
    fn give(&mut self, place: usize, out: &mut Vec<TokenId>) {
        let (first, mut at) = (out.len(), place);
        while at > 0 {
            out.push(self.ways[at].token);
            at = self.ways[at].from;
        }
        out[first..].reverse();
        if place > 0 {
            let before = self.ways[place].cost;
            self.ways.drain(..place);
            for way in &mut self.ways {
                way.from = way.from.saturating_sub(place);
                way.cost = way.cost.saturating_sub(before);
            }
        }
    }
}
