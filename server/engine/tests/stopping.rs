//! Runs that nobody waits for, that last too long, or that do not end: what becomes of them, their callers and their worker.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_engine::engine::Engine;
use gristmill_engine::error::{InferError, RunError};
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::request::{NamedTensor, Query, Response, VersionSelector};
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_engine::testing::{FakeBackend, Gate, engine};
use gristmill_engine::tuning::Tuning;
use tokio::task::JoinHandle;

/// Long enough for a run that does not wait to end in on a busy machine.
const RUN_TIMEOUT: Duration = Duration::from_millis(250);

/// The value with which a request waits at the gate of a model that lets others pass.
const HELD: i32 = 666;

fn one_worker() -> Tuning {
    Tuning { instances: Some(1), batch_rows_max: Some(8), ..Tuning::default() }
}

fn query(model: &str, rows: &[i32]) -> Query {
    let data: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = Tensor::new(DType::Int32, [rows.len(), 1].as_slice(), data.into()).unwrap();
    let inputs = vec![NamedTensor { name: "x".into(), tensor }];
    Query { model: model.into(), inputs, ..Query::default() }
}

fn values(response: &Response) -> Vec<i32> {
    response.outputs[0].1.data().as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect()
}

fn spawn(engine: &Arc<Engine>, query: Query) -> JoinHandle<Result<Response, InferError>> {
    let engine = Arc::clone(engine);
    tokio::spawn(async move { engine.infer(query).await })
}

