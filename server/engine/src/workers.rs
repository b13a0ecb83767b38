//! From an artifact to a deployment: loads, proves, measures and warms a version, and has it served.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Artifact, Device, Instance, Model, Placement};
use crate::compatibility;
use crate::cores;
use crate::cost::CostModel;
pub(crate) use crate::crew::Freeing;
use crate::crew::{Crew, Machine, Place};
use crate::deployment::{Deployment, Origin};
use crate::error::{LoadError, RunError};
use crate::former::Policy;
use crate::golden;
use crate::layout::{self, Layout};
use crate::merging::{self, Basis, Merging, Word};
use crate::proof::{self, Runs};
use crate::registry::ModelSettings;
use crate::request::ModelInfo;
use crate::runs::RunRules;
use crate::samples::{Recipe, Sample};
use crate::service_level::ServiceLevel;
use crate::sweep::{self, MeasuringTime, ROWS_MAX_UNMEASURED, Sweep};
use crate::tensor::{BatchAxis, DType, Signature, Tensor, TensorSpec};
use crate::terms::Terms;
use crate::tuning::{
    AUDITS_PER_MILLION_BY_DEFAULT, QUEUE_BYTES_MAX_BY_DEFAULT, QUEUE_NUMBERS_MAX_BY_DEFAULT,
    QUEUE_ROWS_MAX_BY_DEFAULT, Tuning,
};

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

/// A version that can serve, and those who make it.
pub(crate) struct Workers {
    deployment: Arc<Deployment>,
    crew: Arc<Crew>,
}

/// A model of which it is not settled how many sessions it is to have.
struct Candidate<'a> {
    order: &'a Order,
    machine: &'a Machine,
    in_background: bool,
    model: &'a dyn Model,
    recipe: Recipe,
    /// The shortest run of one row.
    run: Duration,
    time: MeasuringTime,
}

// === impl Workers ===

