//! Which ends of a request count for and against its model's objective.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_engine::attainment::Tally;
use gristmill_engine::engine::Engine;
use gristmill_engine::error::{InferError, RunError};
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::request::{NamedTensor, Query, VersionSelector};
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_engine::testing::{FakeBackend, Gate, engine};
use gristmill_engine::tuning::Tuning;
use tokio::task::JoinHandle;

/// What the model's runs fail for.
const BAD_INPUT: i32 = 13;
const BROKEN: i32 = 14;

/// An identity model on one worker, one row a batch and two in the queue, whose runs wait at the gate.
fn world() -> (Arc<Engine>, Reconciler, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let passed = Arc::clone(&gate);
    let backend = FakeBackend::checked_identity(DType::Int32, &[1], move |input| {
        passed.pass();
        match input.data.first_chunk().map(|bytes| i32::from_le_bytes(*bytes)) {
            Some(BAD_INPUT) => Err(RunError::Input("13 is not allowed".into())),
            Some(BROKEN) => Err(RunError::Failed("it broke".into())),
            _ => Ok(()),
        }
    });
    let tuning =
        Tuning { instances: Some(1), batch_rows_max: Some(1), queue_rows_max: Some(2), ..Tuning::default() };
    let (engine, reconciler) = engine([("m", 1, backend, tuning)]);
    (Arc::new(engine), reconciler, gate)
}

fn query(value: i32, deadline: Option<Instant>) -> Query {
    let data = value.to_le_bytes().to_vec();
    let tensor = Tensor::new(DType::Int32, [1, 1].as_slice(), data.into()).unwrap();
    let inputs = vec![NamedTensor { name: "x".into(), tensor }];
    Query { model: "m".into(), inputs, deadline, ..Query::default() }
}

fn within(milliseconds: u64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(milliseconds))
}

fn counts(engine: &Engine) -> (u64, u64) {
    let attainment = engine.attainment("m").unwrap();
    let [Tally { good, bad }, ..] = attainment.windows.map(|window| window.tally);
    assert!(attainment.windows.iter().all(|window| window.tally == Tally { good, bad }));
    (good, bad)
}

/// One request is being run and stays at the gate.
async fn occupy(engine: &Arc<Engine>, gate: &Arc<Gate>, deadline: Option<Instant>) -> JoinHandle<bool> {
    gate.close();
    let task = ask(engine, query(1, deadline));
    let (done, waited) = tokio::sync::oneshot::channel();
    let gate = Arc::clone(gate);
    std::thread::spawn(move || {
        gate.wait_for(1);
        done.send(()).unwrap();
    });
    waited.await.unwrap();
    task
}

/// Whether it is answered.
fn ask(engine: &Arc<Engine>, query: Query) -> JoinHandle<bool> {
    let engine = Arc::clone(engine);
    tokio::spawn(async move { engine.infer(query).await.is_ok() })
}

async fn all_queued() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn answers_count_for_it_and_failures_against_it() {
    let (engine, _reconciler, _gate) = world();
    assert_eq!(counts(&engine), (0, 0));
    engine.infer(query(1, None)).await.unwrap();
    engine.infer(query(1, within(3_600_000))).await.unwrap();
    assert_eq!(counts(&engine), (2, 0));
    assert!(matches!(engine.infer(query(BROKEN, None)).await, Err(InferError::Backend(_))));
    assert_eq!(counts(&engine), (2, 1));
    assert!(matches!(
        engine.infer(query(1, Some(Instant::now()))).await,
        Err(InferError::DeadlineExceeded { .. })
    ));
    assert_eq!(counts(&engine), (2, 2), "expired before it came");
}

#[tokio::test]
async fn a_clients_mistake_counts_for_nothing() {
    let (engine, _reconciler, _gate) = world();
    assert!(matches!(engine.infer(query(BAD_INPUT, None)).await, Err(InferError::InvalidInput(_))));
    let no_inputs = Query { model: "m".into(), ..Query::default() };
    assert!(matches!(engine.infer(no_inputs).await, Err(InferError::InvalidInput(_))));
    let other = Query { version: VersionSelector::Number(9), ..query(1, None) };
    assert!(matches!(engine.infer(other).await, Err(InferError::NotFound(_))));
    assert_eq!(counts(&engine), (0, 0));
    assert!(matches!(engine.attainment("other"), Err(InferError::NotFound(_))));
}

#[tokio::test]
async fn a_refusal_counts_against_it_and_a_caller_who_leaves_does_not() {
    let (engine, _reconciler, gate) = world();
    let first = occupy(&engine, &gate, None).await;
    let leaves = ask(&engine, query(1, None));
    let stays = ask(&engine, query(1, None));
    all_queued().await;
    assert!(matches!(engine.infer(query(1, None)).await, Err(InferError::Overloaded { .. })));
    leaves.abort();
    all_queued().await;
    gate.open();
    assert!(first.await.unwrap() && stays.await.unwrap());
    assert_eq!(counts(&engine), (2, 1));
}

#[tokio::test]
async fn who_expires_counts_against_it_wherever_they_are() {
    let (engine, _reconciler, gate) = world();
    // One expires in its run and one in the queue; both are told before anybody looks at them again.
    let running = occupy(&engine, &gate, within(1000)).await;
    let waiting = ask(&engine, query(1, within(1)));
    assert!(!running.await.unwrap() && !waiting.await.unwrap());
    gate.open();
    engine.infer(query(1, None)).await.unwrap();
    assert_eq!(counts(&engine), (1, 2));
}

#[tokio::test]
async fn what_is_asked_of_a_server_that_ends_counts_against_it() {
    let (engine, reconciler, _gate) = world();
    reconciler.shut_down();
    assert!(matches!(engine.infer(query(1, None)).await, Err(InferError::Unavailable(_))));
    assert_eq!(counts(&engine), (0, 1));
}
