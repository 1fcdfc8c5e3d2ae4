//! One distribution over the next token from the evidence of all sources.
//!
//! - [`blend`]: blended back-off over the context orders of one source
//! - [`evidence`]: what the sources say at one place
//! - [`features`]: evidence → candidates, a row of numbers each
//! - [`mixer`]: candidates → probabilities
//! - [`weights`], [`general`]: the mixer's weights, of a task and for any task

pub mod blend;
pub mod evidence;
pub mod features;
pub mod general;
pub mod mixer;
pub mod weights;

pub use mixer::{Mixer, Weights};
pub use weights::{Mixtures, Source, Without};
