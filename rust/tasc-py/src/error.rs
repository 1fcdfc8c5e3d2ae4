//! One match from the core's errors to the exceptions of `tasc.errors`.
use pyo3::exceptions::{PyException, PyOSError};
use pyo3::import_exception;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use tasc_core::Error;

import_exception!(tasc.errors, CorpusError);
import_exception!(tasc.errors, FormatError);
import_exception!(tasc.errors, InputError);
import_exception!(tasc.errors, InternalError);
import_exception!(tasc.errors, TaskIndexError);
import_exception!(tasc.errors, TokenizerMismatchError);

/// `Result<T, tasc_core::Error>` → `PyResult<T>`.
pub(crate) trait Raise<T> {
    /// The value, or the exception that fits.
    fn raise(self) -> PyResult<T>;
}

impl<T> Raise<T> for tasc_core::Result<T> {
    fn raise(self) -> PyResult<T> {
        self.map_err(|error| {
            let message = error.to_string();
            match error {
                Error::Io { source, path } => match source.raw_os_error() {
                    Some(code) => PyOSError::new_err((code, source.to_string(), path)),
                    None => PyOSError::new_err(message),
                },
                Error::Format { .. } | Error::Section { .. } => FormatError::new_err(message),
                Error::OutOfRange { .. } => pyo3::exceptions::PyIndexError::new_err(message),
                Error::Fingerprint { .. } => TokenizerMismatchError::new_err(message),
                Error::EmptyCorpus => CorpusError::new_err(message),
                Error::IndexTooLarge { .. } | Error::Sort { .. } => TaskIndexError::new_err(message),
                Error::Locked { .. } => pyo3::exceptions::PyBlockingIOError::new_err(message),
                Error::Stopped => pyo3::exceptions::PyKeyboardInterrupt::new_err(message),
                Error::Tokenizer(source) => match source.downcast::<PyErr>() {
                    Ok(raised) => Python::attach(|py| not_a_panic(py, *raised)),
                    Err(_) => InputError::new_err(message),
                },
                _ => InputError::new_err(message), // an option or input that cannot be used
            }
        })
    }
}

/// Turns the panic of another extension, which is no `Exception`, into an error of ours.
fn not_a_panic(py: Python<'_>, raised: PyErr) -> PyErr {
    if raised.is_instance_of::<PyException>(py) || raised.get_type(py).name().is_ok_and(|n| n != "PanicException") {
        return raised;
    }
    let error = InternalError::new_err(format!("the tokenizer panicked: {}", raised.value(py)));
    error.set_cause(py, Some(raised));
    error
}

/// Lets pyo3's exception of panics be an `InternalError`: a panic is caught by whoever catches the errors of tasc.
pub(crate) fn adopt_panics(py: Python<'_>) -> PyResult<()> {
    let bases = (py.get_type::<InternalError>(),);
    py.get_type::<PanicException>().setattr("__bases__", bases)
}

/// Converts an option that must not be smaller than `least`, nor too large for its type.
pub(crate) fn at_least<T: TryFrom<i64>>(name: &str, value: i64, least: i64) -> PyResult<T> {
    let refused = || InputError::new_err(format!("{name}={value} is out of range: give at least {least}"));
    T::try_from(value).ok().filter(|_| value >= least).ok_or_else(refused)
}
