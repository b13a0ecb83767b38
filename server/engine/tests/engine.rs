//! What callers of the engine rely on: their own rows or their own error, once, under every kind of trouble.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod callers;

use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use gristmill_engine::backend::RowIndependence;
use gristmill_engine::engine::VersionState;
use gristmill_engine::error::{InferError, RunError};
use gristmill_engine::request::{NamedTensor, Query, VersionSelector};
use gristmill_engine::tensor::{DType, Dim, Tensor, TensorSpec};
use gristmill_engine::testing::{FakeBackend, Gate, batched_signature, copy, engine};
use gristmill_engine::tuning::Tuning;

use callers::{all_queued, gated, occupy, one_worker, query, spawn, values};

#[tokio::test]
async fn everybody_gets_their_own_rows() {
    let (engine, _reconciler) =
        engine([("m", 1, FakeBackend::identity(DType::Int32, &[1]), Tuning::default())]);
    let engine = Arc::new(engine);
    let tasks: Vec<_> = (0..500).map(|n| spawn(&engine, query(&[n, -n, n * 7]))).collect();
    for (n, task) in (0..500).zip(tasks) {
        assert_eq!(values(&task.await.unwrap().unwrap()), [n, -n, n * 7]);
    }
    let statistics = engine.statistics(Some("m"), &VersionSelector::Default).unwrap().remove(0).1;
    assert_eq!((statistics.success.count, statistics.inference_count), (500, 1500));
    let ran: u64 = statistics.batches.iter().map(|batch| batch.rows as u64 * batch.compute_infer.count).sum();
    assert_eq!(ran, 1500);
}

#[tokio::test]
async fn what_waits_runs_together() {
    let (engine, _reconciler, gate) = gated(one_worker());
    let first = occupy(&engine, &gate).await;
    let tasks: Vec<_> =
        [&[1, 2][..], &[3], &[4, 5, 6], &[7, 8, 9]].map(|rows| spawn(&engine, query(rows))).into();
    all_queued().await;
    gate.open();
    assert_eq!(values(&first.await.unwrap().unwrap()), [-1]);
    let mut batches = Vec::new();
    for task in tasks {
        batches.push(task.await.unwrap().unwrap().timing.batch_rows);
    }
    assert_eq!(batches, [6, 6, 6, 3], "the fourth would have made nine rows of eight");
}

#[tokio::test]
async fn a_request_beyond_the_largest_batch_is_split_and_joined() {
    let (engine, _reconciler, _gate) = gated(one_worker());
    let rows: Vec<i32> = (0..100).collect();
    let response = engine.infer(query(&rows)).await.unwrap();
    assert_eq!(values(&response), rows);
    assert_eq!(response.outputs[0].1.shape(), [100, 1]);
    assert_eq!(response.timing.batch_rows, 8);
}

#[tokio::test]
async fn only_the_guilty_request_of_a_batch_errs() {
    let gate = Arc::new(Gate::default());
    let passed = Arc::clone(&gate);
    let backend = FakeBackend::checked_identity(DType::Int32, &[1], move |input| {
        passed.pass();
        let bad = input.data.as_chunks::<4>().0.iter().any(|&bytes| i32::from_le_bytes(bytes) == 13);
        if bad { Err(RunError::Input("13 is not allowed".into())) } else { Ok(()) }
    });
    let (engine, _reconciler) = engine([("m", 1, backend, one_worker())]);
    let engine = Arc::new(engine);
    let first = occupy(&engine, &gate).await;
    let tasks: Vec<_> = (10..18).map(|n| spawn(&engine, query(&[n]))).collect();
    all_queued().await;
    gate.open();
    first.await.unwrap().unwrap();
    for (n, task) in (10..18).zip(tasks) {
        match task.await.unwrap() {
            Ok(response) => assert_eq!(values(&response), [n]),
            Err(error) => {
                assert_eq!((n, error), (13, InferError::InvalidInput("13 is not allowed".into())));
            }
        }
    }
}

