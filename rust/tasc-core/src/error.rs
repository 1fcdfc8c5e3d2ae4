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
}

/// Result of the core.
pub type Result<T> = std::result::Result<T, Error>;
