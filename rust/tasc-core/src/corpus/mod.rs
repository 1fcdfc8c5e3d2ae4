//! A task's past rows as token ids: distinct outputs with weights, and the inputs that led to them.
//!
//! - [`writer`]: rows → a store file, streaming; equal outputs collapse to one document with a weight
//! - [`store`]: a store file, mapped
//! - [`online_log`]: rows that are generated later, in a write-ahead log that survives a crash
//! - [`merged`]: which rows of which logs an index holds

pub mod merged;
pub mod online_log;
mod record;
pub mod store;
pub mod writer;

pub use merged::{LogId, MergedLogs};
pub use online_log::WriteAheadLog;
pub use record::OnlineRow;
pub use store::{Documents, Input, Store, StoreMeta};
pub use writer::StoreWriter;
