//! The worker threads of one version: starts them, replaces those whose run does not end, waits for the others.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::backend::{Instance, Model, Placement};
use crate::background::Background;
use crate::cores::{self, Cores, Share};
use crate::deployment::Deployment;
use crate::examiner::Examiner;
use crate::runs::{GivenUp, RunRules, Watcher};
use crate::worker::Worker;

/// What all versions share.
pub(crate) struct Machine {
    pub(crate) cores: Arc<Cores>,
    pub(crate) watcher: Watcher,
    /// Of one load.
    pub(crate) measure_time_max: Duration,
    pub(crate) examiner: Examiner,
    /// Samples run before a version serves: for whoever only looks.
    pub(crate) proves_at_load: bool,
}

/// When workers free their sessions, which for a large model takes some hundredths of a second of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freeing {
    AtOnce,
    /// On cores that nothing else wants: others serve.
    WhenIdle,
}

/// All of them, by number.
pub(crate) struct Crew {
    deployment: Arc<Deployment>,
    model: Arc<dyn Model>,
    rules: Arc<RunRules>,
    machine: Arc<Machine>,
    share: Share,
    state: Mutex<State>,
    /// One has ended or was left behind.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    hired: usize,
    at_work: Vec<Member>,
}

struct Member {
    number: usize,
    /// Of its place: who takes it over has the same.
    index: usize,
    placement: Placement,
    thread: JoinHandle<()>,
    has_ended: bool,
}

/// Says that a thread has ended, however it does.
struct Leaving<'a> {
    crew: &'a Crew,
    number: usize,
}

// === impl Crew ===

impl Crew {
    pub(crate) fn new(
        deployment: Arc<Deployment>,
        model: Arc<dyn Model>,
        rules: RunRules,
        weight: usize,
        machine: Arc<Machine>,
    ) -> Arc<Crew> {
        let wishing = Arc::clone(&deployment);
        let share = machine.cores.open(weight, &model.devices(), move || wishing.queue.wish());
        let (state, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Crew { deployment, model, rules: Arc::new(rules), machine, share, state, changed })
    }

    /// Starts a worker for an instance that is warm.
    ///
    /// # Errors
    /// The system grants no thread.
    pub(crate) fn hire(
        self: &Arc<Crew>,
        index: usize,
        placement: Placement,
        instance: Box<dyn Instance>,
    ) -> std::io::Result<()> {
        let mut state = self.lock();
        self.start(&mut state, (index, placement), Some(instance))?;
        self.deployment.instances.store(state.at_work.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Without an instance the worker makes its own.
    fn start(
        self: &Arc<Crew>,
        state: &mut State,
        (index, placement): (usize, Placement),
        instance: Option<Box<dyn Instance>>,
    ) -> std::io::Result<()> {
        let number = state.hired;
        let name = format!("w{index} {}", self.deployment.info.name);
        let crew = Arc::clone(self);
        let body = move || {
            let _leaving = Leaving { crew: &crew, number };
            crew.work(number, (index, placement), instance);
        };
        let thread = std::thread::Builder::new().name(name).spawn(body)?;
        state.hired += 1;
        state.at_work.push(Member { number, index, placement, thread, has_ended: false });
        Ok(())
    }

    /// A worker's life.
    fn work(
        self: &Arc<Crew>,
        number: usize,
        (index, placement): (usize, Placement),
        instance: Option<Box<dyn Instance>>,
    ) {
        cores::compute_in_batches();
        let instance = instance.or_else(|| self.make_instance(placement));
        let crew: Weak<Crew> = Arc::downgrade(self);
        let replace = Box::new(move || {
            if let Some(crew) = crew.upgrade() {
                crew.leave_behind(number);
            }
        });
        let cell = self.machine.watcher.watch(&self.deployment, &self.rules, replace);
        let place = (index, placement, &self.share);
        let (model, examiner) = (&*self.model, &self.machine.examiner);
        let mut worker = Worker::new(&self.deployment, place, examiner, model, &self.rules, &cell, instance);
        if let Err(GivenUp) = worker.serve() {
            let info = &self.deployment.info;
            tracing::warn!(
                model = info.name,
                version = info.version,
                "a run that was given up has ended after all; its outputs are dropped"
            );
            self.deployment.metrics.workers_left_behind.decrement(1.0);
        }
        self.machine.watcher.forget(&cell);
        let frees_when_idle = self.deployment.frees_when_idle.load(Ordering::Relaxed);
        let _background = frees_when_idle.then(Background::enter);
        drop(worker);
    }

    /// For a worker that takes the place of another. Where this fails the first batch tries again and says why.
    fn make_instance(&self, placement: Placement) -> Option<Box<dyn Instance>> {
        if self.rules.is_retiring() {
            return None;
        }
        self.model.instance(placement).ok()
    }

    /// Has another worker take the place of one whose run does not end.
    fn leave_behind(self: &Arc<Crew>, number: usize) {
        let metrics = &self.deployment.metrics;
        metrics.workers_left_behind.increment(1.0);
        metrics.instance_replacements.increment(1);
        let mut state = self.lock();
        let place = state.at_work.iter().position(|member| member.number == number);
        let place = place.expect("a worker is left behind before it ends; this is a bug");
        // Its handle is dropped: nobody waits for that thread any more.
        let Member { index, placement, .. } = state.at_work.swap_remove(place);
        self.deployment.queue.finish(index, None);
        if let Err(error) = self.start(&mut state, (index, placement), None) {
            let info = &self.deployment.info;
            tracing::error!(model = info.name, version = info.version, %error, "cannot start a worker thread");
            self.deployment.instances.store(state.at_work.len(), Ordering::Relaxed);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Closes the queue and waits until every worker has ended or was left behind.
    pub(crate) fn retire(&self, freeing: Freeing) {
        // Closing the queue synchronises: a worker that finds it closed sees this.
        self.deployment.frees_when_idle.store(freeing == Freeing::WhenIdle, Ordering::Relaxed);
        self.rules.begin_retiring();
        self.deployment.queue.close();
        self.machine.examiner.leave(&self.deployment);
        let mut state = self.lock();
        while !state.at_work.iter().all(|member| member.has_ended) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let members = std::mem::take(&mut state.at_work);
        drop(state);
        for member in members {
            if member.thread.join().is_err() {
                let info = &self.deployment.info;
                tracing::error!(model = info.name, version = info.version, "a worker thread had panicked");
            }
        }
        if let Some(metrics) = self.deployment.metrics.if_used() {
            metrics.clear_gauges();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Leaving ===

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.crew.lock();
        if let Some(member) = state.at_work.iter_mut().find(|member| member.number == self.number) {
            member.has_ended = true;
        }
        drop(state);
        self.crew.changed.notify_all();
    }
}
