//! Rows that are taken out again: the rest stays, and nothing of them is found in the files.
#![allow(clippy::unwrap_used)]
mod toys;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use proptest::prelude::*;
use tasc_core::corpus::online_log::{self, number_at};
use tasc_core::corpus::{OnlineRow, Store, StoreWriter, WriteAheadLog, store::StoreMeta};
use tasc_core::format::Fingerprint;
use tasc_core::index::Cursor;
use tasc_core::index::inputs::terms;
use tasc_core::task::remove::{Removal, Removed};
use tasc_core::text::words;
use tasc_core::{BuildOptions, Error, Result, TaskIndex, TokenId};
use toys::Toy;
use xxhash_rust::xxh3::xxh3_64;

const TOY: Toy = Toy::Words;
const OPTIONS: BuildOptions<'_> = BuildOptions { no_inputs: false, train: None, tokenizer: Some(&TOY) };

type Counts = BTreeMap<(String, Vec<TokenId>), u64>;

fn row(input: &str, output: &str, key: &str) -> OnlineRow {
    OnlineRow { input: input.into(), output: TOY.ids(output), key: key.into() }
}

/// A folder with an index of `past` rows, whose log holds the `online` ones.
struct Task {
    _folder: tempfile::TempDir,
    path: PathBuf,
    log: PathBuf,
}

impl Task {
    fn new(past: &[OnlineRow], online: &[OnlineRow]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, log) = (folder.path().join("task.tasc"), folder.path().join("task.tasc.served"));
        let made = Fingerprint::default();
        let mut writer = StoreWriter::create(&folder.path().join("s"), &made, StoreMeta::default()).unwrap();
        for row in past {
            writer.push(&row.output, Some(row.input.as_str()).filter(|i| !i.is_empty()), 1).unwrap();
        }
        writer.finish().unwrap();
        let store = Store::open(&folder.path().join("s")).unwrap();
        TaskIndex::build(&store, &path, &OPTIONS, |_| Ok(())).unwrap();
        std::fs::remove_file(folder.path().join("s")).unwrap();
        let (log_file, _) = WriteAheadLog::open(&log, &made).unwrap();
        log_file.timed(None).unwrap().append(online).unwrap();
        Self { _folder: folder, path, log }
    }

    fn open(&self) -> TaskIndex {
        TaskIndex::open(&self.path).unwrap()
    }

    fn compact(&self) {
        self.open().compact(&[&self.log], &self.path, &OPTIONS, |_| Ok(())).unwrap();
    }

    fn remove(
        &self,
        keys: &[String],
        before: Option<u64>,
        mut picks: impl FnMut(&OnlineRow) -> bool,
    ) -> Result<Removed> {
        let mut picks = |rows: &[OnlineRow]| Ok(rows.iter().map(&mut picks).collect());
        let mut removal = Removal { picks: &mut picks, keys, before };
        self.open().remove(&[&self.log], &mut removal, &OPTIONS, |_| Ok(()))
    }

    /// Rows of the index and of the log that it has not merged.
    fn rows(&self) -> Counts {
        let (index, mut counts) = (self.open(), Counts::new());
        index.verify().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = index.to_store(&folder.path().join("s"), &[], || Ok(())).unwrap();
        let mut without: Vec<u64> = (0..store.num_documents()).map(|k| store.weight(k).unwrap()).collect();
        for k in 0..store.num_inputs() {
            let input = store.input(k).unwrap();
            without[input.document as usize] -= input.weight;
            let output = store.document(input.document as usize).unwrap().to_vec();
            *counts.entry((input.text.into(), output)).or_default() += input.weight;
        }
        for (k, weight) in without.into_iter().enumerate().filter(|(_, weight)| *weight > 0) {
            *counts.entry((String::new(), store.document(k).unwrap().to_vec())).or_default() += weight;
        }
        let mut merged = index.meta().merged_logs.clone();
        for (_, row) in online_log::read_unmerged(&self.log, &Fingerprint::default(), &mut merged).unwrap() {
            *counts.entry((row.input, row.output)).or_default() += 1;
        }
        counts
    }

    /// Nothing of these rows is in the files, but for what the `others` hold too. All words and keys have 8 bytes, as two
    /// ids and a hash have.
    fn holds_nothing_of(&self, gone: &[OnlineRow], others: &[OnlineRow]) {
        let index = self.open();
        let ngrams = index.ngrams();
        for sequence in gone.iter().flat_map(|row| (1..=row.output.len()).flat_map(|n| row.output.windows(n))) {
            let mut cursor = Cursor::anywhere(&ngrams);
            sequence.iter().for_each(|&id| cursor.advance(&ngrams, ngrams.symbol(id)));
            let found = cursor.order(&ngrams) as usize == sequence.len();
            let in_index = |row: &OnlineRow| row.output.windows(sequence.len()).any(|part| part == sequence);
            assert!(!found || others.iter().any(in_index), "{sequence:?}");
        }
        let bytes = [std::fs::read(&self.path).unwrap(), std::fs::read(&self.log).unwrap()].concat();
        let bytes: BTreeSet<[u8; 8]> = bytes.windows(8).map(|part| part.try_into().unwrap()).collect();
        let ids = |row: &OnlineRow| [TOY.ids(&row.input), row.output.clone()].concat(); // words are kept as ids too
        let known: BTreeSet<TokenId> = others.iter().flat_map(ids).collect();
        let by_chance =
            |part: &[u8; 8]| bytemuck::pod_read_unaligned::<[TokenId; 2]>(part).iter().all(|id| known.contains(id));
        for part in parts(gone).difference(&parts(others)).filter(|part| !by_chance(part)) {
            assert!(!bytes.contains(part), "{part:?} ({})", String::from_utf8_lossy(part));
        }
    }
}

