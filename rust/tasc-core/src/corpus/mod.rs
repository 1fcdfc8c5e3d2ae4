//! A task's past rows as token ids: distinct outputs with weights, and the inputs that led to them.
//!
//! - [`writer`]: rows → a store file, streaming; equal outputs collapse to one document with a weight
//! - [`store`]: a store file, mapped

pub mod store;
pub mod writer;

pub use store::{Input, Store};
pub use writer::StoreWriter;
