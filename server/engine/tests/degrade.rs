//! What happens to requests that their model would refuse where it names a cheaper one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other tests need the rest of it")]
mod callers;

use std::sync::Arc;

use gristmill_engine::engine::Engine;
use gristmill_engine::error::InferError;
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::request::{Query, VersionSelector};
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::{FakeBackend, Gate, engine};
use gristmill_engine::tuning::{Fallback, Tuning};

use callers::{all_queued, blocking, one_worker, query, spawn, values};

/// `m` and `small`, each on one worker with room for eight rows, whose runs wait at a gate each.
fn two(of_m: Option<Fallback>, of_small: Option<Fallback>) -> (Arc<Engine>, Reconciler, [Arc<Gate>; 2]) {
    let gates = [(); 2].map(|()| Arc::new(Gate::default()));
    let backend = |gate: &Arc<Gate>| {
        let passed = Arc::clone(gate);
        FakeBackend::checked_identity(DType::Int32, &[1], move |_| {
            passed.pass();
            Ok(())
        })
    };
    let tuning = |degrade_to| Tuning { queue_rows_max: Some(8), degrade_to, ..one_worker() };
    let (engine, reconciler) = engine([
        ("m", 1, backend(&gates[0]), tuning(of_m)),
        ("small", 3, backend(&gates[1]), tuning(of_small)),
    ]);
    (Arc::new(engine), reconciler, gates)
}

/// Closes the gate of `model`, lets one query run up to it, and fills the queue behind.
async fn fill(engine: &Arc<Engine>, model: &str, gate: &Arc<Gate>) {
    gate.close();
    let of_model = |rows: &[i32]| Query { model: model.into(), ..query(rows) };
    spawn(engine, of_model(&[-1]));
    let waiting = Arc::clone(gate);
    blocking(move || waiting.wait_for(1)).await;
    spawn(engine, of_model(&[-1; 8]));
    all_queued().await;
}

fn small() -> Option<Fallback> {
    Some(Fallback::Name("small".into()))
}

#[tokio::test]
async fn what_would_be_refused_goes_to_the_cheaper_model_and_is_told_so() {
    let (engine, _reconciler, gates) = two(small(), None);
    let answer = engine.infer(query(&[1])).await.unwrap();
    assert_eq!((answer.model.name.as_str(), answer.degraded_from), ("m", None), "there is room");
    fill(&engine, "m", &gates[0]).await;
    let answer = engine.infer(query(&[2])).await.unwrap();
    assert_eq!((answer.model.name.as_str(), answer.model.version, values(&answer)), ("small", 3, vec![2]));
    let asked = answer.degraded_from.unwrap();
    assert_eq!((asked.name.as_str(), asked.version), ("m", 1));
    // Whoever names a version by its number means that one.
    let pinned = Query { version: VersionSelector::Number(1), ..query(&[3]) };
    assert!(matches!(engine.infer(pinned).await, Err(InferError::Overloaded { .. })));
    let tally = engine.attainment("m").unwrap().windows[0].tally;
    assert_eq!((tally.good, tally.bad), (1, 1), "what another model answers is that one's to keep");
    gates[0].open();
}

#[tokio::test]
async fn it_goes_on_once_and_not_in_a_circle() {
    let (engine, _reconciler, gates) = two(small(), Some(Fallback::Name("m".into())));
    fill(&engine, "small", &gates[1]).await;
    fill(&engine, "m", &gates[0]).await;
    let Err(InferError::Overloaded { message, .. }) = engine.infer(query(&[2])).await else {
        panic!("both are full")
    };
    assert!(message.starts_with("the queue of model 'm' is full"), "{message}");
    gates.iter().for_each(|gate| gate.open());
}

#[tokio::test]
async fn what_does_not_serve_or_could_not_be_used_instead_changes_nothing() {
    let wide = FakeBackend::identity(DType::Int32, &[2]);
    for fallback in [
        Fallback::Name("absent".into()),
        Fallback::Version(9),
        Fallback::Version(1),
        Fallback::Name("wide".into()),
    ] {
        let gate = Arc::new(Gate::default());
        let passed = Arc::clone(&gate);
        let backend = FakeBackend::checked_identity(DType::Int32, &[1], move |_| {
            passed.pass();
            Ok(())
        });
        let tuning = Tuning { queue_rows_max: Some(8), degrade_to: Some(fallback), ..one_worker() };
        let (engine, _reconciler) =
            engine([("m", 1, backend, tuning), ("wide", 1, wide.clone(), one_worker())]);
        let engine = Arc::new(engine);
        fill(&engine, "m", &gate).await;
        assert!(matches!(engine.infer(query(&[2])).await, Err(InferError::Overloaded { .. })));
        gate.open();
    }
}

#[tokio::test]
async fn an_older_version_may_be_the_cheaper_one() {
    let gate = Arc::new(Gate::default());
    let passed = Arc::clone(&gate);
    let backend = FakeBackend::checked_identity(DType::Int32, &[1], move |_| {
        passed.pass();
        Ok(())
    });
    let tuning =
        || Tuning { queue_rows_max: Some(8), degrade_to: Some(Fallback::Version(1)), ..one_worker() };
    let (engine, _reconciler) = engine([("m", 1, backend.clone(), tuning()), ("m", 2, backend, tuning())]);
    let engine = Arc::new(engine);
    fill(&engine, "m", &gate).await;
    let degraded = spawn(&engine, query(&[5]));
    all_queued().await;
    gate.open();
    let answer = degraded.await.unwrap().unwrap();
    assert_eq!((answer.model.version, values(&answer)), (1, vec![5]));
    assert_eq!(answer.degraded_from.unwrap().version, 2);
    let tally = engine.attainment("m").unwrap().windows[0].tally;
    assert_eq!(tally.bad, 0, "a promise of the model that was kept, by whichever version");
}
