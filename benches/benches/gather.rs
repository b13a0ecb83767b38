//! Putting the rows of a batch side by side, and cutting its output into each caller's part.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gristmill_benches::model::fp32;
use gristmill_engine::request::{NamedTensor, Query, Request};
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::batched_signature;
use gristmill_engine::testing::probe::GatherProbe;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCHES: [usize; 4] = [1, 4, 16, 64];
/// 120 bytes a row, and 12 kB.
const ROWS: [&[usize]; 2] = [&[30], &[3, 32, 32]];

fn gather(criterion: &mut Criterion) {
    for row in ROWS {
        let signature = batched_signature(DType::Fp32, row);
        let mut group = criterion.benchmark_group(format!("gather {row:?}"));
        for batch in BATCHES {
            let requests: Vec<Request> = (0..batch)
                .map(|_| {
                    let x = NamedTensor { name: "x".into(), tensor: fp32(&[&[1], row].concat()) };
                    let query = Query { inputs: vec![x], ..Query::default() };
                    Request::new(&signature, query).expect("the request agrees with the signature")
                })
                .collect();
            let mut gather = GatherProbe::default();
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
                bencher.iter(|| gather.fill(black_box(&requests)));
            });
        }
    }
}

fn scatter(criterion: &mut Criterion) {
    for row in ROWS {
        let mut group = criterion.benchmark_group(format!("scatter {row:?}"));
        for batch in BATCHES {
            let output = fp32(&[&[batch], row].concat());
            let counts = vec![1; batch];
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
                bencher.iter(|| {
                    // As in a worker: each part is sent away, and freed by whoever takes it.
                    for part in black_box(&output).split_rows(&counts) {
                        black_box(part);
                    }
                });
            });
        }
    }
}

criterion_group!(benches, gather, scatter);
criterion_main!(benches);
