//! The engine from end to end, without a front door: a query in, its answer out, by way of a worker whose model
//! copies its input. And what a route adds to it.

use std::borrow::Cow;
use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gristmill_benches::model::IDENTITY;
use gristmill_engine::engine::Engine;
use gristmill_engine::request::{Query, VersionSelector};
use gristmill_engine::routing::canary::Canary;
use gristmill_engine::routing::{Arm, KeySource, Keyed, Policy, Route, Weight};
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::{FakeBackend, Gate, engine, engine_with_routes};
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

/// What a route adds: requests that are admitted and given up at once, because both workers are held at a gate, so
/// that no other thread is in the measurement. Requests to the route and to its model take turns, since a machine
/// that others use too changes by more than the difference; what is told is the median difference of many rounds.
/// As in a server somebody reads the ends of routed requests; that is left out of the time.
fn route(criterion: &mut Criterion) {
    let gate = Arc::new(Gate::default());
    let backend = || FakeBackend::identity(DType::Fp32, IDENTITY.row).held_at(&gate);
    let tuning = || Tuning { instances: Some(1), ..Tuning::default() };
    let models = [(IDENTITY.name, 1, backend(), tuning()), (IDENTITY.name, 2, backend(), tuning())];
    let routes = vec![split(2), split(8), canary()];
    let (engine, reconciler) = engine_with_routes(models, routes);
    let engine = Arc::new(engine);
    let io = Builder::new_multi_thread().worker_threads(1).build().expect("the I/O thread starts");
    gate.close();
    for version in [1, 2] {
        let (engine, version) = (Arc::clone(&engine), VersionSelector::Number(version));
        io.spawn(async move { engine.infer(Query { version, ..IDENTITY.query() }).await });
    }
    gate.wait_for(2);
    engine.journal().open();
    let mut group = criterion.benchmark_group("route");
    group.bench_function("model", |bencher| {
        bencher.iter_custom(|requests| given_up(&engine, &IDENTITY.query(), requests));
    });
    for (name, route) in
        [("split of 2 arms adds", "split-2"), ("split of 8 arms adds", "split-8"), ("canary adds", "canary")]
    {
        let query = Query { model: route.into(), ..IDENTITY.query() };
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|requests| added(&engine, &query, requests));
        });
    }
    group.finish();
    gate.open();
    drop(io);
    reconciler.shut_down();
}

/// Requests of one turn.
const TURN: u64 = 200;

/// How much longer so many requests take than as many to the model; never nothing, which criterion cannot tell.
fn added(engine: &Engine, query: &Query, requests: u64) -> Duration {
    let round = |_| {
        let [model, route] =
            [&IDENTITY.query(), query].map(|query| given_up(engine, query, TURN).as_secs_f64());
        while engine.journal().next().is_some() {}
        route - model
    };
    let mut rounds: Vec<f64> = (0..requests.div_ceil(TURN)).map(round).collect();
    rounds.sort_by(f64::total_cmp);
    let median = rounds[rounds.len() / 2];
    Duration::from_secs_f64((median * requests as f64 / TURN as f64).max(1e-9))
}

fn given_up(engine: &Engine, query: &Query, requests: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..requests {
        let mut infer = pin!(engine.infer_keyed(query.clone(), &User));
        let polled = infer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "the workers are held");
    }
    start.elapsed()
}

/// A route to so many arms, by turns to versions 1 and 2.
fn split(arms: u32) -> Route {
    let arm = |index: u32| Arm {
        name: format!("arm-{index}"),
        model: IDENTITY.name.into(),
        version: VersionSelector::Number(u64::from(index % 2) + 1),
        weight: Weight::from_percent(100.0 / f64::from(arms))
            .expect("halves and eighths of 100 are hundredths; this is a bug"),
    };
    Route {
        name: format!("split-{arms}"),
        policy: Policy::Split,
        key: KeySource::Header,
        salt: "bench".into(),
        arms: (0..arms).map(arm).collect(),
        canary: None,
        rollout: Vec::new(),
        shadows: Vec::new(),
    }
}

/// The same of two arms, which are counted and judged.
fn canary() -> Route {
    let route = Route { name: "canary".into(), policy: Policy::Canary, ..split(2) };
    Route { canary: Some(Canary::default()), ..route }.weighed_by_canary()
}

/// A request with a key of usual length.
struct User;

impl Keyed for User {
    fn key(&self, _source: &KeySource) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(b"user-1234567"))
    }
}

criterion_group!(benches, submit, route);
criterion_main!(benches);