/// What could tell of rows: words and keys, hashes of them, two ids.
fn parts(rows: &[OnlineRow]) -> BTreeSet<[u8; 8]> {
    let mut parts = BTreeSet::new();
    for row in rows {
        let (mut split, mut hashes) = (Vec::new(), Vec::new());
        words::split(&row.input, &mut split);
        terms(&split, &mut hashes);
        hashes.extend((!row.key.is_empty()).then(|| xxh3_64(row.key.as_bytes())));
        parts.extend(hashes.into_iter().map(u64::to_le_bytes));
        parts.extend(
            row.input.split(' ').chain([&*row.key]).filter_map(|word| <[u8; 8]>::try_from(word.as_bytes()).ok()),
        );
        parts.extend(row.output.windows(2).map(|ids| <[u8; 8]>::try_from(bytemuck::cast_slice(ids)).unwrap()));
    }
    parts
}

fn word() -> impl Strategy<Value = String> {
    (0..30u32).prop_map(|k| format!("word{:04}", k * k * k % 9973))
}

/// Rows of a task: those of few words occur again.
fn rows(size: std::ops::Range<usize>) -> impl Strategy<Value = Vec<OnlineRow>> {
    let text = |size| prop::collection::vec(word(), size).prop_map(|words| words.join(" "));
    let key = prop_oneof![Just(String::new()), (0..4u32).prop_map(|k| format!("user{k:04}"))];
    let row = (text(0..4), text(1..5), key).prop_map(|(input, output, key)| row(&input, &output, &key));
    prop::collection::vec(row, size)
}

