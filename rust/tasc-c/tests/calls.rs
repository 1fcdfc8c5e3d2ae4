//! The functions return what the core's `Drafter` returns on the same calls.
#![allow(clippy::unwrap_used)] // a test may

mod recorded;

use std::ffi::CString;
use std::path::Path;
use std::ptr::{null, null_mut};

use recorded::{Call, build, record};
use tasc::{
    Options, Status, tasc_close, tasc_draft, tasc_drafter, tasc_finish, tasc_open, tasc_request, tasc_start,
    tasc_update,
};

fn open(index: &Path, fixed: bool, log: Option<&Path>) -> *mut tasc_drafter {
    let text = |path: &Path| CString::new(path.to_str().unwrap()).unwrap();
    let (index, log) = (text(index), log.map(text));
    let log = log.as_ref().map_or(null(), |log| log.as_ptr());
    let options = Options { size: size_of::<Options>(), log, vocab_size: 0, fixed: fixed.into() };
    let mut drafter = null_mut();
    // SAFETY: pointers to values
    assert_eq!(unsafe { tasc_open(index.as_ptr(), &raw const options, &raw mut drafter) }, Status::TascOk);
    drafter
}

/// Makes recorded calls and compares what they return.
fn replay(drafter: *const tasc_drafter, calls: &[Call]) {
    let mut requests: Vec<*mut tasc_request> = Vec::new();
    for call in calls {
        match call {
            Call::Start { prompt, input } => {
                let mut request = null_mut();
                let (text, len) = input.as_ref().map_or((null(), 0), |input| (input.as_ptr().cast(), input.len()));
                // SAFETY: pointers to values
                let status = unsafe { tasc_start(drafter, prompt.as_ptr(), prompt.len(), text, len, &raw mut request) };
                assert_eq!(status, Status::TascOk);
                requests.push(request);
            }
            Call::Draft { request, max_tokens, costs, tokens, probabilities } => {
                let (costs, num_costs) = costs.as_ref().map_or((null(), 0), |costs| (costs.as_ptr(), costs.len()));
                let (mut ids, mut found, mut len) = (vec![0u32; *max_tokens], vec![0f32; *max_tokens], 0);
                let (ids_at, found_at) = (ids.as_mut_ptr(), found.as_mut_ptr());
                // SAFETY: pointers to values
                let status = unsafe {
                    tasc_draft(requests[*request], *max_tokens, costs, num_costs, ids_at, found_at, &raw mut len)
                };
                assert_eq!(status, Status::TascOk);
                assert_eq!((&ids[..len], &found[..len]), (&tokens[..], &probabilities[..]));
            }
            Call::Update { request, emitted } => {
                // SAFETY: pointers to values
                let status = unsafe { tasc_update(requests[*request], emitted.as_ptr(), emitted.len()) };
                assert_eq!(status, Status::TascOk);
            }
            Call::Finish { request, learn } => {
                // SAFETY: any value is allowed
                assert_eq!(unsafe { tasc_finish(requests[*request], i32::from(*learn)) }, Status::TascOk);
            }
        }
    }
}

fn close(drafter: *mut tasc_drafter) {
    // SAFETY: any value is allowed
    assert_eq!(unsafe { tasc_close(drafter) }, Status::TascOk);
}

fn drafted(calls: &[Call]) -> usize {
    calls.iter().map(|call| if let Call::Draft { tokens, .. } = call { tokens.len() } else { 0 }).sum()
}

#[test]
fn drafts_are_those_of_the_drafter_which_learns() {
    let folder = tempfile::tempdir().unwrap();
    let index = build(folder.path());
    for seed in 0..4 {
        let calls = record(&index, seed, 400, false, true);
        assert!(drafted(&calls) > 1000 && calls.iter().any(|call| matches!(call, Call::Finish { learn: true, .. })));
        let drafter = open(&index, false, None);
        replay(drafter, &calls);
        close(drafter);
    }
}

#[test]
fn threads_share_a_drafter() {
    let folder = tempfile::tempdir().unwrap();
    let index = build(folder.path());
    let drafter = open(&index, true, None);
    let address = drafter.addr();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let index = &index;
            scope.spawn(move || {
                let calls = record(index, 100 + seed, 300, true, false);
                replay(std::ptr::without_provenance(address), &calls);
            });
        }
    });
    close(drafter);
}

#[test]
fn a_log_keeps_what_was_learned() {
    let folder = tempfile::tempdir().unwrap();
    let (index, log) = (build(folder.path()), folder.path().join("online.log"));
    let (prompt, output) = ([1, 2, 3], [9, 8, 7, 6, 5, 4, recorded::EOS]);
    let first_draft = |drafter: *mut tasc_drafter| {
        let (mut request, mut ids, mut len) = (null_mut(), [0; 16], 0);
        // SAFETY: pointers to values
        unsafe {
            assert_eq!(tasc_start(drafter, prompt.as_ptr(), 3, null(), 0, &raw mut request), Status::TascOk);
            assert_eq!(tasc_update(request, output.as_ptr(), 2), Status::TascOk);
            let costs = [1.0, 1.0];
            let status = tasc_draft(request, 16, costs.as_ptr(), 2, ids.as_mut_ptr(), null_mut(), &raw mut len);
            assert_eq!(status, Status::TascOk);
            assert_eq!(tasc_update(request, output[2..].as_ptr(), 5), Status::TascOk);
            assert_eq!(tasc_finish(request, 1), Status::TascOk);
        }
        ids[..len].to_vec()
    };
    let drafter = open(&index, true, Some(&log));
    assert_ne!(first_draft(drafter).get(..4), Some(&output[2..6]));
    close(drafter);
    let drafter = open(&index, true, Some(&log));
    assert_eq!(first_draft(drafter).get(..4), Some(&output[2..6]));
    close(drafter);
}
