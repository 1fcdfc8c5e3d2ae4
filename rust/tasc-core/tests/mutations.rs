//! Valid files with changed contents and right checksums, through every use of a file. No use panics, takes more than a
//! second, or takes more memory or disk than 16 times the file and a constant.
//!
//! `make test-mutations` runs more of them. Variables of the environment: `TASC_MUTATIONS`, how many files;
//! `TASC_MUTATION_SEED`, the number of the first; `TASC_MUTATION_TOTALS`, a file that gets a line for each run. Mutation
//! k is the same file in every run, so runs from different seeds add up.
#![allow(clippy::unwrap_used)] // a test may
mod forge;
mod toys;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use forge::Forged;
use tasc_core::corpus::{Store, StoreWriter, WriteAheadLog, online_log};
use tasc_core::count::{CountOptions, MIN_MEMORY, Minimum, NgramTable, Place, count, merge_tables};
use tasc_core::draft::{CostCurve, Drafter, DrafterOptions};
use tasc_core::fit::FitOptions;
use tasc_core::format::Fingerprint;
use tasc_core::merge::{LearnOptions, MergePlan, MergerOptions, SegmentStream};
use tasc_core::task::remove::Removal;
use tasc_core::task::train::TrainOptions;
use tasc_core::task::{BuildOptions, TaskIndex};
use tasc_core::{Error, OnlineRow, Result, StoreMeta, TokenId};
use toys::{Random, Toy};
use xxhash_rust::xxh3::xxh3_64;

/// Files of the fast test.
const MUTATIONS: u64 = 700;

/// Every so-many-th mutated store or index is also built with fitted weights, which takes longest.
const FITTED: u64 = 40;

/// Limits of one use, besides 16 times the file: CPU seconds; bytes of memory and on disk, most of which are
/// copy counts by token id (4 MiB at most).
const SECONDS: f64 = 1.0;
const MEMORY: usize = 6 << 20;
const DISK: u64 = 5 << 20;

const FINGERPRINT: Fingerprint = Fingerprint([3; 32]);

/// Numbers that offsets, counts and ids should not be.
const EXTREME: [u64; 10] =
    [0, 1, 33, 1 << 20, (1 << 22) - 1, i32::MAX as u64, u32::MAX as u64 - 1, u32::MAX as u64, 1 << 33, u64::MAX];

/// Counts the bytes that are allocated.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// CPU seconds of this process: a busy machine makes them no more.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// A use of a mutated file: the file, a folder for what it writes, and whether weights are fitted.
type Use = fn(&Path, &Path, bool) -> Result<()>;

struct Kind {
    name: &'static str,
    good: Vec<Vec<u8>>,
    mutated: fn(&[u8], &mut Random) -> Vec<u8>,
    uses: &'static [(&'static str, Use)],
}

// ---- good files

fn rows(random: &mut Random, n: usize) -> Vec<toys::Row> {
    let row = |k| {
        let (input, output) = toys::request(random);
        (input, [Toy::Glued.ids(&output), vec![2]].concat(), [1, 1, 3, 300][k % 4])
    };
    (0..n).map(row).collect()
}

fn good_store(path: &Path, n: usize, inputs: bool) -> Store {
    let meta = StoreMeta { vocab_size: 40_000, eos_id: Some(2), ..StoreMeta::default() };
    let mut writer = StoreWriter::create(path, &FINGERPRINT, meta).unwrap();
    for (input, output, weight) in rows(&mut Random(n as u64), n) {
        writer.push(&output, Some(input.as_str()).filter(|_| inputs), weight).unwrap();
    }
    writer.finish().unwrap();
    Store::open(path).unwrap()
}

