//! What a drafter learns from every verified token: weights, calibration and rate.
//!
//! Live rows are not the rows that the weights were fitted to. So the weights go on learning, by gradient descent, from
//! every drafted token that verification has looked at.

use std::sync::Arc;

use crate::mixture::features::SourceMask;
use crate::mixture::mixer::{Mixer, Sample};

/// Step size of the calibration in the long run.
const LR_CALIBRATION: f64 = 0.02;

/// At first the step is larger by this, falling to half after `LR_HALVING_TOKENS` verified tokens.
const LR_INITIAL_BOOST: f64 = 0.2;
const LR_HALVING_TOKENS: f64 = 20.0;

/// What one step keeps of the past when the rate is averaged: a memory of about 64 steps.
const RATE_DECAY: f64 = 1.0 - 1.0 / 64.0;

/// Step size of the weights, and what their sums of squared gradients start with (AdaGrad).
const LR_WEIGHTS: f32 = 0.02;
const INITIAL_SQUARED_GRADIENT: f32 = 1.0;

/// Weights that have moved on from those fitted.
#[derive(Clone, Debug)]
pub struct Adapted {
    without: SourceMask,
    mixer: Arc<Mixer>,
    squares: Vec<f32>,
}

/// The weights in use, by the sources that are switched off.
#[derive(Clone, Debug, Default)]
pub struct AdaptedWeights(Vec<Adapted>);

impl AdaptedWeights {
    /// The weights for what is switched off; `fitted` until something was learnt.
    #[must_use]
    pub fn get<'a>(&'a self, without: SourceMask, fitted: &'a Arc<Mixer>) -> &'a Arc<Mixer> {
        self.0.iter().find(|a| a.without == without).map_or(fitted, |a| &a.mixer)
    }

    /// One verified token more; weights start as `fitted`.
    pub fn learn(&mut self, without: SourceMask, fitted: &Arc<Mixer>, sample: &Sample<'_>) {
        let known = self.0.iter().position(|a| a.without == without);
        let at = known.unwrap_or_else(|| {
            let squares = vec![INITIAL_SQUARED_GRADIENT; fitted.weights().table().len()];
            self.0.push(Adapted { without, mixer: fitted.clone(), squares });
            self.0.len() - 1
        });
        if let Some(Adapted { mixer, squares, .. }) = self.0.get_mut(at) {
            // copied only while a draft of another thread still uses it
            Arc::make_mut(mixer).weights_mut().descend(sample, LR_WEIGHTS, squares);
        }
    }
}

/// The state that lives on between requests of one task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnlineCalibration {
    /// p' = σ(scale · logit p + shift).
    scale: f64,
    shift: f64,
    verified: f64,
    tokens: f64,
    cost: f64,
}

impl Default for OnlineCalibration {
    /// Trusts the mixture; expects a rate of two tokens per unit of cost, with little conviction.
    fn default() -> Self {
        Self { scale: 1.0, shift: 0.0, verified: 0.0, tokens: 8.0, cost: 4.0 }
    }
}

impl OnlineCalibration {
    /// Slope of the calibration.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Offset of the calibration.
    #[must_use]
    pub fn shift(&self) -> f64 {
        self.shift
    }

    /// Tokens per unit of cost lately, at least 1: plain decoding reaches that.
    #[must_use]
    pub fn rate(&self) -> f64 {
        (self.tokens / self.cost).max(1.0)
    }

    /// The probability that experience makes of the mixture's.
    #[must_use]
    pub fn calibrate(&self, p: f64) -> f64 {
        sigmoid(self.scale * logit(p) + self.shift)
    }

    /// A drafted token of mixture probability `p` was verified: was it right?
    pub fn record_token(&mut self, p: f64, right: bool) {
        let x = logit(p);
        let error = f64::from(u8::from(right)) - sigmoid(self.scale * x + self.shift);
        let step = LR_CALIBRATION + LR_INITIAL_BOOST / (1.0 + self.verified / LR_HALVING_TOKENS);
        self.verified += 1.0;
        self.shift = (self.shift + step * error).clamp(-6.0, 4.0);
        self.scale = (self.scale + step * 0.1 * error * x).clamp(0.25, 4.0);
    }

    /// A step of this cost emitted this many tokens.
    pub fn record_step(&mut self, tokens: usize, cost: f64) {
        self.tokens = self.tokens * RATE_DECAY + f64::from(u32::try_from(tokens).unwrap_or(u32::MAX));
        self.cost = self.cost * RATE_DECAY + cost;
    }
}

fn logit(p: f64) -> f64 {
    let p = p.clamp(1e-4, 1.0 - 1e-4);
    (p / (1.0 - p)).ln()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