#[tokio::test]
async fn a_panic_fails_its_batch_and_the_worker_lives_on() {
    let backend = FakeBackend::checked_identity(DType::Int32, &[1], |input| {
        assert_ne!(input.data[..4], 666i32.to_le_bytes(), "the beast");
        Ok(())
    });
    let (engine, _reconciler) = engine([("m", 1, backend, one_worker())]);
    let error = engine.infer(query(&[666])).await.unwrap_err();
    let InferError::Backend(text) = error else { panic!("{error:?}") };
    assert!(
        text.starts_with("the model's run panicked: assertion `left != right` failed: the beast"),
        "{text}"
    );
    assert_eq!(values(&engine.infer(query(&[5])).await.unwrap()), [5]);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_return() {
    let tuning = Tuning { queue_rows_max: Some(8), ..one_worker() };
    let (engine, _reconciler, gate) = gated(tuning);
    let first = occupy(&engine, &gate).await;
    let waiting = spawn(&engine, query(&[1, 2, 3, 4, 5, 6]));
    all_queued().await;
    let error = engine.infer(query(&[7, 8, 9])).await.unwrap_err();
    let InferError::Overloaded { message, retry_after } = error else { panic!("{error:?}") };
    assert!(message.starts_with("the queue of model 'm' is full: 6 of 8 rows wait; retry in "), "{message}");
    assert!(retry_after >= Duration::from_millis(1));
    let error = engine.infer(query(&[0; 9])).await.unwrap_err();
    let text = "the request has 9 rows; model 'm' takes at most 8 at once: send fewer, or raise queue.rows_max \
                in its model.toml";
    assert_eq!(error, InferError::TooLarge(text.into()));
    gate.open();
    first.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_answers_what_was_admitted_and_refuses_the_rest() {
    let (engine, reconciler, gate) = gated(one_worker());
    assert!(engine.ready().ready);
    let first = occupy(&engine, &gate).await;
    let waiting: Vec<_> = (0..20).map(|n| spawn(&engine, query(&[n, n + 1]))).collect();
    all_queued().await;
    let mut changes = engine.changes();
    changes.mark_unchanged();
    let (closing, shut_down) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        reconciler.shut_down();
        closing.send(()).unwrap();
    });
    changes.changed().await.unwrap();
    assert_eq!(engine.ready().reasons, ["the server is shutting down"]);
    gate.open();
    assert_eq!(values(&first.await.unwrap().unwrap()), [-1]);
    for (n, task) in (0..20).zip(waiting) {
        assert_eq!(values(&task.await.unwrap().unwrap()), [n, n + 1]);
    }
    shut_down.await.unwrap();
    let error = engine.infer(query(&[1])).await.unwrap_err();
    assert_eq!(error, InferError::Unavailable("the server is shutting down".into()));
}

#[tokio::test]
async fn shapes_share_no_batch_and_block_none() {
    let mut signature = batched_signature(DType::Int32, &[1]);
    for spec in signature.inputs.iter_mut().chain(&mut signature.outputs) {
        spec.shape = Some(vec![Dim::Dynamic(None), Dim::Dynamic(Some("width".into()))]);
    }
    let backend = FakeBackend::new(signature, |inputs| Ok(vec![copy(&inputs[0])]));
    let (engine, _reconciler) = engine([("m", 1, backend, Tuning::default())]);
    let engine = Arc::new(engine);
    let wide = |n: i32, width: usize| {
        let data: Vec<u8> = (0..width).flat_map(|_| n.to_le_bytes()).collect();
        let tensor = Tensor::new(DType::Int32, [1, width].as_slice(), data.into()).unwrap();
        let inputs = vec![NamedTensor { name: "x".into(), tensor }];
        Query { model: "m".into(), inputs, ..Query::default() }
    };
    let tasks: Vec<_> = (0..200).map(|n| spawn(&engine, wide(n, 1 + n as usize % 5))).collect();
    for (n, task) in (0..200).zip(tasks) {
        let response = task.await.unwrap().unwrap();
        assert_eq!(response.outputs[0].1.shape(), [1, 1 + n as usize % 5]);
        assert_eq!(values(&response), vec![n; 1 + n as usize % 5]);
    }
}