fn kinds(folder: &Path) -> Vec<Kind> {
    let path = folder.join("good");
    let read = || std::fs::read(&path).unwrap();
    let stores: Vec<(Store, Vec<u8>)> = [(6, true), (40, true), (30, false)]
        .map(|(n, inputs)| (good_store(&path, n, inputs), read()))
        .into_iter()
        .collect();
    let indexes = stores.iter().zip([false, true, false]).map(|((store, _), fit)| {
        TaskIndex::build(store, &path, &build_options(train(fit).as_ref()), |_| Ok(())).unwrap();
        read()
    });
    let plans = stores.iter().skip(1).map(|(store, _)| {
        MergePlan::learn(store, &path, &learn_options(), |_| Ok(())).unwrap();
        read()
    });
    let tables = stores.iter().map(|(store, _)| {
        count(store, &path, &count_options(), |_| Ok(())).unwrap();
        read()
    });
    let (indexes, plans, tables) = (indexes.collect(), plans.collect(), tables.collect());
    let log = folder.join("log");
    WriteAheadLog::open(&log, &FINGERPRINT).unwrap().0.append(&online_rows(&mut Random(7), 9)).unwrap();
    let log = std::fs::read(log).unwrap();
    let stores = stores.into_iter().map(|s| s.1).collect();
    vec![
        Kind { name: "store", good: stores, mutated: container, uses: STORE_USES },
        Kind { name: "index", good: indexes, mutated: container, uses: INDEX_USES },
        Kind { name: "plan", good: plans, mutated: container, uses: PLAN_USES },
        Kind { name: "table", good: tables, mutated: container, uses: TABLE_USES },
        Kind { name: "log", good: vec![log], mutated: mutated_log, uses: LOG_USES },
    ]
}

fn online_rows(random: &mut Random, n: usize) -> Vec<OnlineRow> {
    let key = |k: usize| if k.is_multiple_of(2) { String::new() } else { "somebody".into() };
    let rows = rows(random, n).into_iter().enumerate();
    rows.map(|(k, (input, output, _))| OnlineRow { input, output, key: key(k) }).collect()
}

fn train(fit: bool) -> Option<TrainOptions> {
    let options = FitOptions { iterations: 3, ..FitOptions::default() };
    fit.then(|| TrainOptions { rows: 8, fit: options, num_threads: Some(1), ..TrainOptions::default() })
}

fn build_options(train: Option<&TrainOptions>) -> BuildOptions<'_> {
    BuildOptions { no_inputs: false, train, tokenizer: Some(&Toy::Glued) }
}

fn learn_options() -> LearnOptions {
    let merger = MergerOptions { min_count: 3, min_documents: 1, ..MergerOptions::default() };
    LearnOptions { size: 12, merger, ..LearnOptions::default() }
}

fn count_options() -> CountOptions {
    CountOptions { max_length: 3, memory_limit: MIN_MEMORY, ..CountOptions::default() }
}

// ---- mutations

/// One to four sections changed.
fn container(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut forged = Forged::of(good);
    for _ in 0..=random.below(4) {
        let at = random.below(forged.sections.len());
        let (name, bytes) = &mut forged.sections[at];
        match name.as_str() {
            "meta" => change_text(bytes, random),
            _ => change(bytes, random),
        }
    }
    forged.bytes()
}

/// Changes elements of a section.
fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    let width = [1, 4, 4, 8][random.below(4)];
    let n = bytes.len() / width;
    if n == 0 {
        return bytes.resize(width * random.below(4), random.bits() as u8);
    }
    let (at, other) = (random.below(n), random.below(n));
    let element = |bytes: &[u8], at: usize| {
        let mut padded = [0; 8];
        padded[..width].copy_from_slice(&bytes[at * width..][..width]);
        u64::from_le_bytes(padded)
    };
    let set = |bytes: &mut [u8], at: usize, value: u64| {
        bytes[at * width..][..width].copy_from_slice(&value.to_le_bytes()[..width]);
    };
    match random.below(10) {
        0 => bytes[at * width] ^= 1 << random.below(8),
        1 => set(bytes, at, random.bits()),
        2 => set(bytes, at, EXTREME[random.below(EXTREME.len())]),
        3 => {
            let near = element(bytes, other).wrapping_add(random.below(3) as u64).wrapping_sub(1);
            set(bytes, at, near);
        }
        4 => {
            let (a, b) = (element(bytes, at), element(bytes, other));
            set(bytes, at, b);
            set(bytes, other, a);
        }
        5 => {
            let len = random.below(n - at.max(other)) + 1;
            bytes.copy_within(other * width..(other + len) * width, at * width);
        }
        6 => bytes.truncate(at * width),
        7 => bytes.extend_from_within(at * width..),
        8 => {
            // from here on the same element
            let value = if random.below(2) == 0 { element(bytes, other) } else { EXTREME[random.below(EXTREME.len())] };
            (at..n).for_each(|k| set(bytes, k, value));
        }
        _ => {
            // from here on in steps, as offsets that overlap or leave gaps
            let (first, step) = (element(bytes, other), random.below(4) as u64);
            (at..n).for_each(|k| set(bytes, k, first.wrapping_add(step * (k - at) as u64)));
        }
    }
}

