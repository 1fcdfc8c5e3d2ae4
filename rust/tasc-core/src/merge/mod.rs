//! A task vocabulary: n-grams of the outputs that become new tokens, and segmentation of outputs into them.
//!
//! - [`merger`]: merges of weighted documents, each of the pair that saves most tokens
//! - [`learn`]: a plan from a store: size, thresholds, held-out stop
//! - [`plan`]: the new tokens with their expansions, a file
//! - [`segment`]: segmentation of ids into the fewest tokens, and back
//! - [`stream`]: segmentation of ids that arrive one after the other
//!
//! Source: arXiv 2602.24174 (TASC-ft).

mod active;
mod automaton;
mod documents;
pub mod learn;
pub mod merger;
mod pairs;
pub mod plan;
mod prune;
pub mod segment;
pub mod stream;
mod text;

pub use learn::LearnOptions;
pub use merger::{Merger, MergerOptions};
pub use plan::MergePlan;
pub use segment::Segmenter;
pub use stream::SegmentStream;
