//! Fitting against finite differences, the mixer itself, and weights that are known because the data were drawn from
//! them.
#![allow(clippy::unwrap_used)] // a test may
use proptest::prelude::*;
use tasc_core::fit::FitOptions;
use tasc_core::fit::lbfgs::{Fit, fit, loss};
use tasc_core::fit::samples::Samples;
use tasc_core::mixture::{Mixer, Weights};

/// Penalties that hardly matter.
const FREE: FitOptions =
    FitOptions { common_penalty: 1e-8, offset_penalty: 1e-8, iterations: 150, prior_rows: 0.0, threads: 1 };

/// SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }

    /// A multiple of 1/256 in [−scale, scale]: sums of few are exact in f32.
    fn dyadic(&mut self, scale: f64) -> f32 {
        ((2.0 * self.unit() - 1.0) * scale * 256.0).round() as f32 / 256.0
    }

    fn weights(&mut self, features: usize, groups: &[usize], scale: f64) -> Weights {
        let rows = 1 + groups.iter().sum::<usize>();
        let table = (0..rows * features).map(|_| self.dyadic(scale)).collect();
        Weights::new(features, groups.to_vec(), table).unwrap()
    }

    fn states(&mut self, groups: &[usize]) -> Vec<u8> {
        groups.iter().map(|&n| self.below(n) as u8).collect()
    }

    fn draw(&mut self, probabilities: &[f32]) -> usize {
        let mut left = self.unit();
        for (k, &p) in probabilities.iter().enumerate() {
            left -= f64::from(p);
            if left < 0.0 {
                return k;
            }
        }
        probabilities.len() - 1
    }

    /// `n` samples of at most `rows` rows whose truths are drawn from the mixture.
    fn samples(&mut self, truth: &Weights, n: usize, rows: usize) -> Samples {
        let mixer = Mixer::new(truth.clone());
        let mut samples = Samples::new(truth.features(), truth.groups().len());
        let mut p = Vec::new();
        for _ in 0..n {
            let rows = 1 + self.below(rows);
            let x: Vec<f32> = (0..rows * truth.features()).map(|_| self.dyadic(1.0)).collect();
            let states = self.states(truth.groups());
            mixer.mix(&x, &states, &mut p);
            samples.push(&x, self.draw(&p), &states, 1.0).unwrap();
        }
        samples
    }
}

fn zeros(like: &Weights) -> Weights {
    Weights::new(like.features(), like.groups().to_vec(), vec![0.0; like.table().len()]).unwrap()
}

