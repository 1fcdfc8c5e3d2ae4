//! Any bytes as a store, read whole.
#![no_main]
use libfuzzer_sys::fuzz_target;
use resealed::resealed;
use tasc_core::corpus::Store;
use tasc_core::corpus::store::{KIND, VERSION};
use tasc_core::format::File;

fuzz_target!(|data: &[u8]| {
    let bytes = resealed(data, KIND.0, VERSION.0);
    let Ok(store) = File::from_bytes(&bytes, KIND, VERSION.0).and_then(Store::from_file) else { return };
    for k in 0..=store.num_documents() {
        let _ = store.document(k).map(<[u32]>::len);
        let _ = store.weight(k);
    }
    for k in 0..=store.num_inputs() {
        if let Ok(row) = store.input(k) {
            assert!((row.document as usize) < store.num_documents());
        }
    }
});
