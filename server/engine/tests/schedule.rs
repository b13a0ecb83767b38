//! What callers may rely on while they wait: deadlines, priorities, queue policies, and that leaving frees the place.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod callers;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gristmill_engine::error::{InferError, Stage};
use gristmill_engine::request::Query;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::{FakeBackend, Gate, engine};
use gristmill_engine::tuning::{Priorities, QueuePolicy, TimeoutAction, Tuning};

use callers::{all_queued, blocking, gated, occupy, one_worker, query, spawn, values};

#[tokio::test]
async fn a_deadline_ends_the_wait_in_the_queue_and_in_the_run() {
    // First come, first served: nobody says in advance that the wait will be too long.
    let (engine, _reconciler, gate) = gated(Tuning { is_eager: true, ..one_worker() });
    let running = occupy(&engine, &gate).await;
    let mut late = query(&[1]);
    late.deadline = Some(Instant::now() + Duration::from_millis(5));
    let error = engine.infer(late).await.unwrap_err();
    assert_eq!(error, InferError::DeadlineExceeded { stage: Stage::Queue });
    gate.open();
    running.await.unwrap().unwrap();

    gate.close();
    let mut late = query(&[2]);
    late.deadline = Some(Instant::now() + Duration::from_millis(200));
    let late = spawn(&engine, late);
    all_queued().await;
    let waiting = Arc::clone(&gate);
    blocking(move || waiting.wait_for(1)).await;
    assert_eq!(late.await.unwrap().unwrap_err(), InferError::DeadlineExceeded { stage: Stage::Run });
    gate.open();

    let mut dead = query(&[3]);
    dead.deadline = Some(Instant::now());
    let error = engine.infer(dead).await.unwrap_err();
    assert_eq!(error, InferError::DeadlineExceeded { stage: Stage::Queue });
}

#[tokio::test]
async fn the_earliest_of_all_deadlines_counts() {
    let far = || Some(Instant::now() + Duration::from_secs(3600));
    let near = || Some(Instant::now() + Duration::from_millis(5));
    let slo = |slo_ms| Tuning { slo: Some(Duration::from_millis(slo_ms)), ..one_worker() };
    for (tuning, deadline_max, deadline) in [
        (slo(5), None, None),
        (slo(5), None, far()),
        (slo(3_600_000), None, near()),
        (one_worker(), Some(Duration::from_millis(5)), None),
        (slo(3_600_000), Some(Duration::from_millis(5)), far()),
    ] {
        let gate = Arc::new(Gate::default());
        let passed = Arc::clone(&gate);
        let backend = FakeBackend::checked_identity(DType::Int32, &[1], move |_| {
            passed.pass();
            Ok(())
        });
        let (engine, _reconciler) = engine([("m", 1, backend, tuning)]);
        let engine = Arc::new(engine.with_deadline_max(deadline_max));
        gate.close();
        let late = Query { deadline, ..query(&[1]) };
        assert!(matches!(engine.infer(late).await.unwrap_err(), InferError::DeadlineExceeded { .. }));
        gate.open();
    }
}

#[tokio::test]
async fn who_cannot_be_in_time_is_refused_at_once() {
    let (engine, _reconciler, gate) = gated(one_worker());
    let running = occupy(&engine, &gate).await;
    let soon = || Some(Instant::now() + Duration::from_millis(5));
    // The longer a run goes on, the longer it is expected to: at some time 5 ms are not enough to wait for its end.
    let (message, retry_after) = loop {
        match engine.infer(Query { deadline: soon(), ..query(&[1]) }).await.unwrap_err() {
            InferError::DeadlineExceeded { stage: Stage::Queue } => {}
            InferError::Overloaded { message, retry_after } => break (message, retry_after),
            other => panic!("{other:?}"),
        }
    };
    assert!(message.starts_with("model 'm' would answer ") && message.contains("; retry in "), "{message}");
    assert!(retry_after >= Duration::from_millis(1));
    let patient = spawn(&engine, query(&[2]));
    all_queued().await;
    gate.open();
    running.await.unwrap().unwrap();
    assert_eq!(values(&patient.await.unwrap().unwrap()), [2], "without a deadline nothing is late");
}

