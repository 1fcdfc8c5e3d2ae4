//! Wrong arguments lead to a status and a message: every kind once, and random calls.
#![allow(clippy::unwrap_used)] // a test may

mod recorded;

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::{null, null_mut, without_provenance_mut};

use recorded::{EOS, Random, VOCAB, build};
use tasc::{
    Options, Status, tasc_close, tasc_draft, tasc_drafter, tasc_finish, tasc_last_error, tasc_open, tasc_request,
    tasc_start, tasc_update,
};

const DEFAULTS: Options = Options { size: size_of::<Options>(), log: null(), vocab_size: 0, fixed: 1 };

fn message() -> String {
    // SAFETY: the message ends with a NUL
    unsafe { CStr::from_ptr(tasc_last_error()) }.to_str().unwrap().to_owned()
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn open(index: *const c_char, options: *const Options) -> (Status, *mut tasc_drafter) {
    let mut drafter = without_provenance_mut(1);
    // SAFETY: pointers to values
    (unsafe { tasc_open(index, options, &raw mut drafter) }, drafter)
}

fn start(drafter: *const tasc_drafter) -> *mut tasc_request {
    let mut request = null_mut();
    // SAFETY: pointers to values
    assert_eq!(unsafe { tasc_start(drafter, [7].as_ptr(), 1, null(), 0, &raw mut request) }, Status::TascOk);
    request
}

#[test]
fn an_index_that_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let index = build(folder.path());
    let good = c_path(&index);
    let log = c_path(&folder.path().join("online.log"));
    let with_log = Options { log: log.as_ptr(), ..DEFAULTS };
    let old = Options { size: 8, ..DEFAULTS };
    std::fs::write(folder.path().join("short"), std::fs::read(&index).unwrap().split_at(1000).0).unwrap();
    let (missing, short) = (c_path(&folder.path().join("missing")), c_path(&folder.path().join("short")));
    let cases: [(*const c_char, *const Options, Status, &str); 6] = [
        (missing.as_ptr(), null(), Status::TascErrorIo, "missing"),
        (short.as_ptr(), null(), Status::TascErrorFormat, "cut short"),
        (c"".as_ptr(), null(), Status::TascErrorArgument, "index is empty"),
        (good.as_ptr(), &raw const old, Status::TascErrorArgument, "options.size is 8"),
        (null(), &raw const with_log, Status::TascErrorArgument, "options.log needs an index"),
        (good.as_ptr(), without_provenance_mut::<Options>(3), Status::TascErrorArgument, "options is not aligned"),
    ];
    for (index, options, status, words) in cases {
        let (found, drafter) = open(index, options);
        assert_eq!((found, drafter), (status, null_mut()), "{}", message());
        assert!(message().contains(words), "{}", message());
    }
    // SAFETY: null is an error
    assert_eq!(unsafe { tasc_open(good.as_ptr(), null(), null_mut()) }, Status::TascErrorArgument);
    assert_eq!(message(), "drafter is NULL");

    let (first, drafter) = open(good.as_ptr(), &raw const with_log);
    assert_eq!(
        (first, open(good.as_ptr(), &raw const with_log).0),
        (Status::TascOk, Status::TascErrorLocked),
        "{}",
        message()
    );
    let request = start(drafter);
    // SAFETY: any value is allowed
    unsafe { assert_eq!(tasc_close(drafter), Status::TascOk) };
    assert_eq!(open(good.as_ptr(), &raw const with_log).0, Status::TascErrorLocked, "a request keeps the log");
    // SAFETY: any value is allowed
    unsafe { assert_eq!(tasc_finish(request, 0), Status::TascOk) };
    let (status, drafter) = open(good.as_ptr(), &raw const with_log);
    assert_eq!(status, Status::TascOk);
    // SAFETY: any value is allowed
    unsafe { assert_eq!(tasc_close(drafter), Status::TascOk) };
}

#[test]
fn an_output_that_is_not_learned() {
    let folder = tempfile::tempdir().unwrap();
    let good = c_path(&build(folder.path()));
    let (_, drafter) = open(good.as_ptr(), &DEFAULTS);
    for (output, words) in [
        (&[7, 8][..], "it lacks the end token 256 of the index"),
        (&[], "it lacks the end token"),
        (&[VOCAB, EOS], "it has the id 257, the ids of the index are below 257"),
    ] {
        let request = start(drafter);
        // SAFETY: pointers to values
        unsafe {
            assert_eq!(tasc_update(request, output.as_ptr(), output.len()), Status::TascOk);
            assert_eq!(tasc_finish(request, 1), Status::TascErrorNotLearned);
            assert!(message().contains(words), "{}", message());
            assert_eq!(tasc_finish(request, 1), Status::TascErrorHandle, "it is finished all the same");
        }
    }
    // SAFETY: any value is allowed
    unsafe { assert_eq!(tasc_close(drafter), Status::TascOk) };
}

