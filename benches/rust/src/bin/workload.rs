//! Writes the synthetic workload for the Python benchmarks: `workload TOKENS HELD_OUT_TOKENS CORPUS HELD_OUT`.
//!
//! Both files hold u32 ids, little-endian, document after document, each ending with `EOS`.
use std::fs::File;
use std::io::{BufWriter, Write};

use tasc_benches::Workload;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tokens, held_out, corpus_file, held_out_file] = arguments.as_slice() else {
        return Err("give TOKENS HELD_OUT_TOKENS CORPUS HELD_OUT".into());
    };
    let mut workload = Workload::new(7);
    for (count, path) in [(tokens, corpus_file), (held_out, held_out_file)] {
        let mut file = BufWriter::new(File::create(path)?);
        for document in workload.documents(count.parse()?) {
            for id in document {
                file.write_all(&id.to_le_bytes())?;
            }
        }
        file.flush()?;
    }
    Ok(())
}