#[tokio::test]
async fn who_leaves_frees_the_place_at_once() {
    let tuning = Tuning { queue_rows_max: Some(8), ..one_worker() };
    let (engine, _reconciler, gate) = gated(tuning);
    let first = occupy(&engine, &gate).await;
    for _ in 0..1000 {
        let leaves = spawn(&engine, query(&[0; 8]));
        all_queued().await;
        assert!(matches!(engine.infer(query(&[1])).await, Err(InferError::Overloaded { .. })));
        leaves.abort();
        assert!(leaves.await.unwrap_err().is_cancelled());
    }
    let stays = spawn(&engine, query(&[2; 8]));
    all_queued().await;
    gate.open();
    first.await.unwrap().unwrap();
    assert_eq!(values(&stays.await.unwrap().unwrap()), [2; 8]);
}

#[tokio::test]
async fn the_more_urgent_are_served_first() {
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (gate, seen) = (Arc::new(Gate::default()), Arc::clone(&order));
    let passed = Arc::clone(&gate);
    let backend = FakeBackend::checked_identity(DType::Int32, &[1], move |input| {
        passed.pass();
        seen.lock().unwrap().push(i32::from_le_bytes(input.data[..4].try_into().unwrap()));
        Ok(())
    });
    let tuning = Tuning {
        batch_rows_max: Some(1),
        priorities: Some(Priorities { levels: 3, default_level: 2 }),
        ..one_worker()
    };
    let (engine, _reconciler) = engine([("m", 1, backend, tuning)]);
    let engine = Arc::new(engine);
    let first = occupy(&engine, &gate).await;
    order.lock().unwrap().clear();
    let far = |seconds| Some(Instant::now() + Duration::from_secs(seconds));
    let tasks: Vec<_> = [
        Query { priority: 3, ..query(&[1]) },
        query(&[2]),
        Query { priority: 1, ..query(&[3]) },
        Query { priority: 2, deadline: far(500), ..query(&[4]) },
        Query { priority: 9, deadline: far(400), ..query(&[5]) },
        Query { priority: 1, ..query(&[6]) },
    ]
    .map(|query| spawn(&engine, query))
    .into();
    all_queued().await;
    gate.open();
    first.await.unwrap().unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [-1, 3, 6, 2, 5, 4, 1]);
}

#[tokio::test]
async fn a_queue_timeout_ends_the_wait_and_not_the_run() {
    let queue_policy = QueuePolicy { timeout: Some(Duration::from_millis(50)), ..QueuePolicy::default() };
    let (engine, _reconciler, gate) = gated(Tuning { queue_policy, ..one_worker() });
    let running = occupy(&engine, &gate).await;
    let error = engine.infer(query(&[1])).await.unwrap_err();
    assert_eq!(error, InferError::DeadlineExceeded { stage: Stage::Queue });
    gate.open();
    assert_eq!(values(&running.await.unwrap().unwrap()), [-1], "it was taken in time");

    let queue_policy = QueuePolicy { timeout_action: TimeoutAction::Delay, ..queue_policy };
    let (engine, _reconciler, gate) = gated(Tuning { queue_policy, ..one_worker() });
    let running = occupy(&engine, &gate).await;
    let waiting = spawn(&engine, query(&[1]));
    let error = engine.infer(Query { timeout: Some(Instant::now()), ..query(&[2]) }).await.unwrap_err();
    assert_eq!(error, InferError::DeadlineExceeded { stage: Stage::Queue }, "a timeout is a deadline");
    gate.open();
    running.await.unwrap().unwrap();
    assert_eq!(values(&waiting.await.unwrap().unwrap()), [1], "its wait is not bounded");
}

#[tokio::test]
async fn the_abandoned_are_not_run() {
    let ran = Arc::new(AtomicUsize::new(0));
    let (gate, counter) = (Arc::new(Gate::default()), Arc::clone(&ran));
    let passed = Arc::clone(&gate);
    let backend = FakeBackend::checked_identity(DType::Int32, &[1], move |input| {
        passed.pass();
        counter.fetch_add(input.shape[0], Ordering::Relaxed);
        Ok(())
    });
    let (engine, reconciler) = engine([("m", 1, backend, one_worker())]);
    let engine = Arc::new(engine);
    let proof_rows = ran.swap(0, Ordering::Relaxed);
    assert!(proof_rows > 0, "the proof ran samples");
    let first = occupy(&engine, &gate).await;
    let kept = spawn(&engine, query(&[1]));
    let dropped: Vec<_> = (0..20).map(|n| spawn(&engine, query(&[n, n]))).collect();
    all_queued().await;
    for task in dropped {
        task.abort();
    }
    all_queued().await;
    gate.open();
    first.await.unwrap().unwrap();
    assert_eq!(values(&kept.await.unwrap().unwrap()), [1]);
    blocking(move || reconciler.shut_down()).await;
    assert_eq!(ran.load(Ordering::Relaxed), 2);
}
