//! The kinds of evidence, one file each. The running context needs none: it is a sequence among
//! [`crate::online::sequence_index`].

pub mod copy;
pub mod coverage;
pub mod retrieved;
pub mod task;
