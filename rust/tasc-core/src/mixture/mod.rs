//! One distribution over the next token from the evidence of all sources.
//!
//! - [`blend`]: blended back-off over the context orders of one source
//! - [`source`]: the kinds of evidence, and sets of them
//! - [`evidence`]: what the sources say at one place
//! - [`features`]: evidence → candidates, a row of numbers each
//! - [`mixer`]: candidates → probabilities
//! - [`weights`], [`general`]: the mixer's weights, of a task and for any task
//! - [`task_data`]: what a drafter drafts from: arrays and weights of a task

pub mod blend;
pub mod evidence;
pub mod features;
pub mod general;
pub mod mixer;
pub mod source;
pub mod task_data;
pub mod weights;

pub use mixer::{Mixer, Weights};
pub use source::{Source, SourceMask};
pub use task_data::TaskData;
pub use weights::MixtureWeights;
