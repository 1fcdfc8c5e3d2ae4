//! The write-ahead log against plain vectors and against bytes put together by hand; what it does with damage.
#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use tasc_core::Error;
use tasc_core::corpus::online_log::{self, MAX_ROW_BYTES};
use tasc_core::corpus::{LogId, MergedLogs, OnlineRow, WriteAheadLog};
use tasc_core::format::{Fingerprint, MAGIC};
use xxhash_rust::xxh3::xxh3_64;

const MADE_BY: Fingerprint = Fingerprint([7; 32]);
const ID: LogId = LogId([3; 16]);
const HEADER: usize = 80;

/// docs/format.md, word by word.
fn naive_header(kind: &[u8; 4], major: u16, minor: u16, fingerprint: Fingerprint, id: LogId, next: u64) -> Vec<u8> {
    let versions = [major.to_le_bytes(), minor.to_le_bytes()].concat();
    let mut bytes = [&MAGIC[..], kind, &versions, &fingerprint.0, &id.0, &next.to_le_bytes()].concat();
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes
}

fn naive_record(number: u64, payload: &[u8]) -> Vec<u8> {
    let (length, number) = ((payload.len() as u32).to_le_bytes(), number.to_le_bytes());
    let sum = xxh3_64(&[&length, &number[..], payload].concat()).to_le_bytes();
    [&length[..], &sum, &number, payload].concat()
}

fn naive_payload(row: &OnlineRow) -> Vec<u8> {
    let ids: Vec<u8> = row.output.iter().flat_map(|id| id.to_le_bytes()).collect();
    let (length, key) = match row.key.len() as u32 {
        0 => (row.input.len() as u32, vec![]),
        bytes => (row.input.len() as u32 | 1 << 31, [&bytes.to_le_bytes(), row.key.as_bytes()].concat()),
    };
    [&length.to_le_bytes()[..], row.input.as_bytes(), &key, &ids].concat()
}

/// A log: its identity, the number in its header, its rows with their numbers.
#[derive(Clone, Debug, PartialEq)]
struct Naive {
    id: LogId,
    next: u64,
    rows: Vec<(u64, OnlineRow)>,
}

impl Naive {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = naive_header(b"SERV", 3, 0, MADE_BY, self.id, self.next);
        self.rows.iter().for_each(|(number, row)| bytes.extend(naive_record(*number, &naive_payload(row))));
        bytes
    }

    fn rows(&self) -> Vec<OnlineRow> {
        self.rows.iter().map(|row| row.1.clone()).collect()
    }

    /// What the log at `path` holds.
    fn of(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let id = LogId(bytes[48..64].try_into().unwrap());
        let next = u64::from_le_bytes(bytes[64..72].try_into().unwrap());
        let mut rows = Vec::new();
        let log = WriteAheadLog::open_each(path, &MADE_BY, MergedLogs::none(), |k, row| rows.push((k, row))).unwrap();
        assert_eq!(log.id(), id);
        let this = Self { id, next, rows };
        assert_eq!(std::fs::read(path).unwrap(), this.bytes());
        this
    }
}

/// The bytes of a log that was created and given rows, and where each of its records ends (the header first).
fn naive(rows: &[OnlineRow]) -> (Vec<u8>, Vec<usize>) {
    let log = |rows: &[OnlineRow]| Naive { id: ID, next: 0, rows: (0..).zip(rows.iter().cloned()).collect() }.bytes();
    (log(rows), (0..=rows.len()).map(|k| log(&rows[..k]).len()).collect())
}

fn row(input: &str, output: &[u32]) -> OnlineRow {
    OnlineRow { input: input.into(), output: output.into(), ..OnlineRow::default() }
}

fn some_rows() -> Vec<OnlineRow> {
    vec![row("", &[]), row("a", &[1, 2]), row("é 🙂", &[]), row("", &[u32::MAX - 1]), row("abcdefg", &[0, 0, 3, 9])]
}