/// Changes a number of a JSON text, or a byte.
fn change_text(bytes: &mut Vec<u8>, random: &mut Random) {
    let digits: Vec<usize> = (0..bytes.len()).filter(|&k| bytes[k].is_ascii_digit()).collect();
    if digits.is_empty() || random.below(4) == 0 {
        return change(bytes, random);
    }
    let at = digits[random.below(digits.len())];
    let end = (at..bytes.len()).find(|&k| !bytes[k].is_ascii_digit()).unwrap_or(bytes.len());
    bytes.splice(at..end, EXTREME[random.below(EXTREME.len())].to_string().bytes());
}

/// Changes the payloads of a log's rows, or their numbers; in every fourth the bytes as they lie.
fn mutated_log(good: &[u8], random: &mut Random) -> Vec<u8> {
    const HEADER: usize = 80;
    const LEAD: usize = 20;
    if random.below(4) == 0 {
        let mut bytes = good.to_vec();
        change(&mut bytes, random);
        return bytes;
    }
    let (mut records, mut rest) = (Vec::new(), &good[HEADER..]);
    while !rest.is_empty() {
        let length = LEAD + u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        records.push(rest[12..length].to_vec());
        rest = &rest[length..];
    }
    for _ in 0..=random.below(4) {
        let at = random.below(records.len());
        match random.below(4) {
            0 => records[at][..8].copy_from_slice(&EXTREME[random.below(EXTREME.len())].to_le_bytes()),
            1 => records[at] = records[random.below(records.len())].clone(),
            _ => {
                let mut payload = records[at].split_off(8);
                change(&mut payload, random);
                records[at].append(&mut payload);
            }
        }
    }
    let sealed = |record: Vec<u8>| {
        let length = (record.len() as u32).wrapping_sub(8).to_le_bytes();
        let sum = xxh3_64(&[&length, &record[..]].concat()).to_le_bytes();
        [&length, &sum[..], &record].concat()
    };
    [good[..HEADER].to_vec(), records.into_iter().flat_map(sealed).collect()].concat()
}

// ---- uses

static STORE_USES: &[(&str, Use)] = &[
    ("store: read", |file, _, _| {
        let store = Store::open(file)?;
        let verified = store.verify();
        let all = (0..store.num_documents()).map(|k| store.document(k).map(drop));
        let read: Result<()> = all.chain((0..store.num_inputs()).map(|k| store.input(k).map(drop))).collect();
        verified.inspect(|()| assert!(store.num_inputs() > 0 || read.is_ok()))?;
        read
    }),
    ("store: index", |file, folder, fit| {
        let store = Store::open(file)?;
        TaskIndex::build(&store, &folder.join("i"), &build_options(train(fit).as_ref()), |_| Ok(())).map(drop)
    }),
    ("store: learn", |file, folder, _| {
        MergePlan::learn(&Store::open(file)?, &folder.join("p"), &learn_options(), |_| Ok(())).map(drop)
    }),
    ("store: count", |file, folder, _| {
        count(&Store::open(file)?, &folder.join("t"), &count_options(), |_| Ok(()))?;
        NgramTable::open(&folder.join("t"))?.verify()
    }),
    ("store: append", |file, folder, _| {
        let copy = folder.join("s");
        std::fs::copy(file, &copy).unwrap();
        let mut writer = StoreWriter::append(&copy, &FINGERPRINT, || Ok(()))?;
        writer.push(&[1, 2], Some("more"), 1)?;
        writer.finish()?;
        Store::open(&copy)?.verify()
    }),
];

