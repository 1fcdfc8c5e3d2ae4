//! The kinds of evidence, one file each.

pub mod context;
pub mod task;
