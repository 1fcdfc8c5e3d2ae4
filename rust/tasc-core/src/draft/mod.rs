//! From evidence to a draft: sources → [`crate::mixture`] → [`length`] rule → [`Draft`].
//!
//! A source answers one question: given what this request has produced so far, which tokens may come next and
//! how likely is each? Sources know nothing of each other; the mixer knows nothing of n-grams.

pub mod drafter;
pub mod length;
pub mod request;
mod scratch;
pub mod sources;
pub mod trace;

pub use drafter::{Drafter, DrafterOptions};
pub use length::CostCurve;
pub use request::{Draft, Request};
