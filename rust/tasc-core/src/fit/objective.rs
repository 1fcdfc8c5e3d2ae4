//! What fitting minimises: mean nats per token and the distance from a prior.

use std::ops::Range;

use super::samples::{LANES, Samples};
use crate::mixture::mixer::{Weights, rows_at, softmax};
use crate::{Error, Result, pool};

/// Samples whose sums are added up by one thread; fixed, so that the sums do not depend on the number of threads.
const CHUNK: usize = 512;

/// How weights are fitted. A weight's penalty is multiplied by 1 + `prior_rows` / (sum of the samples' weights).
#[derive(Clone, Debug, PartialEq)]
pub struct FitOptions {
    /// What the square of a common weight's distance from the prior costs, in nats per token.
    pub common_penalty: f64,
    /// The same for the offsets.
    pub offset_penalty: f64,
    /// Most iterations; evaluations of the objective are limited to twice as many and 20.
    pub iterations: u64,
    /// With fewer samples than this the prior is what counts, with far more it hardly does; 0 makes the penalties
    /// those above whatever the number of samples.
    pub prior_rows: f64,
    /// Threads that evaluate; the result does not depend on their number.
    pub threads: usize,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self { common_penalty: 1e-4, offset_penalty: 1e-3, iterations: 150, prior_rows: 100_000.0, threads: 1 }
    }
}

impl FitOptions {
    /// Penalties of common weights and of offsets, given the sum of the samples' weights.
    fn penalties(&self, total_weight: f64) -> Result<(f64, f64)> {
        let named = [
            ("common_penalty", self.common_penalty),
            ("offset_penalty", self.offset_penalty),
            ("prior_rows", self.prior_rows),
        ];
        if let Some((name, value)) = named.iter().find(|(_, v)| !(v.is_finite() && *v >= 0.0)) {
            let why = format!("the option {name} is {value}; give a finite number, not below 0");
            return Err(Error::Samples { why });
        }
        let times = 1.0 + self.prior_rows / total_weight;
        Ok((self.common_penalty * times, self.offset_penalty * times))
    }
}

/// Mean nats per token over the samples, plus the penalties.
pub(super) struct Objective<'a> {
    samples: &'a Samples,
    groups: &'a [usize],
    prior: Vec<f64>,
    /// Penalty of each weight.
    penalties: Vec<f64>,
    total_weight: f64,
    threads: usize,
}

/// The objective at one point.
pub(super) struct Value {
    /// Value with penalties.
    pub(super) value: f64,
    /// Mean loss without penalties, in nats.
    pub(super) nats: f64,
    /// Gradient of the value, in the layout of [`Weights::table`].
    pub(super) gradient: Vec<f64>,
}

/// Sums over a chunk of samples, rows padded.
struct Sums<const F: usize> {
    nats: f64,
    gradient: Vec<[f64; F]>,
}

impl<'a> Objective<'a> {
    /// The objective of these samples around this prior.
    pub(super) fn new(samples: &'a Samples, prior: &'a Weights, options: &FitOptions) -> Result<Self> {
        let total_weight = samples.total_weight();
        let table: Vec<f64> = prior.table().iter().map(|&w| f64::from(w)).collect();
        check(samples, total_weight, prior).map_err(|why| Error::Samples { why })?;
        let (common, offset) = options.penalties(total_weight)?;
        let mut penalties = vec![offset; table.len()];
        penalties[..prior.features()].fill(common);
        Ok(Self { samples, groups: prior.groups(), prior: table, penalties, total_weight, threads: options.threads })
    }

    /// The prior's weights.
    pub(super) fn prior(&self) -> &[f64] {
        &self.prior
    }

    /// Roughly the second derivative along each weight: the variance of its feature within a sample's rows, averaged
    /// over all samples, and that of the penalty.
    ///
    /// # Complexity
    /// As one evaluation, on one thread.
    pub(super) fn curvature(&self) -> Vec<f64> {
        let (features, stride) = (self.samples.features(), self.samples.stride());
        let mut curvature: Vec<f64> = self.penalties.iter().map(|p| 2.0 * p).collect();
        for sample in (0..self.samples.len()).map(|k| self.samples.get(k)) {
            let (rows, share) = ((sample.rows.len() / stride) as f64, f64::from(sample.weight) / self.total_weight);
            for f in 0..features {
                let column = || sample.rows.iter().skip(f).step_by(stride).map(|&x| f64::from(x));
                let mean = column().sum::<f64>() / rows;
                let variance = column().map(|x| (x - mean) * (x - mean)).sum::<f64>() / rows;
                for r in rows_at(self.groups, sample.states) {
                    curvature[r * features + f] += share * variance;
                }
            }
        }
        curvature
    }

