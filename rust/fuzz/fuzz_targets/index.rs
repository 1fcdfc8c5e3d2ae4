//! Any bytes as an index, drafted from.
#![no_main]
use std::sync::{Arc, LazyLock};

use hostile::{changed, from_nothing, written};
use libfuzzer_sys::fuzz_target;
use tasc_core::draft::{CostCurve, Drafter, DrafterOptions};
use tasc_core::format::{File, Fingerprint};
use tasc_core::index::file::{KIND, VERSION};
use tasc_core::index::{Meta, NgramsBuilder, TaskIndex};

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut builder = NgramsBuilder::new();
    for k in 0..60u32 {
        builder.push(&[1, 2, 3, 4 + k % 7, 5, 6 + k % 3, 9], u64::from(k) * 9).expect("pushed");
    }
    let built = builder.build(|_| Ok(())).expect("built");
    written(|path| TaskIndex::write(path, &Fingerprint::default(), &Meta::default(), &built).expect("written"))
});

fuzz_target!(|data: &[u8]| {
    for bytes in [from_nothing(data, KIND, VERSION.0), changed(&GOOD, data, KIND, VERSION.0)] {
        let Ok(index) = File::from_bytes(&bytes, KIND, VERSION.0).and_then(TaskIndex::from_file) else { continue };
        let drafter = Drafter::new(Some(Arc::new(index)), DrafterOptions::default());
        let (Ok(drafter), Ok(costs)) = (drafter, CostCurve::linear(0.0)) else { continue };
        let mut request = drafter.start(&[1, 2, 3]);
        for token in [1, 2, 3] {
            assert!(drafter.draft(&mut request, 16, &costs).tokens.len() <= 16);
            drafter.update(&mut request, &[token]);
        }
    }
});
