//! A task's past rows as token ids: distinct outputs with weights, and the inputs that led to them.
//!
//! - [`writer`]: rows → a store file, streaming; equal outputs collapse to one document with a weight
//! - [`store`]: a store file, mapped
//! - [`served`]: rows as they are served, in a log that survives a crash

mod record;
pub mod served;
pub mod store;
pub mod writer;

pub use served::{ServedLog, ServedRow};
pub use store::{Documents, Input, Store};
pub use writer::StoreWriter;
