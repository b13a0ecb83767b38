//! Makes what is served agree with what ought to be: plans, loads, publishes and retires versions.

mod options;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::background::Background;
use crate::catalog::{Catalog, Published};
use crate::cores::{self, Cores};
use crate::crew::{Machine, ThreadStarter};
use crate::error::LoadError;
use crate::examiner::Examiner;
use crate::managed::Managed;
use crate::metrics::{VersionGauges, model_ready};
use crate::plan::Step;
use crate::readiness::{Gate, Rule};
use crate::registry::{Desired, DesiredModel, PassedOver};
use crate::retire::Retirer;
use crate::route_table::RouteTable;
use crate::routing::Route;
use crate::runs::Watcher;
use crate::thread_priority::LongRuns;
use crate::workers::{Freeing, Order, Workers};

pub use self::options::{
    LOAD_MEASURE_TIME_MAX_BY_DEFAULT, LONG_RUN_NICENESS_BY_DEFAULT, Options, WORKER_IDLE_MAX_BY_DEFAULT,
};

/// The only writer of the catalog, and the owner of every worker.
pub struct Reconciler {
    pub(crate) published: Arc<Published>,
    pub(crate) options: Options,
    pub(crate) models: BTreeMap<String, Managed>,
    pub(crate) routes: RouteTable,
    gate: Gate,
    /// What ought to be served is known.
    is_read: bool,
    /// Whether the server was ready when it was last judged.
    was_ready: bool,
    /// Models that served before this server, while it starts.
    remembered: BTreeSet<String>,
    /// What lies in the repository and is neither a model nor a version; each was told once.
    pub(crate) passed_over: Arc<[PassedOver]>,
    /// Why the repository as a whole is not followed at the moment.
    fault: Option<String>,
    pub(crate) machine: Arc<Machine>,
    retirer: Retirer,
    /// Catalogs of before that a request may still be looking at.
    snapshots: Vec<Weak<Catalog>>,
    to_retire: Vec<Workers>,
    loads: u64,
    /// A first set is being tried: there is nothing yet whose cores had better be left alone.
    loads_first_set: bool,
    /// Loads that the last step planned and had no room for.
    pending: VecDeque<(String, u64)>,
    done: Sender<Done>,
    pub(crate) results: Receiver<Done>,
}

/// How one version's load went.
#[derive(Clone, Debug)]
pub struct LoadReport {
    pub model: String,
    /// 0 for a model whose versions could not be told.
    pub version: u64,
    pub took: Duration,
    pub result: Result<(), LoadError>,
}

/// A load that has ended.
pub(crate) struct Done {
    model: String,
    version: u64,
    load: u64,
    took: Duration,
    grown_bytes: u64,
    result: Result<Workers, LoadError>,
}

/// Reasons for not being ready that one line of the log has at most.
const REASONS_SHOWN_MAX: usize = 10;

/// A step looks at every model and publishes a catalog of all: while the first set is loaded there is one at most this
/// often, so that a set of thousands does not cost the square of its size.
const FIRST_STEPS_EVERY: Duration = Duration::from_millis(100);

/// Longest that the end waits for loads that are under way.
const LOADS_END_MAX: Duration = Duration::from_secs(5);

// === impl Reconciler ===

impl Reconciler {
    pub(crate) fn new(published: Arc<Published>, options: Options, allow_empty: bool) -> Reconciler {
        let (done, results) = unbounded();
        let long_runs = LongRuns::new(options.long_run_niceness);
        Reconciler {
            published,
            options,
            models: BTreeMap::new(),
            routes: RouteTable::default(),
            gate: Gate::new(Rule { strict: options.strict_readiness, allow_empty }),
            is_read: false,
            was_ready: false,
            remembered: BTreeSet::new(),
            passed_over: Arc::default(),
            fault: None,
            machine: Arc::new(Machine {
                cores: Cores::new(options.run_slots, long_runs.let_in_below()),
                watcher: Watcher::start(),
                measure_time_max: options.load_measure_time_max,
                examiner: Examiner::new(),
                proves_at_load: options.proves_at_load,
                thread_starter: ThreadStarter::start(options.worker_idle_max),
                long_runs,
            }),
            retirer: Retirer::start(options.release_memory),
            snapshots: Vec::new(),
            to_retire: Vec::new(),
            loads: 0,
            loads_first_set: false,
            pending: VecDeque::new(),
            done,
            results,
        }
    }

