//! Several models on the same cores: who runs, who waits, and what becomes of what waits.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::backend::Device;
use gristmill_engine::engine::Engine;
use gristmill_engine::error::InferError;
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::request::{NamedTensor, Query, Response};
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_engine::testing::{FakeBackend, Gate, engine_on};
use gristmill_engine::tuning::Tuning;
use tokio::task::JoinHandle;

fn workers(instances: usize) -> Tuning {
    Tuning { instances: Some(instances), threads: Some(1), batch_rows_max: Some(8), ..Tuning::default() }
}

/// Identity models whose runs wait at gates of their own, which are closed, on so many cores.
fn held<const N: usize>(
    run_slots: usize,
    models: [(&'static str, FakeBackend, Tuning); N],
) -> (Arc<Engine>, Reconciler, [Arc<Gate>; N]) {
    let gates: [Arc<Gate>; N] = std::array::from_fn(|_| Arc::default());
    let models: Vec<_> = models
        .into_iter()
        .zip(&gates)
        .map(|((name, backend, tuning), gate)| (name, 1, backend.held_at(gate), tuning))
        .collect();
    let (engine, reconciler) = engine_on(run_slots, models);
    for gate in &gates {
        gate.close();
    }
    (Arc::new(engine), reconciler, gates)
}

fn identity() -> FakeBackend {
    FakeBackend::identity(DType::Int32, &[1])
}

fn spawn(engine: &Arc<Engine>, model: &str, value: i32) -> JoinHandle<Result<Response, InferError>> {
    let tensor = Tensor::new(DType::Int32, [1, 1].as_slice(), value.to_le_bytes().to_vec().into()).unwrap();
    let inputs = vec![NamedTensor { name: "x".into(), tensor }];
    let query = Query { model: model.into(), inputs, ..Query::default() };
    let engine = Arc::clone(engine);
    tokio::spawn(async move { engine.infer(query).await })
}

async fn at_gate(gate: &Arc<Gate>, runs: usize) {
    let gate = Arc::clone(gate);
    let (done, waited) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        gate.wait_for(runs);
        done.send(()).unwrap();
    });
    waited.await.unwrap();
}

async fn rows_together(caller: JoinHandle<Result<Response, InferError>>) -> usize {
    caller.await.unwrap().unwrap().timing.batch_rows
}

#[tokio::test]
async fn a_batch_grows_while_its_worker_waits_for_a_core() {
    let models = [("busy", identity(), workers(1)), ("m", identity(), workers(2))];
    let (engine, _reconciler, [busy, gate]) = held(1, models);
    gate.open();
    let first = spawn(&engine, "busy", 0);
    at_gate(&busy, 1).await;
    let mut callers = Vec::new();
    for value in 0..5 {
        callers.push(spawn(&engine, "m", value));
        // Until it is in the queue, where a worker waits for the core.
        tokio::task::yield_now().await;
    }
    busy.open();
    assert_eq!(rows_together(first).await, 1);
    for caller in callers {
        assert_eq!(rows_together(caller).await, 5);
    }
}

#[tokio::test]
async fn runs_on_gpus_hold_no_cores_and_spread_over_the_devices() {
    let on_gpus = identity().on(&[Device::Gpu(0), Device::Gpu(1)]);
    let models = [("gpu", on_gpus, workers(6)), ("cpu", identity(), workers(2))];
    let (engine, _reconciler, [gpu, cpu]) = held(1, models);
    let mut callers = Vec::new();
    for value in 0..4 {
        callers.push(spawn(&engine, "gpu", value));
        at_gate(&gpu, value as usize + 1).await;
    }
    // Three of the six sessions are on each device, and two may run there.
    let waiting = spawn(&engine, "gpu", 4);
    let on_cpu = spawn(&engine, "cpu", 5);
    at_gate(&cpu, 1).await;
    cpu.open();
    assert_eq!(rows_together(on_cpu).await, 1);
    assert!(!waiting.is_finished());
    gpu.open();
    for caller in callers.into_iter().chain([waiting]) {
        assert_eq!(rows_together(caller).await, 1);
    }
}

#[tokio::test]
async fn a_run_that_does_not_end_gives_its_core_to_others() {
    let gate = Arc::new(Gate::default());
    let passed = Arc::clone(&gate);
    let stuck = FakeBackend::checked_identity(DType::Int32, &[1], move |_| {
        passed.pass();
        Ok(())
    });
    let timeout = Tuning { run_timeout: Some(Duration::from_millis(250)), ..workers(1) };
    let (engine, reconciler) = engine_on(1, [("stuck", 1, stuck, timeout), ("m", 1, identity(), workers(1))]);
    let engine = Arc::new(engine);
    gate.close();
    let running = spawn(&engine, "stuck", 0);
    at_gate(&gate, 1).await;
    let waiting = spawn(&engine, "m", 1);
    assert!(matches!(running.await.unwrap(), Err(InferError::Backend(_))));
    assert_eq!(rows_together(waiting).await, 1);
    gate.open();
    let (done, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        reconciler.shut_down();
        done.send(()).unwrap();
    });
    ended.await.unwrap();
}

#[tokio::test]
async fn a_version_without_traffic_holds_nothing() {
    let models = [("quiet", identity(), workers(4)), ("m", identity(), workers(1))];
    let (engine, _reconciler, [_quiet, gate]) = held(1, models);
    gate.open();
    for value in 0..20 {
        assert_eq!(rows_together(spawn(&engine, "m", value)).await, 1);
    }
}
