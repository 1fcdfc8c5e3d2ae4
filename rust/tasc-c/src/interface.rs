//! The functions. The comments of what is exported are those of the header, and its general rules hold: every pointer is
//! null, or points to what its description says.
#![allow(clippy::missing_safety_doc)] // the rules stand once, at the top of the header

use std::ffi::{c_char, c_int};
use std::sync::{Arc, Mutex, TryLockError};

use tasc_core::{CostCurve, Drafter, DrafterOptions, OnlineRow, Request, TaskIndex, TokenId};

use crate::arguments::{array, check, ids, not_null, path, text, unusable};
use crate::handles::Handles;
use crate::status::{Result, Status, failure, guard, last_error};

/// Cost of a further drafted token, in plain steps, where the caller gives none.
const DEFAULT_SLOPE: f64 = 0.02;

/// Longest draft: a cost curve that is level would let a draft go on for ever.
const MAX_DRAFT: usize = 1 << 16;

static DRAFTERS: Handles<Open> = Handles::new("drafter");
static REQUESTS: Handles<Mutex<Option<Running>>> = Handles::new("request");

/// Drafts for one task. The handle is closed by tasc_close().
#[allow(non_camel_case_types)]
#[derive(Debug)]
pub struct tasc_drafter {
    _opaque: [u8; 0],
}

/// One running generation. The handle is finished by tasc_finish().
#[allow(non_camel_case_types)]
#[derive(Debug)]
pub struct tasc_request {
    _opaque: [u8; 0],
}

/// Options of tasc_open(): `tasc_options options = {0}; options.size = sizeof options;`, then what differs from the
/// defaults. Later versions may append members; `size` tells the library which members the caller knows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// sizeof(tasc_options)
    pub size: usize,
    /// File to which learned outputs are appended, so that they survive a restart and `tasc index compact` can merge them
    /// into the index. It is created if it is missing. One drafter at a time can have it open. NULL: learned outputs are
    /// kept in memory only. A log needs an index.
    pub log: *const c_char,
    /// Number of ids of the model: drafts end before an id that is not below it. 0: drafts may hold any id of the index.
    pub vocab_size: u32,
    /// Nonzero: verified tokens change neither calibration nor mixture weights, so that equal calls give equal drafts
    /// whatever other requests do. 0: the drafter learns from every verified token. Outputs are learned in both cases, see
    /// tasc_finish().
    pub fixed: c_int,
}

/// What a drafter's handle stands for.
struct Open {
    drafter: Drafter,
    /// Ids of drafts are below this.
    vocab_size: u32,
    /// Ids of learned outputs are below this.
    index_vocab_size: u32,
    /// The token that ends every output of the index.
    eos: Option<TokenId>,
}

/// What a request's handle stands for.
struct Running {
    open: Arc<Open>,
    request: Request,
    input: String,
    output: Vec<TokenId>,
}

/// Opens the index of a task and makes a drafter.
///
/// The file is mapped into memory: processes and drafters share its pages. Do not change the file in place while it is
/// open; replace it by renaming another file to its name. To take up a replaced index, open it and close the old drafter.
///
/// Data of different customers stay apart if each customer has a drafter of its own: what a drafter has learned reaches
/// no other drafter.
///
/// - `index`: path of the index, ending with a NUL: bytes of the file system, on Windows UTF-8. NULL: no index; drafts are
///   made from each request's own ids and from learned outputs.
/// - `options`: NULL: the defaults.
/// - `drafter`: receives the handle; NULL if the call fails.
///
/// Time: O(1) without a log. Errors: ARGUMENT, IO, FORMAT; with a log TOKENIZER and LOCKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tasc_open(
    index: *const c_char,
    options: *const Options,
    drafter: *mut *mut tasc_drafter,
) -> Status {
    guard(|| {
        not_null("drafter", drafter)?;
        // SAFETY: not null and aligned; the rest is the caller's word
        unsafe { drafter.write(std::ptr::null_mut()) };
        // SAFETY: the caller's word
        let open = unsafe { open(index, options) }?;
        // SAFETY: as above
        unsafe { drafter.write(std::ptr::without_provenance_mut(DRAFTERS.add(open))) };
        Ok(())
    })
}

/// # Safety
/// As for [`tasc_open`].
unsafe fn open(index: *const c_char, options: *const Options) -> Result<Open> {
    // SAFETY: the caller's word
    let (index, options) = unsafe { (path("index", index)?, given(options)?) };
    // SAFETY: the caller's word
    let log = unsafe { path("options.log", options.log) }?;
    let index = index.map(|index| TaskIndex::open(&index)).transpose()?;
    let meta = index.as_ref().map(|index| (index.meta().vocab_size, index.meta().eos_id));
    let fingerprint = index.as_ref().map(|index| index.file().fingerprint());
    let settings = DrafterOptions { fixed: options.fixed != 0, ..DrafterOptions::default() };
    let drafter = Drafter::new(index.map(|index| Arc::new(index) as _), settings)?;
    match (&log, &fingerprint) {
        (Some(log), Some(fingerprint)) => drafter.keep_served(log, fingerprint)?,
        (Some(_), None) => return Err(unusable("options.log needs an index: the log belongs to its tokenizer")),
        (None, _) => {}
    }
    let (index_vocab_size, eos) = meta.unwrap_or((0, None));
    let limit = |size: u32| if size == 0 { TokenId::MAX } else { size };
    Ok(Open { drafter, vocab_size: limit(options.vocab_size), index_vocab_size: limit(index_vocab_size), eos })
}

