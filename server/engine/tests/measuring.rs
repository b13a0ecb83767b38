//! What a load may spend on measuring, with a runtime that counts its runs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gristmill_engine::engine::Engine;
use gristmill_engine::reconcile::{LOAD_MEASURE_TIME_MAX_BY_DEFAULT, Options};
use gristmill_engine::registry::{Desired, DesiredModel, ModelSettings, SourceState, Stamp, VersionSource};
use gristmill_engine::tensor::{BatchAxis, DType, Signature};
use gristmill_engine::testing::{FakeBackend, batched_signature, copy};
use gristmill_engine::tuning::Tuning;

/// The runs before the model serves, where a load may measure for so long.
fn runs_at_load(signature: Signature, load_measure_time_max: Duration) -> usize {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let backend = FakeBackend::new(signature, move |inputs| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(vec![copy(&inputs[0])])
    });
    let tuning = Tuning { instances: Some(4), ..Tuning::default() };
    let settings = Arc::new(ModelSettings { tuning, ..ModelSettings::new(Arc::new(backend)) });
    let source =
        VersionSource { path: "m/1/model.onnx".into(), stamp: Stamp(1), state: SourceState::Complete };
    let model = DesiredModel::Sound { versions: BTreeMap::from([(1, source)]), settings };
    let desired = Desired { models: BTreeMap::from([("m".to_owned(), model)]), ..Desired::default() };
    let options = Options { load_measure_time_max, ..Options::default() };
    let (engine, mut reconciler) = Engine::new(false, options);
    for report in reconciler.load(desired) {
        report.result.unwrap();
    }
    assert!(engine.ready().reasons.is_empty());
    reconciler.shut_down();
    runs.load(Ordering::Relaxed)
}

#[test]
fn a_load_without_time_to_measure_runs_a_model_three_times() {
    let reason = "the test says so".to_owned();
    let signature = Signature { batch: BatchAxis::None { reason }, ..batched_signature(DType::Int32, &[1]) };
    assert_eq!(runs_at_load(signature, Duration::ZERO), 3, "a sample and two that are timed");
}

#[test]
fn larger_batches_and_other_sessions_are_run_only_as_long_as_there_is_time() {
    let signature = || batched_signature(DType::Int32, &[1]);
    let without = runs_at_load(signature(), Duration::ZERO);
    let with = runs_at_load(signature(), LOAD_MEASURE_TIME_MAX_BY_DEFAULT);
    assert!(with > without, "{with} runs with time, {without} without");
}
