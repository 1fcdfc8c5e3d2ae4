//! Pure-Rust core of tasc: the data a task's past outputs leave behind, and the drafts made from it.
//!
//! The modules follow the flow of data: [`format`] (files) → [`text`] (words and pieces of inputs) → [`corpus`]
//! (documents of token ids) → [`index`] (n-grams and inputs of a task) → [`mixture`] (evidence of all sources → one
//! distribution) → [`online`] (what is learnt while drafting) → [`draft`] (sources, length) → [`fit`] (weights) →
//! [`task`] (the index file). Beside them, [`count`] makes tables of a corpus's n-grams, and [`merge`] the vocabulary of
//! a task.
pub mod corpus;
pub mod count;
pub mod draft;
pub mod error;
pub mod fit;
pub mod format;
pub mod index;
pub mod merge;
pub mod mixture;
pub mod online;
pub mod pool;
pub mod task;
pub mod text;
pub mod token;

pub use error::{Error, Result};
pub use token::TokenId;