    /// Has the server wait, at its start, for these models that served under the one before it.
    pub fn remember(&mut self, models: BTreeSet<String>) {
        self.remembered = models;
    }

    /// Nothing of the start is waited for any more, but what served before.
    pub(crate) fn end_start(&mut self) {
        self.gate.end_start();
        self.publish();
    }

    /// Loads what `desired` asks for, on all cores, and returns when nothing more can be done now. A version that fails
    /// is left out, with its reason in the index.
    ///
    /// Reports in the order of the repository.
    pub fn load(&mut self, desired: Desired) -> Vec<LoadReport> {
        self.observe(desired);
        let mut reports = self.faults();
        self.loads_first_set = true;
        let mut stepped = Instant::now();
        self.step(stepped);
        let mut has_news = false;
        while self.loading() > 0 {
            let patience = match has_news {
                true => FIRST_STEPS_EVERY.saturating_sub(stepped.elapsed()),
                false => self.options.load_timeout,
            };
            if let Ok(done) = self.results.recv_timeout(patience) {
                has_news = true;
                reports.push(self.finish(done));
                reports.extend(self.finish_all());
            }
            let now = Instant::now();
            self.begin_pending(now);
            if self.loading() == 0 || now - stepped >= FIRST_STEPS_EVERY {
                self.step(now);
                (stepped, has_news) = (now, false);
            }
        }
        self.loads_first_set = false;
        self.retirer.release_memory();
        reports.sort_by(|a, b| (&a.model, a.version).cmp(&(&b.model, b.version)));
        reports
    }

    /// Takes over what ought to be served. The next step acts on it.
    pub(crate) fn observe(&mut self, desired: Desired) {
        self.take_over(desired, false);
    }

    /// The same, but models that serve and that it does not have go on, as do the routes.
    pub(crate) fn observe_in_doubt(&mut self, desired: Desired) {
        self.take_over(desired, true);
    }

    /// Whether nothing of the repository that serves would go on serving.
    pub(crate) fn loses_all(&self, desired: &Desired) -> bool {
        let is_own = |(name, model): (&String, &DesiredModel)| {
            matches!(model, DesiredModel::Sound { .. }) && !desired.handed_over.contains(name)
        };
        let is_lost = |(name, managed): (&String, &Managed)| {
            managed.serves() && managed.is_expected() && !desired.models.contains_key(name)
        };
        !desired.models.iter().any(is_own) && self.models.iter().any(is_lost)
    }

    /// What is wrong with the repository as a whole. The next step publishes it; the log is told once.
    pub(crate) fn doubt(&mut self, fault: Option<String>) {
        if self.fault != fault {
            match &fault {
                Some(why) => tracing::error!(why, "what is served stays as it is"),
                None => tracing::info!("the model repository is followed again"),
            }
            self.fault = fault;
        }
    }

    fn take_over(&mut self, desired: Desired, in_doubt: bool) {
        let Desired { models: mut desired, routes, passed_over, handed_over: _ } = desired;
        for (name, managed) in &mut self.models {
            let model = desired.remove(name);
            if model.is_some() || !in_doubt || !managed.serves() {
                managed.observe(model);
            }
        }
        for (name, model) in desired {
            let was_served = self.remembered.contains(&name);
            if !was_served && matches!(model, DesiredModel::Vacant { .. }) {
                continue;
            }
            let mut managed = Managed::new(name.clone(), !self.options.explicit);
            managed.has_served = was_served;
            managed.observe(Some(model));
            self.models.insert(name, managed);
        }
        self.tell_passed_over(passed_over);
        if !in_doubt {
            self.routes.observe(routes, &self.models);
        }
        self.keep_versions_of_routes();
        self.is_read = true;
    }

    /// Has routes in force in place of those before. The next step publishes them.
    pub(crate) fn take_routes(&mut self, routes: Vec<Route>) {
        self.routes.take(routes);
        self.keep_versions_of_routes();
    }

    fn keep_versions_of_routes(&mut self) {
        for (name, managed) in &mut self.models {
            managed.named_by_routes = self.routes.versions_of(name);
        }
    }

    /// Names what is passed over, each once.
    fn tell_passed_over(&mut self, passed_over: Vec<PassedOver>) {
        for one in passed_over.iter().filter(|one| !self.passed_over.contains(one)) {
            tracing::warn!(path = one.path(), reason = one.reason, "passed over");
        }
        self.passed_over = passed_over.into();
    }

