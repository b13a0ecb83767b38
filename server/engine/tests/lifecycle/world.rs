//! A repository in memory, a runtime whose versions do what they are told, and an engine that follows them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gristmill_engine::backend::{Artifact, Backend, Instance, Model, Placement};
use gristmill_engine::control::{Control, ControlError, Following, Loop, Started};
use gristmill_engine::engine::{Engine, IndexEntry};
use gristmill_engine::error::{InferError, LoadError, RunError};
use gristmill_engine::reconcile::Options;
use gristmill_engine::registry::{
    Desired, DesiredModel, DesiredRoutes, Lifecycle, ModelSettings, Registry, RegistryError, SourceState,
    Stamp, VersionPolicy, VersionSource,
};
use gristmill_engine::request::{NamedTensor, Query, VersionSelector};
use gristmill_engine::routing::Route;
use gristmill_engine::tensor::{DType, Signature, Tensor};
use gristmill_engine::testing::{FakeBackend, Gate, batched_signature};
use gristmill_engine::tuning::Tuning;

/// What a version's contents are.
#[derive(Clone)]
pub(crate) enum Contents {
    /// `y = x + so much`.
    Adds(i32),
    /// `y = x`, and a row that holds this fails.
    FailsOn(i32),
    Damaged,
    PanicsInLoad,
    PanicsInInstance,
    /// Waits for the gate, and adds then.
    Waits(Arc<Gate>, i32),
    /// Waits until others are loaded at the same time, and adds then.
    Meets(Arc<Barrier>, i32),
    /// Waits for the gate, and turns out to be damaged.
    WaitsAndFails(Arc<Gate>),
}

/// Contents, how they are found on disk, and their stamp.
type Shelf = BTreeMap<u64, (Contents, SourceState, Stamp)>;

/// What is in the repository under `m`; beside it there are always two sound models, `other` and, with rows of two, `wide`.
#[derive(Clone)]
struct Repository {
    shelf: Arc<Mutex<Shelf>>,
    lifecycle: Lifecycle,
    routes: Arc<Mutex<DesiredRoutes>>,
    is_read_only: Arc<AtomicBool>,
}

pub(crate) struct World {
    pub(crate) engine: Arc<Engine>,
    pub(crate) control: Control,
    repository: Repository,
    ended: Loop,
}

/// The latest version, and none is kept.
pub(crate) fn latest() -> Lifecycle {
    Lifecycle {
        policy: VersionPolicy::Latest(1),
        keep_previous: Duration::ZERO,
        watch: None,
        ..Lifecycle::default()
    }
}

/// The latest version, and the one before it is kept.
pub(crate) fn latest_and_previous() -> Lifecycle {
    Lifecycle { keep_previous: Duration::from_secs(3600), ..latest() }
}

pub(crate) fn all() -> Lifecycle {
    Lifecycle { policy: VersionPolicy::All, ..latest() }
}

/// One row of a model's input.
pub(crate) fn query(version: &str, value: i32) -> Query {
    let data = Bytes::copy_from_slice(&value.to_le_bytes());
    let tensor = Tensor::new(DType::Int32, [1, 1].as_slice(), data).unwrap();
    Query {
        model: "m".into(),
        version: VersionSelector::parse(version).unwrap(),
        inputs: vec![NamedTensor { name: "x".into(), tensor }],
        ..Query::default()
    }
}

impl World {
    /// Follows a repository whose model `m` has these versions, and returns when they have been tried.
    pub(crate) async fn start<const N: usize>(
        lifecycle: Lifecycle,
        options: Options,
        versions: [(u64, Contents); N],
    ) -> World {
        World::start_with(DesiredRoutes::default(), lifecycle, options, versions).await
    }

    /// The same, with routes to begin with.
    pub(crate) async fn start_with<const N: usize>(
        routes: DesiredRoutes,
        lifecycle: Lifecycle,
        options: Options,
        versions: [(u64, Contents); N],
    ) -> World {
        let (world, started) = World::begin(routes, lifecycle, options, versions);
        started.await.unwrap().unwrap();
        world
    }