/// The options that the caller gave, or the defaults.
///
/// # Safety
/// As for [`tasc_open`].
unsafe fn given(options: *const Options) -> Result<Options> {
    const SIZE: usize = size_of::<Options>();
    if options.is_null() {
        return Ok(Options { size: SIZE, log: std::ptr::null(), vocab_size: 0, fixed: 0 });
    }
    not_null("options", options)?;
    // SAFETY: not null and aligned; `size` is the first member in every version
    let size = unsafe { options.cast::<usize>().read() };
    if size != SIZE {
        let fix = "set options.size to sizeof(tasc_options) and use the header of the library's version";
        return Err(unusable(format!("options.size is {size}, this library's is {SIZE}; {fix}")));
    }
    // SAFETY: the structure has all of the members
    Ok(unsafe { options.read() })
}

/// Starts a request. Any thread may start requests of a drafter, at any time.
///
/// - `drafter`: an open drafter.
/// - `prompt`: prompt_len ids of the prompt, with its special tokens. May be NULL if prompt_len is 0.
/// - `input`: input_len bytes of UTF-8: the input of the task's row, such as the user's question. The whole prompt may be
///   given if the index was built from whole prompts. NULL with input_len 0: drafts do not use an input.
/// - `request`: receives the handle; NULL if the call fails.
///
/// The library copies what it keeps. Time: O(prompt + input), about 0.1 ms where an input is looked up in 100,000 rows.
/// Errors: ARGUMENT, HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tasc_start(
    drafter: *const tasc_drafter,
    prompt: *const u32,
    prompt_len: usize,
    input: *const c_char,
    input_len: usize,
    request: *mut *mut tasc_request,
) -> Status {
    guard(|| {
        not_null("request", request)?;
        // SAFETY: not null and aligned; the rest is the caller's word
        unsafe { request.write(std::ptr::null_mut()) };
        let open = DRAFTERS.get(drafter.addr())?;
        // SAFETY: the caller's word
        let (prompt, input) = unsafe { (ids("prompt", prompt, prompt_len)?, text("input", input, input_len)?) };
        let started = open.drafter.start(prompt, input)?;
        let input = input.unwrap_or_default().to_owned();
        let running = Running { open, request: started, input, output: Vec::new() };
        let handle = REQUESTS.add(Mutex::new(Some(running)));
        // SAFETY: as above
        unsafe { request.write(std::ptr::without_provenance_mut(handle)) };
        Ok(())
    })
}

/// Calls `work` with a request that no other thread uses.
fn with(request: *const tasc_request, work: impl FnOnce(&mut Running) -> Result<()>) -> Result<()> {
    let handle = REQUESTS.get(request.addr())?;
    let mut running = match handle.try_lock() {
        Ok(running) => running,
        Err(TryLockError::WouldBlock) => return Err(busy()),
        Err(TryLockError::Poisoned(_)) => {
            let message = "the request failed in an earlier call; finish it and decode without drafts";
            return Err(failure(Status::TascErrorInternal, message));
        }
    };
    match &mut *running {
        Some(running) => work(running),
        None => Err(REQUESTS.unknown(request.addr())), // another thread is finishing it
    }
}

fn busy() -> crate::status::Failure {
    failure(Status::TascErrorBusy, "another thread is using the request; one thread at a time may")
}