impl Workers {
    /// Loads an artifact, proves it, and makes a warm instance for the first of its workers, whose threads start when
    /// there is work. Slow; called on a thread of its own, which is in the background if it says so.
    ///
    /// # Errors
    /// The step that failed and why. Nothing is left behind.
    pub(crate) fn start(
        order: &Order,
        machine: &Arc<Machine>,
        in_background: bool,
    ) -> Result<Workers, LoadError> {
        let Order { artifact, settings, predecessor, service_level } = order;
        let _loading = machine.examiner.load_begins();
        let tuning = &settings.tuning;
        let directory = artifact.path.parent().unwrap_or(Path::new(""));
        let prepared = (settings.prepare)(directory).map_err(LoadError::transient)?;
        let split = |devices, is_parallel| {
            layout::split(cores::granted(), devices, tuning.instances, tuning.threads, is_parallel)
        };
        let artifact = Artifact { threads: split(1, true).threads, ..artifact.clone() };
        let model: Arc<dyn Model> = Arc::from(settings.backend.load(&artifact)?);
        let devices = model.devices();
        let mut layout = split(devices.len(), model.is_parallel());
        let place =
            |index: usize, threads: usize| Placement { device: devices[index % devices.len()], threads };
        if let Some(predecessor) = predecessor
            && !settings.lifecycle.allow_signature_change
        {
            compatibility::check(&predecessor.signature, model.signature()).map_err(|why| {
                LoadError::permanent(format!(
                    "signature: {why}; version {} serves and its clients would fail: set \
                     allow_signature_change = true in model.toml if they have been changed",
                    predecessor.version
                ))
            })?;
        }

        let mut first = model.instance(place(0, layout.threads))?;
        // Sample runs wait for a free core, so that they are timed well and loads do not disturb each other.
        let mut background = machine.cores.background(layout.threads);
        let time = MeasuringTime::begin(machine.measure_time_max);
        let look = proof::look(model.signature(), machine.measure_time_max, &mut *first);
        if let (Some(predecessor), BatchAxis::None { reason }) = (predecessor, &look.batch)
            && predecessor.signature.is_batched()
            && !settings.lifecycle.allow_signature_change
        {
            return Err(LoadError::permanent(format!(
                "batch proof: {reason}; version {} is batched and this one could not be: set \
                 allow_signature_change = true in model.toml to serve it one request at a time",
                predecessor.version
            )));
        }
        let mut signature = Signature { batch: look.batch.clone(), ..model.signature().clone() };
        signature.count_output_rows();
        let mut notes = model.notes();
        notes.extend(prepared.notes);
        notes.extend(look.failure);
        let basis = Basis::new(&signature, model.row_independence(), tuning.word);
        let audits = tuning.audits_per_million.unwrap_or(AUDITS_PER_MILLION_BY_DEFAULT);
        let merging = Merging::new(basis, f64::from(audits) / 1e6);
        // The version before serves meanwhile, perhaps with runs that requests share, and this one would keep up with
        // less until it is examined.
        let proves_now = machine.proves_at_load
            || predecessor.is_some()
                && look.one_row.is_some_and(|run| run * proof::ROW_RUNS <= machine.measure_time_max);
        notes.push(merging_note(&signature, &merging, proves_now, &mut *first));
        notes.extend(passed_over(&artifact, tuning, &signature, &merging));
        if let Some(golden) = &prepared.golden {
            let note = golden::check(golden, &signature, &mut *first).map_err(LoadError::permanent)?;
            notes.push(note);
        }
        let sweep_of = |instance: &mut dyn Instance, seen: Option<Duration>| {
            let rows_max = match signature.is_batched() {
                true => tuning.batch_rows_max.unwrap_or(ROWS_MAX_UNMEASURED),
                false => 1,
            };
            let sweep =
                look.recipe.map(|recipe| sweep::sweep(&signature, (recipe, seen), rows_max, time, instance));
            sweep.unwrap_or_default()
        };
        let mut sweep = sweep_of(&mut *first, look.one_row);
        let mut others = Vec::new();
        if let Some(recipe) = look.recipe
            && tuning.instances.is_none()
            && tuning.threads.is_none()
            && let Some(run) = sweep.one_row().filter(|run| layout::is_worth_measuring(&layout, *run))
        {
            drop(background);
            let candidate = Candidate { order, machine, in_background, model: &*model, recipe, run, time };
            let (rows_max, _) = batch_rows_max(&signature, tuning, &sweep);
            let size = sweep.largest_within(rows_max, layout::RUN_MEASURED_MAX);
            let threads = layout.threads;
            (others, layout) = candidate.choose(&signature, size, first, layout)?;
            first = others.swap_remove(0);
            background = machine.cores.background(layout.threads);
            if layout.threads != threads {
                sweep = sweep_of(&mut *first, None);
            }
        }
        let (batch_rows_max, batch_rows_why) = batch_rows_max(&signature, tuning, &sweep);
        if signature.is_batched() && tuning.batch_rows_max.is_none() {
            notes.push(format!("largest batch {batch_rows_max} rows, {batch_rows_why}"));
        }
        notes.push(layout.why);
        let terms = Terms::new(tuning);
        let mut policy = policy(batch_rows_max, tuning, &terms, layout.instances);
        if tuning.queue_rows_max.is_none() && has_rows_of_one_number(&signature) {
            policy.queue_rows_max = QUEUE_NUMBERS_MAX_BY_DEFAULT;
        }
        let cost = CostModel::seeded(batch_rows_max, &sweep.samples);
        let info = ModelInfo {
            name: artifact.model.clone(),
            version: artifact.version,
            platform: model.platform().to_owned(),
            batch_rows_max: policy.batch_rows_max,
            batch_delay: policy.batch_delay.unwrap_or_default(),
            instances: layout.instances,
            threads: layout.threads,
            notes,
            companions: model.companions(),
            signature,
        };
        // On CPUs others are made at first use, unless their memory is to be within a budget. On a GPU that takes long.
        let is_lazy = devices.iter().all(|device| matches!(device, Device::Socket(_)))
            && tuning.budget.resident_bytes_max.is_none();
        let mut places = Vec::with_capacity(layout.instances);
        others.push(first);
        for index in 0..layout.instances {
            let placement = place(index, layout.threads);
            let instance = match others.pop() {
                None if is_lazy => None,
                made => Some(made.map_or_else(|| model.instance(placement), Ok)?),
            };
            places.push(Place { index, placement, instance });
        }
        let rules = RunRules::new(tuning.run_timeout);
        if let Some(recipe) = look.recipe {
            for (rows, times) in &sweep.samples {
                times.iter().for_each(|took| rules.ran(*took, *rows));
            }
            let run = sweep.one_row().unwrap_or_default();
            let mut instances: Vec<_> =
                places.iter_mut().filter_map(|place| place.instance.as_deref_mut()).collect();
            for (index, instance) in instances.iter_mut().enumerate() {
                // What the sweep has run is warm; what would take the load beyond its time is left to requests.
                let is_warm = |rows| index == 0 && sweep.has_run(rows);
                if is_warm(1) && is_warm(info.batch_rows_max) || run > time.left() {
                    continue;
                }
                warm_up(&info, recipe, &mut **instance, &rules);
            }
            tuning.budget.check(&info, recipe, &mut *instances[0])?;
        }
        drop(background);
        let service_level = Arc::clone(service_level);
        let origin =
            Origin { model: Arc::clone(&model), cores: Arc::clone(&machine.cores), recipe: look.recipe };
        let deployment =
            Deployment::new(info, policy, cost, (batch_rows_why, merging), terms, service_level, origin);
        let deployment = Arc::new(deployment);
        let weight = tuning.weight.unwrap_or(1);
        let crew = Crew::new(Arc::clone(&deployment), model, rules, weight, Arc::clone(machine), places);
        machine.examiner.examine(&deployment);
        Ok(Workers { deployment, crew })
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

// === impl Candidate ===

impl Candidate<'_> {
    /// Chooses between `layout`, with its `first` instance, and one session with all its threads, by running `rows`
    /// rows at a time. A version that follows another one is laid out like it. Gives the instances of
    /// the chosen layout that were made, at least one.
    fn choose(
        &self,
        signature: &Signature,
        (rows, size_run): (usize, Duration),
        first: Box<dyn Instance>,
        layout: Layout,
    ) -> Result<(Vec<Box<dyn Instance>>, Layout), LoadError> {
        let device = Device::Socket(0);
        if !self.model.is_parallel() || self.model.devices() != [device] {
            return Ok((vec![first], layout));
        }
        let all_threads = layout.instances * layout.threads;
        let with = |threads| self.model.instance(Placement { device, threads });
        if let Some(before) = &self.order.predecessor {
            if (before.instances, before.threads) != (1, all_threads) {
                return Ok((vec![first], layout));
            }
            drop(first);
            let why = format!("instances 1 x threads {all_threads}, as version {} has them", before.version);
            let layout = Layout { instances: 1, threads: all_threads, why };
            return Ok((vec![with(all_threads)?], layout));
        }
        if layout::measuring_takes(self.run, size_run) > self.time.left() {
            let why = format!(
                "{}; not measured, because that would take a load beyond the {:?} that it may spend on measuring",
                layout.why, self.machine.measure_time_max
            );
            return Ok((vec![first], Layout { why, ..layout }));
        }
        let Some(_all) = self.machine.cores.background(all_threads) else {
            let why = format!("{}; not measured, because the cores were busy", layout.why);
            return Ok((vec![first], Layout { why, ..layout }));
        };
        let mut many = vec![first];
        for _ in 1..layout.instances {
            many.push(with(layout.threads)?);
        }
        let mut one = [with(all_threads)?];
        let measure = |instances: &mut [Box<dyn Instance>], run| {
            layout::measure(signature, self.recipe, instances, (rows, run), self.in_background)
        };
        let measured =
            measure(&mut many, Some(self.run)).and_then(|many| Ok((many, measure(&mut one, None)?)));
        match measured {
            Ok((of_many, of_one)) => {
                let slo = self.order.settings.tuning.slo;
                match layout::prefers_one(&layout, of_many, of_one, slo) {
                    (true, layout) => Ok((Vec::from(one), layout)),
                    (false, layout) => Ok((many, layout)),
                }
            }
            Err(error) => {
                let why = format!("{}; not measured, because a run failed: {error}", layout.why);
                Ok((many, Layout { why, ..layout }))
            }
        }
    }
}

/// An instance that is not used otherwise meanwhile.
struct AtLoad<'a>(&'a mut dyn Instance);

