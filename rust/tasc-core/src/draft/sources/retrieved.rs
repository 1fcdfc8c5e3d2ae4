//! Evidence from the outputs of those rows whose inputs are nearest to this request's.

use crate::TokenId;
use crate::index::inputs::Inputs;
use crate::index::nearest::{NearestScratch, Neighbour};
use crate::index::ngrams::{BOUNDARY, Ngrams};
use crate::mixture::blend::Blend;
use crate::online::sequence_index::{Matches, SequenceIndex};
use crate::online::served::{IndexedRows, OnlineNeighbour, START};

/// Rows retrieved for a request.
pub const NEIGHBOURS: usize = 16;

/// Places followed at a time.
const MAX_FOLLOWED: usize = 24;

/// A neighbour counts for (similarity / best similarity) to this power.
const SHARPNESS: i32 = 4;

/// Tokens taken of a neighbour's output at most, and of all of them.
const MAX_OUTPUT_TOKENS: usize = 4096;
const MAX_TOTAL_TOKENS: usize = 1 << 14;

/// The outputs of the nearest rows as a small weighted corpus.
#[derive(Clone, Debug, Default)]
pub struct Retrieved {
    outputs: SequenceIndex,
    similarity: f32,
    neighbours: Vec<Neighbour>,
    served: Vec<OnlineNeighbour>,
    texts: Vec<Vec<TokenId>>,
    scratch: NearestScratch,
}

impl Retrieved {
    /// Retrieves for an input of these terms; `matches` then stand at the start of an output.
    ///
    /// # Complexity
    /// That of [`Inputs::nearest`], plus O(tokens of the outputs found).
    pub fn find(
        &mut self,
        inputs: &Inputs<'_>,
        ngrams: &Ngrams<'_>,
        served: &IndexedRows,
        terms: &[u64],
        matches: &mut Matches,
    ) {
        self.outputs.clear();
        matches.clear();
        inputs.nearest(terms, NEIGHBOURS, &mut self.scratch, &mut self.neighbours);
        served.nearest(terms, inputs, NEIGHBOURS, &mut self.served);
        self.keep_nearest();
        outputs(ngrams, &self.neighbours, &mut self.texts);
        let of_index = self.neighbours.iter().zip(&self.texts).map(|(n, text)| (n.similarity, text.as_slice()));
        let of_served = self.served.iter().map(|n| (n.similarity, served.output(n.row)));
        let mut found: Vec<(f32, &[TokenId])> = of_index.chain(of_served).collect();
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.similarity = found.first().map_or(0.0, |f| f.0);
        let mut room = MAX_TOTAL_TOKENS;
        for (similarity, text) in found.into_iter().rev() {
            // the nearest last: the most recent places are followed first
            let weight = (similarity / self.similarity).powi(SHARPNESS);
            let text = &text[..text.len().min(room).min(MAX_OUTPUT_TOKENS)];
            self.outputs.insert(std::iter::once(START).chain(text.iter().copied()), weight);
            room -= text.len();
        }
        self.advance(matches, START);
    }

    /// Keeps the nearest of both kinds, [`NEIGHBOURS`] in all.
    fn keep_nearest(&mut self) {
        while self.neighbours.len() + self.served.len() > NEIGHBOURS {
            let of = |n: Option<f32>| n.unwrap_or(f32::INFINITY);
            let (index, served) =
                (self.neighbours.last().map(|n| n.similarity), self.served.last().map(|n| n.similarity));
            if of(index) <= of(served) {
                self.neighbours.pop();
            } else {
                self.served.pop();
            }
        }
    }

    /// How near the nearest row is, 0 to 1.
    #[must_use]
    pub fn similarity(&self) -> f32 {
        self.similarity
    }

    /// The rows retrieved, nearest first.
    #[must_use]
    pub fn neighbours(&self) -> &[Neighbour] {
        &self.neighbours
    }

    /// The output grows by a token.
    pub fn advance(&self, matches: &mut Matches, token: TokenId) {
        if !self.outputs.ids().is_empty() {
            matches.advance(&self.outputs, token, MAX_FOLLOWED);
        }
    }

    /// Fills `blend` with what followed in the retrieved outputs. Returns the length of the longest match.
    pub fn blend(&self, matches: &Matches, scratch: &mut Vec<(u32, TokenId, f32)>, blend: &mut Blend) -> u32 {
        let order = self.outputs.blend(matches, scratch, blend);
        blend.forget(START);
        order
    }
}

/// The outputs of rows, each from the sorted position where it starts. All are read in step, so that they wait for
/// memory together.
fn outputs(ngrams: &Ngrams<'_>, rows: &[Neighbour], texts: &mut Vec<Vec<TokenId>>) {
    texts.resize_with(rows.len(), Vec::new);
    texts.iter_mut().for_each(Vec::clear);
    let mut at: Vec<(usize, u32)> = rows.iter().map(|r| r.document).enumerate().collect();
    for _ in 0..MAX_OUTPUT_TOKENS {
        at.retain_mut(|(k, at)| {
            let (Some(&symbol), Some(&next)) = (ngrams.bwt.get(*at as usize), ngrams.lf.get(*at as usize)) else {
                return false;
            };
            *at = next;
            if symbol != BOUNDARY {
                texts[*k].extend(ngrams.token(symbol));
            }
            symbol != BOUNDARY
        });
        if at.is_empty() {
            break;
        }
    }
}
