//! From an artifact to a deployment: loads, proves, measures and warms a version, starts its workers, retires them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::backend::{Artifact, Instance, Model};
use crate::background::Background;
use crate::compatibility;
use crate::cores;
use crate::cost::CostModel;
use crate::deployment::Deployment;
use crate::error::LoadError;
use crate::former::Policy;
use crate::golden;
use crate::proof::{self, Recipe, Sample};
use crate::registry::ModelSettings;
use crate::request::ModelInfo;
use crate::service_level::ServiceLevel;
use crate::sweep::{self, ROWS_MAX_UNMEASURED, Sweep};
use crate::tensor::{BatchAxis, Signature};
use crate::terms::Terms;
use crate::tuning::{QUEUE_BYTES_MAX_BY_DEFAULT, QUEUE_ROWS_MAX_BY_DEFAULT, Tuning};
use crate::worker::Worker;

/// The largest batch is warmed only if it is expected to take less than this.
const WARM_UP_RUN_MAX: Duration = Duration::from_millis(500);

/// What is loaded, and what it is compared with.
pub(crate) struct Order {
    pub(crate) artifact: Artifact,
    pub(crate) settings: Arc<ModelSettings>,
    /// The version that serves by default now.
    pub(crate) predecessor: Option<Arc<ModelInfo>>,
    pub(crate) service_level: Arc<ServiceLevel>,
}

/// When workers free their sessions, which for a large model takes some hundredths of a second of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freeing {
    AtOnce,
    /// On cores that nothing else wants: others serve.
    WhenIdle,
}

/// The threads of a deployment.
pub(crate) struct Workers {
    deployment: Arc<Deployment>,
    threads: Vec<JoinHandle<()>>,
}

// === impl Workers ===

impl Workers {
    /// Loads an artifact, proves it, and starts its workers, each with a warm instance of its own. Slow; called
    /// on a thread of its own, whose priority the threads of the workers do not share.
    ///
    /// # Errors
    /// The step that failed and why. Nothing is left behind.
    pub(crate) fn start(order: &Order) -> Result<Workers, LoadError> {
        let Order { artifact, settings, predecessor, service_level } = order;
        let tuning = &settings.tuning;
        let directory = artifact.path.parent().unwrap_or(Path::new(""));
        let prepared = (settings.prepare)(directory).map_err(LoadError)?;
        let split = cores::split(cores::granted(), tuning.instances, tuning.threads);
        let artifact = Artifact { threads: split.threads, ..artifact.clone() };
        let model: Arc<dyn Model> = Arc::from(settings.backend.load(&artifact)?);
        if let Some(predecessor) = predecessor
            && !settings.lifecycle.allow_signature_change
        {
            compatibility::check(&predecessor.signature, model.signature()).map_err(|why| {
                LoadError(format!(
                    "signature: {why}; version {} serves and its clients would fail: set \
                     allow_signature_change = true in model.toml if they have been changed",
                    predecessor.version
                ))
            })?;
        }

        let mut first = model.instance()?;
        let proof = proof::prove(model.signature(), &mut *first);
        if let (Some(predecessor), BatchAxis::None { reason }) = (predecessor, &proof.batch)
            && predecessor.signature.is_batched()
            && !settings.lifecycle.allow_signature_change
        {
            return Err(LoadError(format!(
                "batch proof: {reason}; version {} is batched and this one could not be: set \
                 allow_signature_change = true in model.toml to serve it one request at a time",
                predecessor.version
            )));
        }
        let signature = Signature { batch: proof.batch.clone(), ..model.signature().clone() };
        let mut notes = model.notes();
        notes.extend(prepared.notes);
        notes.push(proof.note);
        if let Some(golden) = &prepared.golden {
            let note = golden::check(golden, &signature, &mut *first).map_err(LoadError)?;
            notes.push(note);
        }
        let sweep = proof.recipe.map(|recipe| {
            let rows_max = match signature.is_batched() {
                true => tuning.batch_rows_max.unwrap_or(ROWS_MAX_UNMEASURED),
                false => 1,
            };
            sweep::sweep(&signature, recipe, rows_max, &mut *first)
        });
        let sweep = sweep.unwrap_or_default();
        let (batch_rows_max, batch_rows_why) = batch_rows_max(&signature, tuning, &sweep);
        if signature.is_batched() && tuning.batch_rows_max.is_none() {
            notes.push(format!("largest batch {batch_rows_max} rows, {batch_rows_why}"));
        }
        notes.push(split.why);
        let terms = Terms::new(tuning);
        let policy = policy(batch_rows_max, tuning, &terms, split.instances);
        let cost = CostModel::seeded(batch_rows_max, &sweep.samples);
        let info = ModelInfo {
            name: artifact.model.clone(),
            version: artifact.version,
            platform: model.platform().to_owned(),
            batch_rows_max: policy.batch_rows_max,
            batch_delay: policy.batch_delay.unwrap_or_default(),
            instances: split.instances,
            threads: split.threads,
            notes,
            signature,
        };
        let mut instances = vec![first];
        for _ in 1..split.instances {
            instances.push(model.instance()?);
        }
        if let Some(recipe) = proof.recipe {
            for instance in &mut instances {
                warm_up(&info, recipe, &mut **instance);
            }
            tuning.budget.check(&info, recipe, &mut *instances[0])?;
        }
        let service_level = Arc::clone(service_level);
        let deployment = Deployment::new(info, policy, cost, batch_rows_why, terms, service_level);
        Workers::spawn(&model, Arc::new(deployment), instances)
    }

