//! Threads of versions that nobody uses: there are none before the first request and none long after the last.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use gristmill_engine::engine::Engine;
use gristmill_engine::reconcile::{Options, Reconciler};
use gristmill_engine::registry::{Desired, DesiredModel, ModelSettings, SourceState, Stamp, VersionSource};
use gristmill_engine::request::{NamedTensor, Query};
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_engine::testing::FakeBackend;

const MODELS: usize = 150;

/// An engine of many models, whose workers leave when they had nothing to do for so long.
fn engine(worker_idle_max: Duration, given_back: &Arc<AtomicUsize>) -> (Engine, Reconciler) {
    let backend = FakeBackend::identity(DType::Int32, &[1]).counting_given_back(given_back);
    let mut desired = Desired::default();
    for number in 0..MODELS {
        let settings = ModelSettings::new(Arc::new(backend.clone()));
        let path = format!("m{number}/1/model.onnx").into();
        let source = VersionSource { path, stamp: Stamp(1), state: SourceState::Complete };
        let versions = BTreeMap::from([(1, source)]);
        let model = DesiredModel::Sound { versions, settings: Arc::new(settings) };
        desired.models.insert(format!("m{number}"), model);
    }
    let (engine, mut reconciler) = Engine::new(false, Options { worker_idle_max, ..Options::default() });
    for report in reconciler.load(desired) {
        report.result.unwrap();
    }
    (engine, reconciler)
}

async fn ask(engine: &Engine, number: usize) {
    let data = (number as i32).to_le_bytes().to_vec();
    let tensor = Tensor::new(DType::Int32, [1, 1].as_slice(), data.clone().into()).unwrap();
    let inputs = vec![NamedTensor { name: "x".into(), tensor }];
    let query = Query { model: format!("m{number}"), inputs, ..Query::default() };
    let answer = engine.infer(query).await.unwrap();
    assert_eq!(answer.outputs[0].1.data()[..], data);
}

/// Threads of workers: they are called `w0 m17`.
fn workers() -> usize {
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
    tasks.map(name).filter(|name| name.starts_with("w0 m") || name.starts_with("w1 m")).count()
}

/// In one test: threads are those of the process.
#[tokio::test(flavor = "multi_thread")]
async fn threads_come_and_go_and_no_request_is_lost() {
    versions_have_threads_only_while_they_are_used().await;
    what_was_admitted_is_answered_though_its_worker_has_not_come_yet().await;
}

async fn versions_have_threads_only_while_they_are_used() {
    let given_back = Arc::default();
    let (engine, reconciler) = engine(Duration::from_millis(50), &given_back);
    assert_eq!(workers(), 0, "nobody has asked for anything");
    let engine = Arc::new(engine);
    for round in 1..=3 {
        let calls = (0..MODELS).map(|number| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { ask(&engine, number).await })
        });
        for call in calls.collect::<Vec<_>>() {
            tokio::time::timeout(Duration::from_secs(60), call).await.unwrap().unwrap();
        }
        let all_leave = async {
            while workers() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all_leave).await.unwrap();
        assert!(given_back.load(Ordering::Relaxed) >= round * MODELS, "idle sessions give memory back");
    }
    reconciler.shut_down();
}

async fn what_was_admitted_is_answered_though_its_worker_has_not_come_yet() {
    let (engine, reconciler) = engine(Duration::from_secs(30), &Arc::default());
    let calls: Vec<_> = (0..MODELS).map(|number| Box::pin(ask(&engine, number))).collect();
    // Polled once, they are admitted; some may be answered by then.
    let admitted: Vec<_> = calls.into_iter().filter_map(poll_once).collect();
    let ends = std::thread::spawn(move || reconciler.shut_down());
    for call in admitted {
        tokio::time::timeout(Duration::from_secs(60), call).await.unwrap();
    }
    ends.join().unwrap();
}

/// Polls once, with nobody to wake; gives back what is not over.
fn poll_once<F: Future<Output = ()>>(mut future: Pin<Box<F>>) -> Option<Pin<Box<F>>> {
    let is_over = future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
    (!is_over).then_some(future)
}
