//! Pure-Rust core of tasc: the data a task's past outputs leave behind, and the drafts made from it.
//!
//! The modules follow the flow of data: [`format`] (files) → [`corpus`] (documents of token ids) →
//! [`input`] (words and what is copied of them) → [`index`] (n-grams and inputs of a task) → [`draft`] (sources, mixer,
//! length). Beside them, [`count`] makes tables of a corpus's n-grams, and [`merge`] the vocabulary of a task.
pub mod corpus;
pub mod count;
pub mod draft;
pub mod error;
pub mod format;
pub mod index;
pub mod input;
pub mod merge;
pub mod naive;
pub mod pool;
pub mod token;

pub use error::{Error, Result};
pub use token::TokenId;