fn rows() -> impl Strategy<Value = Vec<OnlineRow>> {
    let input = prop_oneof![Just(String::new()), "\\PC{0,9}", "[aé🙂\n]{1,4}"];
    let output = prop::collection::vec(prop_oneof![0..4u32, 0..u32::MAX], 0..6);
    let key = prop_oneof![Just(String::new()), "[a🙂]{1,3}"];
    prop::collection::vec((input, output, key).prop_map(|(input, output, key)| OnlineRow { input, output, key }), 0..7)
}

fn open(path: &Path) -> (WriteAheadLog, Vec<OnlineRow>) {
    WriteAheadLog::open(path, &MADE_BY).unwrap()
}

fn refusal(path: &Path) -> Error {
    let error = WriteAheadLog::open(path, &MADE_BY).err().unwrap();
    let read = online_log::read(path, &MADE_BY).err().unwrap();
    assert_eq!(error.to_string(), read.to_string());
    error
}

/// The log at `path` holds `rows`, takes another one, and holds both when it is opened again.
fn goes_on(path: &Path, rows: &[OnlineRow]) {
    let (mut log, found) = open(path);
    assert_eq!(found, rows);
    assert_eq!(log.rows(), rows.len() as u64);
    assert_eq!(log.bytes(), std::fs::metadata(path).unwrap().len());
    let before = std::fs::read(path).unwrap();
    let more = row("one more", &[5, 6]);
    let number = log.append(std::slice::from_ref(&more)).unwrap();
    drop(log);
    assert_eq!(std::fs::read(path).unwrap(), [before, naive_record(number, &naive_payload(&more))].concat());
    let all = Naive::of(path);
    assert_eq!(all.rows(), [rows, &[more]].concat());
    assert!(all.rows.is_sorted_by(|a, b| a.0 < b.0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_log_holds_what_went_in(rows in rows(), at_once in 1..4usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let (mut log, found) = open(&path);
        prop_assert_eq!(found, vec![]);
        rows.chunks(at_once).for_each(|batch| _ = log.append(batch).unwrap());
        log.append(&[]).unwrap();
        let bytes = Naive { id: log.id(), next: 0, rows: (0..).zip(rows.iter().cloned()).collect() }.bytes();
        prop_assert_eq!((log.rows(), log.bytes(), log.path()), (rows.len() as u64, bytes.len() as u64, &*path));
        prop_assert_eq!(&online_log::read(&path, &MADE_BY).unwrap(), &rows, "beside the writer");
        drop(log);
        prop_assert_eq!(std::fs::read(&path).unwrap(), bytes);
        goes_on(&path, &rows);
    }

    #[test]
    fn a_cut_leaves_the_rows_before_it(rows in rows(), at in any::<prop::sample::Index>()) {
        let (bytes, ends) = naive(&rows);
        let whole = |cut: usize| &rows[..ends.iter().filter(|&&end| end <= cut).count().saturating_sub(1)];
        for cut in 0..=bytes.len() {
            prop_assert_eq!(online_log::from_bytes(&bytes[..cut], &MADE_BY).unwrap(), whole(cut));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let cut = at.index(bytes.len() + 1);
        std::fs::write(&path, &bytes[..cut]).unwrap();
        prop_assert_eq!(online_log::read(&path, &MADE_BY).unwrap(), whole(cut));
        prop_assert_eq!(std::fs::read(&path).unwrap(), &bytes[..cut], "reading changes nothing");
        goes_on(&path, whole(cut));
    }

    #[test]
    fn a_wrong_byte_ends_the_log_there(rows in rows(), mask in 1..=255u8) {
        let (mut bytes, ends) = naive(&rows);
        for at in 0..bytes.len() {
            bytes[at] ^= mask;
            let found = online_log::from_bytes(&bytes, &MADE_BY);
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
        prop_assert_eq!(online_log::from_bytes(&bytes, &MADE_BY).unwrap(), rows);
    }

    #[test]
    fn forgetting_keeps_later_rows(rows in rows(), later in rows(), at in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let (mut log, _) = open(&path);
        log.append(&rows).unwrap();
        let merged = at.index(rows.len() + 3); // an index may have merged rows that this log has lost
        log.forget(merged as u64).unwrap();
        let next = merged.max(rows.len()) as u64;
        prop_assert_eq!(log.append(&later).unwrap(), next);
        let kept = (0..).zip(rows.iter().cloned()).skip(merged);
        let left = Naive { id: log.id(), next, rows: kept.chain((next..).zip(later.iter().cloned())).collect() };
        prop_assert_eq!((log.rows(), log.bytes()), (left.rows.len() as u64, left.bytes().len() as u64));
        prop_assert_eq!(std::fs::read(&path).unwrap(), left.bytes());
        prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(log);
        prop_assert_eq!(&Naive::of(&path), &left);
        goes_on(&path, &left.rows());
    }

    /// Whatever happens to a log: a row that an index has merged is never given again, every other row is.
    #[test]
    fn a_number_stands_for_one_row(steps in prop::collection::vec((0..5usize, 1..4u32), 1..30)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let mut log = open(&path).0.bounded(400);
        let (mut merged, mut in_index, mut count) = (MergedLogs::default(), BTreeMap::new(), 0);
        let mut seen: BTreeMap<u64, u32> = BTreeMap::new(); // by number
        for (step, size) in steps {
            match step {
                0 => {
                    let rows: Vec<_> = (count..count + size).map(|k| row("input", &[k])).collect();
                    count += size;
                    log.append(&rows).unwrap();
                }
                1 => {
                    let rows = online_log::read_unmerged(&path, &MADE_BY, &mut merged).unwrap();
                    for (_, row) in rows {
                        prop_assert!(in_index.insert(row.output[0], ()).is_none(), "row {} is merged twice", row.output[0]);
                    }
                }
                2 => log.forget(merged.next(&log.id())).unwrap(),
                3 => {
                    drop(log);
                    log = open(&path).0.bounded(400);
                }
                _ => {
                    drop(log);
                    let bytes = std::fs::read(&path).unwrap();
                    let cut = bytes.len() - (bytes.len() - HEADER).min(size as usize * 9);
                    std::fs::write(&path, [&bytes[..cut], &[0; 40]].concat()).unwrap(); // damage, then what looks like a tail
                    log = open(&path).0.bounded(400);
                }
            }
            drop(log);
            for (number, row) in Naive::of(&path).rows {
                let known = *seen.entry(number).or_insert(row.output[0]);
                prop_assert_eq!(known, row.output[0], "number {} was used twice", number);
            }
            let (mut unmerged, mut all) = (Vec::new(), Vec::new());
            log = WriteAheadLog::open_each(&path, &MADE_BY, &merged, |_, row| unmerged.push(row.output[0])).unwrap();
            all.extend(online_log::read(&path, &MADE_BY).unwrap().iter().map(|row| row.output[0]));
            log = log.bounded(400);
            all.retain(|k| !in_index.contains_key(k));
            prop_assert_eq!(unmerged, all, "rows to be taken in are those that are not merged");
        }
    }
}

/// What a log of at most `limit` bytes holds after another append, row by row.
fn naive_append(log: &mut Naive, next: &mut u64, more: &[OnlineRow], limit: usize) {
    let bytes = |rows: &[(u64, OnlineRow)]| {
        HEADER + rows.iter().map(|r| naive_record(0, &naive_payload(&r.1)).len()).sum::<usize>()
    };
    let mut more: Vec<_> = (*next..).zip(more.iter().cloned()).collect();
    *next += more.len() as u64;
    while bytes(&more) > limit {
        more.remove(0);
    }
    let needed = bytes(&more) - HEADER;
    if bytes(&log.rows) + needed > limit {
        log.next = *next;
        while !log.rows.is_empty() && (bytes(&log.rows) > limit / 2 || bytes(&log.rows) + needed > limit) {
            log.rows.remove(0);
        }
    }
    log.rows.extend(more);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_full_log_drops_its_oldest_rows(appends in prop::collection::vec(rows(), 0..12), limit in 200..900usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let mut log = open(&path).0.bounded(limit as u64);
        let (mut left, mut next) = (Naive { id: log.id(), next: 0, rows: Vec::new() }, 0);
        for more in &appends {
            log.append(more).unwrap();
            naive_append(&mut left, &mut next, more, limit);
            let bytes = left.bytes();
            prop_assert!(bytes.len() <= limit);
            prop_assert_eq!((log.rows(), log.bytes()), (left.rows.len() as u64, bytes.len() as u64));
            prop_assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        prop_assert!(matches!(WriteAheadLog::open(&path, &MADE_BY), Err(Error::Locked { .. })), "still locked");
        drop(log);
        goes_on(&path, &left.rows());
    }
}

#[test]
fn a_row_that_does_not_fit_a_bounded_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let mut log = open(&path).0.bounded(200);
    log.append(&some_rows()[..2]).unwrap();
    let message = log.append(&[row("", &[1]), row(&"x".repeat(97), &[])]).unwrap_err().to_string();
    assert!(message.contains("121 bytes") && message.contains("limit is 120"), "{message}");
    assert_eq!(online_log::read(&path, &MADE_BY).unwrap(), &some_rows()[..2]);
    let fits = row(&"x".repeat(96), &[]);
    log.append(std::slice::from_ref(&fits)).unwrap();
    assert_eq!((online_log::read(&path, &MADE_BY).unwrap(), log.bytes()), (vec![fits], 200));
    drop(log);
    let mut log = open(&path).0.bounded(108); // less than it has
    log.append(&[row("", &[1])]).unwrap();
    assert_eq!(online_log::read(&path, &MADE_BY).unwrap(), [row("", &[1])]);
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
    let keyed = (1u32 | 1 << 31).to_le_bytes();
    let payloads: [(&str, Vec<u8>); 10] = [
        ("an empty key", [&keyed[..], b"a", &[0; 4]].concat()),
        ("a key longer than the record", [&keyed[..], b"a", &2u32.to_le_bytes(), b"k"].concat()),
        ("a key that is no UTF-8", [&keyed[..], b"a", &2u32.to_le_bytes(), &[0xC3, 0x28]].concat()),
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
        let after = naive_record(6, &naive_payload(&row("after", &[1])));
        let bytes = [good.clone(), naive_record(5, &payload), after].concat();
        assert_eq!(online_log::from_bytes(&bytes, &MADE_BY).unwrap(), some_rows(), "{what}");
        std::fs::write(&path, bytes).unwrap();
        goes_on(&path, &some_rows());
    }
    for length in [MAX_ROW_BYTES, MAX_ROW_BYTES + 1, u32::MAX] {
        let bytes = [good.clone(), length.to_le_bytes().to_vec(), vec![1; 50]].concat();
        assert_eq!(online_log::from_bytes(&bytes, &MADE_BY).unwrap(), some_rows(), "a length of {length}");
    }
    let zeros = [good, vec![0; 5000]].concat();
    assert_eq!(online_log::from_bytes(&zeros, &MADE_BY).unwrap(), some_rows(), "what a power cut may leave");
}

#[test]
fn what_is_no_log_of_ours_is_refused_and_left_alone() {
    let mut damaged = naive(&some_rows()).0;
    damaged[70] = 1;
    let other = Fingerprint([9; 32]);
    let hex = other.to_string();
    let header = |kind, major, minor, fingerprint| naive_header(kind, major, minor, fingerprint, ID, 0);
    let files = [
        ("kind INDX, SERV is wanted", header(b"INDX", 3, 0, MADE_BY)),
        ("format version 4.4, this tasc reads 3.x", header(b"SERV", 4, 4, MADE_BY)),
        ("not a tasc file", vec![b'x'; 500]),
        ("not a tasc file", vec![0; 80]),
        ("its header is damaged", damaged),
        ("its header is damaged", naive_header(b"SERV", 3, 0, MADE_BY, ID, u64::MAX)),
        ("it has 9 bytes, a header has 80", b"some text".to_vec()),
        ("it has 20 bytes, a header has 80", header(b"SERV", 3, 0, other)[..20].to_vec()),
        (hex.as_str(), header(b"SERV", 3, 0, other)),
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
    let newer = [header(b"SERV", 3, 9, MADE_BY), naive_record(0, &naive_payload(&row("a", &[1])))].concat();
    assert_eq!(online_log::from_bytes(&newer, &MADE_BY).unwrap(), [row("a", &[1])], "any minor version is read");
    assert!(refusal(folder.path()).to_string().contains("it is no regular file but a folder"));
    assert!(matches!(refusal(&folder.path().join("no/folder")), Error::Io { .. }));
}

#[test]
fn a_header_that_was_not_finished_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    for bytes in [vec![], vec![0; 20], naive(&[]).0[..79].to_vec()] {
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(online_log::read(&path, &MADE_BY).unwrap(), []);
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
    assert!(matches!(WriteAheadLog::open(&link, &MADE_BY), Err(Error::Io { .. })));
    open(&path).0.append(&some_rows()).unwrap();
    goes_on(&link, &some_rows());
}

#[test]
fn one_writer_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let (mut log, _) = open(&path);
    let locked = || {
        let error = WriteAheadLog::open(&path, &MADE_BY).err().unwrap();
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
            match WriteAheadLog::open(&path, &MADE_BY) {
                Ok((mut log, _)) => break log.append(&[row("x", &[id])]).unwrap(),
                Err(Error::Locked { .. }) => std::thread::yield_now(),
                Err(other) => panic!("{other}"),
            }
        }
    };
    std::thread::scope(|s| (0..4).for_each(|t| drop(s.spawn(move || (0..5).for_each(|k| _ = turn(t * 5 + k))))));
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
                    log.forget(log.next() - 3).unwrap();
                }
            }
        });
        let mut last = 0;
        while !writer.is_finished() {
            let rows = online_log::read(&path, &MADE_BY).unwrap();
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
        let writer = s.spawn(move || (0..2000).for_each(|k| _ = log.append(&[row("some input", &[k])]).unwrap()));
        let (mut first, mut last) = (0, 0);
        while !writer.is_finished() {
            let rows = online_log::read(&path, &MADE_BY).unwrap();
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
    let larger = OnlineRow { input: format!("{}y", largest.input), ..largest.clone() };
    let message = log.append(&[row("", &[1]), larger]).unwrap_err().to_string();
    assert!(message.contains("16777217 bytes") && message.contains("limit is 16777216"), "{message}");
    let error = log.append(&[row("", &[1]), row("", &[u32::MAX])]).unwrap_err();
    assert!(matches!(error, Error::TokenId { id: u32::MAX, limit: u32::MAX }), "{error}");
    assert_eq!((log.rows(), log.bytes()), (0, HEADER as u64));
    log.append(std::slice::from_ref(&largest)).unwrap();
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

#[test]
fn records_without_a_rising_number_are_torn() {
    let rows = some_rows();
    for numbers in [[5, 5], [5, 4], [5, 0], [5, u64::MAX]] {
        let log = Naive { id: ID, next: 0, rows: numbers.into_iter().zip(rows.clone()).collect() };
        assert_eq!(online_log::from_bytes(&log.bytes(), &MADE_BY).unwrap(), rows[..1], "{numbers:?}");
    }
    let log = Naive { id: ID, next: 0, rows: [5, 900].into_iter().zip(rows.clone()).collect() };
    assert_eq!(online_log::from_bytes(&log.bytes(), &MADE_BY).unwrap(), rows[..2]);
}

/// A log of version 1 has no identity and no numbers.
fn old_log(rows: &[OnlineRow]) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], b"SERV", &[1, 0, 0, 0], &MADE_BY.0, &[0; 8]].concat();
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    for payload in rows.iter().map(naive_payload) {
        let length = (payload.len() as u32).to_le_bytes();
        bytes.extend([&length[..], &xxh3_64(&[&length, &payload[..]].concat()).to_le_bytes(), &payload].concat());
    }
    bytes
}

