//! The input of a row, as the draft sees it: its words, how they would be spelled in token ids, and which of them an
//! output has copied.
//!
//! - [`words`]: a text → its words
//! - [`spelling`]: pieces of text → token ids, remembered
//! - [`case`]: the ways an output may write a word
//! - [`surface`]: an input → what may be copied from it, and where each copy would begin
//! - [`copying`]: the copies under way and done while an output grows

pub mod case;
pub mod copying;
pub mod spelling;
pub mod surface;
pub mod words;

pub use case::{Case, Cases};
pub use copying::Copying;
pub use spelling::{OwnedSpellings, Speller, Spellings};
pub use surface::Surface;
pub use words::{Word, WordKind};
