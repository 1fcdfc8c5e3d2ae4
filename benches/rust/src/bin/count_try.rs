use std::time::Instant;
use tasc_core::corpus::{Store, StoreWriter, store::Meta};
use tasc_core::count::*;
use tasc_core::format::Fingerprint;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let path = std::path::Path::new("/tmp/count/s.store");
    if !path.exists() {
        let ids: Vec<u32> = std::fs::read("/tmp/count/corpus.ids")
            .unwrap()
            .chunks(4)
            .map(|c| u32::from_le_bytes(c.try_into().unwrap()))
            .collect();
        let mut w =
            StoreWriter::create(path, &Fingerprint::default(), Meta { vocab_size: 32001, ..Meta::default() }).unwrap();
        for d in ids.split_inclusive(|&i| i == 32000) {
            w.push(d, None, 1).unwrap();
        }
        w.finish().unwrap();
    }
    let store = Store::open(path).unwrap();
    let opts = CountOptions {
        max_length: a[1].parse().unwrap(),
        memory_limit: a[2].parse::<usize>().unwrap() << 20,
        num_threads: a[3].parse().unwrap(),
        ..Default::default()
    };
    for _ in 0..3 {
        let t = Instant::now();
        let c = count(&store, "/tmp/count/t.ngrams".as_ref(), &opts, |_| Ok(())).unwrap();
        println!("{:?} {:?}", t.elapsed(), c);
    }
    let t = NgramTable::open("/tmp/count/t.ngrams".as_ref()).unwrap();
    println!("{:?} {} bytes", t.meta(), std::fs::metadata("/tmp/count/t.ngrams").unwrap().len());
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", s.lines().filter(|l| l.starts_with("VmHWM") || l.starts_with("Rss")).collect::<Vec<_>>().join(" "));
}