static INDEX_USES: &[(&str, Use)] = &[
    ("index: read", |file, _, _| {
        let index = TaskIndex::open(file)?;
        let verified = index.verify();
        let read: Result<()> = (0..index.num_inputs()).try_for_each(|k| index.input(k).map(drop));
        assert!(verified.is_err() || read.is_ok());
        verified
    }),
    ("index: draft", |file, _, _| draft(Some(TaskIndex::open(file)?), &[])),
    ("index: to_store", |file, folder, _| TaskIndex::open(file)?.to_store(&folder.join("s"), &[], || Ok(()))?.verify()),
    ("index: compact", |file, folder, fit| {
        let log = folder.join("log");
        WriteAheadLog::open(&log, &FINGERPRINT)?.0.append(&online_rows(&mut Random(9), 3))?;
        let (index, path) = (TaskIndex::open(file)?, folder.join("i"));
        let (new, rows) = index.compact(&[log], &path, &build_options(train(fit).as_ref()), |_| Ok(()))?;
        assert!(rows <= 3);
        new.verify()
    }),
    ("index: remove", |file, folder, fit| {
        let (path, log) = (folder.join("i"), folder.join("log"));
        std::fs::copy(file, &path).unwrap();
        WriteAheadLog::open(&log, &FINGERPRINT)?.0.append(&online_rows(&mut Random(9), 3))?;
        let picks = &mut |rows: &[OnlineRow]| Ok(rows.iter().map(|row| row.input.contains("boston")).collect());
        let mut removal = Removal { picks, keys: &["somebody".into()], before: None };
        TaskIndex::open(&path)?.remove(&[log], &mut removal, &build_options(train(fit).as_ref()), |_| Ok(()))?;
        TaskIndex::open(&path)?.verify()
    }),
    ("index: export", |file, folder, _| {
        let store = TaskIndex::open(file)?.to_store(&folder.join("s"), &[], || Ok(()))?;
        count(&store, &folder.join("t"), &count_options(), |_| Ok(())).map(drop)
    }),
];

/// Drafts with and without an input.
fn draft(index: Option<TaskIndex>, served: &[OnlineRow]) -> Result<()> {
    let options = DrafterOptions { tokenizer: Some(Arc::new(Toy::Glued)), ..DrafterOptions::default() };
    let drafter = Drafter::new(index.map(|i| Arc::new(i) as _), options)?;
    drafter.serve(served)?;
    let costs = CostCurve::linear(0.0)?;
    for input in [None, Some("please find flights from boston to new york"), Some("go to 北京 from kalomi on friday")]
    {
        let mut request = drafter.start(&[1, 2, 3], input)?;
        for text in [" from=\"", "boston\"", " to=\"北"] {
            let draft = drafter.draft(&mut request, 24, &costs);
            assert!(draft.tokens.len() <= 24 && draft.tokens.len() == draft.probabilities.len());
            let first = draft.tokens.first().copied();
            assert!(drafter.explain(&mut request, 4, &costs).len() <= 4);
            let emitted: Vec<TokenId> = first.into_iter().chain(Toy::Glued.ids(text)).collect();
            drafter.update(&mut request, &emitted);
        }
    }
    Ok(())
}

static PLAN_USES: &[(&str, Use)] = &[("plan: segment", |file, folder, _| {
    let plan = MergePlan::open(file)?;
    let segmenter = plan.segmenter().clone();
    let ids: Vec<TokenId> = Toy::Glued.ids(" from=\"boston\" to=\"oslo\";").repeat(20);
    let segmented = segmenter.segment(&ids)?;
    assert_eq!(segmenter.expand(&segmented)?, ids);
    let mut stream = SegmentStream::new(segmenter.clone());
    let mut streamed = Vec::new();
    for part in ids.chunks(7) {
        streamed.extend(stream.push(part)?);
    }
    streamed.extend(stream.finish());
    assert_eq!(streamed, segmented);
    plan.keep(&(0..segmenter.len() / 2).collect::<Vec<_>>(), &folder.join("p"))?;
    plan.verify()
})];

