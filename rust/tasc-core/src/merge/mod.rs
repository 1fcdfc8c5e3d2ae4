//! A task vocabulary: which n-grams of the outputs deserve a token of their own, and outputs written with them.
//!
//! - [`merger`]: weighted documents → merges, one after the other, each of the pair that saves most
//! - [`learn`]: a store → a plan: budget, thresholds, held-out stop
//! - [`plan`]: the new tokens with their expansions, a file
//! - [`segment`]: ids → fewest tokens, and back
//! - [`stream`]: the same as the ids come
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
