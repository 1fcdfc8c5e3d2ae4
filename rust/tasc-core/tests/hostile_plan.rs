//! Plans that are not what they claim: no panic, no huge allocation, an error or a plan that keeps its word.
#![allow(clippy::unwrap_used)]
mod damage;

use damage::damaged;
use tasc_core::corpus::store::StoreMeta;
use tasc_core::corpus::{Store, StoreWriter};
use tasc_core::format::{File, Fingerprint, Writer};
use tasc_core::merge::plan::{KIND, VERSION};
use tasc_core::merge::{LearnOptions, MergePlan};
use tasc_core::{Error, Result};

/// Damaged files.
const ROUNDS: u64 = 60_000;

fn plan_bytes() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let meta = StoreMeta { tokenizer: "toy".into(), vocab_size: 50, eos_id: Some(2), ..StoreMeta::default() };
    let mut writer = StoreWriter::create(&path, &Fingerprint([7; 32]), meta).unwrap();
    for k in 0..12u32 {
        writer.push(&[1, 3 + k % 7, 4, 5, 6, 4, 5, 2], None, u64::from(k) + 1).unwrap();
    }
    writer.finish().unwrap();
    let plan = folder.path().join("p");
    MergePlan::learn(&Store::open(&path).unwrap(), &plan, &LearnOptions::default(), |_| Ok(())).unwrap();
    std::fs::read(plan).unwrap()
}

/// Reads everything; what opens must segment and expand.
fn read_all(bytes: &[u8]) -> Result<()> {
    let plan = MergePlan::from_file(File::from_bytes(bytes, KIND, VERSION.0)?)?;
    let segmenter = plan.segmenter();
    assert_eq!((plan.counts().len(), plan.documents().len()), (segmenter.len(), segmenter.len()));
    for k in 0..segmenter.len() {
        let expansion = segmenter.expansion(k).unwrap();
        assert!(expansion.len() >= 2 && expansion.iter().all(|&id| id < plan.base_vocab_size()));
        let segmented = segmenter.segment(expansion).unwrap();
        assert_eq!(segmented, [plan.base_vocab_size() + u32::try_from(k).unwrap()]);
        assert_eq!(segmenter.expand(&segmented).unwrap(), expansion);
    }
    plan.verify()
}

#[test]
fn damaged_plans_never_panic() {
    let good = plan_bytes();
    read_all(&good).unwrap();
    let mut state = 0x9E37_79B9_97F4_A7C1;
    let (mut read, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        match read_all(&damaged(&good, round, &mut state)) {
            Ok(()) => read += 1,
            Err(Error::Format { .. }) => refused += 1,
            Err(other) => panic!("unexpected {other:?}"),
        }
    }
    assert!(refused > ROUNDS / 2, "{refused} refused, {read} read: most damage should be noticed");
}

/// A plan of these contents, opened.
fn opened(meta: &str, expansions: &[u32], offsets: &[u64], numbers: usize) -> Result<MergePlan> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p");
    let mut out = Writer::create(&path, KIND, VERSION.0, VERSION.1, &Fingerprint::default()).unwrap();
    out.section("expansions", expansions).unwrap();
    out.section("offsets", offsets).unwrap();
    out.section("counts", &vec![0u64; numbers]).unwrap();
    out.section("documents", &vec![0u64; numbers]).unwrap();
    out.section::<u64>("curve", &[]).unwrap();
    out.section("meta", meta.as_bytes()).unwrap();
    out.finish().unwrap();
    MergePlan::open(&path)
}

#[test]
fn contents_that_cannot_be_are_named() {
    let meta = r#"{"base_vocab_size": 10}"#;
    assert_eq!(opened(meta, &[1, 2, 3], &[0, 3], 1).unwrap().segmenter().len(), 1);
    assert_eq!(opened(meta, &[], &[0], 0).unwrap().segmenter().len(), 0);
    let cases: &[(&[u32], &[u64], usize, &str)] = &[
        (&[1], &[0, 1], 1, "has 1 ids"),
        (&[], &[0, 0], 1, "has 0 ids"),
        (&[1, 10], &[0, 2], 1, "token id 10"),
        (&[1, 2, 1, 2], &[0, 2, 4], 2, "two new tokens"),
        (&[1, 2, 3], &[0, 2], 1, "do not cover"),
        (&[1, 2, 3], &[1, 3], 1, "do not cover"),
        (&[1, 2], &[0, 9], 1, "outside"),
        (&[1, 2, 3, 4], &[0, 4, 2, 4], 3, "outside"),
        (&[1, 2], &[], 0, "it is empty"),
        (&[1, 2], &[0, 2], 2, "2 elements, 1 belong there"),
    ];
    for (expansions, offsets, numbers, wanted) in cases {
        let why = opened(meta, expansions, offsets, *numbers).unwrap_err().to_string();
        assert!(why.contains(wanted), "{why} should say {wanted}");
    }
    let why = |meta| opened(meta, &[1, 2], &[0, 2], 1).unwrap_err().to_string();
    assert!(why(r#"{"base_vocab_size": 4294967295}"#).contains("do not fit"));
    assert!(why("{").contains("section `meta`"));
}