static TABLE_USES: &[(&str, Use)] = &[
    ("table: read", |file, _, _| {
        let table = NgramTable::open(file)?;
        table.top(5, 0..9, || Ok(()))?;
        for ids in [&[][..], &[2], &[100, 102], &[TokenId::MAX; 3], &[0; 40]] {
            table.lookup(ids)?;
        }
        for length in 0..=table.max_length() + 1 {
            let mut place = Place::new(length);
            while place.next(&table)?.is_some() {}
        }
        table.verify()
    }),
    ("table: merge", |file, folder, _| {
        let table = NgramTable::open(file)?;
        merge_tables(&[&table, &table], &folder.join("t"), Minimum::default(), 1, |_| Ok(()))?;
        NgramTable::open(&folder.join("t"))?.verify()
    }),
];

static LOG_USES: &[(&str, Use)] = &[
    ("log: serve", |file, folder, _| {
        let copy = folder.join("log");
        std::fs::copy(file, &copy).unwrap();
        let read = online_log::read(&copy, &FINGERPRINT)?;
        let (mut log, rows) = WriteAheadLog::open(&copy, &FINGERPRINT)?;
        assert_eq!(rows, read);
        draft(None, &rows)?;
        log.append(&online_rows(&mut Random(1), 1))?;
        drop(log);
        assert_eq!(online_log::read(&copy, &FINGERPRINT)?.len(), rows.len() + 1);
        WriteAheadLog::open(&copy, &FINGERPRINT)?.0.forget(3)
    }),
    ("log: compact", |file, folder, fit| {
        let (store, index) = (good_store(&folder.join("s"), 6, true), folder.join("i"));
        let index = TaskIndex::build(&store, &index, &build_options(None), |_| Ok(()))?;
        index.compact(&[file], &folder.join("new"), &build_options(train(fit).as_ref()), |_| Ok(()))?.0.verify()
    }),
];

// ---- the run

#[derive(Default)]
struct Totals {
    /// Files of each kind.
    files: BTreeMap<&'static str, u64>,
    uses: u64,
    refused: u64,
    /// Largest share of a limit that a use took: time, memory, disk.
    worst: [(f64, String); 3],
    failures: Vec<String>,
}

impl Totals {
    fn line(&self, first: u64) -> String {
        let Self { files, uses, refused, worst, failures } = self;
        let sum: u64 = files.values().sum();
        let mut line = format!("first={first} files={sum} uses={uses} refused={refused} failures={}", failures.len());
        files.iter().for_each(|(name, n)| write!(line, " {name}={n}").unwrap());
        for (name, (share, which)) in ["time", "memory", "disk"].iter().zip(worst) {
            write!(line, " {name}={:.0}% ({which})", 100.0 * share).unwrap();
        }
        line
    }

