//! Any bytes as a container: header, table, sections, checksums.
#![no_main]
use libfuzzer_sys::fuzz_target;
use resealed::resealed;
use tasc_core::format::{File, Kind};

fuzz_target!(|data: &[u8]| {
    let kind = Kind(*b"STOR");
    for bytes in [data.to_vec(), resealed(data, kind.0, 1)] {
        let Ok(file) = File::from_bytes(&bytes, kind, 1) else { continue };
        for (name, _) in file.sections().collect::<Vec<_>>() {
            let _ = file.section::<u8>(&name).map(|s| s.get(&file).len());
            let _ = file.section::<u64>(&name).map(|s| s.get(&file).len());
        }
        let _ = file.verify();
    }
});
