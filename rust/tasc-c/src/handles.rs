//! Handles: numbers that are never used twice. What a number stands for is looked up in every call.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustc_hash::FxHashMap;

use crate::status::{Failure, Status, failure};

/// Distance of two handles: they look like pointers to aligned memory.
const STRIDE: usize = 16;

/// The last handle that was given out. All tables share it, so that a handle is in one table at most.
static LAST: AtomicUsize = AtomicUsize::new(0);

/// The open handles of one type.
pub(crate) struct Handles<T> {
    what: &'static str,
    open: RwLock<FxHashMap<usize, Arc<T>>>,
}

impl<T> Handles<T> {
    /// An empty table; `what` names the type in messages.
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, open: RwLock::new(FxHashMap::with_hasher(rustc_hash::FxBuildHasher)) }
    }

    /// Gives out a handle.
    pub(crate) fn add(&self, value: T) -> usize {
        let handle = LAST.fetch_add(STRIDE, Ordering::Relaxed) + STRIDE;
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(value));
        handle
    }

    /// What a handle stands for.
    pub(crate) fn get(&self, handle: usize) -> Result<Arc<T>, Failure> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle).cloned().ok_or_else(|| self.unknown(handle))
    }

    /// Closes a handle. Whoever uses its value meanwhile keeps that.
    pub(crate) fn remove(&self, handle: usize) -> Result<Arc<T>, Failure> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let removed = open.remove(&handle);
        if open.is_empty() {
            open.shrink_to(0); // a program that has closed all of its handles leaves no memory behind
        }
        removed.ok_or_else(|| self.unknown(handle))
    }

    /// The error of a handle that is not open.
    pub(crate) fn unknown(&self, handle: usize) -> Failure {
        let what = self.what;
        match handle {
            0 => failure(Status::TascErrorArgument, format!("the {what} is NULL")),
            _ => failure(
                Status::TascErrorHandle,
                format!("{handle:#x} is not an open {what}: it was closed, or never opened"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_in_one_table_until_it_is_removed() {
        let (numbers, words) = (Handles::new("number"), Handles::new("word"));
        let (one, word, two) = (numbers.add(1), words.add("a"), numbers.add(2));
        assert_eq!((*numbers.get(one).unwrap(), *words.get(word).unwrap(), *numbers.get(two).unwrap()), (1, "a", 2));
        assert_eq!(numbers.get(word).unwrap_err().status, Status::TascErrorHandle);
        let used = numbers.get(one).unwrap();
        assert_eq!(*numbers.remove(one).unwrap(), 1);
        assert_eq!(*used, 1);
        for handle in [one, one + 1, usize::MAX] {
            let error = numbers.get(handle).unwrap_err();
            assert_eq!(error.status, Status::TascErrorHandle);
            assert_eq!(error.message, format!("{handle:#x} is not an open number: it was closed, or never opened"));
            assert_eq!(numbers.remove(handle).unwrap_err().status, Status::TascErrorHandle);
        }
        assert_eq!(numbers.get(0).unwrap_err().message, "the number is NULL");
        assert_ne!(numbers.add(3), one);
    }
}
