//! The error type of the core.

/// Everything that can go wrong in the core. A variant holds the facts; its message names value, limit and fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operating-system error on a named file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that cannot be read.
    #[error("{path}: {fault}")]
    Format {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A section that cannot be written.
    #[error("section `{name}` cannot be written: {why}")]
    Section {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Something was asked for by a number that is too large.
    #[error("{what} {index} is out of range: there are {limit}")]
    OutOfRange {
        /// What was asked for.
        what: &'static str,
        /// Its number.
        index: usize,
        /// How many there are.
        limit: usize,
    },
    /// Two tokenizers.
    #[error("{path} was made by the tokenizer {found}, not by {wanted}; use the same tokenizer or build it again")]
    Fingerprint {
        /// The file.
        path: std::path::PathBuf,
        /// The tokenizer that made it.
        found: crate::token::Fingerprint,
        /// The one at hand.
        wanted: crate::token::Fingerprint,
    },
    /// The tokenizer failed; the source is its own error.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The caller asked to stop.
    #[error("stopped; nothing was written")]
    Stopped,
    /// There is nothing to index.
    #[error("the corpus holds no documents; give at least one row with an output")]
    EmptyCorpus,
    /// A removal of all rows.
    #[error("no row of {path} would be left; delete the index, its logs and what was made of them instead")]
    NothingLeft {
        /// The index.
        path: std::path::PathBuf,
    },
    /// A token id outside the supported range.
    #[error("token id {id} is out of range: ids must be below {limit}; check that ids and tokenizer belong together")]
    TokenId {
        /// The id.
        id: u32,
        /// First id that is too large.
        limit: u32,
    },
    /// A served row that is too large for the log.
    #[error("a served row of {bytes} bytes does not fit the log: the limit is {limit}; shorten its input or output")]
    RowTooLarge {
        /// Its size: input, and four bytes per token of its output.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A log that is being written to.
    #[error(
        "{path}: another writer has this log open; close that one first, or use another file. To compact beside it, \
         write the new index elsewhere (-o)"
    )]
    Locked {
        /// The log.
        path: std::path::PathBuf,
    },
    /// A file or folder that another process, or another thread of this one, is writing.
    #[error("{path} is being written by process {process}; wait until it ends, or name another output")]
    Written {
        /// The file or folder.
        path: std::path::PathBuf,
        /// Number of the process.
        process: String,
    },
    /// More positions than one index can hold.
    #[error("{positions} positions do not fit one index (limit {limit}); split the corpus into several indexes")]
    IndexTooLarge {
        /// Tokens plus documents.
        positions: usize,
        /// The limit.
        limit: usize,
    },
    /// Less memory than the work takes.
    #[error("a memory limit of {limit} bytes is too small: {what} takes {needed}; raise the limit")]
    MemoryLimit {
        /// The limit, in bytes.
        limit: usize,
        /// What it has to be at least.
        needed: usize,
        /// What needs so much.
        what: String,
    },
    /// N-grams of an unsupported length.
    #[error("n-grams of {length} tokens cannot be counted: lengths go from 1 to {limit}")]
    NgramLength {
        /// The length asked for.
        length: usize,
        /// The longest.
        limit: usize,
    },
    /// A merge without tables.
    #[error("there is nothing to merge; give at least one table of n-grams")]
    NothingToMerge,
    /// Tables of different lengths.
    #[error("{path} has n-grams of up to {found} tokens, the others of up to {wanted}; count with the same length")]
    NgramLengths {
        /// The table.
        path: std::path::PathBuf,
        /// Its longest n-grams.
        found: usize,
        /// Those of the first table.
        wanted: usize,
    },
    /// A table that does not hold all n-grams.
    #[error(
        "{path} leaves out n-grams with a count below {min_count} or in fewer than {min_documents} documents, so counts \
         would be lost in a merge; count the shards without a minimum, and give it to the merge"
    )]
    CutTable {
        /// The table.
        path: std::path::PathBuf,
        /// The least count that it kept.
        min_count: u64,
        /// The least number of documents that it kept.
        min_documents: u64,
    },
    /// A cost curve that is none.
    #[error("the cost curve is unusable: {why}; give finite positive costs that do not fall, one per drafted token")]
    CostCurve {
        /// What is wrong.
        why: String,
    },
    /// Mixture weights that do not fit the sources.
    #[error("the mixture weights are unusable: {why}")]
    Weights {
        /// What is wrong.
        why: String,
    },
    /// Samples that no weights can be fitted to.
    #[error("the samples cannot be fitted: {why}")]
    Samples {
        /// What is wrong.
        why: String,
    },
    /// A task vocabulary that cannot be.
    #[error("the merge plan is unusable: {why}")]
    Plan {
        /// What is wrong.
        why: String,
    },
    /// The suffix sorter failed.
    #[error("sorting the corpus failed: {why}; the usual cause is too little memory (about 28 bytes per token)")]
    Sort {
        /// What the library said.
        why: String,
    },
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A folder, a pipe or a device.
    #[error("it is no regular file but a folder, a pipe or a device; give a file")]
    NoFile,
    /// It has no bytes.
    #[error("it is empty")]
    Empty,
    /// It does not begin with the magic bytes.
    #[error("it is not a tasc file")]
    Magic,
    /// It holds something else.
    #[error("it is of kind {}, {} is wanted here", found.escape_ascii(), expected.escape_ascii())]
    Kind {
        /// Kind of the file.
        found: [u8; 4],
        /// Kind that was asked for.
        expected: [u8; 4],
    },
    /// Another format version.
    #[error("it has format version {}.{}, this tasc reads {expected}.x; {fix}", found.0, found.1)]
    Version {
        /// Major and minor version of the file.
        found: (u16, u16),
        /// The major version that is read.
        expected: u16,
        /// What to do.
        fix: &'static str,
    },
    /// It ends inside its header.
    #[error("it has {found} bytes, a header has {expected}")]
    Header {
        /// Bytes of the file.
        found: usize,
        /// Bytes of a header.
        expected: usize,
    },
    /// It ends too early, or too late.
    #[error("it has {found} bytes, its header says {expected}: it is cut short")]
    Length {
        /// Bytes of the file.
        found: u64,
        /// Bytes that its header names.
        expected: u64,
    },
    /// Too many sections.
    #[error("it claims {found} sections, the limit is {limit}")]
    Sections {
        /// The number in its header.
        found: u32,
        /// The limit.
        limit: u32,
    },
    /// The section table is not where it should be.
    #[error("its section table lies outside the file")]
    Table,
    /// Bytes that belong to no section.
    #[error("section `{section}` begins at byte {found} instead of {expected}, after a gap")]
    Gap {
        /// The section, or `section table`.
        section: String,
        /// Where it begins.
        found: u64,
        /// Where the sections before it end, aligned.
        expected: u64,
    },
    /// A checksum that does not hold.
    #[error("its {part} is damaged (checksum)")]
    Checksum {
        /// The part of the file.
        part: &'static str,
    },
    /// A row of a write-ahead log that was whole once.
    #[error("row {row} of {rows} was damaged since it was written; open the log again")]
    Row {
        /// Its place in the log.
        row: u64,
        /// Rows of the log.
        rows: u64,
    },
    /// A page of n-grams with contents that cannot be.
    #[error("a page of n-grams is damaged: {why}")]
    Page {
        /// What is wrong.
        why: &'static str,
    },
    /// A section with contents that cannot be.
    #[error("section `{section}`: {why}")]
    Section {
        /// Its name.
        section: String,
        /// What is wrong.
        why: String,
    },
}

/// Result of the core.
pub type Result<T> = std::result::Result<T, Error>;
