//! Any bytes as a store, read whole.
#![no_main]
use std::sync::LazyLock;

use hostile::{changed, from_nothing, written};
use libfuzzer_sys::fuzz_target;
use tasc_core::corpus::store::{KIND, StoreMeta, VERSION};
use tasc_core::corpus::{Store, StoreWriter};
use tasc_core::format::{File, Fingerprint};

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    written(|path| {
        let mut writer = StoreWriter::create(path, &Fingerprint::default(), StoreMeta::default()).expect("created");
        writer.push(&[1, 2, 3], Some("é input"), 1).expect("pushed");
        writer.push(&[1, 4], None, 2).expect("pushed");
        writer.finish().expect("finished");
    })
});

fuzz_target!(|data: &[u8]| {
    for bytes in [from_nothing(data, KIND, VERSION.0), changed(&GOOD, data, KIND, VERSION.0)] {
        let Ok(store) = File::from_bytes(&bytes, KIND, VERSION.0).and_then(Store::from_file) else { continue };
        for k in 0..=store.num_documents() {
            let _ = store.document(k).map(<[u32]>::len);
            let _ = store.weight(k);
        }
        for k in 0..=store.num_inputs() {
            if let Ok(row) = store.input(k) {
                assert!((row.document as usize) < store.num_documents());
            }
        }
    }
});
