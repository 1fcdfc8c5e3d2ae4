//! Long work without the interpreter.
use pyo3::prelude::*;
use tasc_core::{Error, Result};

use crate::error::Raise;

/// Runs `work` with the interpreter released. It calls its argument now and then, which lets signal handlers run:
/// when one raises (Ctrl-C), the work ends and the exception goes on.
pub(crate) fn interruptible<R: Send>(
    py: Python<'_>,
    work: impl FnOnce(&mut dyn FnMut() -> Result<()>) -> Result<R> + Send,
) -> PyResult<R> {
    let mut raised = None;
    let done = py.detach(|| {
        work(&mut || {
            let signals = Python::attach(|py| py.check_signals());
            signals.map_err(|error| {
                raised = Some(error);
                Error::Stopped
            })
        })
    });
    match raised {
        Some(error) => Err(error),
        None => done.raise(),
    }
}