#[test]
fn a_log_of_version_1_keeps_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    for rows in [&some_rows()[..], &[]] {
        let bytes = old_log(rows);
        std::fs::write(&path, [&bytes[..], &[1, 2, 3]].concat()).unwrap();
        let message = online_log::read_unmerged(&path, &MADE_BY, &mut MergedLogs::default()).unwrap_err().to_string();
        assert!(message.contains("format version 1.0") && message.contains("without -o"), "{message}");
        assert_eq!(online_log::read(&path, &MADE_BY).unwrap(), rows);
        assert_eq!(std::fs::read(&path).unwrap().len(), bytes.len() + 3, "reading changes nothing");
        goes_on(&path, rows);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
    let first = Naive::of(&path).id;
    std::fs::write(&path, old_log(&[])).unwrap();
    assert_ne!(open(&path).0.id(), first, "every log gets an identity of its own");
}

#[test]
fn a_log_of_version_2_keeps_its_identity_and_its_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let numbered: Vec<_> = [4, 7, 9, 12, 13].into_iter().zip(some_rows()).collect();
    let mut bytes = Naive { id: ID, next: 20, rows: numbered.clone() }.bytes();
    bytes.splice(..HEADER, naive_header(b"SERV", 2, 0, MADE_BY, ID, 20));
    std::fs::write(&path, &bytes).unwrap();
    let mut merged = MergedLogs::default();
    assert_eq!(online_log::read_unmerged(&path, &MADE_BY, &mut merged).unwrap(), numbered);
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "reading changes nothing");
    assert_eq!(open(&path).0.next(), 20);
    assert_eq!(Naive::of(&path), Naive { id: ID, next: 20, rows: numbered });
    goes_on(&path, &some_rows());
}

