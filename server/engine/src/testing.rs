//! A scripted runtime and small builders, for tests of this crate and of the front doors.

pub mod probe;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;

use crate::backend::{
    Artifact, Backend, Device, InputView, Instance, Model, Placement, RowIndependence, Stop, Stopper,
};
use crate::engine::Engine;
use crate::error::{LoadError, RunError};
use crate::reconcile::{Options, Reconciler};
use crate::registry::{
    Desired, DesiredModel, DesiredRoutes, ModelSettings, SourceState, Stamp, VersionSource,
};
use crate::routing::Route;
use crate::tensor::{BatchAxis, DType, Dim, Signature, Tensor, TensorSpec};
use crate::tuning::Tuning;

/// What a fake model computes.
pub type Script = dyn Fn(&[Option<InputView<'_>>]) -> Result<Vec<Tensor>, RunError> + Send + Sync;

/// A runtime whose models are Rust functions.
#[derive(Clone)]
pub struct FakeBackend {
    signature: Signature,
    script: Arc<Script>,
    gate: Option<Arc<Gate>>,
    devices: Vec<Device>,
    independence: RowIndependence,
    given_back: Arc<AtomicUsize>,
}

/// On any machine: tests hold several runs at gates.
const RUN_SLOTS: usize = 8;

/// Holds runs back until it is opened, so that tests decide what waits in a queue.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    closed: bool,
    /// Runs that may pass nevertheless.
    let_through: usize,
    waiting: usize,
}

// === impl FakeBackend ===

impl FakeBackend {
    pub fn new(
        signature: Signature,
        script: impl Fn(&[Option<InputView<'_>>]) -> Result<Vec<Tensor>, RunError> + Send + Sync + 'static,
    ) -> FakeBackend {
        FakeBackend {
            signature,
            script: Arc::new(script),
            gate: None,
            devices: vec![Device::Socket(0)],
            independence: RowIndependence::Proved,
            given_back: Arc::default(),
        }
    }

    /// Counts how often its instances were told to give memory back.
    pub fn counting_given_back(self, given_back: &Arc<AtomicUsize>) -> FakeBackend {
        FakeBackend { given_back: Arc::clone(given_back), ..self }
    }

    /// Runs wait at `gate` before they do anything, and can be stopped there. Others cannot be stopped.
    pub fn held_at(self, gate: &Arc<Gate>) -> FakeBackend {
        FakeBackend { gate: Some(Arc::clone(gate)), ..self }
    }

    /// Its structure says so of its rows; without this that they stay apart.
    pub fn with_rows(self, independence: RowIndependence) -> FakeBackend {
        FakeBackend { independence, ..self }
    }

    /// Instances are spread over `devices`.
    pub fn on(self, devices: &[Device]) -> FakeBackend {
        FakeBackend { devices: devices.to_vec(), ..self }
    }

    /// Takes `x` and gives it back as `y`: `dtype`, one dynamic batch axis, then `row`.
    pub fn identity(dtype: DType, row: &[usize]) -> FakeBackend {
        FakeBackend::new(batched_signature(dtype, row), |inputs| Ok(vec![copy(&inputs[0])]))
    }

    /// The same, with `check` called on the stacked input before.
    pub fn checked_identity(
        dtype: DType,
        row: &[usize],
        check: impl Fn(&InputView<'_>) -> Result<(), RunError> + Send + Sync + 'static,
    ) -> FakeBackend {
        FakeBackend::new(batched_signature(dtype, row), move |inputs| {
            if let Some(input) = &inputs[0] {
                check(input)?;
            }
            Ok(vec![copy(&inputs[0])])
        })
    }
}

/// `x` in and `y` out with a batch axis.
pub fn batched_signature(dtype: DType, row: &[usize]) -> Signature {
    let mut shape = vec![Dim::Dynamic(Some("batch".into()))];
    shape.extend(row.iter().map(|&size| Dim::Fixed(size)));
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        dtype,
        shape: Some(shape.clone()),
        optional: false,
        labels: Vec::new(),
    };
    Signature { inputs: vec![spec("x")], outputs: vec![spec("y")], batch: BatchAxis::Rows }
}

/// An owned tensor with an input's contents.
pub fn copy(input: &Option<InputView<'_>>) -> Tensor {
    let input = input.as_ref().expect("the fake model's inputs are required");
    Tensor::new(input.dtype, input.shape, Bytes::copy_from_slice(input.data))
        .expect("an input's data agrees with its shape")
}

/// An engine that serves `models` (name, version, runtime, tuning), each loaded and proved, on more cores than
/// they use.
///
/// # Panics
/// When one does not load.
pub fn engine(
    models: impl IntoIterator<Item = (&'static str, u64, FakeBackend, Tuning)>,
) -> (Engine, Reconciler) {
    engine_on(RUN_SLOTS, models)
}

/// The same with routes.
///
/// # Panics
/// When a model does not load.
pub fn engine_with_routes(
    models: impl IntoIterator<Item = (&'static str, u64, FakeBackend, Tuning)>,
    routes: Vec<Route>,
) -> (Engine, Reconciler) {
    serve(RUN_SLOTS, models, DesiredRoutes::Read(routes))
}

/// The same on so many cores.
///
/// # Panics
/// When one does not load.
pub fn engine_on(
    run_slots: usize,
    models: impl IntoIterator<Item = (&'static str, u64, FakeBackend, Tuning)>,
) -> (Engine, Reconciler) {
    serve(run_slots, models, DesiredRoutes::default())
}

fn serve(
    run_slots: usize,
    models: impl IntoIterator<Item = (&'static str, u64, FakeBackend, Tuning)>,
    routes: DesiredRoutes,
) -> (Engine, Reconciler) {
    let mut desired = Desired { routes, ..Desired::default() };
    for (name, version, backend, tuning) in models {
        let settings = Arc::new(ModelSettings { tuning, ..ModelSettings::new(Arc::new(backend)) });
        let path = PathBuf::from(format!("{name}/{version}/model.onnx"));
        let source = VersionSource { path, stamp: Stamp(version), state: SourceState::Complete };
        match desired.models.get_mut(name) {
            Some(DesiredModel::Sound { versions, .. }) => {
                versions.insert(version, source);
            }
            _ => {
                let model = DesiredModel::Sound { versions: BTreeMap::from([(version, source)]), settings };
                desired.models.insert(name.into(), model);
            }
        }
    }
    let options = Options { run_slots: Some(run_slots), ..Options::default() };
    let (engine, mut reconciler) = Engine::new(false, options);
    for report in reconciler.load(desired) {
        report.result.expect("the fake model loads");
    }
    (engine, reconciler)
}

impl Backend for FakeBackend {
    fn load(&self, _artifact: &Artifact) -> Result<Box<dyn Model>, LoadError> {
        Ok(Box::new(self.clone()))
    }
}

impl Model for FakeBackend {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn platform(&self) -> &str {
        "fake"
    }

    fn row_independence(&self) -> RowIndependence {
        self.independence.clone()
    }

    fn notes(&self) -> Vec<String> {
        vec!["a fake runtime".into()]
    }

    fn devices(&self) -> Vec<Device> {
        self.devices.clone()
    }

    fn instance(&self, _placement: Placement) -> Result<Box<dyn Instance>, LoadError> {
        let hold = |gate| Arc::new(Hold { gate, is_stopped: AtomicBool::new(false) });
        Ok(Box::new(FakeInstance {
            script: Arc::clone(&self.script),
            hold: self.gate.clone().map(hold),
            given_back: Arc::clone(&self.given_back),
        }))
    }
}

struct FakeInstance {
    script: Arc<Script>,
    hold: Option<Arc<Hold>>,
    given_back: Arc<AtomicUsize>,
}

/// Where one instance's runs wait.
struct Hold {
    gate: Arc<Gate>,
    is_stopped: AtomicBool,
}

impl Instance for FakeInstance {
    fn run(&mut self, inputs: &[Option<InputView<'_>>]) -> Result<Vec<Tensor>, RunError> {
        if let Some(hold) = &self.hold
            && !hold.gate.pass_unless(|| hold.is_stopped.load(Ordering::Acquire))
        {
            return Err(RunError::Stopped);
        }
        (self.script)(inputs)
    }

    fn give_back_memory(&mut self, _inputs: &[Option<InputView<'_>>]) -> Result<(), RunError> {
        self.given_back.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn stopper(&self) -> Stopper {
        match &self.hold {
            Some(hold) => Stopper::new(Arc::<Hold>::clone(hold)),
            None => Stopper::cannot("a fake runtime stops only what waits at a gate"),
        }
    }
}

impl Stop for Hold {
    fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.gate.look_again();
    }

    fn rearm(&self) {
        self.is_stopped.store(false, Ordering::Release);
    }
}

// === impl Gate ===

impl Gate {
    /// From now on runs wait in [`Gate::pass`].
    pub fn close(&self) {
        self.lock().closed = true;
    }

    pub fn open(&self) {
        self.lock().closed = false;
        self.changed.notify_all();
    }

    /// Lets so many runs pass and stays closed.
    pub fn let_through(&self, runs: usize) {
        self.lock().let_through += runs;
        self.changed.notify_all();
    }

    /// Called by a fake model's script.
    pub fn pass(&self) {
        self.pass_unless(|| false);
    }

    /// Waits until the gate is open, or `is_stopped`; false for the latter.
    fn pass_unless(&self, is_stopped: impl Fn() -> bool) -> bool {
        let mut state = self.lock();
        state.waiting += 1;
        self.changed.notify_all();
        while state.closed && !is_stopped() {
            if state.let_through > 0 {
                state.let_through -= 1;
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        self.changed.notify_all();
        !is_stopped()
    }

    /// Lets those that wait see whether they are stopped.
    fn look_again(&self) {
        let _state = self.lock();
        self.changed.notify_all();
    }

    /// Blocks until `runs` runs wait at the closed gate.
    pub fn wait_for(&self, runs: usize) {
        self.wait_until(|waiting| waiting >= runs);
    }

    /// Blocks until no run waits at the gate.
    pub fn wait_for_none(&self) {
        self.wait_until(|waiting| waiting == 0);
    }

    fn wait_until(&self, is_met: impl Fn(usize) -> bool) {
        let mut state = self.lock();
        while !is_met(state.waiting) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
