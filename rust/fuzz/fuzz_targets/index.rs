//! Any bytes as an index, drafted from: without an input and with one.
#![no_main]
use std::sync::{Arc, LazyLock};

use hostile::{changed, from_nothing, written};
use libfuzzer_sys::fuzz_target;
use tasc_core::corpus::{Store, StoreWriter, store};
use tasc_core::draft::{CostCurve, Drafter, DrafterOptions};
use tasc_core::format::{File, Fingerprint};
use tasc_core::task::TaskIndex;
use tasc_core::task::file::{BuildOptions, KIND, VERSION};
use tasc_core::text::PieceTokenizer;
use tasc_core::{Result, TokenId};

/// Every byte is a token.
struct Bytes;

impl PieceTokenizer for Bytes {
    fn tokenize_pieces(&self, pieces: &[&str]) -> Result<Vec<Vec<TokenId>>> {
        Ok(pieces.iter().map(|p| p.bytes().map(TokenId::from).collect()).collect())
    }
}

fn row(k: u32) -> (String, Vec<TokenId>) {
    (
        format!("from {} to {}", k % 7, 2 * k % 19),
        format!("f={} t={};", k % 7, 2 * k % 19).bytes().map(TokenId::from).collect(),
    )
}

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    written(|path| {
        let rows = path.with_extension("store");
        let mut writer = StoreWriter::create(&rows, &Fingerprint::default(), store::StoreMeta::default()).expect("created");
        for k in 0..40 {
            let (input, output) = row(k);
            writer.push(&output, Some(&input), 1 + u64::from(k) * 9).expect("pushed");
        }
        writer.finish().expect("finished");
        let options = BuildOptions { tokenizer: Some(&Bytes), ..BuildOptions::default() };
        let store = Store::open(&rows).expect("opened");
        TaskIndex::build(&store, path, &options, |_| Ok(())).expect("built");
    })
});

fuzz_target!(|data: &[u8]| {
    for bytes in [from_nothing(data, KIND, VERSION.0), changed(&GOOD, data, KIND, VERSION.0)] {
        let Ok(index) = File::from_bytes(&bytes, KIND, VERSION.0).and_then(TaskIndex::from_file) else { continue };
        let options = DrafterOptions { tokenizer: Some(Arc::new(Bytes)), ..DrafterOptions::default() };
        let drafter = Drafter::new(Some(Arc::new(index)), options);
        let (Ok(drafter), Ok(costs)) = (drafter, CostCurve::linear(0.0)) else { continue };
        for input in [None, Some("to 8 from 5, 北京")] {
            let Ok(mut request) = drafter.start(&[1, 2, 3], input) else { continue };
            for token in row(5).1 {
                assert!(drafter.draft(&mut request, 16, &costs).tokens.len() <= 16);
                drafter.update(&mut request, &[token]);
            }
        }
    }
});