    /// Models that could not be read at all, and versions whose files must not be loaded.
    fn faults(&self) -> Vec<LoadReport> {
        let faults = self.models.iter().flat_map(|(name, managed)| {
            managed.faults_of_files().into_iter().map(|(version, reason)| {
                let result = Err(LoadError::transient(reason));
                LoadReport { model: name.clone(), version, took: Duration::ZERO, result }
            })
        });
        faults.collect()
    }

    /// Does what can be done now, and publishes what came of it.
    pub(crate) fn step(&mut self, now: Instant) {
        for (name, managed) in &mut self.models {
            for (version, _) in managed.time_out(self.options.load_timeout, now) {
                // Its thread may never come back; another load may have its place.
                model_ready(name, version).set(0.0);
            }
        }
        for managed in self.models.values_mut() {
            managed.keep_watch(now);
            // Before anything is retired: what was the default until now is kept for a while.
            managed.choose_default(now);
        }
        self.pending.clear();
        let mut room = self.room();
        let plans = self.models.iter().map(|(name, managed)| (name.clone(), managed, managed.plan(now)));
        let (again, first): (Vec<_>, Vec<_>) = plans
            .flat_map(|(name, managed, steps)| {
                steps.into_iter().map(move |step| (name.clone(), step, managed.has_failed_at(step)))
            })
            .partition(|(_, _, has_failed)| *has_failed);
        // What has not been tried goes first, so that many that fail again and again do not hold it up.
        for (name, step, _) in first.into_iter().chain(again) {
            self.apply(&name, step, &mut room, now);
        }
        for managed in self.models.values_mut() {
            managed.choose_default(now);
            managed.take_stock(now);
        }
        self.publish();
        self.models.retain(|_, managed| !managed.is_over());
    }

    /// Loads that are under way and have not been given up.
    fn loading(&self) -> usize {
        self.models.values().map(Managed::loading).sum()
    }

    /// Whether loads keep out of the way of what serves.
    fn loads_in_background(&self) -> bool {
        !self.loads_first_set && self.models.values().any(Managed::serves)
    }

    /// How many more loads may begin now.
    fn room(&self) -> usize {
        let loads_max = match self.loads_in_background() {
            true => self.options.loads_max,
            false => cores::granted().max(self.options.loads_max),
        };
        loads_max.saturating_sub(self.loading())
    }

    /// Begins what the last step planned and had no room for, as far as it is still planned.
    fn begin_pending(&mut self, now: Instant) {
        let mut room = self.room();
        while room > 0
            && let Some((name, version)) = self.pending.pop_front()
        {
            let steps = self.models.get(&name).map(|managed| managed.plan(now)).unwrap_or_default();
            let is_this =
                |step: &Step| matches!(step, Step::Load { version: wanted, .. } if *wanted == version);
            for step in steps.into_iter().filter(is_this) {
                self.apply(&name, step, &mut room, now);
            }
        }
    }

    fn apply(&mut self, name: &str, step: Step, room: &mut usize, now: Instant) {
        let Some(managed) = self.models.get_mut(name) else { return };
        match step {
            Step::Load { version, .. } if *room > 0 => {
                self.loads += 1;
                let Some(order) = managed.begin_load(version, self.loads, now) else { return };
                *room -= 1;
                self.start(order, self.loads);
            }
            // Planned again when a load ends.
            Step::Load { version, .. } => self.pending.push_back((name.to_owned(), version)),
            Step::Retire { version } => {
                if let Some(workers) = managed.retire(version) {
                    model_ready(name, version).set(0.0);
                    self.to_retire.push(workers);
                }
            }
            Step::Forget { version } => managed.forget(version),
        }
    }

    /// Loads on a thread of its own, in the background where something serves already.
    fn start(&self, order: Order, load: u64) {
        let in_background = self.loads_in_background();
        let (done, machine) = (self.done.clone(), Arc::clone(&self.machine));
        let (model, version) = (order.artifact.model.clone(), order.artifact.version);
        let body = move || {
            let _background = in_background.then(Background::enter);
            let start = Instant::now();
            let before = resident_bytes();
            let result = catch_unwind(AssertUnwindSafe(|| Workers::start(&order, &machine, in_background)))
                .unwrap_or_else(|_| {
                    Err(LoadError::transient("the runtime panicked while the version was loaded"))
                });
            let grown_bytes = resident_bytes().saturating_sub(before);
            let result =
                result.and_then(|workers| match order.settings.tuning.budget.check_memory(grown_bytes) {
                    Ok(()) => Ok(workers),
                    Err(error) => {
                        workers.retire(Freeing::WhenIdle);
                        Err(error)
                    }
                });
            let took = start.elapsed();
            let Order { artifact, .. } = order;
            let done_load = Done { model: artifact.model, version, load, took, grown_bytes, result };
            // Nobody is there only when the server has ended meanwhile; then the session goes with it.
            let _ended = done.send(done_load);
        };
        if let Err(error) = std::thread::Builder::new().name(format!("load {model}")).spawn(body) {
            let result = Err(LoadError::transient(format!("cannot start a loader thread: {error}")));
            let failed = Done { model, version, load, took: Duration::ZERO, grown_bytes: 0, result };
            self.done.send(failed).expect("the reconciler holds the receiver; this is a bug");
        }
    }

