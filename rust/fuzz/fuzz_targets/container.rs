//! Any bytes as a container: header, table, sections, checksums.
#![no_main]
use std::sync::LazyLock;

use hostile::{changed, from_nothing, written};
use libfuzzer_sys::fuzz_target;
use tasc_core::format::{File, Fingerprint, Kind, Writer};

const KIND: Kind = Kind(*b"FUZZ");

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    written(|path| {
        let mut writer = Writer::create(path, KIND, 1, 0, &Fingerprint::default()).expect("created");
        writer.section("some", &[1u32, 2, 3]).expect("written");
        writer.section("more", &[1u64, 2, 3]).expect("written");
        writer.finish().expect("finished");
    })
});

fuzz_target!(|data: &[u8]| {
    for bytes in [data.to_vec(), from_nothing(data, KIND, 1), changed(&GOOD, data, KIND, 1)] {
        let Ok(file) = File::from_bytes(&bytes, KIND, 1) else { continue };
        for (name, _) in file.sections().collect::<Vec<_>>() {
            let _ = file.section::<u8>(&name).map(|s| s.get(&file).len());
            let _ = file.section::<u64>(&name).map(|s| s.get(&file).len());
        }
        let _ = file.verify();
    }
});