fn wide(weights: &Weights) -> Vec<f64> {
    weights.table().iter().map(|&w| f64::from(w)).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Central differences at two widths, extrapolated; all steps are exact in f32.
    #[test]
    fn gradient_is_that_of_the_loss(
        seed: u64,
        features in 1..24usize,
        groups in prop::collection::vec(1..4usize, 0..4),
        n in 40..90usize,
    ) {
        let mut random = Random(seed);
        let weights = random.weights(features, &groups, 1.0);
        let prior = random.weights(features, &groups, 1.0);
        let samples = random.samples(&weights, n, 6);
        let options = FitOptions { common_penalty: 0.01, offset_penalty: 0.03, prior_rows: 25.0, ..FREE };
        let at = random.weights(features, &groups, 1.0);
        let (_, gradient) = loss(&samples, &wide(&at), &prior, &options).unwrap();
        let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        for k in 0..gradient.len() {
            let slope = |h: f64| {
                let side = |h: f64| {
                    let mut table = wide(&at);
                    table[k] += h;
                    loss(&samples, &table, &prior, &options).unwrap().0
                };
                (side(h) - side(-h)) / (2.0 * h)
            };
            let exact = (4.0 * slope(1.0 / 64.0) - slope(1.0 / 32.0)) / 3.0;
            prop_assert!((gradient[k] - exact).abs() < 1e-4 * length, "{k}: {} is not {exact}", gradient[k]);
        }
    }

    /// The loss is what the mixer says of the truths, plus the penalties.
    #[test]
    fn loss_is_that_of_the_mixer(seed: u64, features in 1..33usize, n in 1..40usize) {
        let mut random = Random(seed);
        let groups = [2, 3];
        let (at, prior) = (random.weights(features, &groups, 1.0), random.weights(features, &groups, 1.0));
        let mixer = Mixer::new(at.clone());
        let mut samples = Samples::new(features, 2);
        let (mut nats, mut total, mut p) = (0.0, 0.0, Vec::new());
        for _ in 0..n {
            let x: Vec<f32> = (0..features * 5).map(|_| random.dyadic(3.0)).collect();
            let (states, truth, weight) = (random.states(&[3, 4]), random.below(5), 0.5 + random.unit() as f32);
            samples.push(&x, truth, &states, weight).unwrap();
            mixer.mix(&x, &states, &mut p);
            nats -= f64::from(weight) * f64::from(p[truth].max(1e-30)).ln();
            total += f64::from(weight);
        }
        let distances: Vec<f64> = wide(&at).iter().zip(wide(&prior)).map(|(a, b)| (a - b) * (a - b)).collect();
        let (common, offsets) = distances.split_at(features);
        let options = FitOptions { common_penalty: 0.01, offset_penalty: 0.03, prior_rows: 10.0, ..FREE };
        let penalties = (0.01 * common.iter().sum::<f64>() + 0.03 * offsets.iter().sum::<f64>()) * (1.0 + 10.0 / total);
        let (value, _) = loss(&samples, &wide(&at), &prior, &options).unwrap();
        let slow = nats / total + penalties;
        prop_assert!((value - slow).abs() < 1e-4 * (1.0 + slow), "{value} is not {slow}");
    }

    #[test]
    fn never_worse_than_the_prior(seed: u64, n in 1..60usize, iterations in 0..20u64, scale in 0.1..20.0f64) {
        let mut random = Random(seed);
        let truth = random.weights(7, &[2, 3], 2.0);
        let prior = random.weights(7, &[2, 3], scale);
        let samples = random.samples(&truth, n, 5);
        let options = FitOptions { iterations, ..FitOptions::default() };
        let fit = fit(&samples, &prior, &options).unwrap();
        let before = loss(&samples, &wide(&prior), &prior, &options).unwrap().0;
        let after = loss(&samples, &wide(&fit.weights), &prior, &options).unwrap().0;
        prop_assert!(after <= before + 1e-6, "{after} is more than {before}");
        prop_assert!((fit.nats_before - before).abs() < 1e-12);
        prop_assert!(fit.nats <= fit.nats_before);
        prop_assert!(fit.iterations <= iterations);
        prop_assert!(iterations > 0 || fit.weights == prior);
    }
}

/// 20,000 samples know each of the 12 sums to a standard error below 0.04; tolerated is 0.15.
#[test]
fn finds_the_weights_that_made_the_data() {
    let mut random = Random(7);
    let truth = random.weights(6, &[3, 4], 1.5);
    let samples = random.samples(&truth, 20_000, 12);
    let Fit { weights, nats, nats_before, .. } = fit(&samples, &zeros(&truth), &FREE).unwrap();
    for (a, b) in (0..3).flat_map(|a| (0..4).map(move |b| (a, b))) {
        let difference = largest_difference(&weights.vector(&[a, b]), &truth.vector(&[a, b]));
        assert!(difference < 0.15, "{difference} at {a}, {b}");
    }
    let of_truth = loss(&samples, &wide(&truth), &truth, &FREE).unwrap().0;
    assert!(nats <= of_truth + 1e-6 && nats > of_truth - 0.01, "{nats} nats, the truth {of_truth}");
    assert!(nats_before > nats + 0.1);
}

