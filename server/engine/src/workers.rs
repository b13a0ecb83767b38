//! The threads of one deployment: loads, proves and measures a version, gives each worker its own warm instance, retires them.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::backend::{Artifact, Backend, Instance, Model};
use crate::cores;
use crate::deployment::Deployment;
use crate::error::LoadError;
use crate::former::Policy;
use crate::proof::{self, Proof, Recipe, Sample};
use crate::request::ModelInfo;
use crate::sweep::{self, ROWS_MAX_UNMEASURED, Sweep};
use crate::tensor::{BatchAxis, Signature};
use crate::worker::Worker;

/// Rows that may wait where the settings say nothing: enough for bursts, short enough to answer in time.
pub const QUEUE_ROWS_MAX_BY_DEFAULT: usize = 4096;
/// Bytes of input tensors that may wait where the settings say nothing.
pub const QUEUE_BYTES_MAX_BY_DEFAULT: usize = 256 << 20;

/// The largest batch is warmed only if it is expected to take less than this.
const WARM_UP_RUN_MAX: Duration = Duration::from_millis(500);

/// What an operator may set for a model; `None` is derived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    pub instances: Option<usize>,
    pub threads: Option<usize>,
    pub batch_rows_max: Option<usize>,
    pub batch_delay: Option<Duration>,
    pub queue_rows_max: Option<usize>,
    pub queue_bytes_max: Option<usize>,
}

/// The threads of a deployment.
pub(crate) struct Workers {
    deployment: Arc<Deployment>,
    threads: Vec<JoinHandle<()>>,
}

/// What the first worker reports: the proof that it made on its instance, and the largest batch that
/// it measured where the settings leave that open.
type FirstReport = Result<(Proof, Option<Sweep>), LoadError>;

/// What a worker thread starts with.
struct WorkerThread {
    model: Arc<dyn Model>,
    /// Given to the first worker only, which proves and measures the model for all.
    report: Option<Sender<FirstReport>>,
    /// Whether the settings leave the largest batch to be measured.
    measures: bool,
    start: Receiver<(Arc<Deployment>, Option<Recipe>)>,
    ready: Sender<Result<(), LoadError>>,
}

// === impl Workers ===

impl Workers {
    /// Loads an artifact, proves it, and starts its workers, each with its own warm instance.
    /// Slow; called off the request path.
    ///
    /// # Errors
    /// The runtime's reason, from whichever step failed. Nothing is left behind.
    pub(crate) fn start(
        artifact: &Artifact,
        backend: &dyn Backend,
        tuning: &Tuning,
    ) -> Result<Workers, LoadError> {
        let split = cores::split(cores::granted(), tuning.instances, tuning.threads);
        let artifact = Artifact { threads: split.threads, ..artifact.clone() };
        let model: Arc<dyn Model> = Arc::from(backend.load(&artifact)?);

        let (report_sender, report_receiver) = bounded(1);
        let (ready_sender, ready_receiver) = bounded(split.instances);
        let mut starts = Vec::with_capacity(split.instances);
        let mut threads = Vec::with_capacity(split.instances);
        for index in 0..split.instances {
            let (start_sender, start) = bounded::<(Arc<Deployment>, Option<Recipe>)>(1);
            starts.push(start_sender);
            let body = WorkerThread {
                model: Arc::clone(&model),
                report: (index == 0).then(|| report_sender.clone()),
                measures: tuning.batch_rows_max.is_none(),
                start,
                ready: ready_sender.clone(),
            };
            let name = format!("w{index} {}", artifact.model);
            let thread = std::thread::Builder::new().name(name).spawn(move || body.run());
            threads
                .push(thread.map_err(|error| LoadError(format!("cannot start a worker thread: {error}")))?);
        }
        drop((report_sender, ready_sender));

        // Dropping `starts` on any error below ends the threads.
        let (proof, sweep) = receive(&report_receiver)??;
        let mut notes = model.notes();
        notes.push(proof.note);
        let measured_rows_max = sweep.as_ref().map(|sweep| sweep.rows_max);
        notes.extend(sweep.map(|sweep| sweep.note));
        notes.push(split.why);
        let signature = Signature { batch: proof.batch, ..model.signature().clone() };
        let policy = policy(&signature, tuning, measured_rows_max);
        let info = ModelInfo {
            name: artifact.model.clone(),
            version: artifact.version,
            platform: model.platform().to_owned(),
            batch_rows_max: policy.batch_rows_max,
            batch_delay: policy.batch_delay,
            instances: split.instances,
            threads: split.threads,
            notes,
            signature,
        };
        let deployment = Arc::new(Deployment::new(info, policy));
        deployment.metrics.instances.set(split.instances as f64);
        for start in &starts {
            let message = (Arc::clone(&deployment), proof.recipe);
            start.send(message).map_err(|_| LoadError("a worker ended while it was started".into()))?;
        }
        for _ in 0..split.instances {
            // A closed queue ends the workers that are ready already.
            let ready = receive(&ready_receiver).and_then(std::convert::identity);
            ready.inspect_err(|_| deployment.queue.close())?;
        }
        Ok(Workers { deployment, threads })
    }

