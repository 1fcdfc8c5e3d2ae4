//! Any bytes as a table of n-grams: read whole, looked up in, ranked.
#![no_main]
use std::sync::LazyLock;

use hostile::{changed, from_nothing, written};
use libfuzzer_sys::fuzz_target;
use tasc_core::corpus::{Store, StoreWriter, store};
use tasc_core::count::table::{KIND, VERSION};
use tasc_core::count::{CountOptions, NgramTable, Place, count};
use tasc_core::format::{File, Fingerprint};

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    written(|path| {
        let rows = path.with_extension("store");
        let mut writer = StoreWriter::create(&rows, &Fingerprint::default(), store::StoreMeta::default()).expect("created");
        for k in 0..40 {
            writer.push(&[1, k % 7, 300 * k, k, 1, 2], None, 1 + u64::from(k) * 90).expect("pushed");
        }
        writer.finish().expect("finished");
        let options = CountOptions { max_length: 3, ..CountOptions::default() };
        count(&Store::open(&rows).expect("opened"), path, &options, |_| Ok(())).expect("counted");
    })
});

fuzz_target!(|data: &[u8]| {
    for bytes in [from_nothing(data, KIND, VERSION.0), changed(&GOOD, data, KIND, VERSION.0)] {
        let Ok(table) = File::from_bytes(&bytes, KIND, VERSION.0).and_then(NgramTable::from_file) else { continue };
        for length in 0..=table.max_length() + 1 {
            let mut place = Place::new(length);
            while let Ok(Some((ids, ..))) = place.next(&table) {
                assert_eq!(ids.len(), length);
            }
        }
        for ids in [&[][..], &[1], &[1, 3], &[300, 1, 1], &[u32::MAX; 40]] {
            let _ = table.lookup(ids);
        }
        let _ = table.top(3, 1..4, || Ok(())).map(|best| assert!(best.len() <= 3));
        let _ = table.verify();
    }
});
