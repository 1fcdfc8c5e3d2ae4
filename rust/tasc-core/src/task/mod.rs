//! The index of a task as a file: built from a store, with fitted weights.
//!
//! - [`build`]: a store's rows → all arrays
//! - [`train`]: a store → weights, by replaying held-out rows
//! - [`file`]: arrays and weights as sections of one mapped file
//! - [`compact`]: an index and the rows served since → a new index
//! - [`remove`]: an index and its logs without some rows

pub mod build;
pub mod compact;
pub mod file;
pub mod remove;
pub mod train;

pub use file::{BuildOptions, IndexMeta, TaskIndex};