    pub(crate) fn deployment(&self) -> &Arc<Deployment> {
        &self.deployment
    }

    /// Closes the queue and waits until what was admitted is answered and every session is freed,
    /// each by the thread that owned it.
    pub(crate) fn retire(self) {
        self.deployment.queue.close();
        for thread in self.threads {
            if thread.join().is_err() {
                let info = &self.deployment.info;
                tracing::error!(model = info.name, version = info.version, "a worker thread had panicked");
            }
        }
        self.deployment.metrics.instances.set(0.0);
    }
}

// === impl WorkerThread ===

impl WorkerThread {
    fn run(self) {
        // Before the instance is built, so that threads of its own are scheduled alike.
        cores::compute_in_batches();
        // A send fails only when the starter has given up on this load; then there is nobody to tell.
        let mut instance = match self.model.instance() {
            Ok(instance) => instance,
            Err(error) => {
                let told = match self.report {
                    Some(report) => report.send(Err(error)).is_ok(),
                    None => self.ready.send(Err(error)).is_ok(),
                };
                tracing::debug!(told, "a session could not be built");
                return;
            }
        };
        if let Some(report) = &self.report
            && report.send(Ok(self.prove_and_measure(&mut *instance))).is_err()
        {
            return;
        }
        let Ok((deployment, recipe)) = self.start.recv() else { return };
        if let Some(recipe) = recipe {
            warm_up(&deployment.info, recipe, &mut *instance);
        }
        if self.ready.send(Ok(())).is_ok() {
            drop(self.ready);
            Worker::new(&deployment, &*self.model, instance).serve();
        }
    }

    fn prove_and_measure(&self, instance: &mut dyn Instance) -> (Proof, Option<Sweep>) {
        let signature = self.model.signature();
        let proof = proof::prove(signature, instance);
        let recipe = proof.recipe.filter(|_| self.measures && proof.batch == BatchAxis::Rows);
        let sweep = recipe.map(|recipe| sweep::sweep(signature, recipe, instance));
        (proof, sweep)
    }
}

fn policy(signature: &Signature, tuning: &Tuning, measured_rows_max: Option<usize>) -> Policy {
    let batch_rows_max = match signature.is_batched() {
        true => tuning.batch_rows_max.or(measured_rows_max).unwrap_or(ROWS_MAX_UNMEASURED),
        false => 1,
    };
    Policy {
        batch_rows_max,
        batch_delay: if batch_rows_max == 1 {
            Duration::ZERO
        } else {
            tuning.batch_delay.unwrap_or_default()
        },
        queue_rows_max: tuning.queue_rows_max.unwrap_or(QUEUE_ROWS_MAX_BY_DEFAULT).max(batch_rows_max),
        queue_bytes_max: tuning.queue_bytes_max.unwrap_or(QUEUE_BYTES_MAX_BY_DEFAULT),
    }
}

fn receive<T>(receiver: &Receiver<T>) -> Result<T, LoadError> {
    receiver.recv().map_err(|_| LoadError("the runtime panicked while a session was built or proved".into()))
}

/// Runs the sizes that will be used, so that no caller pays for first-run allocations.
fn warm_up(info: &ModelInfo, recipe: Recipe, instance: &mut dyn Instance) {
    let start = Instant::now();
    for rows in [1, info.batch_rows_max] {
        if start.elapsed() * rows as u32 > WARM_UP_RUN_MAX {
            break;
        }
        if let Err(error) = Sample::new(&info.signature, 0..rows, recipe).run(instance) {
            tracing::debug!(model = info.name, rows, %error, "warm-up run failed");
            break;
        }
        if info.batch_rows_max == 1 {
            break;
        }
    }
}