/// Identity models on one worker each whose runs wait, and can be stopped, at their gates.
fn held<const N: usize>(models: [(&'static str, Tuning); N]) -> (Arc<Engine>, Reconciler, [Arc<Gate>; N]) {
    let gates: [Arc<Gate>; N] = std::array::from_fn(|_| Arc::default());
    let models: Vec<_> = models
        .into_iter()
        .zip(&gates)
        .map(|((name, tuning), gate)| {
            (name, 1, FakeBackend::identity(DType::Int32, &[1]).held_at(gate), tuning)
        })
        .collect();
    let (engine, reconciler) = engine(models);
    for gate in &gates {
        gate.close();
    }
    (Arc::new(engine), reconciler, gates)
}

/// An identity model whose runs of the value [`HELD`] wait at a gate, and cannot be stopped.
fn stuck(tuning: Tuning) -> (Arc<Engine>, Reconciler, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let passed = Arc::clone(&gate);
    let backend = FakeBackend::checked_identity(DType::Int32, &[1], move |input| {
        if input.data.as_chunks::<4>().0.contains(&HELD.to_le_bytes()) {
            passed.pass();
        }
        Ok(())
    });
    let (engine, reconciler) = engine([("m", 1, backend, tuning)]);
    gate.close();
    (Arc::new(engine), reconciler, gate)
}

/// Waits on a thread of its own: a test's gate must not hold up the runtime.
async fn blocking<T: Send + 'static>(wait: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, waited) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(wait()).ok());
    waited.await.unwrap()
}

async fn at_gate(gate: &Arc<Gate>) {
    let gate = Arc::clone(gate);
    blocking(move || gate.wait_for(1)).await;
}

async fn nobody_at_gate(gate: &Arc<Gate>) {
    let gate = Arc::clone(gate);
    blocking(move || gate.wait_for_none()).await;
}

async fn leave(caller: JoinHandle<Result<Response, InferError>>) {
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn a_run_that_its_caller_has_left_is_stopped() {
    let (engine, _reconciler, [gate]) = held([("m", one_worker())]);
    let caller = spawn(&engine, query("m", &[1]));
    at_gate(&gate).await;
    leave(caller).await;
    nobody_at_gate(&gate).await;
    gate.open();
    assert_eq!(values(&engine.infer(query("m", &[2])).await.unwrap()), [2], "the session goes on");
}

#[tokio::test]
async fn a_run_goes_on_while_one_of_its_callers_is_left() {
    let pairs =
        Tuning { batch_rows_max: Some(2), batch_delay: Some(Duration::from_secs(60)), ..one_worker() };
    let (engine, _reconciler, [gate, other_gate]) = held([("m", pairs), ("other", one_worker())]);
    let [leaver, stayer] = [1, 2].map(|value| spawn(&engine, query("m", &[value])));
    at_gate(&gate).await;
    leave(leaver).await;
    // When a later run of another model has been stopped twice, this one was looked at in between.
    for _ in 0..2 {
        let other = spawn(&engine, query("other", &[3]));
        at_gate(&other_gate).await;
        leave(other).await;
        nobody_at_gate(&other_gate).await;
    }
    gate.open();
    let response = stayer.await.unwrap().unwrap();
    assert_eq!((values(&response), response.timing.batch_rows), (vec![2], 2));
}

#[tokio::test]
async fn a_request_in_parts_is_stopped_like_any_other() {
    let (engine, _reconciler, [gate]) = held([("m", one_worker())]);
    let caller = spawn(&engine, query("m", &[7; 20]));
    at_gate(&gate).await;
    leave(caller).await;
    nobody_at_gate(&gate).await;
    gate.open();
    assert_eq!(values(&engine.infer(query("m", &[8])).await.unwrap()), [8]);
}

#[tokio::test]
async fn a_deadline_that_passes_stops_the_run() {
    let (engine, _reconciler, [gate]) = held([("m", one_worker())]);
    let mut late = query("m", &[1]);
    late.deadline = Some(Instant::now() + Duration::from_millis(50));
    let late = spawn(&engine, late);
    at_gate(&gate).await;
    assert!(matches!(late.await.unwrap(), Err(InferError::DeadlineExceeded { .. })));
    nobody_at_gate(&gate).await;
}

#[tokio::test]
async fn a_run_that_lasts_too_long_is_stopped_and_its_callers_are_told() {
    let tuning = Tuning { run_timeout: Some(RUN_TIMEOUT), ..one_worker() };
    let (engine, _reconciler, [gate]) = held([("m", tuning)]);
    let error = engine.infer(query("m", &[1, 2])).await.unwrap_err();
    let text = "the run took longer than 250ms and was stopped; run_timeout in the model.toml of 'm' says how long \
                one may take";
    assert_eq!(error, InferError::Backend(text.into()));
    gate.open();
    assert_eq!(values(&engine.infer(query("m", &[3])).await.unwrap()), [3]);
}

#[tokio::test]
async fn a_worker_whose_run_does_not_end_is_replaced() {
    let tuning = Tuning { run_timeout: Some(RUN_TIMEOUT), ..one_worker() };
    let (engine, reconciler, gate) = stuck(tuning);
    let given_up = InferError::Backend(
        "the run took longer than 250ms and did not end when it was stopped; its session is replaced".into(),
    );
    assert_eq!(engine.infer(query("m", &[HELD, 1])).await.unwrap_err(), given_up);
    assert_eq!(values(&engine.infer(query("m", &[2])).await.unwrap()), [2]);
    assert_eq!(engine.infer(query("m", &[HELD, 3])).await.unwrap_err(), given_up, "and once more");
    assert_eq!(values(&engine.infer(query("m", &[4])).await.unwrap()), [4]);
    gate.open();
    nobody_at_gate(&gate).await;
    // What the late runs gave is dropped: nobody is answered twice, and nothing is counted twice.
    assert_eq!(values(&engine.infer(query("m", &[HELD])).await.unwrap()), [HELD]);
    let statistics = engine.statistics(Some("m"), &VersionSelector::Default).unwrap().remove(0).1;
    assert_eq!((statistics.success.count, statistics.fail.count, statistics.inference_count), (3, 2, 3));
    blocking(move || reconciler.shut_down()).await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_run_that_does_not_end() {
    let tuning = Tuning { run_timeout: Some(RUN_TIMEOUT), ..one_worker() };
    let (engine, reconciler, gate) = stuck(tuning);
    let running = spawn(&engine, query("m", &[HELD]));
    at_gate(&gate).await;
    let waiting = spawn(&engine, query("m", &[5]));
    tokio::task::yield_now().await;
    blocking(move || reconciler.shut_down()).await;
    let InferError::Backend(text) = running.await.unwrap().unwrap_err() else { panic!("another error") };
    assert!(text.contains("did not end"), "{text}");
    assert_eq!(values(&waiting.await.unwrap().unwrap()), [5], "the worker that took over served what waited");
    gate.open();
}

#[tokio::test]
async fn one_half_of_a_failed_batch_that_does_not_end_fails_the_whole() {
    let gate = Arc::new(Gate::default());
    let passed = Arc::clone(&gate);
    let backend = FakeBackend::checked_identity(DType::Int32, &[1], move |input| {
        match input.data.as_chunks::<4>().0 {
            [held] if *held == HELD.to_le_bytes() => passed.pass(),
            values if values.len() > 1 && values.contains(&HELD.to_le_bytes()) => {
                return Err(RunError::Failed("not together".into()));
            }
            _ => {}
        }
        Ok(())
    });
    let tuning = Tuning {
        run_timeout: Some(RUN_TIMEOUT),
        batch_rows_max: Some(4),
        batch_delay: Some(Duration::from_secs(60)),
        ..one_worker()
    };
    let (engine, reconciler) = engine([("m", 1, backend, tuning)]);
    gate.close();
    let engine = Arc::new(engine);
    let callers = [1, HELD, 2, 3].map(|value| spawn(&engine, query("m", &[value])));
    let mut answers = Vec::new();
    for caller in callers {
        answers.push(caller.await.unwrap().map(|response| values(&response)));
    }
    assert_eq!(answers[0], Ok(vec![1]), "it had run alone before");
    for answer in &answers[1..] {
        let Err(InferError::Backend(text)) = answer else { panic!("{answer:?}") };
        assert!(text.contains("did not end"), "{text}");
    }
    gate.open();
    blocking(move || reconciler.shut_down()).await;
}

#[tokio::test]
async fn an_answer_does_not_wait_for_a_later_run_that_lasts() {
    let tuning = Tuning { batch_rows_max: Some(1), ..one_worker() };
    let (engine, _reconciler, gate) = stuck(tuning);
    let first = spawn(&engine, query("m", &[HELD]));
    at_gate(&gate).await;
    let second = spawn(&engine, query("m", &[1]));
    let third = spawn(&engine, query("m", &[HELD]));
    tokio::task::yield_now().await;
    gate.let_through(1);
    assert_eq!(values(&first.await.unwrap().unwrap()), [HELD]);
    assert_eq!(values(&second.await.unwrap().unwrap()), [1], "though the third is being run");
    gate.open();
    assert_eq!(values(&third.await.unwrap().unwrap()), [HELD]);
}
