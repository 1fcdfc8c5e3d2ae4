//! Evidence from what still waits to be copied: the same tail is followed by another token when nothing is left.

use crate::TokenId;
use crate::index::conditional::Followers;
use crate::index::copies::CopyModel;
use crate::mixture::blend::Blend;

/// Candidates less likely than this fraction of the best are dropped.
const MIN_RELATIVE_PROBABILITY: f32 = 0.01;

/// Fills `blend` with what followed this tail while as many words waited, longest tail first.
///
/// # Complexity
/// Three look-ups.
pub fn blend(copies: &CopyModel<'_>, tail: &[TokenId], waiting: f32, blend: &mut Blend) {
    join(copies.coverage(tail, waiting), blend);
}

/// Fills `blend` with what followed this tail while the same word waited next, then while one with the same left word
/// did.
///
/// # Complexity
/// Four look-ups.
pub fn ahead(copies: &CopyModel<'_>, tail: &[TokenId], (word, left): (u64, u64), blend: &mut Blend) {
    join(copies.ahead(tail, word, left), blend);
}

fn join<const N: usize>(found: [Followers<'_>; N], blend: &mut Blend) {
    blend.clear();
    for found in found {
        let followers = found.iter().map(|(token, count)| (token, count as f32));
        blend.back_off(followers, found.total as f32, found.distinct as f32, 1);
    }
    blend.prune(MIN_RELATIVE_PROBABILITY);
}
