//! Building the n-gram index.
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tasc_benches::Workload;
use tasc_core::index::NgramsBuilder;

fn build(c: &mut Criterion) {
    let documents = Workload::new(7).documents(500_000);
    let tokens: usize = documents.iter().map(Vec::len).sum();
    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Elements(tokens as u64)).sample_size(10);
    group.bench_function("build 0.5M tokens", |b| {
        b.iter(|| {
            let mut builder = NgramsBuilder::new();
            for d in &documents {
                builder.push(d, 1).expect("in range");
            }
            builder.build(|_| Ok(())).expect("not empty")
        });
    });
    group.finish();
}

criterion_group!(benches, build);
criterion_main!(benches);
