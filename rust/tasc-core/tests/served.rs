//! The log of served rows against plain vectors and against bytes put together by hand; what it does with damage.
#![allow(clippy::unwrap_used)]
use std::path::Path;

use proptest::prelude::*;
use tasc_core::Error;
use tasc_core::corpus::served::{self, MAX_ROW_BYTES};
use tasc_core::corpus::{ServedLog, ServedRow};
use tasc_core::format::{Fingerprint, MAGIC};
use xxhash_rust::xxh3::xxh3_64;

const MADE_BY: Fingerprint = Fingerprint([7; 32]);
const HEADER: usize = 64;

/// docs/format.md, word by word.
fn naive_header(kind: &[u8; 4], major: u16, minor: u16, fingerprint: Fingerprint) -> Vec<u8> {
    let versions = [major.to_le_bytes(), minor.to_le_bytes()].concat();
    let mut bytes = [&MAGIC[..], kind, &versions, &fingerprint.0, &[0; 8]].concat();
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes
}

fn naive_record(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_le_bytes();
    let sum = xxh3_64(&[&length, payload].concat()).to_le_bytes();
    [&length[..], &sum, payload].concat()
}

fn naive_payload(row: &ServedRow) -> Vec<u8> {
    let ids: Vec<u8> = row.output.iter().flat_map(|id| id.to_le_bytes()).collect();
    [&(row.input.len() as u32).to_le_bytes()[..], row.input.as_bytes(), &ids].concat()
}

