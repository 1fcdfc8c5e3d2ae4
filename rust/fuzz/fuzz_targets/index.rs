//! Any bytes as an index, drafted from.
#![no_main]
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use resealed::resealed;
use tasc_core::draft::{CostCurve, Drafter, DrafterOptions};
use tasc_core::format::File;
use tasc_core::index::TaskIndex;
use tasc_core::index::file::{KIND, VERSION};

fuzz_target!(|data: &[u8]| {
    let bytes = resealed(data, KIND.0, VERSION.0);
    let Ok(index) = File::from_bytes(&bytes, KIND, VERSION.0).and_then(TaskIndex::from_file) else { return };
    let (Ok(drafter), Ok(costs)) =
        (Drafter::new(Some(Arc::new(index)), DrafterOptions::default()), CostCurve::linear(0.0))
    else {
        return;
    };
    let mut request = drafter.start(&[1, 2, 3]);
    for token in [1, 2, 3] {
        assert!(drafter.draft(&mut request, 16, &costs).tokens.len() <= 16);
        drafter.update(&mut request, &[token]);
    }
});