#[test]
fn a_draft_ends_before_an_id_that_the_model_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let good = c_path(&build(folder.path()));
    let text = |drafter| {
        let (mut request, mut ids, mut len) = (null_mut(), [0u32; 200], 0);
        let input = "turn on the garden to 5";
        // SAFETY: pointers to values
        unsafe {
            let (prompt, input_at) = (recorded::ids(input), input.as_ptr().cast());
            let started = tasc_start(drafter, prompt.as_ptr(), prompt.len(), input_at, input.len(), &raw mut request);
            assert_eq!(started, Status::TascOk);
            let costs = [1.0];
            let status = tasc_draft(request, 200, costs.as_ptr(), 1, ids.as_mut_ptr(), null_mut(), &raw mut len);
            assert_eq!(status, Status::TascOk, "{}", message());
            assert_eq!(tasc_finish(request, 0), Status::TascOk);
        }
        ids[..len].to_vec()
    };
    let limited = Options { vocab_size: u32::from(b'}'), ..DEFAULTS };
    let ((_, all), (_, few)) = (open(good.as_ptr(), null()), open(good.as_ptr(), &raw const limited));
    let (all_ids, few_ids) = (text(all), text(few));
    assert!(all_ids.starts_with(&recorded::ids("{\"room\": \"")), "{all_ids:?}");
    let brace = all_ids.iter().position(|&id| id == u32::from(b'}')).unwrap();
    assert_eq!(few_ids, all_ids[..brace]);
    // SAFETY: any value is allowed
    unsafe { assert_eq!((tasc_close(all), tasc_close(few)), (Status::TascOk, Status::TascOk)) };
}

/// What random calls are made of.
struct Pool {
    random: Random,
    drafters: Vec<*mut tasc_drafter>,
    requests: Vec<*mut tasc_request>,
}

impl Pool {
    /// An array of ids, or a pointer that no array has; its length; and whether it can be used.
    fn ids(&mut self, memory: &[u32]) -> (*const u32, usize, bool) {
        let len = self.random.below(memory.len());
        match self.random.below(8) {
            0 => (null(), len, len == 0),
            1 => (without_provenance_mut(0x1001), len, len == 0),
            2 => (memory.as_ptr(), usize::MAX - len, false),
            _ => (memory.as_ptr(), len, memory[..len].iter().all(|&id| id != u32::MAX)),
        }
    }

    /// A drafter and whether it is open. Closed ones are among them, requests, and numbers.
    fn drafter(&mut self) -> *mut tasc_drafter {
        let pick = self.random.below(self.drafters.len());
        match self.random.below(10) {
            0 => null_mut(),
            1 => self.requests.last().map_or(null_mut(), |request| request.cast()),
            2 => without_provenance_mut(self.random.below(1 << 40)),
            _ => self.drafters[pick],
        }
    }

    fn request(&mut self) -> *mut tasc_request {
        let pick = self.random.below(self.requests.len());
        match self.random.below(10) {
            0 => null_mut(),
            1 => self.drafters[0].cast(),
            2 => without_provenance_mut(self.random.below(1 << 40)),
            _ => self.requests[pick],
        }
    }
}

