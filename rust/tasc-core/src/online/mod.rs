//! What is learnt while a drafter runs.
//!
//! - [`sequence_index`]: a few sequences, matched on the fly
//! - [`served`]: the rows that were served, counted and retrievable
//! - `state`: these rows and their log, handed on from a drafter to the next one
//! - [`adapt`]: calibration, acceptance rate and weights

pub mod adapt;
pub mod sequence_index;
pub mod served;
pub(crate) mod state;
