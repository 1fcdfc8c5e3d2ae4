//! Pointers of the caller as references, checked as far as C allows: for null, alignment and size.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;

use tasc_core::TokenId;

use crate::status::{Failure, Result, Status, failure};

/// An argument that cannot be used.
pub(crate) fn unusable(message: impl Into<String>) -> Failure {
    failure(Status::TascErrorArgument, message)
}

/// An array of the caller; `name` is the argument's. NULL is an empty array where `len` is 0.
///
/// # Safety
/// `pointer` is null, or `len` elements can be read there while the result is used.
pub(crate) unsafe fn array<'a, T>(name: &str, pointer: *const T, len: usize) -> Result<&'a [T]> {
    check(name, pointer, len)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: not null, aligned and not larger than memory can be; the rest is the caller's word
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// Checks an array that is read or written.
pub(crate) fn check<T>(name: &str, pointer: *const T, len: usize) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    if pointer.is_null() {
        return Err(unusable(format!("{name} is NULL, but has {len} elements")));
    }
    if !pointer.is_aligned() {
        return Err(unusable(format!("{name} is not aligned to {} bytes", align_of::<T>())));
    }
    if len > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(unusable(format!("{name} has {len} elements, which is more than memory can hold")));
    }
    Ok(())
}

/// Checks a pointer to a single value.
pub(crate) fn not_null<T>(name: &str, pointer: *const T) -> Result<()> {
    if pointer.is_null() { Err(unusable(format!("{name} is NULL"))) } else { check(name, pointer, 1) }
}

/// Token ids of the caller.
///
/// # Safety
/// As for [`array`].
pub(crate) unsafe fn ids<'a>(name: &str, pointer: *const TokenId, len: usize) -> Result<&'a [TokenId]> {
    // SAFETY: the caller's word
    let ids = unsafe { array(name, pointer, len) }?;
    match ids.iter().position(|&id| id == TokenId::MAX) {
        Some(at) => Err(unusable(format!("{name}[{at}] is {}: ids must be below that", TokenId::MAX))),
        None => Ok(ids),
    }
}

/// Text of the caller; `None` for NULL of no bytes.
///
/// # Safety
/// As for [`array`].
pub(crate) unsafe fn text<'a>(name: &str, pointer: *const c_char, len: usize) -> Result<Option<&'a str>> {
    if pointer.is_null() && len == 0 {
        return Ok(None);
    }
    // SAFETY: the caller's word
    let bytes = unsafe { array(name, pointer.cast::<u8>(), len) }?;
    let text = std::str::from_utf8(bytes);
    text.map(Some).map_err(|error| unusable(format!("{name} is not UTF-8 from byte {} on", error.valid_up_to())))
}

/// Path of the caller, which ends with a NUL; `None` for NULL.
///
/// # Safety
/// `pointer` is null, or points to bytes that end with a NUL.
pub(crate) unsafe fn path(name: &str, pointer: *const c_char) -> Result<Option<PathBuf>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not null; the rest is the caller's word
    let bytes = unsafe { CStr::from_ptr(pointer) };
    if bytes.is_empty() {
        return Err(unusable(format!("{name} is empty; give a file, or NULL")));
    }
    native(name, bytes).map(Some)
}

#[cfg(unix)]
fn native(_name: &str, bytes: &CStr) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::OsStr::from_bytes(bytes.to_bytes()).into())
}

#[cfg(not(unix))]
fn native(name: &str, bytes: &CStr) -> Result<PathBuf> {
    bytes.to_str().map(PathBuf::from).map_err(|_| unusable(format!("{name} is not UTF-8")))
}