/// Drafts the tokens that are likely to come next. Call it before every step of the model, the first time before or
/// together with the prompt. An empty draft is a success: nothing is likely enough to pay.
///
/// - `request`: a running request.
/// - `max_tokens`: longest draft. tokens and probabilities have room for so many.
/// - `costs`: num_costs numbers: `costs[k]` is the time of a step that verifies k drafted tokens, divided by the time of a step
///   without drafts; so `costs[0]` is 1. They are finite, positive and do not fall. Past the last one the curve continues
///   with its last slope. NULL with num_costs 0: 1 + 0.02 k. Measure them: they decide how long a draft is.
/// - `tokens`: receives the draft. May be NULL if max_tokens is 0.
/// - `probabilities`: receives the probability of each token to be accepted, given that those before it are. May be NULL.
/// - `num_tokens`: receives the number of tokens; 0 if the call fails.
///
/// A request holds one draft: the last one. Time: a few microseconds a token. Errors: ARGUMENT, HANDLE, BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tasc_draft(
    request: *mut tasc_request,
    max_tokens: usize,
    costs: *const f64,
    num_costs: usize,
    tokens: *mut u32,
    probabilities: *mut f32,
    num_tokens: *mut usize,
) -> Status {
    guard(|| {
        not_null("num_tokens", num_tokens)?;
        // SAFETY: not null and aligned; the rest is the caller's word
        unsafe { num_tokens.write(0) };
        check("tokens", tokens, max_tokens)?;
        if !probabilities.is_null() {
            check("probabilities", probabilities, max_tokens)?;
        }
        // SAFETY: the caller's word
        let costs = match unsafe { array("costs", costs, num_costs) }? {
            [] if costs.is_null() => CostCurve::linear(DEFAULT_SLOPE)?,
            costs => CostCurve::new(costs.to_vec())?,
        };
        with(request, |Running { open, request, .. }| {
            let draft = open.drafter.draft(request, max_tokens.min(MAX_DRAFT), &costs);
            let len = draft.tokens.iter().position(|&id| id >= open.vocab_size).unwrap_or(draft.tokens.len());
            // SAFETY: there is room for max_tokens, and len is not more
            unsafe {
                draft.tokens[..len].as_ptr().copy_to(tokens, len);
                if !probabilities.is_null() {
                    draft.probabilities[..len].as_ptr().copy_to(probabilities, len);
                }
                num_tokens.write(len);
            }
            Ok(())
        })
    })
}

/// Appends the tokens that the model has emitted since the last call: the accepted tokens of the draft and the model's own
/// token after them, the end token included. The drafter learns from them which of its drafts were right.
///
/// - `request`: a running request.
/// - `emitted`: num_emitted ids below 4294967295. May be NULL if num_emitted is 0.
///
/// Time: O(num_emitted). Errors: ARGUMENT, HANDLE, BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tasc_update(request: *mut tasc_request, emitted: *const u32, num_emitted: usize) -> Status {
    guard(|| {
        // SAFETY: the caller's word
        let emitted = unsafe { ids("emitted", emitted, num_emitted) }?;
        with(request, |running| {
            running.open.drafter.update(&mut running.request, emitted);
            running.output.extend_from_slice(emitted);
            Ok(())
        })
    })
}

/// Ends a request. The handle is invalid afterwards, whatever the call returns, except BUSY. NULL is ignored.
///
/// - `request`: a running request, or NULL.
/// - `learn`: nonzero: the request's input and output are added to the drafter, and requests that start later use them.
///   Give 0 for an output that was cut off, and for data that must not reach other requests.
///
/// An output is learned up to the end token of the index, and must contain it; if the index has none, or there is no
/// index, all of it is learned. With a log, the output is on disk when the call returns.
///
/// Time: O(output); with a log one write that waits for the disk. Errors: HANDLE, BUSY; if learn is nonzero NOT_LEARNED, IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tasc_finish(request: *mut tasc_request, learn: c_int) -> Status {
    guard(|| {
        if request.is_null() {
            return Ok(());
        }
        let handle = REQUESTS.get(request.addr())?;
        let running = match handle.try_lock() {
            Ok(mut running) => running.take(),
            Err(TryLockError::Poisoned(_)) => None,
            Err(TryLockError::WouldBlock) => return Err(busy()),
        };
        REQUESTS.remove(request.addr())?;
        match running {
            _ if learn == 0 => Ok(()),
            Some(running) => running.learn(),
            None => Err(failure(Status::TascErrorNotLearned, "the output was not learned: the request failed before")),
        }
    })
}

impl Running {
    /// Adds the output to the drafter.
    fn learn(self) -> Result<()> {
        let Self { open, mut output, input, .. } = self;
        let refused =
            |why: String| Err(failure(Status::TascErrorNotLearned, format!("the output was not learned: {why}")));
        if let Some(eos) = open.eos {
            match output.iter().position(|&id| id == eos) {
                Some(end) => output.truncate(end + 1),
                None => {
                    return refused(format!("it lacks the end token {eos} of the index; give learn = 0 if it was cut"));
                }
            }
        }
        if let Some(id) = output.iter().find(|&&id| id >= open.index_vocab_size) {
            return refused(format!("it has the id {id}, the ids of the index are below {}", open.index_vocab_size));
        }
        if output.is_empty() {
            return refused("it is empty".into());
        }
        Ok(open.drafter.serve(&[OnlineRow { input, output, key: String::new() }])?)
    }
}

/// Closes a drafter. Requests that run keep what they need: they can go on, and each must still be finished. The memory
/// and the log are released with the last of them. NULL is ignored.
///
/// Errors: HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tasc_close(drafter: *mut tasc_drafter) -> Status {
    guard(|| if drafter.is_null() { Ok(()) } else { DRAFTERS.remove(drafter.addr()).map(drop) })
}

/// Message of the last error in this thread, one line of UTF-8; "" before the first one. It is valid until the next error
/// in the same thread, or its end. Do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn tasc_last_error() -> *const c_char {
    last_error()
}

/// Version of the library, such as "0.1.0". Do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn tasc_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
