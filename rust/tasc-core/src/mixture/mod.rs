//! One distribution over the next token from the evidence of all sources.
//!
//! - [`blend`]: blended back-off over the context orders of one source
//! - [`evidence`]: what the sources say at one place
//! - [`features`]: the sources, and the columns and states that the mixer has of them
//! - [`candidates`]: evidence → candidates, a row of features each
//! - [`mixer`]: candidates → probabilities
//! - [`weights`], [`general`]: the mixer's weights, of a task and for any task
//! - [`task_data`]: what a drafter drafts from: arrays and weights of a task

pub mod blend;
pub mod candidates;
pub mod evidence;
pub mod features;
pub mod general;
pub mod mixer;
pub mod task_data;
pub mod weights;

pub use features::{Source, SourceMask};
pub use mixer::{Mixer, Weights};
pub use task_data::TaskData;
pub use weights::MixtureWeights;