    /// The same, and returns while the versions are tried.
    pub(crate) fn begin<const N: usize>(
        routes: DesiredRoutes,
        lifecycle: Lifecycle,
        options: Options,
        versions: [(u64, Contents); N],
    ) -> (World, Started) {
        let repository = Repository {
            shelf: Arc::default(),
            lifecycle,
            routes: Arc::new(Mutex::new(routes)),
            is_read_only: Arc::default(),
        };
        for (version, contents) in versions {
            repository.put(version, contents, SourceState::Complete);
        }
        let (engine, reconciler) = Engine::new(false, options);
        let following = Following { takes_orders: true, ..Following::default() };
        let (control, ended, started) =
            Control::start(reconciler, Box::new(repository.clone()), following).unwrap();
        (World { engine: Arc::new(engine), control, repository, ended }, started)
    }

    /// The version has these contents from now on.
    pub(crate) fn put(&self, version: u64, contents: Contents) {
        self.repository.put(version, contents, SourceState::Complete);
        self.control.look();
    }

    /// The same, found in this state.
    pub(crate) fn put_as(&self, version: u64, contents: Contents, state: SourceState) {
        self.repository.put(version, contents, state);
        self.control.look();
    }

    /// The repository says this of routes from now on.
    pub(crate) fn put_routes(&self, routes: DesiredRoutes) {
        *self.repository.routes.lock().unwrap() = routes;
        self.control.look();
    }

    /// Whether it refuses to keep what operators or canaries change.
    pub(crate) fn make_read_only(&self, is_read_only: bool) {
        self.repository.is_read_only.store(is_read_only, Ordering::Relaxed);
    }

    /// What it says of them.
    pub(crate) fn kept_routes(&self) -> DesiredRoutes {
        self.repository.routes.lock().unwrap().clone()
    }

    pub(crate) fn remove(&self, version: u64) {
        self.repository.shelf.lock().unwrap().remove(&version);
        self.control.look();
    }

    /// Returns when the repository has been read and acted on.
    pub(crate) async fn read(&self) {
        self.control.load("other", None).await.unwrap();
    }

    /// Waits for a published state in which `look` finds something.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut(&Engine) -> Option<T>) -> T {
        let mut changes = self.engine.changes();
        loop {
            if let Some(found) = look(&self.engine) {
                return found;
            }
            changes.changed().await.unwrap();
        }
    }

    /// Waits until a request without a version is answered by this one.
    pub(crate) async fn until_default(&self, version: u64) {
        self.until(|engine| {
            let model = engine.model("m", &VersionSelector::Default).ok()?;
            (model.version == version).then_some(())
        })
        .await;
    }

    pub(crate) async fn until_reason(&self, version: u64, part: &str) -> String {
        let has_part = |engine: &Engine| {
            let entry = entry(engine, version)?;
            entry.reason.contains(part).then_some(entry.reason)
        };
        self.until(has_part).await
    }

    /// The version that answers and what it adds.
    pub(crate) async fn infer(&self, version: &str) -> Result<(u64, i32), InferError> {
        let response = self.engine.infer(query(version, 1000)).await?;
        let value = i32::from_le_bytes(response.outputs[0].1.data()[..4].try_into().unwrap());
        Ok((response.model.version, value - 1000))
    }

    /// The lines of the index about `m`, and what readiness says is failing.
    pub(crate) fn say(&self) -> String {
        let mut text = String::new();
        for entry in self.engine.index().iter().filter(|entry| entry.model == "m") {
            text += &format!("{} {} {}\n", entry.version, entry.state.name(), entry.reason);
        }
        let readiness = self.engine.ready();
        // How soon the others are loaded is nothing that a test may depend on.
        let is_meant =
            |reason: &&String| !["model 'other'", "model 'wide'"].iter().any(|of| reason.starts_with(of));
        for reason in readiness.reasons.iter().filter(is_meant) {
            text += &format!("not ready: {reason}\n");
        }
        for reason in readiness.failing.iter().filter(is_meant) {
            text += &format!("failing: {reason}\n");
        }
        text
    }

    pub(crate) async fn shut_down(self) {
        self.control.shut_down(self.ended).await;
    }
}

pub(crate) fn entry(engine: &Engine, version: u64) -> Option<IndexEntry> {
    engine.index().into_iter().find(|entry| entry.model == "m" && entry.version == version)
}

impl Repository {
    fn put(&self, version: u64, contents: Contents, state: SourceState) {
        let mut shelf = self.shelf.lock().unwrap();
        let stamp = shelf.get(&version).map_or(Stamp(0), |(.., stamp)| Stamp(stamp.0 + 1));
        shelf.insert(version, (contents, state, stamp));
    }
}

