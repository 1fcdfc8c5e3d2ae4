#![allow(missing_docs, clippy::unwrap_used)]
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
#[derive(Default)]
struct H(u64);
impl Hasher for H {
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, x: u64) {
        self.0 = x.wrapping_mul(0xf135_7aea_2e62_a9c5);
    }
}
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.split(' ').collect();
    (f[13].parse::<f64>().unwrap() + f[14].parse::<f64>().unwrap()) / 100.0
}
fn main() {
    let ids: Vec<u32> = std::fs::read("/tmp/count/corpus.ids")
        .unwrap()
        .chunks(4)
        .map(|c| u32::from_le_bytes(c.try_into().unwrap()))
        .collect();
    for _ in 0..3 {
        let t = cpu();
        let mut m: HashMap<u64, u32, BuildHasherDefault<H>> = HashMap::default();
        for w in ids.windows(4) {
            let k = w.iter().fold(0u64, |k, &x| k << 16 | u64::from(x + 1));
            *m.entry(k).or_insert(0) += 1;
        }
        let t1 = cpu();
        let mut v: Vec<(u64, u32)> = m.into_iter().collect();
        v.sort_unstable();
        println!("hash of 4-grams alone, {} distinct: {:.2} + sort of the distinct {:.2}", v.len(), t1 - t, cpu() - t1);
        let t = cpu();
        let mut v: Vec<(u64, u32, u32)> = ids
            .windows(4)
            .enumerate()
            .map(|(i, w)| (w.iter().fold(0u64, |k, &x| k << 16 | u64::from(x + 1)), i as u32, 0))
            .collect();
        v.sort_unstable_by_key(|e| e.0);
        println!("sort_unstable of 16-byte windows: {:.2}", cpu() - t);
        let t = cpu();
        let mut a: Vec<(u64, u32, u32)> = ids
            .windows(4)
            .enumerate()
            .map(|(i, w)| (w.iter().fold(0u64, |k, &x| k << 16 | u64::from(x + 1)), i as u32, 0))
            .collect();
        let mut b = a.clone();
        for shift in (0..64).step_by(11) {
            let mut c = [0usize; 2048];
            a.iter().for_each(|e| c[(e.0 >> shift) as usize & 2047] += 1);
            let mut s = 0;
            for x in &mut c {
                s += *x;
                *x = s - *x;
            }
            for e in &a {
                let p = &mut c[(e.0 >> shift) as usize & 2047];
                b[*p] = *e;
                *p += 1;
            }
            std::mem::swap(&mut a, &mut b);
        }
        println!("radix sort over all windows, 11 bits: {:.2} {}", cpu() - t, a[5].1);
    }
}