    /// Value and gradient at `table`, which is as long as the prior's.
    ///
    /// # Complexity
    /// O(values of all samples + samples × groups × features), split over [`FitOptions::threads`].
    pub(super) fn at(&self, table: &[f64]) -> Value {
        let mut value = match self.samples.stride() {
            4 => self.mean::<4>(table),
            8 => self.mean::<8>(table),
            12 => self.mean::<12>(table),
            16 => self.mean::<16>(table),
            20 => self.mean::<20>(table),
            24 => self.mean::<24>(table),
            28 => self.mean::<28>(table),
            _ => self.mean::<32>(table),
        };
        for (k, g) in value.gradient.iter_mut().enumerate() {
            let distance = table[k] - self.prior[k];
            value.value += self.penalties[k] * distance * distance;
            *g += 2.0 * self.penalties[k] * distance;
        }
        value
    }

    /// Mean loss without penalties. `F` is the padded row length, known when compiled so that inner loops need no tails.
    fn mean<const F: usize>(&self, table: &[f64]) -> Value {
        let features = self.samples.features();
        let table = padded::<F>(table, features);
        let starts: Vec<usize> = (0..self.samples.len()).step_by(CHUNK).collect();
        let chunk = |&start: &usize| self.sums(&table, start..(start + CHUNK).min(self.samples.len()));
        let parts: Vec<Sums<F>> = pool::map(&starts, self.threads, chunk);
        let mut sum = Sums { nats: 0.0, gradient: vec![[0.0; F]; table.len()] };
        for part in &parts {
            sum.nats += part.nats;
            for (to, from) in sum.gradient.as_flattened_mut().iter_mut().zip(part.gradient.as_flattened()) {
                *to += from;
            }
        }
        let nats = sum.nats / self.total_weight;
        let rows = sum.gradient.iter().flat_map(|row| &row[..features]);
        Value { value: nats, nats, gradient: rows.map(|g| g / self.total_weight).collect() }
    }

    fn sums<const F: usize>(&self, table: &[[f32; F]], chunk: Range<usize>) -> Sums<F> {
        let mut sums = Sums { nats: 0.0, gradient: vec![[0.0; F]; table.len()] };
        let mut errors = Vec::new();
        for sample in chunk.map(|k| self.samples.get(k)) {
            let rows = sample.rows.as_chunks::<F>().0;
            let mut weights = [0.0; F];
            for r in rows_at(self.groups, sample.states) {
                add(&mut weights, &table[r], 1.0);
            }
            errors.clear();
            errors.extend(rows.iter().map(|row| dot(row, &weights)));
            let score = f64::from(errors[sample.truth]);
            let weight = f64::from(sample.weight);
            sums.nats += weight * (softmax(&mut errors) - score);
            errors[sample.truth] -= 1.0;
            let mut gradient = [0.0; F];
            for (row, &error) in rows.iter().zip(&errors) {
                add(&mut gradient, row, error);
            }
            for r in rows_at(self.groups, sample.states) {
                for (to, &g) in sums.gradient[r].iter_mut().zip(&gradient) {
                    *to += weight * f64::from(g);
                }
            }
        }
        sums
    }
}

fn check(samples: &Samples, total_weight: f64, prior: &Weights) -> std::result::Result<(), String> {
    let (features, groups) = (samples.features(), samples.groups());
    if samples.is_empty() {
        return Err("there are none; give at least one".into());
    }
    if total_weight <= 0.0 {
        return Err("their weights sum to 0; give one a positive weight".into());
    }
    if features != prior.features() || groups != prior.groups().len() {
        let (f, g) = (prior.features(), prior.groups().len());
        let why = "give a prior made for the same features and groups";
        return Err(format!("they have {features} features and {groups} groups, the prior has {f} and {g}; {why}"));
    }
    Ok(())
}

fn padded<const F: usize>(table: &[f64], features: usize) -> Vec<[f32; F]> {
    let pad = |row: &[f64]| std::array::from_fn(|k| row.get(k).map_or(0.0, |&w| w as f32));
    table.chunks_exact(features).map(pad).collect()
}

#[inline]
fn dot<const F: usize>(a: &[f32; F], b: &[f32; F]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for k in 0..LANES {
            sums[k] += a[k] * b[k];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

#[inline]
fn add<const F: usize>(to: &mut [f32; F], row: &[f32; F], times: f32) {
    for (to, x) in to.iter_mut().zip(row) {
        *to += times * x;
    }
}
