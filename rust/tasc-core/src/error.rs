//! The one error type of the core.

/// Everything that can go wrong in the core; a variant holds the facts, its message names value, limit and fix.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operating-system error on a named file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{path}: {why}")]
    Format {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        why: String,
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
    /// The caller asked to stop.
    #[error("stopped; nothing was written")]
    Stopped,
    /// There is nothing to index.
    #[error("the corpus holds no documents; give at least one row with an output")]
    EmptyCorpus,
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

/// Result of the core.
pub type Result<T> = std::result::Result<T, Error>;
