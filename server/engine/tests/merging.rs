//! Versions whose structure leaves open whether rows may be stacked: requests run whole and alone until samples have
//! shown it, and for ever where they show the contrary.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod callers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_engine::backend::{InputView, RowIndependence};
use gristmill_engine::engine::Engine;
use gristmill_engine::error::RunError;
use gristmill_engine::merging::Word;
use gristmill_engine::reconcile::Options;
use gristmill_engine::registry::{Desired, DesiredModel, ModelSettings, SourceState, Stamp, VersionSource};
use gristmill_engine::request::VersionSelector;
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_engine::testing::{FakeBackend, Gate, batched_signature, copy, engine};
use gristmill_engine::tuning::Tuning;

use callers::{all_queued, occupy, one_worker, query, spawn, values};

const DEADLINE: Duration = Duration::from_secs(60);

fn undecided() -> RowIndependence {
    RowIndependence::Undecided { reason: "operator 'Odd' is not known".into() }
}

fn random() -> RowIndependence {
    RowIndependence::Random { reason: "operator 'RandomNormal' is random".into() }
}

/// Takes and gives one number a row.
fn numbers(input: &Option<InputView<'_>>) -> Vec<i32> {
    input.as_ref().unwrap().data.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect()
}

fn tensor(values: &[i32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DType::Int32, [values.len(), 1].as_slice(), data.into()).unwrap()
}

/// A model whose runs wait at a gate, so that tests decide what is queued when one ends.
fn model(
    rows: RowIndependence,
    gate: &Arc<Gate>,
    function: impl Fn(&[i32]) -> Vec<i32> + Send + Sync + 'static,
) -> FakeBackend {
    let gate = Arc::clone(gate);
    FakeBackend::new(batched_signature(DType::Int32, &[1]), move |inputs| {
        gate.pass();
        Ok(vec![tensor(&function(&numbers(&inputs[0])))])
    })
    .with_rows(rows)
}

fn reason(engine: &Engine) -> String {
    engine.index().remove(0).reason
}

fn wait_until(what: &str, is_met: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_met() {
        assert!(start.elapsed() < DEADLINE, "{what} takes too long");
        std::thread::yield_now();
    }
}

/// Rows of the batches that these requests ran in, which wait together.
async fn batch_rows(engine: &Arc<Engine>, gate: &Arc<Gate>, requests: &[&[i32]]) -> Vec<usize> {
    let first = occupy(engine, gate).await;
    let tasks: Vec<_> = requests.iter().map(|rows| spawn(engine, query(rows))).collect();
    all_queued().await;
    gate.open();
    first.await.unwrap().unwrap();
    let mut rows = Vec::new();
    for task in tasks {
        rows.push(task.await.unwrap().unwrap().timing.batch_rows);
    }
    rows
}

#[tokio::test]
async fn requests_share_runs_once_samples_have_shown_that_rows_stay_apart() {
    let gate = Arc::new(Gate::default());
    let backend = model(undecided(), &gate, |rows| rows.iter().map(|row| row * 2).collect());
    let (engine, _reconciler) = engine([("m", 1, backend, one_worker())]);
    let engine = Arc::new(engine);
    let start = Instant::now();
    loop {
        match batch_rows(&engine, &gate, &[&[1], &[2], &[3]]).await[..] {
            [3, 3, 3] => break,
            [1, 1, 1] => assert!(start.elapsed() < DEADLINE, "the samples take too long"),
            // It began between the first and the last.
            _ => {}
        }
    }
    assert_eq!(reason(&engine), "");
    let many: Vec<i32> = (0..20).collect();
    let response = engine.infer(query(&many)).await.unwrap();
    assert_eq!(response.timing.batch_rows, 8, "it is cut into parts as well");
    assert_eq!(values(&response), many.iter().map(|row| row * 2).collect::<Vec<_>>());
}

#[tokio::test]
async fn requests_run_whole_and_alone_where_samples_show_that_rows_mix() {
    let gate = Arc::new(Gate::default());
    let backend = model(undecided(), &gate, |rows| {
        let sum: i32 = rows.iter().sum();
        rows.iter().map(|row| row + sum).collect()
    });
    let (engine, _reconciler) = engine([("m", 1, backend, one_worker())]);
    let engine = Arc::new(engine);
    wait_until("the verdict", || !reason(&engine).is_empty());
    assert_eq!(
        reason(&engine),
        "each request runs alone: output 'y' of a sample row depends on the other rows of its batch: element 0 is \
         another, and 0.1 % is allowed (operator 'Odd' is not known)"
    );
    assert_eq!(batch_rows(&engine, &gate, &[&[1], &[2, 3], &[4]]).await, [1, 2, 1]);
    // Beyond the largest batch, which is 8 rows: the answer is the model's own, not that of parts.
    let response = engine.infer(query(&[1; 20])).await.unwrap();
    assert_eq!((values(&response), response.timing.batch_rows), (vec![21; 20], 20));
}

