//! Counting against maps: any documents, any length, any memory, any number of threads.
#![allow(clippy::unwrap_used)]
#[path = "support/naive.rs"]
mod naive;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use naive::count_ngrams;
use proptest::prelude::*;
use tasc_core::corpus::{Store, StoreWriter, store};
use tasc_core::count::{
    CountOptions, Counted, MAX_LENGTH, MIN_MEMORY, Minimum, Ngram, NgramTable, Place, count, merge_tables,
};
use tasc_core::format::Fingerprint;
use tasc_core::{Error, TokenId};

const MADE_BY: Fingerprint = Fingerprint([7; 32]);

type Counts = BTreeMap<Vec<TokenId>, (u64, u64)>;

fn write_store(path: &Path, documents: &[(Vec<TokenId>, u64)], vocab_size: u32) -> Store {
    let meta = store::StoreMeta { tokenizer: "toy".into(), vocab_size, eos_id: Some(2), ..store::StoreMeta::default() };
    let mut writer = StoreWriter::create(path, &MADE_BY, meta).unwrap();
    documents.iter().for_each(|(ids, weight)| writer.push(ids, None, *weight).unwrap());
    writer.finish().unwrap();
    Store::open(path).unwrap()
}

/// What the store holds: equal documents are one.
fn contents(store: &Store) -> Vec<(Vec<TokenId>, u64)> {
    (0..store.num_documents()).map(|k| (store.document(k).unwrap().to_vec(), store.weight(k).unwrap())).collect()
}

fn read(table: &NgramTable) -> Counts {
    let mut all = Counts::new();
    for length in 0..=table.max_length() + 1 {
        let mut place = Place::new(length);
        let mut last = Vec::new();
        while let Some((ids, count, documents)) = place.next(table).unwrap() {
            assert!(ids.len() == length && last.as_slice() < ids);
            last = ids.to_vec();
            all.insert(ids.to_vec(), (count, documents));
        }
    }
    all
}

fn counted(store: &Store, path: &Path, options: &CountOptions) -> (NgramTable, Counted) {
    let counted = count(store, path, options, |_| Ok(())).unwrap();
    let table = NgramTable::open(path).unwrap();
    table.verify().unwrap();
    (table, counted)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect()
}

