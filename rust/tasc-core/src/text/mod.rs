//! The input of a row, as the draft sees it: its words, how they would be spelled in token ids, and which of them an
//! output has copied.
//!
//! - [`words`]: a text → its words
//! - [`pieces`]: pieces of text → token ids, remembered
//! - [`case`]: the ways an output may write a word
//! - [`source_text`]: an input → what may be copied from it, and where each copy would begin
//! - [`copy_state`]: the copies under way and done while an output grows
//! - [`template`]: a whole prompt → the input in it

pub mod case;
pub mod copy_state;
pub mod pieces;
pub mod source_text;
pub mod template;
pub mod words;

pub use case::{Case, Cases};
pub use copy_state::CopyState;
pub use pieces::{PieceArrays, PieceTokenizer, Pieces};
pub use source_text::SourceText;
pub use template::InputTemplate;
pub use words::{Word, WordKind};
