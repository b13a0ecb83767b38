//! What `/metrics` says, in a process of its own: one recorder serves all of a process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill::telemetry::Telemetry;
use gristmill_engine::engine::Engine;
use gristmill_engine::metrics::ExperimentMetrics;
use gristmill_engine::reconcile::{Options, Reconciler};
use gristmill_engine::registry::{
    Desired, DesiredModel, Lifecycle, ModelSettings, SourceState, Stamp, VersionSource,
};
use gristmill_engine::request::{NamedTensor, Query};
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_engine::testing::FakeBackend;

/// Longer than series of what is gone are kept.
const LONG: Duration = Duration::from_secs(3600);

fn desired(version: u64) -> Desired {
    let path = PathBuf::from(format!("m/{version}/model.onnx"));
    let source = VersionSource { path, stamp: Stamp(version), state: SourceState::Complete };
    let settings = ModelSettings {
        lifecycle: Lifecycle { keep_previous: Duration::ZERO, watch: None, ..Lifecycle::default() },
        ..ModelSettings::new(Arc::new(FakeBackend::identity(DType::Fp32, &[1])))
    };
    let versions = BTreeMap::from([(version, source)]);
    let model = DesiredModel::Sound { versions, settings: Arc::new(settings) };
    Desired { models: BTreeMap::from([("m".to_owned(), model)]), ..Desired::default() }
}

fn load(reconciler: &mut Reconciler, version: u64) {
    for report in reconciler.load(desired(version)) {
        report.result.unwrap();
    }
}

/// Replaces the version that serves by each of `versions`, and asks each for an answer.
async fn serve(engine: &Engine, reconciler: &mut Reconciler, versions: impl IntoIterator<Item = u64>) {
    for version in versions {
        load(reconciler, version);
        let tensor = Tensor::new(DType::Fp32, [1, 1].as_slice(), 1f32.to_le_bytes().to_vec().into()).unwrap();
        let inputs = vec![NamedTensor { name: "x".into(), tensor }];
        let answer = engine.infer(Query { model: "m".into(), inputs, ..Query::default() }).await.unwrap();
        assert_eq!(answer.model.version, version);
    }
}

/// The series of each version.
fn by_version(text: &str) -> BTreeMap<u64, BTreeSet<&str>> {
    let mut versions: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("model=\"m\",version=")) {
        let version = line.split_once("version=\"").unwrap().1.split_once('"').unwrap().0;
        versions.entry(version.parse().unwrap()).or_default().insert(line.rsplit_once(' ').unwrap().0);
    }
    versions
}

#[tokio::test]
async fn versions_and_routes_that_come_and_go_leave_no_series() {
    let telemetry = Telemetry::install("a fake runtime").unwrap();
    {
        let (engine, mut reconciler) = Engine::new(false, Options::default());
        serve(&engine, &mut reconciler, 1..=40).await;
        // Waits until all that was retired is gone.
        reconciler.shut_down();
    }
    let (engine, mut reconciler) = Engine::new(false, Options::default());
    load(&mut reconciler, 41);
    let text = telemetry.text(&engine, Instant::now());
    let unused: Vec<&str> =
        by_version(&text)[&41].iter().map(|line| line.split_once('{').unwrap().0).collect();
    let of_loads = [
        "gristmill_model_load_resident_bytes",
        "gristmill_model_load_seconds",
        "gristmill_model_loads_total",
        "gristmill_model_loads_total",
        "gristmill_model_ready",
    ];
    assert_eq!(unused, of_loads, "nobody has asked it for anything yet");
    serve(&engine, &mut reconciler, [41]).await;

    let now = Instant::now();
    let text = telemetry.text(&engine, now);
    let versions = by_version(&text);
    let alive = versions[&41].clone();
    assert!(alive.len() > 100, "buckets are series: {}", alive.len());
    assert_eq!(versions.len(), 41, "what a version counted last is shown after its end");
    assert_eq!(versions.values().map(BTreeSet::len).sum::<usize>(), 41 * alive.len());
    assert!(text.contains("gristmill_requests_total{model=\"m\",version=\"40\",outcome=\"ok\"} 1\n"));

    for hours in 1..=3 {
        let text = telemetry.text(&engine, now + hours * LONG);
        assert_eq!(by_version(&text), BTreeMap::from([(41, alive.clone())]));
        assert!(text.contains("gristmill_requests_total{model=\"m\",version=\"41\",outcome=\"ok\"} 1\n"));
        assert!(text.contains("gristmill_build_info{version="), "what is set once stays");
        assert!(text.contains("\nprocess_resident_memory_bytes "));
    }
    drop(reconciler);

    let experiment = ExperimentMetrics::new("risk", ["control", "candidate"].into_iter(), true);
    experiment.arms[1].posterior_mean.set(0.25);
    let (now, line) =
        (now + 4 * LONG, "gristmill_experiment_posterior_mean{route=\"risk\",arm=\"candidate\"} 0.25\n");
    assert!(telemetry.text(&engine, now).contains(line));
    assert!(telemetry.text(&engine, now + LONG).contains(line));
    drop(experiment);
    assert!(telemetry.text(&engine, now + 2 * LONG).contains(line), "it is shown for a while");
    assert!(!telemetry.text(&engine, now + 3 * LONG).contains("gristmill_experiment_"));
}
