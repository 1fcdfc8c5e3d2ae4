//! Token ids.

/// A token id of the target's tokenizer.
pub type TokenId = u32;
