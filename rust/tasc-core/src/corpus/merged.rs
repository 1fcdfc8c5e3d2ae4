//! Identities of write-ahead logs, and how far an index has merged them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Identity of a write-ahead log: 128 random bits, drawn when the log is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogId(pub [u8; 16]);

impl LogId {
    /// Draws a new identity.
    pub(super) fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(bytes))
    }
}

impl From<LogId> for String {
    fn from(id: LogId) -> Self {
        format!("{:032x}", u128::from_be_bytes(id.0))
    }
}

impl TryFrom<String> for LogId {
    type Error = String;

    fn try_from(hex: String) -> Result<Self, String> {
        let digits = hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        let bits = u128::from_str_radix(&hex, 16).ok().filter(|_| digits);
        bits.map(|b| Self(b.to_be_bytes())).ok_or_else(|| format!("{hex:?} is no identity of a log: 32 hex digits are"))
    }
}

/// How far logs have been merged into an index: for each log, all rows with a smaller number than this are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MergedLogs(BTreeMap<LogId, u64>);

impl MergedLogs {
    /// No log.
    #[must_use]
    pub fn none() -> &'static Self {
        static NONE: MergedLogs = MergedLogs(BTreeMap::new());
        &NONE
    }

    /// The smallest number that a row of this log can have that is not merged; 0 for an unknown log.
    #[must_use]
    pub fn next(&self, log: &LogId) -> u64 {
        self.0.get(log).copied().unwrap_or(0)
    }

    /// Notes that all rows of this log with a smaller number than `next` are merged.
    pub fn advance(&mut self, log: LogId, next: u64) {
        if next > 0 {
            let known = self.0.entry(log).or_default();
            *known = next.max(*known);
        }
    }
}
