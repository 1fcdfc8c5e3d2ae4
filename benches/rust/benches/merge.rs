//! Merging and segmentation.
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tasc_benches::Workload;
use tasc_core::merge::{Merger, MergerOptions, Segmenter};

fn merge(c: &mut Criterion) {
    let documents = Workload::new(7).documents(500_000);
    let weighted: Vec<(&[u32], u64)> = documents.iter().map(|d| (d.as_slice(), 1)).collect();
    let tokens: usize = documents.iter().map(Vec::len).sum();
    let merges = || {
        let mut merger = Merger::new(&weighted, &MergerOptions::default()).expect("it fits");
        while merger.merges().len() < 500 && merger.step().is_some() {}
        let mut found: Vec<Vec<u32>> = merger.merges().iter().map(|m| m.expansion.clone()).collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let segmenter = Segmenter::new(1 << 20, &merges()).expect("expansions");
    let mut group = c.benchmark_group("merge");
    group.throughput(Throughput::Elements(tokens as u64)).sample_size(10);
    group.bench_function("500 merges of 0.5M tokens", |b| b.iter(merges));
    group.bench_function("segment 0.5M tokens", |b| b.iter(|| segmenter.segment_batch(&documents, 1)));
    group.finish();
}

criterion_group!(benches, merge);
criterion_main!(benches);
