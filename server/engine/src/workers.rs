//! From an artifact to a deployment: loads, proves, measures and warms a version, and has it served.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Artifact, Instance, Model};
use crate::compatibility;
use crate::cores;
use crate::cost::CostModel;
use crate::crew::Crew;
pub(crate) use crate::crew::Freeing;
use crate::deployment::Deployment;
use crate::error::LoadError;
use crate::former::Policy;
use crate::golden;
use crate::proof::{self, Recipe, Sample};
use crate::registry::ModelSettings;
use crate::request::ModelInfo;
use crate::runs::{RunRules, Watcher};
use crate::service_level::ServiceLevel;
use crate::sweep::{self, ROWS_MAX_UNMEASURED, Sweep};
use crate::tensor::{BatchAxis, Signature};
use crate::terms::Terms;
use crate::tuning::{QUEUE_BYTES_MAX_BY_DEFAULT, QUEUE_ROWS_MAX_BY_DEFAULT, Tuning};

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

/// A version that can serve, and the threads that make it.
pub(crate) struct Workers {
    deployment: Arc<Deployment>,
    crew: Arc<Crew>,
}

// === impl Workers ===

impl Workers {
    /// Loads an artifact, proves it, and starts its workers, each with a warm instance of its own. Slow; called
    /// on a thread of its own, whose priority the threads of the workers do not share.
    ///
    /// # Errors
    /// The step that failed and why. Nothing is left behind.
    pub(crate) fn start(order: &Order, watcher: &Arc<Watcher>) -> Result<Workers, LoadError> {
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
        let rules = RunRules::new(tuning.run_timeout);
        if let Some(recipe) = proof.recipe {
            for instance in &mut instances {
                warm_up(&info, recipe, &mut **instance, &rules);
            }
            tuning.budget.check(&info, recipe, &mut *instances[0])?;
        }
        let service_level = Arc::clone(service_level);
        let deployment = Deployment::new(info, policy, cost, batch_rows_why, terms, service_level);
        let deployment = Arc::new(deployment);
        let crew = Crew::new(Arc::clone(&deployment), model, rules, Arc::clone(watcher));
        let workers = Workers { deployment, crew };
        for (index, instance) in instances.into_iter().enumerate() {
            if let Err(error) = workers.crew.hire(index, instance) {
                workers.retire(Freeing::AtOnce);
                return Err(LoadError(format!("cannot start a worker thread: {error}")));
            }
        }
        Ok(workers)
    }

    pub(crate) fn deployment(&self) -> &Arc<Deployment> {
        &self.deployment
    }

    /// Closes the queue and waits until what was admitted is answered and every session is freed, each by the
    /// worker that owned it. A session whose run does not end is left behind.
    pub(crate) fn retire(self, freeing: Freeing) {
        self.crew.retire(freeing);
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

/// How a version's requests are queued and batched.
pub(crate) fn policy(batch_rows_max: usize, tuning: &Tuning, terms: &Terms, workers: usize) -> Policy {
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
        queue_time_max: tuning.queue_time_max,
        queue_requests_max: terms.requests_max(),
        workers,
        is_eager: tuning.is_eager,
    }
}

/// Runs the sizes that will be used, so that no caller pays for first-run allocations.
fn warm_up(info: &ModelInfo, recipe: Recipe, instance: &mut dyn Instance, rules: &RunRules) {
    let start = Instant::now();
    for rows in [1, info.batch_rows_max] {
        if start.elapsed() * rows as u32 > WARM_UP_RUN_MAX {
            break;
        }
        let sample = Sample::new(&info.signature, 0..rows, recipe);
        let began = Instant::now();
        if let Err(error) = sample.run(instance) {
            tracing::debug!(model = info.name, rows, %error, "warm-up run failed");
            break;
        }
        rules.ran(began.elapsed(), rows);
        if info.batch_rows_max == 1 {
            break;
        }
    }
}
