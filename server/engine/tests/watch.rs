//! A new version that fails the callers whom the old one served: the old one comes back by itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gristmill_engine::conduct::Watch;
use gristmill_engine::control::{Control, Following};
use gristmill_engine::engine::Engine;
use gristmill_engine::error::RunError;
use gristmill_engine::managed::EventKind;
use gristmill_engine::reconcile::Options;
use gristmill_engine::registry::{
    Desired, DesiredModel, ModelSettings, Registry, RegistryError, SourceState, Stamp, VersionSource,
};
use gristmill_engine::request::{NamedTensor, Query, VersionSelector};
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_engine::testing::FakeBackend;

/// Has version 1, and 2 as well once `second` is set.
struct Growing {
    second: Arc<AtomicBool>,
    settings: Arc<ModelSettings>,
}

impl Registry for Growing {
    fn desired(&mut self) -> Result<Desired, RegistryError> {
        let source = |version: u64| VersionSource {
            path: format!("m/{version}/model.onnx").into(),
            stamp: Stamp(version),
            state: SourceState::Complete,
        };
        let newest = if self.second.load(Ordering::Relaxed) { 2 } else { 1 };
        let versions = (1..=newest).map(|version| (version, source(version))).collect();
        let model = DesiredModel::Sound { versions, settings: Arc::clone(&self.settings) };
        Ok(Desired { models: BTreeMap::from([("m".to_owned(), model)]), ..Desired::default() })
    }
}

fn query() -> Query {
    let tensor = Tensor::new(DType::Int32, [1, 1].as_slice(), vec![7; 4].into()).unwrap();
    let inputs = vec![NamedTensor { name: "x".into(), tensor }];
    Query { model: "m".into(), inputs, ..Query::default() }
}

async fn wait_for_default(engine: &Engine, version: u64) {
    let mut changes = engine.changes();
    while engine.model("m", &VersionSelector::Default).ok().map(|model| model.version) != Some(version) {
        changes.changed().await.unwrap();
    }
}

#[tokio::test]
async fn a_version_that_fails_its_callers_is_rolled_back() {
    let is_broken = Arc::new(AtomicBool::new(false));
    let broken = Arc::clone(&is_broken);
    let backend =
        FakeBackend::checked_identity(DType::Int32, &[1], move |_| match broken.load(Ordering::Relaxed) {
            true => Err(RunError::Failed("a weight is missing".into())),
            false => Ok(()),
        });
    let mut settings = ModelSettings::new(Arc::new(backend));
    settings.lifecycle.watch =
        Some(Watch { period: Duration::from_secs(3600), requests_min: 20, ..Watch::default() });
    let (engine, reconciler) = Engine::new(false, Options::default());
    let second = Arc::new(AtomicBool::new(false));
    let registry = Growing { second: Arc::clone(&second), settings: Arc::new(settings) };
    let (control, ended, started) = Control::start(
        reconciler,
        Box::new(registry),
        Following { takes_orders: true, ..Following::default() },
    )
    .unwrap();
    started.await.unwrap().unwrap();
    for _ in 0..20 {
        engine.infer(query()).await.unwrap();
    }

    second.store(true, Ordering::Relaxed);
    control.look();
    wait_for_default(&engine, 2).await;
    is_broken.store(true, Ordering::Relaxed);
    for _ in 0..20 {
        engine.infer(query()).await.unwrap_err();
    }
    wait_for_default(&engine, 1).await;

    let details = control.describe("m").await.unwrap();
    let rolled_back = details.history.iter().find(|event| event.kind == EventKind::RolledBack).unwrap();
    assert_eq!(
        rolled_back.detail,
        "to 1: 100.0 % of its last 20 requests failed, and 0.0 % of those of the version before; the bound is \
         5.0 % more"
    );
    let entry = engine.index().into_iter().find(|entry| entry.version == 2).unwrap();
    assert!(entry.reason.starts_with("rolled back: 100.0 % of"), "{}", entry.reason);
    control.shut_down(ended).await;
}
