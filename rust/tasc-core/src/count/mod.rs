//! Exact weighted counts of the n-grams of a store: tables on disk, made in bounded memory, that can be added up.
//!
//! Documents are taken in chunks as large as memory allows. Every place of a chunk is a window of up to N tokens;
//! sorted windows give the n-grams of all lengths at once. What does not fit is spilled as sorted runs and merged.
//!
//! - [`table`]: a table of n-grams, mapped
//! - [`counter`]: a store → a table; tables → their sum
//! - `budget`: what the memory limit is spent on
//! - `chunk`, `symbols`: documents → sorted windows; `groups`: sorted windows → n-grams; `workers`: by threads
//! - `page`: ascending n-grams in bytes; `spool`: runs of pages on their way to disk; `merge`: runs → one

mod budget;
mod chunk;
pub mod counter;
mod groups;
mod merge;
mod page;
mod spool;
mod symbols;
pub mod table;
mod workers;

pub use budget::MIN_MEMORY;
pub use counter::{CountOptions, Counted, count, merge_tables};
pub use page::{MAX_LENGTH, PAGE_BYTES};
pub use spool::Minimum;
pub use table::{Ngram, NgramTable, Place, TableMeta};
