//! From evidence to a draft: sources → [`mixer`] → [`length`] rule → [`Draft`].
//!
//! A source answers one question: given what this request has produced so far, which tokens may come next and
//! how likely is each? Sources know nothing of each other; the mixer knows nothing of n-grams.

pub mod blend;
pub mod drafter;
pub mod evidence;
pub mod features;
pub mod fit;
pub mod general;
mod kept;
pub mod length;
pub mod mixer;
pub mod mixtures;
mod objective;
pub mod occurrences;
pub mod online;
pub mod request;
pub mod samples;
mod scratch;
pub mod served;
pub mod sources;
pub mod trace;
pub mod train;

pub use drafter::{Drafter, DrafterOptions};
pub use fit::FitOptions;
pub use length::CostCurve;
pub use mixer::{Mixer, Weights};
pub use mixtures::{Mixtures, Source, Without};
pub use request::{Draft, Request};