/// Few tokens and many, close together and far apart, with runs like aaaa; weights that do not fit 32 bits, and sums
/// that do not fit 64.
fn documents() -> impl Strategy<Value = Vec<(Vec<TokenId>, u64)>> {
    let id = prop_oneof![8 => 0..3u32, 2 => 0..2000u32, 1 => Just(1 << 31), 1 => Just(u32::MAX - 1)];
    let run = (0..2u32, 0..20usize).prop_map(|(id, n)| vec![id; n]);
    let ids = prop_oneof![4 => prop::collection::vec(id, 0..40), 1 => run];
    let weight =
        prop_oneof![8 => 0..4u64, 1 => (u64::from(u32::MAX) - 1)..(u64::from(u32::MAX) + 2), 1 => Just(u64::MAX / 2)];
    prop::collection::vec((ids, weight), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))] // each makes files durable

    #[test]
    fn a_table_holds_what_maps_count(documents in documents(), max_length in 1..9usize, num_threads in 1..4usize, known in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let documents: Vec<_> = if known {
            documents.into_iter().map(|(ids, w)| (ids.into_iter().filter(|&id| id < 2000).collect(), w)).collect()
        } else {
            documents
        };
        let store = write_store(&folder.path().join("s"), &documents, if known { 2000 } else { 0 });
        let options = CountOptions { max_length, num_threads, memory_limit: 64 << 20, ..CountOptions::default() };
        let (table, _) = counted(&store, &folder.path().join("t"), &options);
        let naive = count_ngrams(&contents(&store), max_length);
        prop_assert_eq!(&read(&table), &naive);
        for (ids, &figures) in &naive {
            prop_assert_eq!(table.lookup(ids).unwrap(), figures);
            let mut other = ids.clone();
            *other.last_mut().unwrap() ^= 1;
            prop_assert_eq!(table.lookup(&other).unwrap(), naive.get(&other).copied().unwrap_or((0, 0)));
        }
        prop_assert_eq!(table.lookup(&[]).unwrap(), (0, 0));
        prop_assert_eq!(table.lookup(&[0; MAX_LENGTH + 1]).unwrap(), (0, 0));
        let by_length: Vec<u64> = (1..=max_length).map(|n| naive.keys().filter(|k| k.len() == n).count() as u64).collect();
        prop_assert_eq!(&table.meta().ngrams, &by_length);
        prop_assert_eq!(files(folder.path()).len(), 2);
    }

    #[test]
    fn minima_and_top_are_those_of_the_map(documents in documents(), least in 0..4u64, held in 0..4u64, k in 0..12usize) {
        let folder = tempfile::tempdir().unwrap();
        let store = write_store(&folder.path().join("s"), &documents, 0);
        let minimum = Minimum { count: least, documents: held };
        let options = CountOptions { minimum, ..CountOptions::default() };
        let (table, _) = counted(&store, &folder.path().join("t"), &options);
        let mut naive = count_ngrams(&contents(&store), 4);
        naive.retain(|_, &mut (count, documents)| count >= least && documents >= held);
        prop_assert_eq!(&read(&table), &naive);
        let mut ranked: Vec<_> = naive.into_iter().filter(|(ids, _)| ids.len() != 3).collect();
        ranked.sort_by_key(|(ids, (count, documents))| (u64::MAX - count, u64::MAX - documents, ids.len(), ids.clone()));
        let ranked = ranked.into_iter().take(k).map(|(ids, (count, documents))| Ngram { ids, count, documents });
        prop_assert_eq!(table.top(k, [4, 1, 2], || Ok(())).unwrap(), ranked.collect::<Vec<_>>());
    }

    #[test]
    fn shards_add_up_to_the_whole(documents in documents(), shards in 1..5usize, num_threads in 1..3usize, least in 0..3u64) {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let store = write_store(&file("s"), &documents, 0);
        let minimum = Minimum { count: least, documents: least };
        let whole = CountOptions { max_length: 3, minimum, ..CountOptions::default() };
        counted(&store, &file("whole"), &whole);
        let shard_options = CountOptions { minimum: Minimum::default(), ..whole };
        let contents = contents(&store);
        let tables: Vec<_> = contents.chunks(contents.len().div_ceil(shards)).enumerate().map(|(k, some)| {
            let store = write_store(&file(&format!("s{k}")), some, 0);
            counted(&store, &file(&format!("t{k}")), &shard_options).0
        }).collect();
        let tables: Vec<_> = tables.iter().collect();
        merge_tables(&tables, &file("sum"), minimum, num_threads, |_| Ok(())).unwrap();
        prop_assert_eq!(std::fs::read(file("whole")).unwrap(), std::fs::read(file("sum")).unwrap());
    }
}

/// More than little memory holds: 528,000 tokens of short documents.
fn many() -> Vec<(Vec<TokenId>, u64)> {
    let mut state = 88_172_645_463_325_252u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut document = |k: u64| {
        let ids = (0..20)
            .map(|_| {
                let most = 1 + random(3000);
                random(most) as u32
            })
            .chain([k as u32 % 3000, 1]);
        (ids.collect(), 1 + k % 3)
    };
    (0..24_000).map(&mut document).collect()
}

#[test]
fn the_same_bytes_for_any_memory_limit_and_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let documents = many();
    let store = write_store(&folder.path().join("s"), &documents, 3000);
    let naive = count_ngrams(&contents(&store), 4);
    for max_length in [4, 7] {
        let mut all = Vec::new();
        for (memory_limit, num_threads) in [(MIN_MEMORY, 1), (2 << 20, 2), (8 << 20, 2), (64 << 20, 1), (64 << 20, 3)] {
            let options = CountOptions { max_length, memory_limit, num_threads, ..CountOptions::default() };
            let path = folder.path().join("t");
            let (table, counted) = counted(&store, &path, &options);
            assert_eq!(counted.runs == 1, memory_limit == 64 << 20, "{memory_limit}: {counted:?}");
            assert!(memory_limit > MIN_MEMORY || counted.runs > 8, "{counted:?}");
            if max_length == 4 && all.is_empty() {
                assert!(read(&table) == naive);
            }
            all.push(std::fs::read(&path).unwrap());
        }
        assert!(all.windows(2).all(|w| w[0] == w[1]));
    }
    assert_eq!(files(folder.path()).len(), 2);
}