/// The bytes of a log, and where each of its records ends (the header first).
fn naive(rows: &[ServedRow]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = naive_header(b"SERV", 1, 0, MADE_BY);
    let mut ends = vec![bytes.len()];
    for row in rows {
        bytes.extend(naive_record(&naive_payload(row)));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn row(input: &str, output: &[u32]) -> ServedRow {
    ServedRow { input: input.into(), output: output.into() }
}

fn some_rows() -> Vec<ServedRow> {
    vec![row("", &[]), row("a", &[1, 2]), row("é 🙂", &[]), row("", &[u32::MAX - 1]), row("abcdefg", &[0, 0, 3, 9])]
}

fn rows() -> impl Strategy<Value = Vec<ServedRow>> {
    let input = prop_oneof![Just(String::new()), "\\PC{0,9}", "[aé🙂\n]{1,4}"];
    let output = prop::collection::vec(prop_oneof![0..4u32, 0..u32::MAX], 0..6);
    prop::collection::vec((input, output).prop_map(|(input, output)| ServedRow { input, output }), 0..7)
}

fn open(path: &Path) -> (ServedLog, Vec<ServedRow>) {
    ServedLog::open(path, &MADE_BY).unwrap()
}

fn refusal(path: &Path) -> Error {
    let error = ServedLog::open(path, &MADE_BY).err().unwrap();
    let read = served::read(path, &MADE_BY).err().unwrap();
    assert_eq!(error.to_string(), read.to_string());
    error
}

/// The log at `path` holds `rows`, takes another one, and holds both when it is opened again.
fn goes_on(path: &Path, rows: &[ServedRow]) {
    let (mut log, found) = open(path);
    assert_eq!(found, rows);
    assert_eq!(log.rows(), rows.len() as u64);
    assert_eq!(log.bytes(), std::fs::metadata(path).unwrap().len());
    let more = row("one more", &[5, 6]);
    log.append(std::slice::from_ref(&more)).unwrap();
    drop(log);
    let all = [rows, &[more]].concat();
    assert_eq!(std::fs::read(path).unwrap(), naive(&all).0);
    assert_eq!(open(path).1, all);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_log_holds_what_went_in(rows in rows(), at_once in 1..4usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let (mut log, found) = open(&path);
        prop_assert_eq!(found, vec![]);
        rows.chunks(at_once).for_each(|batch| log.append(batch).unwrap());
        log.append(&[]).unwrap();
        let (bytes, _) = naive(&rows);
        prop_assert_eq!((log.rows(), log.bytes(), log.path()), (rows.len() as u64, bytes.len() as u64, &*path));
        prop_assert_eq!(&served::read(&path, &MADE_BY).unwrap(), &rows, "beside the writer");
        drop(log);
        prop_assert_eq!(std::fs::read(&path).unwrap(), bytes);
        goes_on(&path, &rows);
    }

    #[test]
    fn a_cut_leaves_the_rows_before_it(rows in rows(), at in any::<prop::sample::Index>()) {
        let (bytes, ends) = naive(&rows);
        let whole = |cut: usize| &rows[..ends.iter().filter(|&&end| end <= cut).count().saturating_sub(1)];
        for cut in 0..=bytes.len() {
            prop_assert_eq!(served::from_bytes(&bytes[..cut], &MADE_BY).unwrap(), whole(cut));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let cut = at.index(bytes.len() + 1);
        std::fs::write(&path, &bytes[..cut]).unwrap();
        prop_assert_eq!(served::read(&path, &MADE_BY).unwrap(), whole(cut));
        prop_assert_eq!(std::fs::read(&path).unwrap(), &bytes[..cut], "reading changes nothing");
        goes_on(&path, whole(cut));
    }

    #[test]
    fn a_wrong_byte_ends_the_log_there(rows in rows(), mask in 1..=255u8) {
        let (mut bytes, ends) = naive(&rows);
        for at in 0..bytes.len() {
            bytes[at] ^= mask;
            let found = served::from_bytes(&bytes, &MADE_BY);
            bytes[at] ^= mask;
            if at < HEADER {
                prop_assert!(matches!(found, Err(Error::Format { .. })), "byte {at}: {found:?}");
            } else {
                let before = ends.iter().filter(|&&end| end <= at).count() - 1;
                prop_assert_eq!(found.unwrap(), &rows[..before], "byte {}", at);
            }
        }
    }

    #[test]
    fn any_bytes_behind_a_header_are_a_torn_tail(rows in rows(), tail in prop::collection::vec(any::<u8>(), 0..40)) {
        let bytes = [naive(&rows).0, tail].concat();
        prop_assert_eq!(served::from_bytes(&bytes, &MADE_BY).unwrap(), rows);
    }

    #[test]
    fn forgetting_keeps_later_rows(rows in rows(), later in rows(), at in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let (mut log, _) = open(&path);
        log.append(&rows).unwrap();
        let taken = at.index(rows.len() + 1);
        log.forget(taken as u64).unwrap();
        log.append(&later).unwrap();
        let left = [&rows[taken..], &later].concat();
        let (bytes, _) = naive(&left);
        prop_assert_eq!((log.rows(), log.bytes()), (left.len() as u64, bytes.len() as u64));
        prop_assert_eq!(std::fs::read(&path).unwrap(), bytes);
        prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(log);
        goes_on(&path, &left);
    }
}

/// What a log of at most `limit` bytes holds after another append, row by row.
fn naive_append(rows: &mut Vec<ServedRow>, more: &[ServedRow], limit: usize) {
    let bytes = |rows: &[ServedRow]| naive(rows).0.len();
    let mut more = more.to_vec();
    while bytes(&more) > limit {
        more.remove(0);
    }
    let needed = bytes(&more) - HEADER;
    if bytes(rows) + needed > limit {
        while !rows.is_empty() && (bytes(rows) > limit / 2 || bytes(rows) + needed > limit) {
            rows.remove(0);
        }
    }
    rows.extend(more);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_full_log_drops_its_oldest_rows(appends in prop::collection::vec(rows(), 0..12), limit in 200..900usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let mut log = open(&path).0.bounded(limit as u64);
        let mut left = Vec::new();
        for more in &appends {
            log.append(more).unwrap();
            naive_append(&mut left, more, limit);
            let (bytes, _) = naive(&left);
            prop_assert!(bytes.len() <= limit);
            prop_assert_eq!((log.rows(), log.bytes()), (left.len() as u64, bytes.len() as u64));
            prop_assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        prop_assert!(matches!(ServedLog::open(&path, &MADE_BY), Err(Error::Locked { .. })), "still locked");
        drop(log);
        goes_on(&path, &left);
    }
}

#[test]
fn a_row_that_does_not_fit_a_bounded_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let mut log = open(&path).0.bounded(200);
    log.append(&some_rows()[..2]).unwrap();
    let message = log.append(&[row("", &[1]), row(&"x".repeat(121), &[])]).unwrap_err().to_string();
    assert!(message.contains("137 bytes") && message.contains("limit is 136"), "{message}");
    assert_eq!(served::read(&path, &MADE_BY).unwrap(), &some_rows()[..2]);
    let fits = row(&"x".repeat(120), &[]);
    log.append(std::slice::from_ref(&fits)).unwrap();
    assert_eq!((served::read(&path, &MADE_BY).unwrap(), log.bytes()), (vec![fits], 200));
    drop(log);
    let mut log = open(&path).0.bounded(100); // less than it has
    log.append(&[row("", &[1])]).unwrap();
    assert_eq!(served::read(&path, &MADE_BY).unwrap(), [row("", &[1])]);
}

#[test]
fn a_log_cut_at_any_byte_goes_on() {
    let (bytes, ends) = naive(&some_rows());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    for cut in 0..=bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|&&end| end <= cut).count().saturating_sub(1);
        goes_on(&path, &some_rows()[..whole]);
    }
}

#[test]
fn records_that_cannot_be_rows_are_torn_whatever_their_checksum_says() {
    let payloads: [(&str, Vec<u8>); 7] = [
        ("nothing", vec![]),
        ("half an input length", vec![0; 3]),
        ("an input longer than the record", [&9u32.to_le_bytes()[..], b"12345678"].concat()),
        ("an input length of 2³² − 1", [&[255; 4][..], b"12345678"].concat()),
        ("no UTF-8", [&2u32.to_le_bytes()[..], &[0xC3, 0x28]].concat()),
        ("half an id", [&1u32.to_le_bytes()[..], b"a", &[1, 0, 0, 0, 2, 0]].concat()),
        ("the reserved id", [&1u32.to_le_bytes()[..], b"a", &[255; 4]].concat()),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let (good, _) = naive(&some_rows());
    for (what, payload) in payloads {
        let after = naive_record(&naive_payload(&row("after", &[1])));
        let bytes = [good.clone(), naive_record(&payload), after].concat();
        assert_eq!(served::from_bytes(&bytes, &MADE_BY).unwrap(), some_rows(), "{what}");
        std::fs::write(&path, bytes).unwrap();
        goes_on(&path, &some_rows());
    }
    for length in [MAX_ROW_BYTES, MAX_ROW_BYTES + 1, u32::MAX] {
        let bytes = [good.clone(), length.to_le_bytes().to_vec(), vec![1; 50]].concat();
        assert_eq!(served::from_bytes(&bytes, &MADE_BY).unwrap(), some_rows(), "a length of {length}");
    }
    let zeros = [good, vec![0; 5000]].concat();
    assert_eq!(served::from_bytes(&zeros, &MADE_BY).unwrap(), some_rows(), "what a power cut may leave");
}

#[test]
fn what_is_no_log_of_ours_is_refused_and_left_alone() {
    let mut damaged = naive(&some_rows()).0;
    damaged[50] = 1;
    let other = Fingerprint([9; 32]);
    let hex = other.to_string();
    let files = [
        ("kind INDX, SERV is wanted", naive_header(b"INDX", 1, 0, MADE_BY)),
        ("format version 2.3, this tasc reads 1.x", naive_header(b"SERV", 2, 3, MADE_BY)),
        ("not a tasc file", vec![b'x'; 500]),
        ("not a tasc file", vec![0; 64]),
        ("its header is damaged", damaged),
        ("it has 9 bytes, a header has 64", b"some text".to_vec()),
        ("it has 20 bytes, a header has 64", naive_header(b"SERV", 1, 0, other)[..20].to_vec()),
        (hex.as_str(), naive_header(b"SERV", 1, 0, other)),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    for (why, bytes) in files {
        std::fs::write(&path, &bytes).unwrap();
        let error = refusal(&path);
        let message = error.to_string();
        assert!(message.contains(why) && message.contains("t.served"), "{message}");
        assert_eq!(matches!(error, Error::Fingerprint { .. }), why.len() == 64, "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{why}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let newer = [naive_header(b"SERV", 1, 9, MADE_BY), naive_record(&naive_payload(&row("a", &[1])))].concat();
    assert_eq!(served::from_bytes(&newer, &MADE_BY).unwrap(), [row("a", &[1])], "any minor version is read");
    assert!(matches!(refusal(folder.path()), Error::Io { .. }));
    assert!(matches!(refusal(&folder.path().join("no/folder")), Error::Io { .. }));
}

#[test]
fn a_header_that_was_not_finished_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    for bytes in [vec![], vec![0; 20], naive(&[]).0[..63].to_vec()] {
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(served::read(&path, &MADE_BY).unwrap(), []);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        goes_on(&path, &[]);
    }
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_and_one_that_leads_nowhere_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("t.served"), folder.path().join("link"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(ServedLog::open(&link, &MADE_BY), Err(Error::Io { .. })));
    open(&path).0.append(&some_rows()).unwrap();
    goes_on(&link, &some_rows());
}

#[test]
fn one_writer_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let (mut log, _) = open(&path);
    let locked = || {
        let error = ServedLog::open(&path, &MADE_BY).err().unwrap();
        assert!(matches!(error, Error::Locked { .. }) && error.to_string().contains("t.served"), "{error}");
    };
    locked();
    log.append(&some_rows()).unwrap();
    log.forget(2).unwrap();
    locked();
    drop(log);
    let half = naive(&[]).0[..30].to_vec();
    std::fs::write(&path, half).unwrap();
    let (log, _) = open(&path);
    locked();
    drop(log);
    goes_on(&path, &[]);
}

#[test]
fn writers_that_take_turns_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let turn = |id: u32| {
        loop {
            match ServedLog::open(&path, &MADE_BY) {
                Ok((mut log, _)) => break log.append(&[row("x", &[id])]).unwrap(),
                Err(Error::Locked { .. }) => std::thread::yield_now(),
                Err(other) => panic!("{other}"),
            }
        }
    };
    std::thread::scope(|s| (0..4).for_each(|t| drop(s.spawn(move || (0..5).for_each(|k| turn(t * 5 + k))))));
    let mut ids: Vec<u32> = open(&path).1.iter().map(|r| r.output[0]).collect();
    ids.sort_unstable();
    assert_eq!(ids, Vec::from_iter(0..20));
}

#[test]
fn a_reader_beside_a_writer_sees_rows_without_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let (mut log, _) = open(&path);
    std::thread::scope(|s| {
        let writer = s.spawn(move || {
            for k in 0..100u32 {
                log.append(&[row("some input", &[2 * k]), row("", &[2 * k + 1])]).unwrap();
                if k % 7 == 6 {
                    log.forget(log.rows() - 3).unwrap();
                }
            }
        });
        let mut last = 0;
        while !writer.is_finished() {
            let rows = served::read(&path, &MADE_BY).unwrap();
            assert!(rows.windows(2).all(|w| w[0].output[0] + 1 == w[1].output[0]));
            let end = rows.last().map_or(0, |r| r.output[0]);
            assert!(end >= last, "{end} after {last}");
            last = end;
        }
    });
}

/// What a reader can see is what a crash can leave.
#[test]
fn rows_leave_a_full_log_only_when_others_are_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let mut log = open(&path).0.bounded(600);
    std::thread::scope(|s| {
        let writer = s.spawn(move || (0..2000).for_each(|k| log.append(&[row("some input", &[k])]).unwrap()));
        let (mut first, mut last) = (0, 0);
        while !writer.is_finished() {
            let rows = served::read(&path, &MADE_BY).unwrap();
            let (Some(oldest), Some(latest)) = (rows.first(), rows.last()) else { continue };
            let now = (oldest.output[0], latest.output[0]);
            assert!(now.0 == first || now.1 > last, "{first} ..= {last} became {} ..= {}", now.0, now.1);
            (first, last) = now;
        }
    });
}

