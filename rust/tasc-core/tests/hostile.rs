//! Files that are not what they claim: no panic, no endless loop, an error or a useless answer.
#![allow(clippy::unwrap_used)] // a test may
mod damage;
mod toys;

use std::path::Path;
use std::sync::Arc;

use damage::damaged;
use tasc_core::Error;
use tasc_core::draft::{CostCurve, Drafter, DrafterOptions};
use tasc_core::fit::FitOptions;
use tasc_core::format::{File, Fingerprint, HEADER_BYTES, Kind, Writer};
use tasc_core::index::{Cursor, NgramsBuilder, Successors, TaskArrays};
use tasc_core::task::file::{BuildOptions, KIND, VERSION};
use tasc_core::task::train::TrainOptions;
use tasc_core::task::{IndexMeta, TaskIndex};
use toys::Toy;

/// Files per kind of damage; together more than 10⁵ files.
const ROUNDS: u64 = 36_000;

fn index_bytes(folder: &Path) -> Vec<u8> {
    let path = folder.join("a.tasc");
    let mut builder = NgramsBuilder::new();
    for k in 0..60u32 {
        builder.push(&[1, 2, 3, 4 + k % 7, 5, 6 + k % 3, 9], u64::from(k) * 9).unwrap();
    }
    let task = TaskArrays { ngrams: builder.build(|_| Ok(())).unwrap(), ..<TaskArrays>::default() };
    TaskIndex::write(&path, &Fingerprint([7; 32]), &IndexMeta::default(), &task).unwrap();
    std::fs::read(path).unwrap()
}

/// Opens whatever this is and asks it everything.
fn use_it(bytes: &[u8]) -> Result<(), Error> {
    let index = TaskIndex::from_file(File::from_bytes(bytes, KIND, VERSION.0)?)?;
    let ngrams = index.ngrams();
    let mut found = Successors::default();
    let mut cursor = Cursor::at_start(&ngrams);
    for token in [1, 2, 3, 4, 5, 6, 9, 77] {
        for run in cursor.runs() {
            ngrams.successors(run.interval, &mut found);
            for e in &found.entries {
                let within = [e.child, ngrams.ending_in(e.symbol)].map(|o| ngrams.child(run.interval, e.symbol, o));
                let _ = (ngrams.token(e.symbol), within, ngrams.weight(e.child));
            }
        }
        cursor.advance(&ngrams, ngrams.symbol(token));
    }
    let drafter = Drafter::new(Some(Arc::new(index.clone())), DrafterOptions::default())?;
    let mut request = drafter.start(&[1, 2, 3], None)?;
    let costs = CostCurve::linear(0.0)?;
    for _ in 0..3 {
        let draft = drafter.draft(&mut request, 64, &costs).tokens.clone();
        assert!(draft.len() <= 64);
        drafter.update(&mut request, &[1]);
    }
    let _ = index.verify();
    Ok(())
}

#[test]
fn damaged_indexes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let good = index_bytes(folder.path());
    use_it(&good).unwrap();
    let mut state = 0x9E37_79B9_97F4_A7C1;
    let (mut opened, mut refused) = (0, 0);
    for round in 0..ROUNDS * 3 {
        let bytes = damaged(&good, round, &mut state);
        match use_it(&bytes) {
            Ok(()) => opened += 1,
            Err(Error::Format { .. }) => refused += 1,
            Err(other) => panic!("unexpected {other:?}"),
        }
    }
    assert!(opened > ROUNDS / 4 && refused > ROUNDS / 4, "{opened} opened, {refused} refused");
}

/// An index of a task with inputs; its `meta` is the first section, sections of the inputs and weights follow.
fn inputs_bytes(folder: &Path, train: Option<&TrainOptions>) -> Vec<u8> {
    let store = toys::store(&folder.join("s"), &toys::rows(Toy::Glued, 50, 5));
    let path = folder.join("i.tasc");
    let options = BuildOptions { no_inputs: false, train, tokenizer: Some(&Toy::Glued) };
    TaskIndex::build(&store, &path, &options, |_| Ok(())).unwrap();
    std::fs::read(path).unwrap()
}

