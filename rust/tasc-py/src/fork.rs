//! `os.register_at_fork` with the pause of `tasc_core::fork`.
use std::cell::RefCell;

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};
use tasc_core::fork::{self, Pause, Work};

thread_local! {
    static PAUSE: RefCell<Option<Pause>> = const { RefCell::new(None) };
}

/// Makes a function that Python calls around a fork, on the thread that forks.
fn function(py: Python<'_>, call: impl Fn() + Send + Sync + 'static) -> PyResult<Bound<'_, PyCFunction>> {
    PyCFunction::new_closure(py, None, None, move |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| call())
}

/// Begins to work. A thread that forks may need the interpreter, so it is released while this one waits.
pub(crate) fn work(py: Python<'_>) -> Work {
    loop {
        match fork::try_work() {
            Some(work) => return work,
            None => py.detach(|| drop(fork::work())),
        }
    }
}

/// Has Python fork while no thread works. A thread that works does not need the interpreter, which is held meanwhile.
pub(crate) fn pause_at_forks(py: Python<'_>) -> PyResult<()> {
    let os = py.import("os")?;
    if !os.hasattr("register_at_fork")? {
        return Ok(()); // no forks on this system
    }
    let options = PyDict::new(py);
    options.set_item("before", function(py, || PAUSE.set(Some(fork::pause())))?)?;
    options.set_item("after_in_parent", function(py, || PAUSE.set(None))?)?;
    options.set_item("after_in_child", function(py, || PAUSE.set(None))?)?;
    os.call_method("register_at_fork", (), Some(&options)).map(drop)
}
