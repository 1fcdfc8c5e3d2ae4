//! Any bytes as a plan; what opens must segment and expand.
#![no_main]
use std::sync::LazyLock;

use hostile::{changed, from_nothing, written};
use libfuzzer_sys::fuzz_target;
use tasc_core::corpus::store::StoreMeta;
use tasc_core::corpus::{Store, StoreWriter};
use tasc_core::format::{File, Fingerprint};
use tasc_core::merge::plan::{KIND, VERSION};
use tasc_core::merge::{LearnOptions, MergePlan, MergerOptions};

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    written(|path| {
        let rows = path.with_extension("rows");
        let meta = StoreMeta { vocab_size: 50, eos_id: Some(2), ..StoreMeta::default() };
        let mut writer = StoreWriter::create(&rows, &Fingerprint::default(), meta).expect("created");
        writer.push(&[1, 3, 4, 5, 1, 3, 2], None, 9).expect("pushed");
        writer.push(&[3, 4, 5, 4, 5, 2], None, 9).expect("pushed");
        writer.finish().expect("finished");
        let merger = MergerOptions { min_count: 2, min_documents: 2, ..MergerOptions::default() };
        let options = LearnOptions { merger, ..LearnOptions::default() };
        let store = Store::open(&rows).expect("opened");
        MergePlan::learn(&store, path, &options, |_| Ok(())).expect("learnt");
    })
});

fuzz_target!(|data: &[u8]| {
    for bytes in [from_nothing(data, KIND, VERSION.0), changed(&GOOD, data, KIND, VERSION.0)] {
        let Ok(plan) = File::from_bytes(&bytes, KIND, VERSION.0).and_then(MergePlan::from_file) else { continue };
        let segmenter = plan.segmenter();
        for k in 0..segmenter.len() {
            let expansion = segmenter.expansion(k).expect("it is there");
            let segmented = segmenter.segment(expansion).expect("base ids");
            assert_eq!(segmenter.expand(&segmented).expect("its own ids"), expansion);
        }
    }
});