    fn run(&mut self, number: u64, name: &str, work: Use, file: &Path, folder: &Path) {
        let out = folder.join("out");
        std::fs::create_dir(&out).unwrap();
        let length = std::fs::metadata(file).unwrap().len();
        let (before, began) = (LIVE.load(Relaxed), cpu_seconds());
        PEAK.store(before, Relaxed);
        let done = catch_unwind(AssertUnwindSafe(|| work(file, &out, number.is_multiple_of(FITTED))));
        let seconds = cpu_seconds() - began;
        let memory = PEAK.load(Relaxed).saturating_sub(before) as f64;
        let disk: u64 = std::fs::read_dir(&out).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        std::fs::remove_dir_all(&out).unwrap();
        self.uses += 1;
        match done {
            Ok(Ok(())) => {}
            Ok(Err(Error::Io { path, source })) => {
                self.failures.push(format!("mutation {number}, {name}: {}: {source}", path.display()));
            }
            Ok(Err(_)) => self.refused += 1,
            Err(_) => self.failures.push(format!("mutation {number}, {name}: a panic")),
        }
        let shares = [
            seconds / SECONDS,
            memory / (MEMORY as f64 + 16.0 * length as f64),
            disk as f64 / (DISK + 16 * length) as f64,
        ];
        for ((what, share), worst) in ["time", "memory", "disk"].iter().zip(shares).zip(&mut self.worst) {
            if share > 1.0 {
                self.failures.push(format!("mutation {number}, {name}: {what} at {share:.1} times its limit"));
            }
            if share > worst.0 {
                *worst = (share, format!("{number}, {name}"));
            }
        }
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: no number")))
}

/// Held by each test: memory and time are those of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// Pairs of neighbours that occur at one place only, in a row that occurred often, take most memory in learning a vocabulary:
/// each is kept. The ids are far apart, the last of all among them, in both orders: in one, merges have no merge inside, in
/// the other each merge is a part of the next.
#[test]
fn a_vocabulary_of_pairs_that_occur_once_costs_no_more() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let meta = StoreMeta { vocab_size: u32::MAX - 2000, ..StoreMeta::default() };
    for descending in [false, true] {
        let mut ids: Vec<TokenId> = (0..60_000).map(|k| k * 65_536).collect();
        if descending {
            ids.reverse();
        }
        let mut writer = StoreWriter::create(&path, &FINGERPRINT, meta.clone()).unwrap();
        writer.push(&ids, None, 20).unwrap();
        writer.finish().unwrap();
        let store = Store::open(&path).unwrap();
        for (size, held_out) in [(5, 0.0), (500, 0.0), (500, 0.1)] {
            let before = LIVE.load(Relaxed);
            PEAK.store(before, Relaxed);
            let options = LearnOptions { size, held_out, ..LearnOptions::default() };
            MergePlan::learn(&store, &folder.path().join("p"), &options, |_| Ok(())).unwrap();
            let (memory, bytes) = (PEAK.load(Relaxed) - before, store.file().bytes().len());
            let spare = if size == 5 { 1 << 20 } else { MEMORY }; // 5 are chosen from 128 and more
            let limit = spare + 16 * bytes;
            assert!(memory <= limit, "size {size}, descending {descending}: {memory} bytes for a store of {bytes}");
        }
    }
}

/// The last of all ids leaves no room for new ones.
#[test]
fn ids_without_room_for_new_ones_are_refused() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let meta = StoreMeta { vocab_size: u32::MAX, ..StoreMeta::default() };
    let mut writer = StoreWriter::create(&path, &FINGERPRINT, meta).unwrap();
    writer.push(&[u32::MAX - 1, 7, u32::MAX - 1, 7], None, 20).unwrap();
    writer.finish().unwrap();
    let options = LearnOptions { size: 5, held_out: 0.0, ..LearnOptions::default() };
    let learnt = MergePlan::learn(&Store::open(&path).unwrap(), &folder.path().join("p"), &options, |_| Ok(()));
    let refused = learnt.unwrap_err();
    assert!(refused.to_string().contains("do not fit 32 bits"), "{refused}");
}

#[test]
fn mutated_files_cost_no_more_than_their_size() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let (kinds, file) = (kinds(folder.path()), folder.path().join("mutated"));
    let (first, number) = (variable("TASC_MUTATION_SEED", 0), variable("TASC_MUTATIONS", MUTATIONS));
    let mut totals = Totals::default();
    for number in first..first + number {
        let mut random = Random(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let kind = &kinds[random.below(kinds.len())];
        let good = &kind.good[random.below(kind.good.len())];
        std::fs::write(&file, (kind.mutated)(good, &mut random)).unwrap();
        *totals.files.entry(kind.name).or_default() += 1;
        for (name, work) in kind.uses {
            totals.run(number, name, *work, &file, folder.path());
        }
    }
    let line = totals.line(first);
    println!("{line}");
    if let Some(path) = std::env::var_os("TASC_MUTATION_TOTALS").map(PathBuf::from) {
        let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
    assert!(totals.failures.is_empty(), "{line}\n{}", totals.failures[..totals.failures.len().min(40)].join("\n"));
    assert!(totals.refused > 0 || number < MUTATIONS, "most mutated files are refused somewhere");
}