/// Opens whatever this is, and drafts for an input that it knows and one that it does not.
fn use_inputs(bytes: &[u8]) -> Result<(), Error> {
    let index = TaskIndex::from_file(File::from_bytes(bytes, KIND, VERSION.0)?)?;
    let options = DrafterOptions { tokenizer: Some(Arc::new(Toy::Glued)), ..DrafterOptions::default() };
    let drafter = Drafter::new(Some(Arc::new(index)), options)?;
    let costs = CostCurve::linear(0.0)?;
    for input in ["please find flights from boston to new york", "go to 北京 from kalomi on friday, 北京 on friday"]
    {
        let mut request = drafter.start(&[1, 2, 3], Some(input))?;
        for text in [" from=\"", "boston\"", " to=\"北"] {
            let draft = drafter.draft(&mut request, 24, &costs);
            assert!(draft.tokens.len() <= 24 && draft.tokens.len() == draft.probabilities.len());
            let first = draft.tokens.first().copied();
            assert!(drafter.explain(&mut request, 4, &costs).len() <= 4);
            let emitted: Vec<u32> = first.into_iter().chain(Toy::Glued.ids(text)).collect();
            drafter.update(&mut request, &emitted);
        }
    }
    Ok(())
}

/// Damage anywhere in a file with inputs, then damage within what the inputs have added alone.
#[test]
fn damaged_inputs_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let fit = FitOptions { iterations: 5, ..FitOptions::default() };
    let train = TrainOptions { rows: 10, fit, ..TrainOptions::default() };
    for (train, rounds) in [(None, ROUNDS / 2), (Some(&train), ROUNDS / 6)] {
        let good = inputs_bytes(folder.path(), train);
        use_inputs(&good).unwrap();
        let index = TaskIndex::from_file(File::from_bytes(&good, KIND, VERSION.0).unwrap()).unwrap();
        let terms =
            bytemuck::cast_slice::<u64, u8>(tasc_core::mixture::TaskData::view(&index).rows.unwrap().inputs.terms);
        let from = good.windows(terms.len()).position(|w| w == terms).unwrap();
        let mut state = 0x1234_5678_9ABC_DEF1;
        let (mut opened, mut refused) = (0, 0);
        for round in 0..rounds {
            let bytes = if round % 2 == 0 {
                damaged(&good, round / 2, &mut state)
            } else {
                // the table of sections is at the end, and stays
                let to = good.len() - (good.len() - from) / 8;
                let damage = damaged(&good[from..to], 2, &mut state);
                [&good[..from], &damage, &good[to..]].concat()
            };
            match use_inputs(&bytes) {
                Ok(()) => opened += 1,
                Err(Error::Format { .. }) => refused += 1,
                Err(other) => panic!("unexpected {other:?}"),
            }
        }
        assert!(opened > rounds / 2 && refused > rounds / 8, "{opened} opened, {refused} refused");
    }
}

#[test]
fn refusals_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let good = index_bytes(folder.path());
    let why = |bytes: &[u8], kind, major| File::from_bytes(bytes, kind, major).unwrap_err().to_string();
    assert!(why(&[], KIND, 1).contains("0 bytes"));
    assert!(
        why(b"not a tasc file, but long enough to have a whole header in it, if one counts every byte....", KIND, 1)
            .contains("not a tasc file")
    );
    assert!(why(&good, Kind(*b"STOR"), 1).contains("kind INDX, STOR is wanted"));
    assert!(why(&good, KIND, 3).contains("format version 2.2, this tasc reads 3.x"));
    let mut older = good.clone();
    older[12] = 1;
    let message = why(&older, KIND, VERSION.0);
    assert!(message.contains("format version 1.2, this tasc reads 2.x; build it again: tasc index build"), "{message}");
    assert!(why(&good[..good.len() - 1], KIND, VERSION.0).contains("cut short"));
    let mut damaged = good.clone();
    damaged[HEADER_BYTES + 70] ^= 1;
    let open = TaskIndex::from_file(File::from_bytes(&damaged, KIND, VERSION.0).unwrap());
    assert!(open.and_then(|i| i.verify()).unwrap_err().to_string().contains("section `"));
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tasc");
    let mut writer = Writer::create(&path, KIND, 1, 0, &Fingerprint::default()).unwrap();
    writer.section("a", &[1u32, 2, 3]).unwrap();
    assert!(writer.begin("a").unwrap_err().to_string().contains("has a section of that name"));
    assert!(writer.begin("a name that is too long").is_err());
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn readers_survive_replacement() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = index_bytes(folder.path());
    let path = folder.path().join("a.tasc");
    let old = TaskIndex::open(&path).unwrap();
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for _ in 0..200 {
                    let now = TaskIndex::open(&path).unwrap();
                    now.verify().unwrap();
                    assert_eq!(old.ngrams().bwt, now.ngrams().bwt);
                }
            });
        }
        s.spawn(|| (0..20).for_each(|_| assert_eq!(index_bytes(folder.path()), bytes, "same input, same bytes")));
    });
    old.verify().unwrap();
}
