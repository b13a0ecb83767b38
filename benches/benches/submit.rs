//! The engine from end to end, without a front door: a query in, its answer out, by way of a worker whose model
//! copies its input.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gristmill_benches::model::IDENTITY;
use gristmill_engine::engine::Engine;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::{FakeBackend, engine};
use gristmill_engine::tuning::Tuning;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn submit(criterion: &mut Criterion) {
    let backend = FakeBackend::identity(DType::Fp32, IDENTITY.row);
    let tuning = Tuning { instances: Some(1), ..Tuning::default() };
    let (engine, reconciler) = engine([(IDENTITY.name, 1, backend, tuning)]);
    let engine = Arc::new(engine);
    let io = Builder::new_multi_thread().worker_threads(1).build().expect("the I/O thread starts");
    let mut group = criterion.benchmark_group("submit");
    group.throughput(Throughput::Elements(1));
    for in_flight in [1, 64] {
        group.bench_function(format!("{in_flight} in flight"), |bencher| {
            bencher.iter_custom(|requests| closed_loop(&io, &engine, in_flight, requests));
        });
    }
    group.finish();
    drop(io);
    reconciler.shut_down();
}

/// `in_flight` tasks on the I/O thread, each with one request after another.
fn closed_loop(io: &Runtime, engine: &Arc<Engine>, in_flight: u64, requests: u64) -> Duration {
    let each = requests.div_ceil(in_flight);
    let start = Instant::now();
    io.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..in_flight {
            let engine = Arc::clone(engine);
            tasks.spawn(async move {
                let query = IDENTITY.query();
                for _ in 0..each {
                    engine.infer(query.clone()).await.expect("the fake model answers");
                }
            });
        }
        tasks.join_all().await;
    });
    // Of as many requests as were asked for, not of those that sharing them out has added.
    start.elapsed().mul_f64(requests as f64 / (each * in_flight) as f64)
}

criterion_group!(benches, submit);
criterion_main!(benches);
