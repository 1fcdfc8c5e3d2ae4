//! The n-grams of a task's outputs, for contexts of any length.
//!
//! Every position of every output is sorted by its *left* context read backwards. The positions whose
//! context ends in `h` are then one interval; longer contexts nest inside shorter ones. That is a
//! Burrows–Wheeler transform of the reversed outputs: the successor of a position is its BWT symbol, and
//! appending a token to a context maps its interval by one LF step, for every back-off order alike.
//!
//! - [`build`]: documents → [`NgramArrays`] (suffix sorting, successor summaries)
//! - [`ngrams`]: the arrays, and the queries on one interval
//! - [`cursor`]: a running output as the chain of its nested intervals
//! - [`inputs`], [`nearest`]: the rows' inputs as an inverted index, and the rows nearest to an input
//! - [`conditional`], [`copies`]: what was copied from the inputs, where, and what came when nothing was left to copy
//! - [`origins`]: times and keys of rows that were merged from logs
//! - [`safety`]: proof that the arrays of a file can be used
//! - [`view`]: all of it, in memory, in a file or borrowed

pub mod build;
pub mod conditional;
pub mod copies;
pub mod cursor;
pub mod inputs;
pub mod nearest;
pub mod ngrams;
pub mod origins;
pub mod safety;
pub mod view;

pub use build::NgramsBuilder;
pub use cursor::{Cursor, Run};
pub use ngrams::{Interval, NgramArrays, Ngrams, Successor, Successors};
pub use view::{TaskArrays, TaskView};