/// What the mixture believes of its best row is how often that row is right, on samples it was not fitted to.
#[test]
fn fitted_mixture_is_calibrated() {
    let mut random = Random(11);
    let truth = random.weights(8, &[3, 2], 1.5);
    let samples = random.samples(&truth, 10_000, 10);
    // the prior is far off here, and the more it counts, the flatter the mixture
    let options = FitOptions { prior_rows: 0.0, ..FitOptions::default() };
    let mixer = Mixer::new(fit(&samples, &zeros(&truth), &options).unwrap().weights);
    let world = Mixer::new(truth.clone());
    let (mut believed, mut right, mut p) = (0.0, 0.0, Vec::new());
    const TRIALS: usize = 20_000;
    for _ in 0..TRIALS {
        let x: Vec<f32> = (0..80).map(|_| random.dyadic(1.0)).collect();
        let states = random.states(truth.groups());
        world.mix(&x, &states, &mut p);
        let next = random.draw(&p);
        mixer.mix(&x, &states, &mut p);
        let best = (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap();
        believed += f64::from(p[best]) / TRIALS as f64;
        right += f64::from(u8::from(best == next)) / TRIALS as f64;
    }
    assert!((believed - right).abs() < 0.02, "believes {believed}, is right in {right}");
    assert!(right > 0.3, "right in {right}: hardly better than the prior's 0.1");
}

#[test]
fn few_samples_or_strong_penalties_stay_near_the_prior() {
    let mut random = Random(3);
    let prior = random.weights(10, &[4, 4], 1.0);
    let truth = random.weights(10, &[4, 4], 2.0);
    let distance = |n, options: &FitOptions| {
        let samples = Random(n as u64).samples(&truth, n, 8);
        let fitted = fit(&samples, &prior, options).unwrap().weights;
        largest_difference(fitted.table(), prior.table())
    };
    let options = FitOptions::default();
    let (few, many) = (distance(3, &options), distance(3_000, &options));
    // the prior of a common weight has a standard deviation of 1/√(2 · 10,000 · 1e-4) = 0.7
    assert!(few < 0.7 && many > 2.0 * few, "{few} with 3 samples, {many} with 3,000");
    let certain = FitOptions { prior_rows: 1e6, ..options.clone() };
    assert!(distance(3, &certain) < 0.02);
    let strong = FitOptions { common_penalty: 1e8, offset_penalty: 1e8, ..options };
    assert!(distance(3_000, &strong) < 1e-6);
    let offsets = FitOptions { offset_penalty: 1e8, ..FREE };
    let samples = random.samples(&truth, 2_000, 8);
    let fitted = fit(&samples, &prior, &offsets).unwrap().weights;
    assert!(largest_difference(&fitted.table()[..10], &prior.table()[..10]) > 0.1, "the common row is free");
    assert!(largest_difference(&fitted.table()[10..], &prior.table()[10..]) < 1e-6);
}

#[test]
fn same_bits_for_any_number_of_threads() {
    let mut random = Random(5);
    let truth = random.weights(9, &[3, 3], 1.0);
    let samples = random.samples(&truth, 3_000, 8);
    let run = |threads| {
        let fit = fit(&samples, &zeros(&truth), &FitOptions { threads, ..FitOptions::default() }).unwrap();
        let bits: Vec<u32> = fit.weights.table().iter().map(|w| w.to_bits()).collect();
        (bits, fit.nats.to_bits(), fit.iterations)
    };
    let one = run(1);
    assert!(one.2 > 3, "{} iterations", one.2);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
}

/// Nothing holds the weights back, and the likelihood has no maximum.
#[test]
fn separable_samples_end_with_finite_weights() {
    let mut samples = Samples::new(2, 0);
    for _ in 0..50 {
        samples.push(&[1.0, 0.0, -1.0, 0.5], 0, &[], 1.0).unwrap();
    }
    let prior = Weights::new(2, vec![], vec![0.0; 2]).unwrap();
    let options = FitOptions { common_penalty: 0.0, ..FREE };
    let fit = fit(&samples, &prior, &options).unwrap();
    assert!(fit.nats < 1e-4, "{fit:?}");
    assert!((fit.nats_before - 2f64.ln()).abs() < 1e-6);
}

#[test]
fn features_that_are_always_zero_keep_the_prior() {
    let mut random = Random(2);
    let mut samples = Samples::new(6, 1);
    for _ in 0..500 {
        let x: Vec<f32> = (0..24).map(|k| if [1, 4].contains(&(k % 6)) { 0.0 } else { random.dyadic(1.0) }).collect();
        let (states, truth) = (random.states(&[2]), random.below(4));
        samples.push(&x, truth, &states, 1.0).unwrap();
    }
    let prior = random.weights(6, &[2], 1.0);
    let fitted = fit(&samples, &prior, &FREE).unwrap().weights;
    for (k, (a, b)) in fitted.table().iter().zip(prior.table()).enumerate() {
        assert_eq!(a == b, [1, 4].contains(&(k % 6)), "weight {k}: {a} and {b}");
    }
}

#[test]
fn a_subset_is_the_same_as_no_weight_for_the_rest() {
    let mut random = Random(4);
    let at = random.weights(5, &[2, 2], 1.0);
    let (mut all, mut weighed) = (Samples::new(5, 2), Samples::new(5, 2));
    for k in 0..1_500 {
        let x: Vec<f32> = (0..20).map(|_| random.dyadic(1.0)).collect();
        let (states, truth) = (random.states(&[2, 2]), random.below(4));
        all.push(&x, truth, &states, 2.0).unwrap();
        weighed.push(&x, truth, &states, if k % 3 == 0 { 0.5 } else { 0.0 }).unwrap();
    }
    let subset = all.subset(|k| k % 3 == 0);
    assert_eq!((subset.len(), subset.is_empty(), all.len()), (500, false, 1_500));
    assert!(subset.memory_usage() * 3 == all.memory_usage());
    let (a, slope_a) = loss(&subset, &wide(&at), &at, &FREE).unwrap();
    let (b, slope_b) = loss(&weighed, &wide(&at), &at, &FREE).unwrap();
    assert!((a - b).abs() < 1e-12);
    assert!(slope_a.iter().zip(&slope_b).all(|(a, b)| (a - b).abs() < 1e-12));
}

#[test]
fn bad_samples_are_refused_and_not_added() {
    let mut samples = Samples::new(2, 1);
    for (rows, truth, states, weight, why) in [
        (vec![0.0, f32::NAN], 0, vec![0], 1.0, "sample 0 holds the value NaN"),
        (vec![f32::INFINITY, 0.0], 0, vec![0], 1.0, "value inf"),
        (vec![0.0; 4], 2, vec![0], 1.0, "row 2 as its truth; give one of its 2 rows"),
        (vec![0.0; 3], 0, vec![0], 1.0, "3 values"),
        (vec![], 0, vec![0], 1.0, "0 values"),
        (vec![0.0; 4], 0, vec![0, 0], 1.0, "2 states; give 1"),
        (vec![0.0; 4], 0, vec![0], -1.0, "weight -1"),
        (vec![0.0; 4], 0, vec![0], f32::NAN, "weight NaN"),
    ] {
        let message = samples.push(&rows, truth, &states, weight).unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
    }
    assert!(samples.is_empty());
    assert!(Samples::default().push(&[], 0, &[], 1.0).unwrap_err().to_string().contains("0 features"));
    assert!(Samples::new(33, 0).push(&[0.0; 33], 0, &[], 1.0).unwrap_err().to_string().contains("33 features"));
    assert_eq!(Samples::default().subset(|_| true).len(), 0);
}

#[test]
fn bad_fits_are_refused() {
    let prior = Weights::new(2, vec![3], vec![0.0; 8]).unwrap();
    let options = FitOptions::default();
    let refused = |samples: &Samples, options: &FitOptions, why: &str| {
        let message = fit(samples, &prior, options).unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
    };
    refused(&Samples::new(2, 1), &options, "there are none");
    let with = |features, groups, weight| {
        let mut samples = Samples::new(features, groups);
        samples.push(&vec![1.0; 2 * features], 1, &vec![0; groups], weight).unwrap();
        samples
    };
    refused(&with(2, 1, 0.0), &options, "sum to 0");
    refused(&with(3, 1, 1.0), &options, "3 features and 1 groups, the prior has 2 and 1");
    refused(&with(2, 2, 1.0), &options, "2 features and 2 groups");
    for bad in [
        FitOptions { common_penalty: -1.0, ..FREE },
        FitOptions { common_penalty: f64::NAN, ..FREE },
        FitOptions { offset_penalty: f64::INFINITY, ..FREE },
        FitOptions { prior_rows: -0.5, ..FREE },
    ] {
        refused(&with(2, 1, 1.0), &bad, "give a finite number, not below 0");
    }
    let good = with(2, 1, 1.0);
    assert!(loss(&good, &[0.0; 7], &prior, &FREE).unwrap_err().to_string().contains("there are 7; give 8"));
    let large = Weights::new(2, vec![3], vec![f32::MAX; 8]).unwrap();
    let message = fit(&good, &large, &FREE).unwrap_err().to_string();
    assert!(message.contains("scale the features down"), "{message}");
}

/// A large fit on one thread: `cargo test --release -p tasc-core --test fit -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let mut random = Random(1);
    let groups = [6, 6, 6, 6];
    let truth = random.weights(20, &groups, 1.0);
    let mut samples = Samples::new(20, 4);
    let (mixer, mut p) = (Mixer::new(truth.clone()), Vec::new());
    for _ in 0..22_500 {
        let x: Vec<f32> = (0..320).map(|k| random.dyadic(if k % 5 == 0 { 8.0 } else { 1.0 })).collect();
        let states = random.states(&groups);
        mixer.mix(&x, &states, &mut p);
        samples.push(&x, random.draw(&p), &states, 1.0).unwrap();
    }
    let start = std::time::Instant::now();
    let fit = fit(&samples, &zeros(&truth), &FitOptions::default()).unwrap();
    let (fitting, table) = (start.elapsed(), wide(&truth));
    let start = std::time::Instant::now();
    loss(&samples, &table, &truth, &FREE).unwrap();
    let once = start.elapsed();
    println!("{} iterations in {fitting:.2?}, an evaluation {once:.2?}", fit.iterations);
    println!("{:.4} nats, before {:.4}", fit.nats, fit.nats_before);
}