const DAY: u64 = 24 * 60 * 60;

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn numbers_say_when_a_row_was_added() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let (mut log, _) = open(&path);
    log.append(&some_rows()[..2]).unwrap();
    let mut log = log.timed(None).unwrap();
    let first = now();
    log.append(&some_rows()[2..4]).unwrap();
    log.append(&some_rows()[4..]).unwrap();
    let last = now();
    drop(log);
    let found = Naive::of(&path);
    assert_eq!(found.rows(), some_rows());
    let times: Vec<_> = found.rows.iter().map(|(number, _)| online_log::time_of(*number)).collect();
    assert_eq!(times[..2], [None, None]);
    assert!(times[2..].iter().all(|t| (first..=last).contains(&t.unwrap())), "{times:?}");
    assert!((0..1 << 40).step_by(99_999_999_937).all(|t| [0, t << 28].contains(&online_log::number_at(t))));
    assert_eq!(online_log::time_of(online_log::number_at(first)), Some(first));
}

#[test]
fn rows_leave_a_log_after_so_many_days() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let aged = |ages: &[u64]| {
        let numbers = ages.iter().map(|age| if *age == u64::MAX { 0 } else { online_log::number_at(now() - age) });
        let numbers = numbers.zip(0..).map(|(number, k)| number + k);
        let log = Naive { id: ID, next: 0, rows: numbers.zip(some_rows()).collect() };
        std::fs::write(&path, log.bytes()).unwrap();
    };
    let left = |days| {
        drop(open(&path).0.timed(days).unwrap());
        Naive::of(&path).rows().len()
    };
    aged(&[u64::MAX, 3 * DAY, 2 * DAY + 60, DAY + 60, 0]);
    assert_eq!([left(None), left(Some(4)), left(Some(2)), left(Some(2)), left(Some(1))], [5, 5, 2, 2, 1]);
    aged(&[u64::MAX, DAY / 2, 0]);
    assert_eq!(left(Some(1)), 3, "a row without a time stays with those behind it");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn retaining_keeps_numbers(rows in rows(), later in rows(), kept in prop::collection::vec(any::<bool>(), 7)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let (mut log, _) = open(&path);
        log.append(&rows).unwrap();
        log.retain(|number| kept[number as usize]).unwrap();
        let next = rows.len() as u64;
        prop_assert_eq!(log.append(&later).unwrap(), next);
        let left = (0..).zip(rows.iter().cloned()).filter(|(number, _)| kept[*number as usize]);
        let left = Naive { id: log.id(), next, rows: left.chain((next..).zip(later.iter().cloned())).collect() };
        prop_assert_eq!((log.rows(), log.bytes()), (left.rows.len() as u64, left.bytes().len() as u64));
        drop(log);
        prop_assert_eq!(Naive::of(&path), left);
    }
}

#[test]
fn a_log_that_nobody_writes_to_can_be_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    online_log::delete(&path, &MADE_BY).unwrap();
    let (mut log, _) = open(&path);
    log.append(&some_rows()).unwrap();
    assert!(matches!(online_log::delete(&path, &MADE_BY), Err(Error::Locked { .. })));
    drop(log);
    online_log::delete(&path, &MADE_BY).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
