//! The write-ahead log in processes that are killed, and on a disk that is full. Apart from the other tests of the
//! log, because a process that is being started holds its parent's locks for a moment.
#![allow(clippy::unwrap_used)]
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tasc_core::Error;
use tasc_core::corpus::{MergedLogs, OnlineRow, WriteAheadLog, online_log};
use tasc_core::format::Fingerprint;

const MADE_BY: Fingerprint = Fingerprint([7; 32]);

/// Says which log a process that was started here writes.
const LOG: &str = "TASC_TEST_SERVED_LOG";

/// Set: such a process forgets rows now and then.
const FORGETS: &str = "TASC_TEST_SERVED_FORGETS";

/// Set: it drops its oldest rows past `LIMIT` bytes.
const BOUNDED: &str = "TASC_TEST_SERVED_BOUNDED";
const LIMIT: u64 = 100_000;

/// Most rows of one append.
const AT_ONCE: u32 = 3;

static ALONE: Mutex<()> = Mutex::new(());

/// Row k, up to several pages long.
fn numbered(k: u32) -> OnlineRow {
    let input = format!("row {k} ").repeat((k as usize * 7919) % 2000);
    OnlineRow { input, output: (k..=k + k % 50).collect(), ..OnlineRow::default() }
}

fn append(log: &mut WriteAheadLog, from: u32, to: u32) {
    log.append(&(from..to).map(numbered).collect::<Vec<_>>()).unwrap();
}

/// What the tests below start and kill: appends rows 0, 1, 2, … and says which of them are on disk.
#[test]
#[ignore = "started by other tests"]
fn child() {
    let Some(path) = std::env::var_os(LOG) else { return };
    let (log, rows) = WriteAheadLog::open(Path::new(&path), &MADE_BY).unwrap();
    let mut log = if std::env::var_os(BOUNDED).is_some() { log.bounded(LIMIT) } else { log };
    let mut next = rows.last().map_or(0, |row| row.output[0] + 1);
    for round in 1.. {
        let end = next + 1 + round % AT_ONCE;
        append(&mut log, next, end);
        next = end;
        let (mut out, first) = (std::io::stdout(), u64::from(next) - log.rows());
        writeln!(out, "\nacknowledged {first} {next}").and_then(|()| out.flush()).unwrap(); // ends with its parent, too
        if round % 5 == 0 && std::env::var_os(FORGETS).is_some() {
            log.forget(log.next().saturating_sub(2)).unwrap();
        }
    }
}

/// Starts a child, kills it a while after its `acknowledged`-th message, and returns the last one: the first row on disk, and
/// the one after the last.
fn killed(path: &Path, acknowledged: usize, after: Duration, set: Option<&str>) -> Option<(u32, u32)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--ignored", "--nocapture"]).env(LOG, path).stdout(Stdio::piped());
    command.envs(set.map(|name| (name, "1")));
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut messages = lines.filter_map(|line| {
        let line = line.ok()?;
        let (first, next) = line.strip_prefix("acknowledged ")?.split_once(' ')?;
        Some((first.parse().ok()?, next.parse().ok()?))
    });
    let early = messages.by_ref().take(acknowledged).last();
    std::thread::sleep(after);
    child.kill().unwrap();
    let late = messages.last();
    assert_ne!(child.wait().unwrap().code(), Some(101), "it failed before it was killed");
    late.or(early)
}

/// Kills twenty children on one log, from its creation on; after each, what was acknowledged is there.
fn kill(set: Option<&str>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut total, mut dropped) = (0, false);
    for log in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.served");
        let (mut on_disk, mut by_number) = ((0, 0), HashMap::new());
        for round in 0..5 {
            let number = log * 5 + round;
            let acknowledged = if round == 0 { 0 } else { number % 7 };
            let after = Duration::from_micros((number as u64 * 7919) % 6000);
            let (first_acked, acked) = killed(&path, acknowledged, after, set).unwrap_or(on_disk);
            let seen = if path.exists() { online_log::read(&path, &MADE_BY).unwrap() } else { Vec::new() };
            let (mut rows, mut numbers) = (Vec::new(), Vec::new());
            let each = |number, row: OnlineRow| {
                numbers.push((number, row.output[0]));
                rows.push(row);
            };
            let log = WriteAheadLog::open_each(&path, &MADE_BY, MergedLogs::none(), each).unwrap();
            for (number, row) in numbers {
                assert_eq!(*by_number.entry(number).or_insert(row), row, "number {number} was used twice");
            }
            assert!(seen == rows, "a reader sees what a writer finds");
            let first = rows.first().map_or(0, |row| row.output[0]);
            let end = first + rows.len() as u32;
            assert!(rows == (first..end).map(numbered).collect::<Vec<_>>(), "rows {first}.. are not what was written");
            assert!((acked..=acked + AT_ONCE).contains(&end), "{acked} rows acknowledged, {end} on disk");
            match set {
                None => assert_eq!(first, 0, "rows {first}..{end}"),
                Some(FORGETS) => assert!(rows.len() as u32 >= end.min(2), "rows {first}..{end}"),
                _ => {
                    assert!(log.bytes() <= LIMIT && (log.bytes() > LIMIT / 4 || first == 0), "rows {first}..{end}");
                    assert!(first == first_acked || end > acked, "{first_acked}..{acked} became {first}..{end}");
                }
            }
            dropped |= first > 0;
            assert_eq!(log.bytes(), std::fs::metadata(&path).unwrap().len());
            on_disk = (first, end);
        }
        total += on_disk.1;
    }
    assert_eq!(dropped, set.is_some(), "rows were dropped");
    assert!(total > 20, "{total} rows: the children were killed before they wrote");
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    kill(None);
}

#[test]
fn so_does_what_was_not_forgotten() {
    kill(Some(FORGETS));
}

#[test]
fn so_does_what_a_full_log_has_kept() {
    kill(Some(BOUNDED));
}

/// Started where files cannot grow past some kilobytes.
#[test]
#[ignore = "started by another test"]
fn child_on_a_full_disk() {
    let Some(path) = std::env::var_os(LOG) else { return };
    let (mut log, _) = WriteAheadLog::open(Path::new(&path), &MADE_BY).unwrap();
    let small = |k: u32| OnlineRow { input: "small".into(), output: vec![k], ..OnlineRow::default() };
    log.append(&[small(1)]).unwrap();
    let bytes = log.bytes();
    let error = log
        .append(&[small(2), OnlineRow { input: "x".repeat(1 << 20), output: vec![], ..OnlineRow::default() }])
        .unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!((log.rows(), log.bytes()), (1, bytes));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes, "nothing of a failed append is left");
    log.append(&[small(3)]).unwrap();
    assert_eq!(online_log::read(Path::new(&path), &MADE_BY).unwrap(), [small(1), small(3)]);
    let mut log = log.bounded(9000);
    let error =
        log.append(&[OnlineRow { input: "x".repeat(8700), output: vec![], ..OnlineRow::default() }]).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(online_log::read(Path::new(&path), &MADE_BY).unwrap(), [small(1), small(3)], "nothing was pushed out");
    log.append(&[OnlineRow { input: "x".repeat(7000), output: vec![], ..OnlineRow::default() }]).unwrap();
}

#[cfg(unix)]
#[test]
fn a_failed_append_is_taken_back() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.served");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    command.args(["child_on_a_full_disk", "--exact", "--ignored", "--nocapture"]).env(LOG, &path);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(online_log::read(&path, &MADE_BY).unwrap().len(), 3);
}
