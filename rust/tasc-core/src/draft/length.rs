//! How long a draft should be: expected tokens against the measured cost of verifying them.
//!
//! Decoding is a renewal process: with ρ the running rate of tokens per unit of cost, the best draft of chain
//! probabilities p_1, p_2, … has the length i that maximises Σ_{k≤i} Π_{j≤k} p_j − ρ·(C(i) − C(0)). On a convex C
//! that is "extend while Π p > ρ·(C(i+1) − C(i))"; on a measured one, which has steps, the maximum is sought.

use crate::{Error, Result};

/// Cost of verifying 0, 1, 2, … drafted tokens in one forward pass, in units of a plain decoding step.
#[derive(Clone, Debug, PartialEq)]
pub struct CostCurve {
    costs: Vec<f64>,
    /// `slopes[i]`: the least average cost per further token of any longer draft, those past the curve's end included.
    slopes: Vec<f64>,
}

impl CostCurve {
    /// A measured curve: `costs[k]` for k drafted tokens. Past its end it goes on with its last slope.
    ///
    /// # Errors
    /// [`Error::CostCurve`] unless there is a first entry and all are finite, positive and not falling.
    pub fn new(costs: Vec<f64>) -> Result<Self> {
        let bad = |why: String| Err(Error::CostCurve { why });
        if costs.is_empty() {
            return bad("it is empty".into());
        }
        if let Some(c) = costs.iter().find(|c| !c.is_finite() || **c <= 0.0) {
            return bad(format!("it holds {c}"));
        }
        if let Some(k) = costs.windows(2).position(|w| w[1] < w[0]) {
            return bad(format!("it falls from {} to {} at {} drafted tokens", costs[k], costs[k + 1], k + 1));
        }
        let last = if let [.., before, last] = costs[..] { last - before } else { 0.0 };
        let slope = |from: usize, to: usize| (costs[to] - costs[from]) / (to - from) as f64;
        let mut slopes = vec![last; costs.len()];
        let mut hull: Vec<usize> = Vec::new(); // lower convex hull of the points behind `i`, the nearest one last
        for i in (0..costs.len()).rev() {
            while let [.., far, near] = hull[..]
                && slope(i, far) <= slope(i, near)
            {
                hull.pop();
            }
            if let Some(&near) = hull.last() {
                slopes[i] = slope(i, near).min(last);
            }
            hull.push(i);
        }
        Ok(Self { costs, slopes })
    }

    /// The straight line 1 + c·k.
    ///
    /// # Errors
    /// [`Error::CostCurve`] for a c that is negative or not finite.
    pub fn linear(c: f64) -> Result<Self> {
        Self::new(vec![1.0, 1.0 + c])
    }

    /// Cost of a step that verifies `drafted` tokens.
    #[must_use]
    pub fn cost(&self, drafted: usize) -> f64 {
        let last = self.costs.len() - 1;
        let beyond = u32::try_from(drafted.saturating_sub(last)).unwrap_or(u32::MAX);
        self.costs[drafted.min(last)] + f64::from(beyond) * self.slopes[last]
    }

    /// The least average cost per token of any draft longer than `drafted`.
    fn slope(&self, drafted: usize) -> f64 {
        self.slopes[drafted.min(self.slopes.len() - 1)]
    }
}

/// Decides token by token whether a chain goes on, and at the end where it is cut.
#[derive(Clone, Copy, Debug)]
pub struct LengthRule<'a> {
    costs: &'a CostCurve,
    rate: f64,
    survival: f64,
    gain: f64,
    best: (f64, usize),
    length: usize,
}

impl<'a> LengthRule<'a> {
    /// A new chain; `rate` is ρ in tokens per unit of cost.
    #[must_use]
    pub fn new(costs: &'a CostCurve, rate: f64) -> Self {
        Self { costs, rate, survival: 1.0, gain: 0.0, best: (0.0, 0), length: 0 }
    }

    /// Takes the next token's probability; false when neither it nor anything after it can pay.
    pub fn extend(&mut self, probability: f64) -> bool {
        self.survival *= probability;
        if self.survival <= self.rate * self.costs.slope(self.length) {
            return false;
        }
        self.length += 1;
        self.gain += self.survival;
        let net = self.gain - self.rate * (self.costs.cost(self.length) - self.costs.cost(0));
        if net > self.best.0 {
            self.best = (net, self.length);
        }
        true
    }

    /// The length of the best draft among the prefixes seen.
    #[must_use]
    pub fn best(&self) -> usize {
        self.best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slopes by their definition, with every longer draft looked at.
    fn slopes(costs: &[f64]) -> Vec<f64> {
        let last = if let [.., before, last] = costs[..] { last - before } else { 0.0 };
        let of = |i: usize| costs[i + 1..].iter().zip(1u32..).map(move |(c, n)| (c - costs[i]) / f64::from(n));
        (0..costs.len()).map(|i| of(i).fold(last, f64::min)).collect()
    }

    #[test]
    fn slopes_are_those_of_every_longer_draft() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..300 {
            let mut costs = vec![1.0];
            for _ in 0..random(40) {
                let step = [0.0, 0.02, 0.25, 1.0, 5.0][usize::try_from(random(5)).unwrap()];
                costs.push(costs.last().unwrap() + step);
            }
            let found = CostCurve::new(costs.clone()).unwrap().slopes;
            for (found, expected) in found.iter().zip(slopes(&costs)) {
                assert!((found - expected).abs() < 1e-12, "{costs:?}");
            }
        }
    }

    #[test]
    fn a_long_curve_takes_no_time() {
        let costs: Vec<f64> = (0..3_000_000u32).map(|k| 1.0 + 0.02 * f64::from(k).sqrt()).collect();
        assert_eq!(CostCurve::new(costs).unwrap().slopes.len(), 3_000_000);
    }
}
