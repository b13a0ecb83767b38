//! What it costs to hand a row from the task that admits it to the worker that takes it, and to get a run slot for it.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gristmill_engine::testing::probe::{Batch, QueueProbe, SlotsProbe};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The engine's default.
const QUEUE_ROWS_MAX: usize = 4096;
const BATCH: usize = 64;
const PRODUCERS: usize = 64;
const CORES: usize = 16;
const DUE_AFTER: Duration = Duration::from_millis(100);
/// More than one run, and less than what waits where `DUE_AFTER` is too near.
const REFUSED_AFTER: Duration = Duration::from_millis(1);
/// So that run times are known.
const WARM_UP_BATCHES: usize = 32;

/// One thread pushes and takes: no waiting, no wake-up.
fn uncontended(criterion: &mut Criterion) {
    push_and_take(criterion, "queue uncontended", QueueProbe::push);
}

/// The same with deadlines, so that each row is admitted by when it is expected to be done.
fn with_deadlines(criterion: &mut Criterion) {
    push_and_take(criterion, "queue with deadlines", |queue| queue.push_due(DUE_AFTER));
}

fn push_and_take(criterion: &mut Criterion, name: &str, push: impl Fn(&QueueProbe) -> bool) {
    let queue = QueueProbe::new(QUEUE_ROWS_MAX);
    let mut batch = Batch::default();
    let mut group = criterion.benchmark_group(name);
    for rows in [1, BATCH] {
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(rows.to_string(), |bencher| {
            bencher.iter(|| {
                for _ in 0..rows {
                    assert!(push(&queue), "there is room, and time");
                }
                // One batch, once it is known that larger ones take no longer.
                let mut taken = 0;
                while taken < rows {
                    taken += queue.next_batch(&mut batch).expect("nobody closes the queue");
                }
            });
        });
    }
}

/// A row that is refused because what goes before it takes too long.
fn refused(criterion: &mut Criterion) {
    let queue = QueueProbe::new(QUEUE_ROWS_MAX);
    let mut batch = Batch::default();
    for _ in 0..WARM_UP_BATCHES {
        assert!(queue.push(), "there is room");
        queue.next_batch(&mut batch);
    }
    while queue.push_due(DUE_AFTER) {}
    criterion.bench_function("queue refused", |bencher| {
        bencher.iter(|| assert!(!queue.push_due(REFUSED_AFTER), "what waits takes longer"));
    });
}

/// There and back between two threads that sleep in between: two hops with their wake-ups.
fn round_trip(criterion: &mut Criterion) {
    let [there, back] = [QueueProbe::new(QUEUE_ROWS_MAX), QueueProbe::new(QUEUE_ROWS_MAX)];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut batch = Batch::default();
            while there.next_batch(&mut batch).is_some() {
                assert!(back.push(), "there is room");
            }
        });
        let mut batch = Batch::default();
        criterion.bench_function("queue round trip", |bencher| {
            bencher.iter(|| {
                assert!(there.push(), "there is room");
                back.next_batch(&mut batch)
            });
        });
        there.close();
    });
}

/// Many threads push, as fast as there is room, and one takes.
fn producers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("{PRODUCERS} producers"), |bencher| bencher.iter_custom(crowd));
}

fn crowd(rows: u64) -> Duration {
    let queue = QueueProbe::new(QUEUE_ROWS_MAX);
    let each = (rows as usize).div_ceil(PRODUCERS);
    std::thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            scope.spawn(|| {
                for _ in 0..each {
                    while !queue.push() {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let start = Instant::now();
        let mut batch = Batch::default();
        let mut taken = 0;
        while taken < each * PRODUCERS {
            taken += queue.next_batch(&mut batch).expect("nobody closes the queue");
        }
        // Of as many rows as were asked for, not of those that sharing them out has added.
        start.elapsed().mul_f64(rows as f64 / taken as f64)
    })
}

/// Nobody else wants the cores: what a batch pays for the core budget.
fn slots(criterion: &mut Criterion) {
    let mut worker = SlotsProbe::new(CORES);
    let mut group = criterion.benchmark_group("slot");
    group.bench_function("asked for and given back", |bencher| {
        bencher.iter(|| {
            worker.next();
            worker.give_back();
        });
    });
    group.bench_function("kept for the next batch", |bencher| bencher.iter(|| worker.next()));
}

criterion_group!(benches, uncontended, with_deadlines, refused, round_trip, producers, slots);
criterion_main!(benches);
