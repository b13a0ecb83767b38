//! What a model runtime must offer: read an artifact, make instances of it, run a batch.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::companions::Companions;
use crate::error::{LoadError, RunError};
use crate::tensor::{DType, Signature, Tensor};

/// A version of a model on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    pub model: String,
    pub version: u64,
    /// The model file, for example `models/iris/1/model.onnx`.
    pub path: PathBuf,
    /// Threads inside one run of the instance that loading is likely to be followed by (at least 1).
    pub threads: usize,
}

/// What instances compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// The cores of one CPU socket. All cores that are granted count as socket 0.
    Socket(u32),
    Gpu(u32),
}

/// Where an instance computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub device: Device,
    /// Threads that it may use inside one run (at least 1).
    pub threads: usize,
}

/// Whether the rows of a batch can influence each other's outputs, as the model's structure tells. Where it tells
/// that they do, the signature has no batch axis and gives the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowIndependence {
    /// Every operator between the inputs and the outputs keeps rows apart, whatever their values.
    Proved,
    /// The structure does not decide it: samples have to. `reason` is a clause that names the operator.
    Undecided { reason: String },
    /// Outputs are random by definition, so samples cannot decide it. `reason` names the operator.
    Random { reason: String },
}

/// A runtime, with its settings for one model.
pub trait Backend: Send + Sync {
    /// Reads the artifact's signature and prepares for instances. Slow: called off the request path.
    ///
    /// # Errors
    /// The file is missing, is not a model, or asks for what the runtime lacks.
    fn load(&self, artifact: &Artifact) -> Result<Box<dyn Model>, LoadError>;
}

/// A loaded artifact: makes the instances that workers own.
pub trait Model: Send + Sync {
    fn signature(&self) -> &Signature;

    /// Triton's platform string, for example `onnxruntime_onnx`.
    fn platform(&self) -> &str;

    /// What was chosen and why, one fact an entry, for people: runtime and version, execution
    /// provider in use, each provider that was refused with its reason.
    fn notes(&self) -> Vec<String>;

    /// The devices that its instances are to be spread over: at least one.
    fn devices(&self) -> Vec<Device> {
        vec![Device::Socket(0)]
    }

    /// Whether a run can use more than one thread.
    fn is_parallel(&self) -> bool {
        true
    }

    /// What front doors are to find with the version.
    fn companions(&self) -> Companions {
        Companions::default()
    }

    /// Whether rows that are stacked along the signature's batch axis stay apart.
    fn row_independence(&self) -> RowIndependence {
        RowIndependence::Undecided { reason: "the runtime does not analyse the model's structure".into() }
    }

    /// Builds one more independent copy, for a worker.
    ///
    /// # Errors
    /// The runtime cannot build the session (memory, provider, corrupt file).
    fn instance(&self, placement: Placement) -> Result<Box<dyn Instance>, LoadError>;
}

/// One copy of a model. A loader makes and proves it and hands it to a worker, which runs and drops it: one
/// thread at a time.
pub trait Instance: Send {
    /// Runs once. `inputs[i]` is signature input `i`, or `None` where an optional input is left out.
    /// With a batch axis every shape begins with the same number of rows.
    ///
    /// Returns one tensor for each output of the signature, in its order.
    ///
    /// # Errors
    /// What the runtime reports. A panic is allowed: it fails this batch and replaces the instance.
    fn run(&mut self, inputs: &[Option<InputView<'_>>]) -> Result<Vec<Tensor>, RunError>;

    /// Gives back memory that is only kept for later runs, by a run of these made-up inputs if it takes one. Called when
    /// nobody has asked for long.
    ///
    /// # Errors
    /// As [`Instance::run`].
    fn give_back_memory(&mut self, _inputs: &[Option<InputView<'_>>]) -> Result<(), RunError> {
        Ok(())
    }

    /// A handle with which another thread stops this instance's runs.
    fn stopper(&self) -> Stopper;
}

/// How a runtime stops a run of one instance.
pub trait Stop: Send + Sync {
    /// The run in progress ends soon, with [`RunError::Stopped`] unless it is done before it notices. Runs that
    /// begin later end at once, until [`Stop::rearm`].
    fn stop(&self);

    /// Takes [`Stop::stop`] back. Called between runs.
    fn rearm(&self);
}

/// Stops the runs of one instance, or knows why they cannot be stopped. Cheap to clone.
#[derive(Clone)]
pub struct Stopper(Result<Arc<dyn Stop>, &'static str>);

/// One gathered input of a batch.
#[derive(Clone, Copy, Debug)]
pub struct InputView<'a> {
    pub dtype: DType,
    pub shape: &'a [usize],
    /// Row-major little-endian elements, aligned to 64 bytes; `BYTES` in the encoding of [`Tensor`].
    pub data: &'a [u8],
}

// === impl Device ===

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Socket(number) => write!(f, "cpu{number}"),
            Device::Gpu(number) => write!(f, "gpu{number}"),
        }
    }
}

// === impl Placement ===

impl Default for Placement {
    /// One thread on the CPU.
    fn default() -> Placement {
        Placement { device: Device::Socket(0), threads: 1 }
    }
}

// === impl Stopper ===

impl Stopper {
    pub fn new(stop: Arc<dyn Stop>) -> Stopper {
        Stopper(Ok(stop))
    }

    /// For a runtime whose runs end by themselves or not at all; `why` is a clause for people.
    pub fn cannot(why: &'static str) -> Stopper {
        Stopper(Err(why))
    }

    /// Why a run that was begun goes on to its end whatever is said to it, if so.
    pub fn obstacle(&self) -> Option<&'static str> {
        self.0.as_ref().err().copied()
    }

    /// See [`Stop::stop`]; does nothing where there is an obstacle.
    pub fn stop(&self) {
        if let Ok(stop) = &self.0 {
            stop.stop();
        }
    }

    /// See [`Stop::rearm`].
    pub fn rearm(&self) {
        if let Ok(stop) = &self.0 {
            stop.rearm();
        }
    }
}
