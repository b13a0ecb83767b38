//! A model on one worker whose runs wait at a gate, and the callers who ask it.

use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::engine::Engine;
use gristmill_engine::error::InferError;
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::request::{NamedTensor, Query, Response};
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_engine::testing::{FakeBackend, Gate, engine};
use gristmill_engine::tuning::Tuning;

/// One worker that takes what there is.
pub(crate) fn one_worker() -> Tuning {
    let batch_delay = Some(Duration::ZERO);
    Tuning { instances: Some(1), batch_rows_max: Some(8), batch_delay, ..Tuning::default() }
}

pub(crate) fn query(rows: &[i32]) -> Query {
    let data: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = Tensor::new(DType::Int32, [rows.len(), 1].as_slice(), data.into()).unwrap();
    let inputs = vec![NamedTensor { name: "x".into(), tensor }];
    Query { model: "m".into(), inputs, ..Query::default() }
}

pub(crate) fn values(response: &Response) -> Vec<i32> {
    response.outputs[0].1.data().as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect()
}

/// An identity model on one worker whose runs wait at a gate.
pub(crate) fn gated(tuning: Tuning) -> (Arc<Engine>, Reconciler, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let passed = Arc::clone(&gate);
    let backend = FakeBackend::checked_identity(DType::Int32, &[1], move |_| {
        passed.pass();
        Ok(())
    });
    let (engine, reconciler) = engine([("m", 1, backend, tuning)]);
    (Arc::new(engine), reconciler, gate)
}

/// Starts one query that is being run and stays at the gate.
pub(crate) async fn occupy(
    engine: &Arc<Engine>,
    gate: &Arc<Gate>,
) -> tokio::task::JoinHandle<Result<Response, InferError>> {
    gate.close();
    let task = spawn(engine, query(&[-1]));
    let gate = Arc::clone(gate);
    blocking(move || gate.wait_for(1)).await;
    task
}

/// Waits on a thread of its own: a test's gate must not hold up the runtime.
pub(crate) async fn blocking(wait: impl FnOnce() + Send + 'static) {
    let (done, waited) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        wait();
        done.send(()).unwrap();
    });
    waited.await.unwrap();
}

pub(crate) fn spawn(
    engine: &Arc<Engine>,
    query: Query,
) -> tokio::task::JoinHandle<Result<Response, InferError>> {
    let engine = Arc::clone(engine);
    tokio::spawn(async move { engine.infer(query).await })
}

/// Lets spawned queries reach the queue: on a current-thread runtime each runs until it waits.
pub(crate) async fn all_queued() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}