fn counts<'r>(rows: impl IntoIterator<Item = &'r OnlineRow>) -> Counts {
    let mut counts = Counts::new();
    for row in rows {
        *counts.entry((row.input.clone(), row.output.clone())).or_default() += 1;
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_removed_is_gone_and_the_rest_stays(
        past in rows(1..12), online in rows(0..8), merged in 0..8usize, content in word(), key in 0..5u32,
    ) {
        let merged = merged.min(online.len());
        let task = Task::new(&past, &online[..merged]);
        task.compact();
        let log = WriteAheadLog::open(&task.log, &Fingerprint::default()).unwrap().0;
        log.timed(None).unwrap().append(&online[merged..]).unwrap();
        let picked = |row: &OnlineRow| row.input.contains(&content) || row.output.starts_with(&TOY.ids(&content));
        let key = format!("user{key:04}");
        // rows that were in the index from the start have no key
        let past: Vec<_> = past.into_iter().map(|row| OnlineRow { key: String::new(), ..row }).collect();
        let with_inputs = past.iter().any(|row| !row.input.is_empty());
        let blind = |row: &OnlineRow| OnlineRow { input: String::new(), ..row.clone() };
        let in_index: Vec<_> = online[..merged].iter().map(|r| if with_inputs { r.clone() } else { blind(r) }).collect();
        let all = [past, in_index, online[merged..].to_vec()].concat();
        let (gone, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|row| picked(row) || row.key == key);
        match task.remove(std::slice::from_ref(&key), None, picked) {
            Ok(removed) => {
                prop_assert_eq!((removed.from_index + removed.from_logs) as usize, gone.len());
                prop_assert_eq!(task.rows(), counts(&left));
                task.holds_nothing_of(&gone, &left);
                let again = task.remove(std::slice::from_ref(&key), None, picked).unwrap();
                prop_assert_eq!((again.from_index, again.from_logs), (0, 0));
                task.compact();
                prop_assert_eq!(task.rows().values().sum::<u64>() as usize, left.len());
            }
            Err(Error::NothingLeft { .. }) => {
                let in_log = task.remove(&[], None, |_| false).unwrap();
                prop_assert_eq!((in_log.from_index, in_log.from_logs), (0, 0), "nothing has changed");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn rows_go_by_their_time_before_and_after_they_were_merged() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (old, new) = (row("word0001 word0002", "word0003", ""), row("word0004", "word0005 word0003", ""));
    let past = [row("word0006", "word0007", ""), old.clone()];
    let task = Task::new(&past, &[old.clone(), new.clone()]);
    assert_eq!(task.remove(&[], Some(now - 60), |_| false).unwrap(), Removed { untimed: 2, ..Removed::default() });
    task.compact();
    assert_eq!(task.open().origins().len(), 2);
    assert_eq!(task.remove(&[], Some(now - 60), |_| false).unwrap(), Removed { untimed: 2, ..Removed::default() });
    task.compact();
    let removed = task.remove(&[], Some(now + 60), |_| false).unwrap();
    assert_eq!(removed, Removed { from_index: 2, from_logs: 0, untimed: 2 });
    assert_eq!(task.rows(), counts(&past), "the row that is in the index without a time too occurs once less");
    task.holds_nothing_of(&[new], &past);
    assert!(task.open().origins().is_empty());
    assert!(online_log::time_of(number_at(now)) == Some(now));
}

#[test]
fn an_index_that_nothing_goes_from_and_one_that_all_goes_from_stay_as_they_are() {
    let rows = [row("word0001", "word0002", ""), row("word0003", "word0004", "")];
    let task = Task::new(&rows, &[row("word0005", "word0006", "user0001")]);
    let files = || [&task.path, &task.log].map(|path| std::fs::read(path).unwrap());
    let before = files();
    let message = task.remove(&[], None, |_| true).unwrap_err().to_string();
    assert!(message.contains("no row of") && message.contains("task.tasc would be left; delete"), "{message}");
    assert!(files() == before);
    let removed = task.remove(&["user0001".into()], None, |_| false).unwrap();
    assert_eq!(removed, Removed { from_index: 0, from_logs: 1, untimed: 2 });
    assert!(files()[0] == before[0] && files()[1] != before[1]);
    let log = WriteAheadLog::open(&task.log, &Fingerprint::default()).unwrap().0;
    assert!(matches!(task.remove(&[], None, |_| false), Err(Error::Locked { .. })));
    drop(log);
    let mut picks = |_: &[OnlineRow]| Err(Error::Stopped);
    let mut removal = Removal { picks: &mut picks, keys: &[], before: None };
    let stopped = task.open().remove(&[&task.log], &mut removal, &OPTIONS, |_| Ok(()));
    assert!(matches!(stopped, Err(Error::Stopped)));
    assert_eq!(std::fs::read_dir(task.path.parent().unwrap()).unwrap().count(), 2);
}

/// A kill after the index has its name and before the log has: both hold a merged row, and the index is read first.
#[test]
fn a_row_that_was_merged_leaves_a_log_that_a_kill_has_left_full() {
    let gone = row("word0005", "word0006", "");
    let task = Task::new(&[row("word0001", "word0002", "")], std::slice::from_ref(&gone));
    let log = std::fs::read(&task.log).unwrap();
    task.compact();
    std::fs::write(&task.log, log).unwrap();
    assert_eq!(task.remove(&[], None, |row| row.input == gone.input).unwrap().from_index, 1);
    task.holds_nothing_of(&[gone], &[]);
}

/// Whoever opened an index before another process replaced it must not bring the old rows back, or lose the new ones.
#[test]
fn an_index_that_was_replaced_meanwhile_is_the_one_that_is_compacted() {
    let rows =
        [("word0001", "word0002"), ("word0003", "word0004"), ("word0005", "word0006")].map(|(i, o)| row(i, o, ""));
    let task = Task::new(&rows[..1], &rows[1..2]);
    let early = task.open();
    task.compact();
    WriteAheadLog::open(&task.log, &Fingerprint::default()).unwrap().0.append(&rows[2..]).unwrap();
    early.compact(&[&task.log], &task.path, &OPTIONS, |_| Ok(())).unwrap();
    assert_eq!(task.rows(), counts(&rows));
    task.remove(&[], None, |row| row.input == "word0001").unwrap();
    early.compact(&[&task.log], &task.path, &OPTIONS, |_| Ok(())).unwrap();
    assert_eq!(task.rows(), counts(&rows[1..]));
}
