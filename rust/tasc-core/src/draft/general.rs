//! Weights that serve any task, printed by `benches/python/fit_general_weights.py` from generated tasks.

use super::features::{FEATURES, GROUPS};
use super::mixer::Weights;
use super::mixtures::{Mixtures, variants};
use crate::Result;

/// The general weights.
///
/// # Errors
/// Never for the table; the check is the same as for weights from outside.
pub fn mixtures() -> Result<Mixtures> {
    let rows = 1 + GROUPS.iter().sum::<usize>();
    let mut table = vec![0.0; rows * FEATURES];
    table[0] = 0.5;
    table[1] = 0.5;
    table[2] = 0.2;
    Mixtures::new(
        variants().iter().map(|_| Weights::new(FEATURES, GROUPS.to_vec(), table.clone())).collect::<Result<_>>()?,
    )
}
