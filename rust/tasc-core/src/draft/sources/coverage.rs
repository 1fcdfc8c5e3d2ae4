//! Evidence from what still waits to be copied: the same tail is followed by another token when nothing is left.

use crate::TokenId;
use crate::draft::blend::Blend;
use crate::index::copies::Copies;

/// Fills `blend` with what followed this tail while as many words waited, longest tail first.
///
/// # Complexity
/// Three look-ups.
pub fn blend(copies: &Copies<'_>, tail: &[TokenId], waiting: f32, blend: &mut Blend) {
    blend.clear();
    for found in copies.coverage(tail, waiting) {
        let followers = found.iter().map(|(token, count)| (token, count as f32));
        blend.back_off(followers, found.total as f32, found.distinct as f32, 1);
    }
}