#[test]
fn a_stop_at_any_moment_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = write_store(&folder.path().join("s"), &many(), 3000);
    let path = folder.path().join("t");
    for num_threads in [1, 3] {
        for calls in 0..4 {
            let options = CountOptions { num_threads, memory_limit: 2 << 20, ..CountOptions::default() };
            let mut left = calls;
            let stopped = count(&store, &path, &options, |done| {
                assert!((0.0..=1.0).contains(&done), "{done}");
                left -= 1;
                if left < 0 { Err(Error::Stopped) } else { Ok(()) }
            });
            assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
        }
    }
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn refusals_name_value_and_limit() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let long = vec![5; 300_000];
    let store = write_store(&file("s"), &[(vec![1, 2], 1), (long, 1)], 50);
    let refused = |options: CountOptions| count(&store, &file("t"), &options, |_| Ok(())).unwrap_err();
    let options = CountOptions::default();
    for max_length in [0, MAX_LENGTH + 1] {
        let error = refused(CountOptions { max_length, ..options });
        assert!(matches!(error, Error::NgramLength { limit: MAX_LENGTH, .. }), "{error}");
    }
    let error = refused(CountOptions { memory_limit: MIN_MEMORY - 1, ..options });
    assert!(matches!(error, Error::MemoryLimit { needed: MIN_MEMORY, .. }), "{error}");
    let error = refused(CountOptions { memory_limit: MIN_MEMORY, ..options });
    let Error::MemoryLimit { needed, ref what, .. } = error else { panic!("{error}") };
    assert!(what.contains("document 1, which has 300000 tokens"), "{error}");
    count(&store, &file("t"), &CountOptions { memory_limit: needed * 5 / 4, ..options }, |_| Ok(())).unwrap();
    std::fs::remove_file(file("t")).unwrap();
    let error = count(&store, Path::new("/nowhere/at/all"), &options, |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");

    let shard = |name: &str, options: CountOptions| {
        let store = write_store(&file("shard"), &[(vec![1, 2], 1)], 50);
        counted(&store, &file(name), &options).0
    };
    let good = shard("good", options);
    let cut = shard("cut", CountOptions { minimum: Minimum { count: 3, documents: 0 }, ..options });
    let short = shard("short", CountOptions { max_length: 2, ..options });
    let merge =
        |tables: &[&NgramTable]| merge_tables(tables, &file("t"), Minimum::default(), 1, |_| Ok(())).unwrap_err();
    assert!(matches!(merge(&[]), Error::NothingToMerge));
    let error = merge(&[&good, &cut]);
    assert!(error.to_string().contains("below 3") && matches!(error, Error::CutTable { .. }), "{error}");
    let error = merge(&[&good, &short]);
    assert!(matches!(error, Error::NgramLengths { found: 2, wanted: 4, .. }), "{error}");
    let stranger = file("stranger");
    let mut writer = StoreWriter::create(&stranger, &Fingerprint([9; 32]), store::StoreMeta::default()).unwrap();
    writer.push(&[1], None, 1).unwrap();
    writer.finish().unwrap();
    let other = counted(&Store::open(&stranger).unwrap(), &file("other"), &options).0;
    let error = merge(&[&good, &other]);
    assert!(matches!(error, Error::Fingerprint { .. }), "{error}");
    assert!(!file("t").exists());
}

#[test]
fn a_merge_may_replace_one_of_its_tables() {
    let folder = tempfile::tempdir().unwrap();
    let store = write_store(&folder.path().join("s"), &[(vec![1, 2], 3)], 50);
    let path = folder.path().join("t");
    let (table, _) = counted(&store, &path, &CountOptions::default());
    merge_tables(&[&table, &table], &path, Minimum::default(), 2, |_| Ok(())).unwrap();
    assert_eq!(table.lookup(&[1, 2]).unwrap(), (3, 1), "a reader keeps what it opened");
    let sum = NgramTable::open(&path).unwrap();
    assert_eq!(sum.lookup(&[1, 2]).unwrap(), (6, 2));
    assert_eq!((sum.meta().documents, sum.meta().weight, sum.meta().tokens), (2, 6, 4));
}