#[test]
fn random_calls_end_with_a_status() {
    let folder = tempfile::tempdir().unwrap();
    let good = c_path(&build(folder.path()));
    let (mut counts, calls) = ([0usize; 10], 10_000);
    let (_, first) = open(good.as_ptr(), &DEFAULTS);
    let mut pool = Pool { random: Random(9), drafters: vec![first], requests: vec![start(first)] };
    let mut live = std::collections::HashSet::from([pool.requests[0].addr()]);
    let mut memory: Vec<u32> = (0..64).map(|k| (k * 37) % 300).collect();
    for _ in 0..calls {
        memory[40] = [256, 7, u32::MAX, u32::MAX - 1][pool.random.below(4)];
        // SAFETY: what cannot be used is refused before it is read, and the rest are pointers to values
        let status = unsafe {
            match pool.random.below(12) {
                0 => {
                    let index = [good.as_ptr(), null(), c"/".as_ptr(), c"missing".as_ptr()][pool.random.below(4)];
                    let (status, drafter) = open(index, null());
                    assert_eq!(status == Status::TascOk, !drafter.is_null());
                    pool.drafters.extend((!drafter.is_null()).then_some(drafter));
                    status
                }
                1 => {
                    let drafter = pool.drafter();
                    if pool.drafters.len() > 2 { tasc_close(drafter) } else { Status::TascOk }
                }
                2 | 3 => {
                    let (drafter, mut request) = (pool.drafter(), null_mut());
                    let (prompt, len, usable) = pool.ids(&memory);
                    let bytes = [&b"turn on the attic"[..], b"\xff\xfe", b"", b"a\0b"][pool.random.below(4)];
                    let input = if pool.random.once_in(3) { null() } else { bytes.as_ptr().cast() };
                    let status = tasc_start(drafter, prompt, len, input, bytes.len(), &raw mut request);
                    assert_eq!(status == Status::TascOk, !request.is_null());
                    assert!(usable || status != Status::TascOk);
                    if status == Status::TascOk {
                        live.insert(request.addr());
                        pool.requests.push(request);
                    }
                    status
                }
                4 => {
                    let request = pool.request();
                    let status = tasc_finish(request, i32::try_from(pool.random.below(3)).unwrap() - 1);
                    let ended = live.remove(&request.addr());
                    assert_eq!(
                        ended,
                        matches!(status, Status::TascOk | Status::TascErrorNotLearned) && !request.is_null()
                    );
                    status
                }
                5..=8 => {
                    let (request, mut drafted, mut len) = (pool.request(), [7u32; 64], 99);
                    let max_tokens = pool.random.below(64);
                    let costs = [1.0, 1.5, f64::NAN, 0.5, -1.0, f64::INFINITY];
                    let num_costs = pool.random.below(7);
                    let costs = if pool.random.once_in(3) { null() } else { costs.as_ptr() };
                    let tokens = if pool.random.once_in(9) { null_mut() } else { drafted.as_mut_ptr() };
                    let status = tasc_draft(request, max_tokens, costs, num_costs, tokens, null_mut(), &raw mut len);
                    assert!(len <= max_tokens && (status == Status::TascOk || len == 0));
                    assert!(drafted[len..].iter().all(|&id| id == 7), "something was written past the draft");
                    assert!(status != Status::TascOk || live.contains(&request.addr()));
                    status
                }
                _ => {
                    let (emitted, len, usable) = pool.ids(&memory);
                    let request = pool.request();
                    let status = tasc_update(request, emitted, len);
                    assert_eq!(status == Status::TascOk, usable && live.contains(&request.addr()));
                    status
                }
            }
        };
        assert!(status == Status::TascOk || !message().is_empty());
        counts[status as usize] += 1;
        if pool.requests.len() > 40 {
            pool.requests.drain(..20);
        }
    }
    let Pool { drafters, .. } = pool;
    for drafter in drafters {
        // SAFETY: any value is allowed
        unsafe { tasc_close(drafter) };
    }
    assert_eq!(counts[Status::TascErrorInternal as usize], 0);
    for status in [
        Status::TascOk,
        Status::TascErrorArgument,
        Status::TascErrorHandle,
        Status::TascErrorIo,
        Status::TascErrorNotLearned,
    ] {
        assert!(counts[status as usize] > 20, "{status:?}: {counts:?}");
    }
}

#[test]
fn a_request_is_used_by_one_thread_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let good = c_path(&build(folder.path()));
    let (_, drafter) = open(good.as_ptr(), &DEFAULTS);
    let request = start(drafter).addr();
    let busy = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let (mut ids, mut len) = ([0; 32], 0);
                    let (costs, request) = ([1.0], without_provenance_mut(request));
                    // SAFETY: pointers to values
                    let status = unsafe {
                        tasc_draft(request, 32, costs.as_ptr(), 1, ids.as_mut_ptr(), null_mut(), &raw mut len)
                    };
                    assert!(matches!(status, Status::TascOk | Status::TascErrorBusy), "{status:?}");
                    busy.fetch_add(usize::from(status == Status::TascErrorBusy), std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    assert!(busy.into_inner() > 0 || std::thread::available_parallelism().is_ok_and(|n| n.get() == 1));
    // SAFETY: any value is allowed
    unsafe {
        assert_eq!(
            (tasc_finish(without_provenance_mut(request), 0), tasc_close(drafter)),
            (Status::TascOk, Status::TascOk)
        )
    };
}