#[tokio::test]
async fn rows_that_a_model_loses_are_missing_in_nobody_elses_answer() {
    let backend = FakeBackend::new(batched_signature(DType::Int32, &[1]), move |inputs| {
        let whole = copy(&inputs[0]);
        let loses = whole.data().as_chunks().0.contains(&99i32.to_le_bytes());
        Ok(vec![if loses { whole.rows(0..1) } else { whole }])
    });
    let tuning = Tuning { batch_rows_max: Some(4), ..one_worker() };
    let (engine, _reconciler) = engine([("m", 1, backend, tuning)]);
    let engine = Arc::new(engine);
    let rows = |n: i32| if n % 3 == 0 { vec![n, 99] } else { vec![n, n] };
    let tasks: Vec<_> = (0..90).map(|n| spawn(&engine, query(&rows(n)))).collect();
    for (n, task) in (0..90).zip(tasks) {
        let expected = if n % 3 == 0 { vec![n] } else { vec![n, n] };
        assert_eq!(values(&task.await.unwrap().unwrap()), expected);
    }
    // Its parts would each be an answer, but not to the whole.
    let InferError::InvalidInput(text) = engine.infer(query(&[1, 2, 3, 4, 99, 5])).await.unwrap_err() else {
        panic!("not the caller's to mend")
    };
    let expected =
        "output 'y' has shape [1, 1] for a batch of 2 rows: its first dimension must be the rows; of a model";
    assert!(text.starts_with(expected), "{text}");
}

#[tokio::test]
async fn requests_that_no_batch_can_hold_run_alone() {
    let mut signature = batched_signature(DType::Int32, &[1]);
    signature.inputs.push(TensorSpec { name: "z".into(), ..signature.inputs[0].clone() });
    let backend = FakeBackend::new(signature, |inputs| {
        let [x, z] = [copy(&inputs[0]), copy(&inputs[1])];
        Ok(vec![if x.shape()[0] >= z.shape()[0] { x } else { z }])
    });
    let (engine, _reconciler) = engine([("m", 1, backend, one_worker())]);
    let engine = Arc::new(engine);
    let pair = |x: &[i32], z: &[i32]| {
        let [x, mut z] = [query(x), query(z)];
        z.inputs[0].name = "z".into();
        Query { inputs: [x.inputs, z.inputs].concat(), ..x }
    };
    let shapes = |n: i32| match n % 3 {
        0 => (vec![], vec![]),
        1 => (vec![n; 5], vec![n]),
        _ => (vec![n], vec![n]),
    };
    let tasks: Vec<_> = (0..90).map(|n| spawn(&engine, pair(&shapes(n).0, &shapes(n).1))).collect();
    for (n, task) in (0..90).zip(tasks) {
        assert_eq!(values(&task.await.unwrap().unwrap()), shapes(n).0);
    }
}

#[tokio::test]
async fn names_and_versions_are_explained() {
    let (engine, _reconciler) = engine([
        ("m", 1, FakeBackend::identity(DType::Int32, &[1]), Tuning::default()),
        ("m", 3, FakeBackend::identity(DType::Int32, &[1]), Tuning::default()),
    ]);
    assert_eq!(engine.model("m", &VersionSelector::Default).unwrap().version, 3);
    assert_eq!(engine.model("m", &VersionSelector::Number(1)).unwrap().version, 1);
    let states: Vec<_> = engine.index().into_iter().map(|entry| (entry.version, entry.state)).collect();
    assert_eq!(states, [(1, VersionState::Ready), (3, VersionState::Ready)]);
    let check = |name: &str, version: &str, expected: Expect| {
        let version = VersionSelector::parse(version).unwrap();
        expected.assert_eq(&engine.model(name, &version).unwrap_err().to_string());
    };
    check("n", "", expect!["model 'n' is not in the repository: its index lists what is"]);
    check("m", "2", expect!["model 'm' has no version 2: its versions are 1, 3"]);
    check(
        "m",
        "canary",
        expect!["model 'm' has no version 'canary': expected a number or one of its labels (none)"],
    );
}

