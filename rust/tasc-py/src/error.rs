//! One match from the core's errors to the exceptions of `tasc.errors`.
use pyo3::exceptions::PyOSError;
use pyo3::import_exception;
use pyo3::prelude::*;
use tasc_core::Error;

import_exception!(tasc.errors, CorpusError);
import_exception!(tasc.errors, FormatError);
import_exception!(tasc.errors, InputError);
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
                    Ok(raised) => *raised,
                    Err(_) => InputError::new_err(message),
                },
                _ => InputError::new_err(message), // an option or input that cannot be used
            }
        })
    }
}

/// Converts an option that must not be smaller than `least`, nor too large for its type.
pub(crate) fn at_least<T: TryFrom<i64>>(name: &str, value: i64, least: i64) -> PyResult<T> {
    let refused = || InputError::new_err(format!("{name}={value} is out of range: give at least {least}"));
    T::try_from(value).ok().filter(|_| value >= least).ok_or_else(refused)
}
