//! Activations of a linear layer as integers, for products with int8 weights on a CPU.

/// Highest level of an activation: both of its bytes are at most 255 after the offset is added.
pub const ACTIVATION_LEVELS: u16 = 127 * 256 + 127;

/// What is added to a level, so that each of its two bytes has the zero point 128; and ½, so that truncation rounds.
const OFFSET: f32 = 257.0 * 128.0 + 0.5;

/// Least peak: below it, levels per unit would overflow. Activations this small round to zero.
const LEAST_PEAK: f32 = 1e-30;

/// Independent maxima, so that the compiler can use vectors.
const LANES: usize = 16;

/// Rounds a row of activations to 16 bits, with the row's largest magnitude as its scale.
///
/// Element `k` becomes the level `256 (high[k] − 128) + (low[k] − 128)`; the level times the peak over
/// [`ACTIVATION_LEVELS`] is the rounded activation. A row is rounded by itself, so its bytes do not depend on other rows.
///
/// Returns the peak; NaN if the row holds a value that is not finite.
///
/// # Panics
/// If the slices differ in length.
///
/// # Example
/// ```
/// let (mut low, mut high) = ([0; 2], [0; 2]);
/// let peak = tasc_core::round_activations(&[2.0, -1.0], &mut low, &mut high);
/// let level = |k: usize| 256 * (i32::from(high[k]) - 128) + i32::from(low[k]) - 128;
/// assert_eq!((peak, level(0), level(1)), (2.0, 32639, -16319)); // 127 × 257 levels, −½ of them
/// ```
pub fn round_activations(row: &[f32], low: &mut [u8], high: &mut [u8]) -> f32 {
    assert!(low.len() == row.len() && high.len() == row.len(), "a byte of each kind for every activation");
    let mut peaks = [LEAST_PEAK; LANES];
    let mut poison = [0.0; LANES]; // NaN where a value is not finite
    let chunks = row.chunks_exact(LANES);
    for (k, value) in chunks.remainder().iter().enumerate() {
        peaks[k] = peaks[k].max(value.abs());
        poison[k] += value * 0.0;
    }
    for chunk in chunks {
        for (k, value) in chunk.iter().enumerate() {
            peaks[k] = peaks[k].max(value.abs());
            poison[k] += value * 0.0;
        }
    }
    let peak = peaks.into_iter().fold(LEAST_PEAK, f32::max);
    let per_unit = f32::from(ACTIVATION_LEVELS) / peak;
    for ((value, low), high) in row.iter().zip(low).zip(high) {
        #[expect(clippy::cast_possible_truncation, reason = "rounds; the two bytes are wanted")]
        let level = (value * per_unit + OFFSET) as i32;
        [*low, *high, _, _] = level.to_le_bytes();
    }
    peak + poison.into_iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rounded(row: &[f32]) -> (f32, Vec<i32>) {
        let (mut low, mut high) = (vec![7; row.len()], vec![7; row.len()]);
        let peak = round_activations(row, &mut low, &mut high);
        let level = |(low, high): (u8, u8)| 256 * (i32::from(high) - 128) + i32::from(low) - 128;
        (peak, low.into_iter().zip(high).map(level).collect())
    }

    proptest! {
        #[test]
        fn an_activation_is_off_by_half_a_level_at_most(
            row in prop::collection::vec(prop_oneof![-1e4f32..1e4, -1e-3f32..1e-3, Just(0.0)], 0..80)
        ) {
            let (peak, levels) = rounded(&row);
            prop_assert_eq!(peak, row.iter().fold(LEAST_PEAK, |a, b| a.max(b.abs())));
            let unit = f64::from(peak) / f64::from(ACTIVATION_LEVELS);
            for (value, level) in row.iter().zip(levels) {
                prop_assert!((f64::from(*value) - f64::from(level) * unit).abs() <= 0.505 * unit, "{value} {level}");
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_not_finite_is_not_hidden() {
        assert_eq!(rounded(&[0.0; 20]), (LEAST_PEAK, vec![0; 20]));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 15, 16, 19] {
                let mut row = [1.0; 20];
                row[place] = bad;
                assert!(rounded(&row).0.is_nan());
            }
        }
    }
}