#[tokio::test]
async fn a_wrong_request_is_told_what_was_expected() {
    let spec = |name: &str, optional| TensorSpec {
        name: name.into(),
        dtype: DType::Int32,
        shape: Some(vec![Dim::Dynamic(None), Dim::Fixed(1)]),
        optional,
        labels: vec![],
    };
    let mut signature = batched_signature(DType::Int32, &[1]);
    signature.inputs.push(spec("z", false));
    signature.inputs.push(spec("bias", true));
    let backend = FakeBackend::new(signature, |inputs| Ok(vec![copy(&inputs[0])]));
    let (engine, _reconciler) = engine([("m", 1, backend, Tuning::default())]);
    let tensor = |name: &str, dtype: DType, shape: &[usize]| {
        let bytes = shape.iter().product::<usize>() * dtype.size().unwrap();
        NamedTensor { name: name.into(), tensor: Tensor::new(dtype, shape, vec![0; bytes].into()).unwrap() }
    };
    let good = || vec![tensor("x", DType::Int32, &[2, 1]), tensor("z", DType::Int32, &[2, 1])];
    let check = async |inputs: Vec<NamedTensor>, outputs: &[&str], expected: Expect| {
        let outputs = outputs.iter().map(|&name| name.to_owned()).collect();
        let query = Query { model: "m".into(), inputs, outputs, ..Query::default() };
        let text = match engine.infer(query).await {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&text);
    };
    check(good(), &["y"], expect!["ok"]).await;
    check(
        good()[..1].to_vec(),
        &[],
        expect!["missing input 'z' (INT32 [-1, 1]): the model takes 'x', 'z', 'bias'"],
    )
    .await;
    check([good(), good()].concat(), &[], expect!["input 'x' is given twice"]).await;
    check(
        [good(), vec![tensor("w", DType::Int32, &[2, 1])]].concat(),
        &[],
        expect!["unexpected input 'w': the model takes 'x', 'z', 'bias'"],
    )
    .await;
    check(good(), &["q"], expect!["unexpected output 'q': the model gives 'y'"]).await;
    check(good(), &["y", "y"], expect!["output 'y' is requested twice"]).await;
    check(
        vec![tensor("x", DType::Fp64, &[2, 1])],
        &[],
        expect!["input 'x': expected datatype INT32, got FP64"],
    )
    .await;
    check(
        vec![tensor("x", DType::Int32, &[2, 2])],
        &[],
        expect!["input 'x': expected shape [-1, 1], got [2, 2]"],
    )
    .await;
    check(vec![tensor("x", DType::Int32, &[2])], &[], expect!["input 'x': expected shape [-1, 1], got [2]"])
        .await;
    check(vec![tensor("x", DType::Int32, &[2, 1]), tensor("z", DType::Int32, &[3, 1])], &[], expect!["ok"])
        .await;
    check(vec![tensor("x", DType::Int32, &[0, 1]), tensor("z", DType::Int32, &[0, 1])], &[], expect!["ok"])
        .await;
}

#[tokio::test]
async fn a_signal_longer_than_a_queue_of_rows_is_answered() {
    let signature = batched_signature(DType::Int32, &[]);
    let samples: Vec<i32> = (0..10_000).collect();
    for is_told in [true, false] {
        let backend = FakeBackend::new(signature.clone(), |inputs| Ok(vec![copy(&inputs[0])]));
        let undecided = RowIndependence::Undecided { reason: "operator 'STFT' is not known".into() };
        let backend = if is_told { backend } else { backend.with_rows(undecided) };
        let (engine, _reconciler) = engine([("m", 1, backend, one_worker())]);
        let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let tensor = Tensor::new(DType::Int32, [samples.len()].as_slice(), data.into()).unwrap();
        let inputs = vec![NamedTensor { name: "x".into(), tensor }];
        let response = engine.infer(Query { model: "m".into(), inputs, ..Query::default() }).await.unwrap();
        assert_eq!(values(&response), samples);
    }
}