    fn spawn(
        model: &Arc<dyn Model>,
        deployment: Arc<Deployment>,
        instances: Vec<Box<dyn Instance>>,
    ) -> Result<Workers, LoadError> {
        deployment.metrics.instances.set(instances.len() as f64);
        let mut workers = Workers { deployment: Arc::clone(&deployment), threads: Vec::new() };
        for (index, instance) in instances.into_iter().enumerate() {
            let name = format!("w{index} {}", deployment.info.name);
            let (model, deployment) = (Arc::clone(model), Arc::clone(&deployment));
            let body = move || {
                cores::compute_in_batches();
                let mut worker = Worker::new(&deployment, index, &*model, instance);
                worker.serve();
                let frees_when_idle = deployment.frees_when_idle.load(Ordering::Relaxed);
                let _background = frees_when_idle.then(Background::enter);
                drop(worker);
            };
            match std::thread::Builder::new().name(name).spawn(body) {
                Ok(thread) => workers.threads.push(thread),
                Err(error) => {
                    workers.retire(Freeing::AtOnce);
                    return Err(LoadError(format!("cannot start a worker thread: {error}")));
                }
            }
        }
        Ok(workers)
    }

    pub(crate) fn deployment(&self) -> &Arc<Deployment> {
        &self.deployment
    }

    /// Closes the queue and waits until what was admitted is answered and every session is freed,
    /// each by the worker that owned it.
    pub(crate) fn retire(self, freeing: Freeing) {
        // Closing the queue synchronises: a worker that finds it closed sees this.
        self.deployment.frees_when_idle.store(freeing == Freeing::WhenIdle, Ordering::Relaxed);
        self.deployment.queue.close();
        for thread in self.threads {
            if thread.join().is_err() {
                let info = &self.deployment.info;
                tracing::error!(model = info.name, version = info.version, "a worker thread had panicked");
            }
        }
        self.deployment.metrics.clear_gauges();
    }
}

/// The largest batch, and why.
fn batch_rows_max(signature: &Signature, tuning: &Tuning, sweep: &Sweep) -> (usize, String) {
    match (&signature.batch, tuning.batch_rows_max) {
        (BatchAxis::None { .. }, _) => (1, "because the model is not batched".into()),
        (BatchAxis::Rows, Some(rows)) => (rows, "as its settings say".into()),
        (BatchAxis::Rows, None) if sweep.samples.is_empty() => (ROWS_MAX_UNMEASURED, "not measured".into()),
        (BatchAxis::Rows, None) => (sweep.rows_max(), format!("measured: {}", sweep.text())),
    }
}

fn policy(batch_rows_max: usize, tuning: &Tuning, terms: &Terms, workers: usize) -> Policy {
    let preferred_rows: Vec<usize> =
        tuning.preferred_rows.iter().copied().filter(|rows| *rows <= batch_rows_max).collect();
    let batch_delay = match tuning.batch_delay {
        _ if batch_rows_max == 1 => Some(Duration::ZERO),
        // Who prefers sizes and states no delay wants none.
        None if !preferred_rows.is_empty() => Some(Duration::ZERO),
        delay => delay,
    };
    Policy {
        batch_rows_max,
        batch_delay,
        preferred_rows,
        queue_rows_max: tuning.queue_rows_max.unwrap_or(QUEUE_ROWS_MAX_BY_DEFAULT).max(batch_rows_max),
        queue_bytes_max: tuning.queue_bytes_max.unwrap_or(QUEUE_BYTES_MAX_BY_DEFAULT),
        queue_requests_max: terms.requests_max(),
        workers,
        is_eager: tuning.is_eager,
    }
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
