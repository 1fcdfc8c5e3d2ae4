//! Weights of the mixture from samples of a task.
//!
//! - [`samples`]: places of outputs with their candidates
//! - `objective`: loss and gradient
//! - [`lbfgs`]: the minimiser

pub mod lbfgs;
mod objective;
pub mod samples;

pub use objective::FitOptions;