impl Runs for AtLoad<'_> {
    fn run(&mut self, sample: &Sample) -> Result<Vec<Tensor>, RunError> {
        sample.run(self.0)
    }
}

/// What decides whether requests share runs, for people; samples run at once where that is wanted.
fn merging_note(
    signature: &Signature,
    merging: &Merging,
    proves_now: bool,
    instance: &mut dyn Instance,
) -> String {
    if let BatchAxis::None { reason } = &signature.batch {
        return format!("not batched: {reason}");
    }
    let Basis::Samples { open, rigour } = merging.basis() else { return merging.basis().to_string() };
    match proves_now.then(|| proof::prove(signature, *rigour, &mut AtLoad(instance))).flatten() {
        Some(verdict) => {
            let (is_on, text) = merging::conclude(open, &verdict);
            let note = if is_on { text.clone() } else { format!("each request runs alone: {text}") };
            merging.find(is_on, text, || ());
            note
        }
        None => merging.basis().to_string(),
    }
}

/// Settings about batches that have no effect.
fn passed_over(
    artifact: &Artifact,
    tuning: &Tuning,
    signature: &Signature,
    merging: &Merging,
) -> Option<String> {
    let rows_max = if tuning.word == Word::Declared { "max_batch_size" } else { "batching.rows_max" };
    let asked = [
        (rows_max, tuning.batch_rows_max.is_some_and(|rows| rows > 1)),
        ("batching.delay", tuning.batch_delay.is_some_and(|delay| !delay.is_zero())),
        ("batching.preferred_rows", !tuning.preferred_rows.is_empty()),
        ("batching.trusted", tuning.word == Word::Trusted && !signature.is_batched()),
    ];
    let asked: Vec<&str> =
        asked.into_iter().filter(|(_, is_asked)| *is_asked).map(|(name, _)| name).collect();
    let why = match &signature.batch {
        BatchAxis::None { reason } => format!("the model is not batched: {reason}"),
        BatchAxis::Rows => merging.obstacle()?,
    };
    if asked.is_empty() {
        return None;
    }
    let note = format!("{} has no effect, because {why}", asked.join(", "));
    tracing::warn!(model = artifact.model, version = artifact.version, note, "a setting is passed over");
    Some(note)
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

/// Whether each input has a single number for a row, as signals have it.
fn has_rows_of_one_number(signature: &Signature) -> bool {
    let is_one = |spec: &TensorSpec| {
        spec.dtype != DType::Bytes && spec.shape.as_ref().is_some_and(|shape| shape.len() == 1)
    };
    !signature.inputs.is_empty() && signature.inputs.iter().all(is_one)
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
