//! Weights that serve any task, printed by `benches/python/fit_general_weights.py` from generated tasks.

use super::features::{FEATURES, STATES};
use super::mixer::Weights;
use crate::Result;

/// A row per state: longest match in the task (0–1, 2–3, 4–7, 8–15, 16+ tokens) × longest match in the context (the
/// same), each with the weights of ln p in the task, ln p in the context, "unknown to the task", "unknown to the
/// context" and "something else".
#[rustfmt::skip]
#[allow(clippy::approx_constant)] // a weight may lie near 1/π
const TABLE: [[f32; FEATURES]; STATES] = [
    [0.908, 0.613, 5.655, 3.996, 0.407],
    [0.545, 0.697, 3.119, 4.280, -1.010],
    [0.602, 0.761, 2.666, 4.253, -0.300],
    [0.497, 0.654, 2.457, 4.155, 0.141],
    [0.572, 0.594, 2.417, 4.124, 0.168],
    [0.715, 0.464, 3.607, 3.352, 1.160],
    [0.462, 0.701, 2.330, 4.920, -0.098],
    [0.813, 0.947, 2.827, 5.757, -0.934],
    [0.848, 0.657, 2.381, 4.138, 0.131],
    [0.572, 0.594, 2.417, 4.124, 0.168],
    [0.574, 0.521, 2.671, 3.960, 0.439],
    [0.559, 0.717, 2.767, 5.108, -0.383],
    [0.612, 0.737, 2.511, 4.645, -0.033],
    [0.518, 0.572, 2.372, 4.184, 0.085],
    [0.572, 0.594, 2.417, 4.124, 0.168],
    [0.648, 0.566, 2.346, 3.913, -0.239],
    [0.573, 0.811, 1.962, 5.478, -0.557],
    [0.553, 0.694, 2.517, 4.110, 0.318],
    [0.274, 0.162, 2.347, 4.085, 0.370],
    [0.572, 0.594, 2.417, 4.124, 0.168],
    [0.530, 0.534, 1.937, 4.115, 0.515],
    [0.661, 0.773, 0.876, 4.489, 1.498],
    [0.601, 0.682, 1.285, 3.850, 1.279],
    [0.503, 0.341, 2.131, 3.839, 0.694],
    [0.385, 0.412, 2.401, 4.102, 0.206],
];

/// The general weights.
///
/// # Errors
/// Never for the table above; the check is the same as for weights from outside.
pub fn weights() -> Result<Weights> {
    Weights::new(FEATURES, TABLE.concat())
}