#[tokio::test]
async fn random_models_share_runs_by_the_owners_word_alone() {
    for (word, rows) in [(Word::None, [1, 1]), (Word::Declared, [1, 1]), (Word::Trusted, [2, 2])] {
        let gate = Arc::new(Gate::default());
        let backend = model(random(), &gate, <[i32]>::to_vec);
        let (engine, _reconciler) = engine([("m", 1, backend, Tuning { word, ..one_worker() })]);
        let engine = Arc::new(engine);
        assert_eq!(batch_rows(&engine, &gate, &[&[1], &[2]]).await, rows, "{word:?}");
        assert_eq!(reason(&engine).contains("'RandomNormal' is random"), word != Word::Trusted);
    }
}

#[tokio::test]
async fn a_trusted_model_shares_runs_at_once_whatever_samples_would_say() {
    let gate = Arc::new(Gate::default());
    let backend = model(undecided(), &gate, |rows| {
        let sum: i32 = rows.iter().sum();
        rows.iter().map(|row| row + sum).collect()
    });
    let tuning = Tuning { word: Word::Trusted, ..one_worker() };
    let (engine, _reconciler) = engine([("m", 1, backend, tuning)]);
    assert_eq!(batch_rows(&Arc::new(engine), &gate, &[&[1], &[2]]).await, [2, 2]);
}

#[tokio::test]
async fn who_runs_alone_gets_the_models_own_answer_whatever_rows_it_has() {
    // Only positive rows come out.
    let backend = FakeBackend::new(batched_signature(DType::Int32, &[1]), |inputs| {
        let kept: Vec<i32> = numbers(&inputs[0]).into_iter().filter(|row| *row >= 0).collect();
        Ok(vec![tensor(&kept)])
    });
    let (engine, _reconciler) = engine([("m", 1, backend.with_rows(random()), one_worker())]);
    let response = engine.infer(query(&[5, -1, 7])).await.unwrap();
    assert_eq!((values(&response), response.outputs[0].1.shape()), (vec![5, 7], &[2, 1][..]));
}

#[tokio::test]
async fn a_model_that_takes_no_samples_runs_each_request_alone_and_says_so() {
    let backend = FakeBackend::new(batched_signature(DType::Int32, &[1]), |inputs| {
        match numbers(&inputs[0]).iter().all(|row| *row >= 10_000) {
            true => Ok(vec![copy(&inputs[0])]),
            false => Err(RunError::Input("expected numbers from 10000".into())),
        }
    });
    let (engine, _reconciler) = engine([("m", 1, backend.with_rows(undecided()), one_worker())]);
    wait_until("the verdict", || !reason(&engine).is_empty());
    assert_eq!(
        reason(&engine),
        "each request runs alone: samples cannot show that rows stay apart: no sample whose rows differ runs: expected \
         numbers from 10000 (operator 'Odd' is not known)"
    );
    assert_eq!(values(&engine.infer(query(&[10_001, 10_002])).await.unwrap()), [10_001, 10_002]);
}

#[tokio::test]
async fn a_version_that_follows_another_one_is_examined_before_it_serves() {
    let gate = Arc::new(Gate::default());
    // However long a run takes on a busy machine.
    let options = Options { load_measure_time_max: Duration::from_secs(3600), ..Options::default() };
    let (engine, mut reconciler) = Engine::new(false, options);
    let settings = |gate: &Arc<Gate>| {
        let backend = model(undecided(), gate, |rows| rows.iter().map(|row| row * 2).collect());
        ModelSettings { tuning: one_worker(), ..ModelSettings::new(Arc::new(backend)) }
    };
    // Samples of the first may still run beside the second's requests: they wait at a gate of their own.
    for (version, gate) in [(1, &Arc::new(Gate::default())), (2, &gate)] {
        let settings = Arc::new(settings(gate));
        let path = format!("m/{version}/model.onnx").into();
        let source = VersionSource { path, stamp: Stamp(version), state: SourceState::Complete };
        let versions = BTreeMap::from([(version, source)]);
        let model = DesiredModel::Sound { versions, settings };
        let models = BTreeMap::from([("m".to_owned(), model)]);
        for report in reconciler.load(Desired { models, ..Desired::default() }) {
            report.result.unwrap();
        }
    }
    let engine = Arc::new(engine);
    assert_eq!(engine.model("m", &VersionSelector::Default).unwrap().version, 2);
    assert_eq!(batch_rows(&engine, &gate, &[&[1], &[2], &[3]]).await, [3, 3, 3]);
}
