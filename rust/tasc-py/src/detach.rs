//! Long work without the interpreter.
use pyo3::prelude::*;
use tasc_core::{Error, Result};

use crate::error::Raise;

/// What else a check does: it may raise.
pub(crate) type Call<'a> = &'a dyn Fn(Python<'_>) -> PyResult<()>;

/// Runs `work` with the interpreter released. It calls its argument now and then, which lets signal handlers run and
/// makes a call of its own: when one raises (Ctrl-C), the work ends and the exception goes on.
pub(crate) fn interruptible<R: Send>(
    py: Python<'_>,
    work: impl FnOnce(&mut dyn FnMut(Call<'_>) -> Result<()>) -> Result<R> + Send,
) -> PyResult<R> {
    let mut raised = None;
    let done = py.detach(|| {
        work(&mut |call| {
            let called = Python::attach(|py| py.check_signals().and_then(|()| call(py)));
            called.map_err(|error| {
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
