//! Merging and segmentation against their naive twins.
#![allow(clippy::unwrap_used)] // a test may
#[path = "support/naive.rs"]
mod naive;

use std::sync::Arc;

use naive::{NaiveMerger, segment};
use proptest::prelude::*;
use tasc_core::merge::{Merger, MergerOptions, SegmentStream, Segmenter};
use tasc_core::{Error, TokenId};

/// Base ids are below it.
const BASE: TokenId = 50;

/// Few ids, runs and repeated phrases, so that pairs touch, overlap and tie.
fn document() -> impl Strategy<Value = Vec<TokenId>> {
    let run = (0..3u32, 1..9usize).prop_map(|(id, n)| vec![id; n]);
    let phrase = prop::sample::select(vec![vec![0, 1], vec![0, 1, 0], vec![2, 7, 1, 2], vec![40, 40, 41], vec![49]]);
    let free = prop::collection::vec(0..4u32, 0..6);
    prop::collection::vec(prop_oneof![run, phrase, free], 0..6).prop_map(|parts| parts.concat())
}

fn documents() -> impl Strategy<Value = Vec<(Vec<TokenId>, u64)>> {
    let weight = prop_oneof![5 => Just(1u64), 2 => 2..5u64, 1 => 100..103u64];
    prop::collection::vec((document(), weight), 1..12)
}

fn options() -> impl Strategy<Value = MergerOptions> {
    let barriers = prop::collection::vec(prop_oneof![0..3u32, Just(40), Just(49)], 0..2);
    (0..6u64, 0..5u64, prop_oneof![Just(64u32), 0..7u32], barriers).prop_map(
        |(min_count, min_documents, max_length, barriers)| MergerOptions {
            min_count,
            min_documents,
            max_length,
            barriers,
        },
    )
}

/// Expansions as merging makes them, or any.
fn expansions() -> impl Strategy<Value = Vec<Vec<TokenId>>> {
    let any = prop::collection::btree_set(prop::collection::vec(0..3u32, 2..7), 0..12);
    any.prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn merges_are_those_of_the_twin(documents in documents(), options in options()) {
        let documents: Vec<(&[TokenId], u64)> = documents.iter().map(|d| (d.0.as_slice(), d.1)).collect();
        let mut fast = Merger::new(&documents, &options).unwrap();
        let mut slow = NaiveMerger::new(&documents, &options);
        loop {
            let merge = fast.step().map(|m| (m.expansion.clone(), m.count));
            prop_assert_eq!(&merge, &slow.step());
            prop_assert_eq!(fast.uses(), slow.uses());
            if merge.is_none() {
                break;
            }
        }
    }

    #[test]
    fn segmentation_is_that_of_the_twin(expansions in expansions(), ids in prop::collection::vec(0..3u32, 0..40)) {
        let segmenter = Segmenter::new(BASE, &expansions).unwrap();
        let segmented = segmenter.segment(&ids).unwrap();
        prop_assert_eq!(&segmented, &segment(BASE, &expansions, &ids));
        prop_assert_eq!(segmenter.expand(&segmented).unwrap(), ids);
    }

    #[test]
    fn a_stream_adds_up_to_the_segmentation(
        expansions in expansions(),
        ids in prop::collection::vec(0..3u32, 0..40),
        sizes in prop::collection::vec(0..5usize, 40),
    ) {
        let segmenter = Arc::new(Segmenter::new(BASE, &expansions).unwrap());
        let mut stream = SegmentStream::new(segmenter.clone());
        for _ in 0..2 {
            let (mut rest, mut out) = (ids.as_slice(), Vec::new());
            for &size in &sizes {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                out.extend(stream.push(piece).unwrap());
                rest = after;
                let known = ids.len() - rest.len();
                prop_assert!(ids[..known].starts_with(&segmenter.expand(&out).unwrap()));
            }
            out.extend(stream.push(rest).unwrap());
            out.extend(stream.finish());
            prop_assert_eq!(&out, &segmenter.segment(&ids).unwrap());
        }
    }

    #[test]
    fn ids_that_no_expansion_holds_are_given_out_at_once(expansions in expansions(), ids in document()) {
        let mut stream = SegmentStream::new(Arc::new(Segmenter::new(BASE, &expansions).unwrap()));
        let mut given = stream.push(&ids).unwrap();
        given.extend(stream.push(&[30]).unwrap());
        prop_assert_eq!(given.last(), Some(&30));
        prop_assert_eq!(stream.finish(), Vec::<TokenId>::new());
    }
}

#[test]
fn runs_are_counted_without_overlap() {
    let options = MergerOptions { min_count: 1, min_documents: 0, ..MergerOptions::default() };
    // (7, 7) stands 4 times with overlap, twice without; (1, 2) three times.
    let mut merger = Merger::new(&[(&[7, 7, 7, 7, 7], 1), (&[1, 2, 1, 2, 1, 2], 1)], &options).unwrap();
    let merge = merger.step().unwrap();
    assert_eq!((merge.expansion.as_slice(), merge.count), (&[1, 2][..], 3));
    let merge = merger.step().unwrap();
    assert_eq!((merge.expansion.as_slice(), merge.count), (&[7, 7][..], 2));
}

#[test]
fn expansions_that_are_none_are_named() {
    let refused = |expansions: &[&[TokenId]]| Segmenter::new(BASE, expansions).unwrap_err();
    assert!(matches!(refused(&[&[1]]), Error::Plan { why } if why.contains("has 1 ids")));
    assert!(matches!(refused(&[&[1, 2], &[2, 3], &[1, 2]]), Error::Plan { why } if why.contains("[1, 2]")));
    assert!(matches!(refused(&[&[1, BASE]]), Error::TokenId { id: BASE, limit: BASE }));
    assert!(matches!(Segmenter::new(u32::MAX, &[[1, 2]]).unwrap_err(), Error::Plan { .. }));
}
