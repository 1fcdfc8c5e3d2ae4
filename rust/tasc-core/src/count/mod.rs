//! Exact weighted counts of the n-grams of a store: tables on disk, counted in bounded memory, that can be
//! added up.
//!
//! Documents are processed in chunks as large as memory allows. Every position of a chunk is a window of up to N tokens;
//! sorted windows give the n-grams of all lengths in one pass. Chunks are spilled as sorted runs, which are merged.
//!
//! - [`table`]: a table of n-grams, mapped
//! - [`counter`]: counts a store into a table, adds up tables
//! - `budget`: division of the memory limit
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