    /// Takes over the results of all loads that have ended by now. The next step publishes them.
    pub(crate) fn finish_all(&mut self) -> Vec<LoadReport> {
        let ended: Vec<Done> = self.results.try_iter().collect();
        ended.into_iter().map(|done| self.finish(done)).collect()
    }

    /// Takes over the result of a load. The next step publishes it.
    pub(crate) fn finish(&mut self, done: Done) -> LoadReport {
        let Done { model, version, load, took, grown_bytes, result } = done;
        let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
        let gauges = VersionGauges::new(&model, version);
        gauges.load_seconds.set(took.as_secs_f64());
        if !self.loads_first_set {
            self.retirer.release_memory();
        }
        match self.models.get_mut(&model) {
            Some(managed) => {
                if managed.awaits(version, load) {
                    gauges.count_load(outcome.is_ok());
                    if outcome.is_ok() {
                        gauges.ready.set(1.0);
                        gauges.load_resident_bytes.set(grown_bytes as f64);
                    }
                }
                self.to_retire.extend(managed.finish_load(version, load, result, took, Instant::now()));
                managed.hold(version, gauges);
            }
            None => self.to_retire.extend(result.ok()),
        }
        LoadReport { model, version, took, result: outcome }
    }

    /// Publishes first and retires then: no request finds only a version that admits nothing more.
    fn publish(&mut self) {
        let reports = self.models.values().map(Managed::report);
        let catalog = match self.is_read {
            true => {
                Catalog::new(reports, self.routes.report(), Arc::clone(&self.passed_over), &mut self.gate)
            }
            false => Catalog::unread(),
        };
        let catalog = catalog.failing_also(self.fault.as_deref());
        self.tell_readiness(catalog.unready());
        catalog.aim_mirrors();
        let before = self.published.publish(catalog);
        self.snapshots.retain(|snapshot| snapshot.strong_count() > 0);
        self.snapshots.push(Arc::downgrade(&before));
        drop(before);
        let workers = std::mem::take(&mut self.to_retire);
        if !workers.is_empty() {
            self.retirer.retire(workers, self.snapshots.clone());
        }
    }

    fn tell_readiness(&mut self, unready: &[String]) {
        let is_ready = unready.is_empty();
        match (self.was_ready, is_ready) {
            (false, true) => tracing::info!("ready"),
            (true, false) => {
                let shown = &unready[..unready.len().min(REASONS_SHOWN_MAX)];
                tracing::error!(models = unready.len(), reasons = shown.join("; "), "not ready any more");
            }
            (true, true) | (false, false) => {}
        }
        if is_ready {
            // From now on what has served under this server counts.
            self.remembered.clear();
        }
        self.was_ready = is_ready;
    }

    /// Stops admission everywhere, lets the workers finish what was admitted, and frees every session. Loads that
    /// are under way are waited for a little: what they leave behind is freed too.
    pub fn shut_down(mut self) {
        self.published.begin_shutdown();
        let deadline = Instant::now() + LOADS_END_MAX;
        while self.loading() > 0
            && let Ok(done) = self.results.recv_deadline(deadline)
        {
            self.finish(done);
        }
        let mut workers = std::mem::take(&mut self.to_retire);
        workers.extend(self.models.values_mut().flat_map(Managed::take_all));
        self.routes.end();
        for one in &workers {
            one.deployment().queue.close();
        }
        for one in workers {
            one.retire(Freeing::AtOnce);
        }
        self.retirer.finish();
    }
}

/// Resident memory of this process, or 0 where the system does not tell.
fn resident_bytes() -> u64 {
    // The second field of statm counts pages; Linux's base page is 4 KiB on every machine served here.
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

#[cfg(test)]
mod tests;