impl Registry for Repository {
    fn desired(&mut self) -> Result<Desired, RegistryError> {
        let tuning = Tuning { instances: Some(1), batch_rows_max: Some(4), ..Tuning::default() };
        let model = |backend: Arc<dyn Backend>, versions, lifecycle| {
            let settings = ModelSettings { tuning: tuning.clone(), lifecycle, ..ModelSettings::new(backend) };
            DesiredModel::Sound { versions, settings: Arc::new(settings) }
        };
        let source = |version: u64, stamp, state| {
            (version, VersionSource { path: format!("m/{version}/model.onnx").into(), stamp, state })
        };
        let shelf = self.shelf.lock().unwrap();
        let versions = shelf
            .iter()
            .map(|(&version, (_, state, stamp))| source(version, *stamp, state.clone()))
            .collect();
        let other = BTreeMap::from([source(1, Stamp(0), SourceState::Complete)]);
        let identity = Arc::new(FakeBackend::identity(DType::Int32, &[1]));
        let wide = Arc::new(FakeBackend::identity(DType::Int32, &[2]));
        let models = BTreeMap::from([
            ("m".to_owned(), model(Arc::new(self.clone()), versions, self.lifecycle.clone())),
            ("other".to_owned(), model(identity, other.clone(), latest())),
            ("wide".to_owned(), model(wide, other, latest())),
        ]);
        Ok(Desired { models, routes: self.routes.lock().unwrap().clone(), ..Desired::default() })
    }

    fn keep_routes(&mut self, routes: &[Route]) -> Result<(), ControlError> {
        if self.is_read_only.load(Ordering::Relaxed) {
            return Err(ControlError::Refused("the repository cannot be written to".into()));
        }
        *self.routes.lock().unwrap() = DesiredRoutes::Read(routes.to_vec());
        Ok(())
    }
}

impl Backend for Repository {
    fn load(&self, artifact: &Artifact) -> Result<Box<dyn Model>, LoadError> {
        let contents =
            self.shelf.lock().unwrap().get(&artifact.version).map(|(contents, ..)| contents.clone());
        match contents {
            Some(Contents::Adds(added)) => Ok(Box::new(adds(added))),
            Some(Contents::FailsOn(value)) => Ok(Box::new(fails_on(value))),
            Some(Contents::Waits(gate, added)) => {
                gate.pass();
                Ok(Box::new(adds(added)))
            }
            Some(Contents::Meets(barrier, added)) => {
                barrier.wait();
                Ok(Box::new(adds(added)))
            }
            Some(Contents::WaitsAndFails(gate)) => {
                gate.pass();
                Err(LoadError::transient("the file is damaged"))
            }
            Some(Contents::PanicsInInstance) => {
                Ok(Box::new(Fragile { signature: batched_signature(DType::Int32, &[1]) }))
            }
            Some(Contents::PanicsInLoad) => panic!("the runtime has met a bug"),
            Some(Contents::Damaged) | None => Err(LoadError::transient("the file is damaged")),
        }
    }
}

fn adds(added: i32) -> FakeBackend {
    FakeBackend::new(batched_signature(DType::Int32, &[1]), move |inputs| {
        let input = inputs[0].as_ref().unwrap();
        let values = input.data.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes));
        let data: Vec<u8> = values.flat_map(|value| value.wrapping_add(added).to_le_bytes()).collect();
        Ok(vec![Tensor::new(DType::Int32, input.shape, data.into()).unwrap()])
    })
}

fn fails_on(value: i32) -> FakeBackend {
    FakeBackend::checked_identity(DType::Int32, &[1], move |input| {
        let mut values = input.data.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes));
        match values.any(|found| found == value) {
            true => Err(RunError::Failed(format!("{value} is more than it can bear"))),
            false => Ok(()),
        }
    })
}

/// Loads, and panics when an instance is made of it.
struct Fragile {
    signature: Signature,
}

impl Model for Fragile {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn platform(&self) -> &str {
        "fragile"
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    fn instance(&self, _placement: Placement) -> Result<Box<dyn Instance>, LoadError> {
        panic!("the runtime has met a bug in a session")
    }
}