#[test]
fn refusals_name_value_and_limit_and_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let (mut log, _) = open(&path);
    let largest = row(&"x".repeat(MAX_ROW_BYTES as usize - 12), &[1, 2]);
    let larger = ServedRow { input: format!("{}y", largest.input), ..largest.clone() };
    let message = log.append(&[row("", &[1]), larger]).unwrap_err().to_string();
    assert!(message.contains("16777217 bytes") && message.contains("limit is 16777216"), "{message}");
    let error = log.append(&[row("", &[1]), row("", &[u32::MAX])]).unwrap_err();
    assert!(matches!(error, Error::TokenId { id: u32::MAX, limit: u32::MAX }), "{error}");
    assert_eq!((log.rows(), log.bytes()), (0, HEADER as u64));
    log.append(std::slice::from_ref(&largest)).unwrap();
    let error = log.forget(2).unwrap_err();
    assert!(matches!(error, Error::OutOfRange { index: 2, limit: 1, .. }), "{error}");
    drop(log);
    assert!(open(&path).1 == [largest]);
}

#[test]
fn damage_since_the_log_was_opened_is_not_carried_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let (mut log, _) = open(&path);
    log.append(&some_rows()).unwrap();
    let (mut bytes, ends) = naive(&some_rows());
    bytes[ends[1] + 15] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let message = log.forget(1).unwrap_err().to_string();
    assert!(message.contains("row 1 of 5 was damaged"), "{message}");
    drop(log);
    goes_on(&path, &some_rows()[..1]);
}
