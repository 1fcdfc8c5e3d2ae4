//! C interface of tasc: drafts of a task's index for decoders that are not Python.
//!
//! The header `include/tasc.h` is generated from this crate, and its text is the documentation for users. Decisions:
//!
//! - A handle is a number in the type of a pointer, and is never dereferenced. So a handle that was never given out, was
//!   closed, or belongs to another type is an error and not undefined behaviour.
//! - A panic ends in [`Status::TascErrorInternal`]; it never crosses the boundary.
//! - Nothing is allocated for the caller except what a handle stands for.

mod arguments;
mod handles;
mod interface;
mod status;

pub use interface::{
    Options, tasc_close, tasc_draft, tasc_drafter, tasc_finish, tasc_last_error, tasc_open, tasc_request, tasc_start,
    tasc_update, tasc_version,
};
pub use status::Status;
