//! Status codes, the message of the last error of a thread, and the guard around every function.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tasc_core::Error;

/// Result of a function. Every value but TASC_OK is an error, whose message tasc_last_error() returns.
#[repr(C)]
#[allow(clippy::enum_variant_names)] // C has no name spaces
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success.
    TascOk = 0,
    /// An argument cannot be used: a null pointer, a size or a number out of range, text that is not UTF-8.
    TascErrorArgument = 1,
    /// The handle is not open: it was never returned, was closed or finished, or is of the other type.
    TascErrorHandle = 2,
    /// Another thread is using the request.
    TascErrorBusy = 3,
    /// The operating system refused to read or write a file.
    TascErrorIo = 4,
    /// The file is not an index, is damaged, or has an unknown version.
    TascErrorFormat = 5,
    /// The log belongs to another tokenizer than the index.
    TascErrorTokenizer = 6,
    /// Another drafter or process has the log open.
    TascErrorLocked = 7,
    /// The output was not learned: it is incomplete, or has an id that the index cannot hold, or is too large for the log.
    TascErrorNotLearned = 8,
    /// A fault in tasc. A request in which it happened can only be finished.
    TascErrorInternal = 9,
}

/// An error of this interface: its code and its message.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) message: String,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Makes an error.
pub(crate) fn failure(status: Status, message: impl Into<String>) -> Failure {
    Failure { status, message: message.into() }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Io { .. } => Status::TascErrorIo,
            Error::Format { .. } | Error::Section { .. } => Status::TascErrorFormat,
            Error::Fingerprint { .. } => Status::TascErrorTokenizer,
            Error::Locked { .. } => Status::TascErrorLocked,
            Error::RowTooLarge { .. } => Status::TascErrorNotLearned,
            _ => Status::TascErrorArgument, // an option or input that cannot be used
        };
        failure(status, error.to_string())
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Keeps the message of an error for [`last_error`].
fn keep(message: String) {
    let text = CString::new(message.replace('\0', "\\0")).unwrap_or_default();
    // a thread that ends may have lost its storage
    let _ = LAST.try_with(|last| last.try_borrow_mut().map(|mut last| *last = text));
}

/// The message of the last error in this thread; it ends with a NUL and stays where it is until the next error.
pub(crate) fn last_error() -> *const c_char {
    LAST.try_with(|last| last.try_borrow().map_or(c"".as_ptr(), |last| last.as_ptr())).unwrap_or(c"".as_ptr())
}

/// Runs a function of the interface; its error, or its panic, becomes a status and a message.
pub(crate) fn guard(work: impl FnOnce() -> Result<()>) -> Status {
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let message = format!("a fault in tasc: {}; please report it", text.unwrap_or("panic"));
        std::mem::forget(panic); // its drop could panic
        Err(failure(Status::TascErrorInternal, message))
    });
    match result {
        Ok(()) => Status::TascOk,
        Err(Failure { status, message }) => {
            keep(message);
            status
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn message() -> String {
        // SAFETY: `last_error` returns text that ends with a NUL.
        unsafe { CStr::from_ptr(last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_becomes_a_status_and_a_message() {
        assert_eq!(guard(|| panic!("number {}", 7)), Status::TascErrorInternal);
        assert_eq!(message(), "a fault in tasc: number 7; please report it");
        assert_eq!(guard(|| std::panic::panic_any(7)), Status::TascErrorInternal);
        assert_eq!(message(), "a fault in tasc: panic; please report it");
    }

    #[test]
    fn a_message_belongs_to_its_thread_and_success_keeps_it() {
        assert_eq!(guard(|| Err(failure(Status::TascErrorArgument, "one\0two"))), Status::TascErrorArgument);
        assert_eq!(guard(|| Ok(())), Status::TascOk);
        assert_eq!(message(), "one\\0two");
        std::thread::spawn(|| assert_eq!(message(), "")).join().unwrap();
    }
}
