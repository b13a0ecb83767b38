//! Live batches that are run again row by row: they catch what samples could not show.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod callers;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gristmill_engine::backend::RowIndependence;
use gristmill_engine::engine::Engine;
use gristmill_engine::merging::Word;
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_engine::testing::{FakeBackend, Gate, batched_signature, engine};
use gristmill_engine::tuning::Tuning;

use callers::{all_queued, occupy, one_worker, query, spawn, values};

const DEADLINE: Duration = Duration::from_secs(60);
/// Beyond what samples have.
const LARGE: i32 = 1_000_000;

fn undecided() -> RowIndependence {
    RowIndependence::Undecided { reason: "operator 'Odd' is not known".into() }
}

fn random() -> RowIndependence {
    RowIndependence::Random { reason: "operator 'RandomNormal' is random".into() }
}

struct World {
    engine: Arc<Engine>,
    reconciler: Reconciler,
    gate: Arc<Gate>,
    /// Runs of one row.
    lone: Arc<AtomicUsize>,
}

/// A model that adds one to each row, and another one to all where one of them is large.
fn world(rows: RowIndependence, tuning: Tuning) -> World {
    let (gate, lone) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let (passed, counted) = (Arc::clone(&gate), Arc::clone(&lone));
    let backend = FakeBackend::new(batched_signature(DType::Int32, &[1]), move |inputs| {
        passed.pass();
        let input = inputs[0].as_ref().unwrap();
        let given: Vec<i32> =
            input.data.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect();
        if given.len() == 1 {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        let more = if given.iter().any(|row| *row >= LARGE) { 2 } else { 1 };
        let data: Vec<u8> = given.iter().flat_map(|row| (row + more).to_le_bytes()).collect();
        Ok(vec![Tensor::new(DType::Int32, input.shape, data.into()).unwrap()])
    })
    .with_rows(rows);
    let (engine, reconciler) = engine([("m", 1, backend, tuning)]);
    World { engine: Arc::new(engine), reconciler, gate, lone }
}

/// Answers and rows of the batches of requests that wait together.
async fn together(world: &World, rows: &[i32]) -> Vec<(i32, usize)> {
    let first = occupy(&world.engine, &world.gate).await;
    let tasks: Vec<_> = rows.iter().map(|row| spawn(&world.engine, query(&[*row]))).collect();
    all_queued().await;
    world.gate.open();
    first.await.unwrap().unwrap();
    let mut answers = Vec::new();
    for task in tasks {
        let response = task.await.unwrap().unwrap();
        answers.push((values(&response)[0], response.timing.batch_rows));
    }
    answers
}

async fn share_runs(world: &World) {
    let start = Instant::now();
    while together(world, &[1, 2]).await != [(2, 2), (3, 2)] {
        assert!(start.elapsed() < DEADLINE, "the samples take too long");
    }
}

#[tokio::test]
async fn batches_of_rows_that_samples_did_not_have_are_caught_and_taken_off() {
    let audits_per_million = Some(1_000_000);
    let world = world(undecided(), Tuning { audits_per_million, ..one_worker() });
    share_runs(&world).await;
    assert!(world.engine.ready().failing.is_empty());
    let start = Instant::now();
    while world.engine.ready().failing.is_empty() {
        assert!(start.elapsed() < DEADLINE, "the audit takes too long");
        together(&world, &[1, LARGE, 2]).await;
    }
    let reason = world.engine.index().remove(0).reason;
    assert!(
        reason.starts_with("each request runs alone: output 'y' of row ")
            && reason.ends_with(
                " rows was not what the row gives alone: element 0 is another, and 0.1 % is allowed \
                 (operator 'Odd' is not known)"
            ),
        "{reason}"
    );
    assert_eq!(world.engine.ready().failing, [format!("model 'm': version 1: {reason}")]);
    assert!(world.engine.ready().ready, "it serves, request by request");
    assert_eq!(together(&world, &[1, LARGE, 2]).await, [(2, 1), (LARGE + 2, 1), (3, 1)]);
}

/// Runs of one row until the model has ended, where `rows` come together once; the first is of the request that the
/// others wait for.
async fn lone_runs(world: World, rows: &[i32]) -> usize {
    let before = world.lone.load(Ordering::Relaxed);
    assert!(together(&world, rows).await.iter().all(|(_, together)| *together == rows.len()));
    world.reconciler.shut_down();
    world.lone.load(Ordering::Relaxed) - before
}

#[tokio::test]
async fn what_is_random_proved_or_not_to_be_audited_is_not_run_again() {
    let all = Some(1_000_000);
    for (rows, word, audits_per_million) in [
        (random(), Word::Trusted, all),
        (RowIndependence::Proved, Word::None, all),
        (undecided(), Word::Trusted, Some(0)),
    ] {
        let world = world(rows.clone(), Tuning { word, audits_per_million, ..one_worker() });
        assert_eq!(lone_runs(world, &[1, 2, 3]).await, 1, "{rows:?} {word:?}");
    }
}

#[tokio::test]
async fn trusted_models_are_audited_for_more_than_rounding() {
    let tuning = Tuning { word: Word::Trusted, audits_per_million: Some(1_000_000), ..one_worker() };
    let world = world(undecided(), tuning);
    let before = world.lone.load(Ordering::Relaxed);
    together(&world, &[1, LARGE]).await;
    let start = Instant::now();
    while world.lone.load(Ordering::Relaxed) < before + 3 {
        assert!(start.elapsed() < DEADLINE, "the audit takes too long");
        std::thread::yield_now();
    }
    // Whole numbers may be others where rounding has decided.
    assert!(world.engine.ready().failing.is_empty());
}
