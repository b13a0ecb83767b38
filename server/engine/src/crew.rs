//! The workers of one version: starts their threads when there is work, keeps their places while there is none, replaces those whose run does not end, and waits for the others.

mod thread_starter;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::backend::{Instance, Model, Placement};
use crate::background::Background;
use crate::cores::{Cores, Share};
use crate::cost::ShapeId;
use crate::deployment::Deployment;
use crate::examiner::Examiner;
use crate::runs::{GivenUp, RunRules, Watcher};
use crate::samples::Sample;
use crate::thread_priority::{LongRuns, ThreadPriority};
use crate::worker::{Left, Worker};

pub(crate) use self::thread_starter::ThreadStarter;

/// What all versions share.
pub(crate) struct Machine {
    pub(crate) cores: Arc<Cores>,
    pub(crate) watcher: Watcher,
    /// Of one load.
    pub(crate) measure_time_max: Duration,
    pub(crate) examiner: Examiner,
    /// Samples run before a version serves: for whoever only looks.
    pub(crate) proves_at_load: bool,
    pub(crate) thread_starter: ThreadStarter,
    pub(crate) long_runs: LongRuns,
}

/// When workers free their sessions, which for a large model takes some hundredths of a second of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freeing {
    AtOnce,
    /// On cores that nothing else wants: others serve.
    WhenIdle,
}

/// Longest pause before a thread that the system did not grant is asked for again.
const START_AGAIN_AFTER: Duration = Duration::from_millis(100);

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
    /// Threads that were ever started.
    hired: usize,
    at_work: Vec<Member>,
    /// Places of workers that have no thread, the next last.
    vacant: Vec<Place>,
    /// Threads that were asked for while no place was vacant yet: one is about to be.
    pending_starts: usize,
}

/// What a worker works with, whichever thread it has.
pub(crate) struct Place {
    /// Among those of the version.
    pub(crate) index: usize,
    pub(crate) placement: Placement,
    /// Without one the worker makes its own.
    pub(crate) instance: Option<Box<dyn Instance>>,
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
    /// Its workers come when there is work for them.
    pub(crate) fn new(
        deployment: Arc<Deployment>,
        model: Arc<dyn Model>,
        rules: RunRules,
        weight: usize,
        machine: Arc<Machine>,
        mut places: Vec<Place>,
    ) -> Arc<Crew> {
        let wishing = Arc::clone(&deployment);
        let share = machine.cores.open(weight, &model.devices(), move || wishing.queue.wish());
        // The first to come are those whose instances are there.
        places.sort_by_key(|place| (place.instance.is_some(), std::cmp::Reverse(place.index)));
        let absent = places.len();
        let state = Mutex::new(State { vacant: places, ..State::default() });
        let (rules, changed) = (Arc::new(rules), Condvar::new());
        let crew = Arc::new(Crew { deployment, model, rules, machine, share, state, changed });
        let start_worker = crew.machine.thread_starter.of(&crew);
        crew.deployment.queue.begin_absent(absent, start_worker);
        crew
    }

    /// Starts the thread of a worker that has none. Not called by whoever brings work: it takes its time.
    ///
    /// # Errors
    /// The system grants no thread; asking again may help.
    fn start_one(self: &Arc<Crew>) -> std::io::Result<()> {
        let mut state = self.lock();
        match state.vacant.pop() {
            Some(place) => self.start(&mut state, place),
            None => {
                state.pending_starts += 1;
                Ok(())
            }
        }
    }

    fn has_threads(&self) -> bool {
        !self.lock().at_work.is_empty()
    }

    /// Starts a thread for a worker. Where that fails its place is vacant.
    fn start(self: &Arc<Crew>, state: &mut State, place: Place) -> std::io::Result<()> {
        let number = state.hired;
        let Place { index, placement, .. } = place;
        let name = format!("w{index} {}", self.deployment.info.name);
        let crew = Arc::clone(self);
        // The thread takes the place when it begins: where there is no thread, it is still here.
        let place = Arc::new(Mutex::new(Some(place)));
        let handed = Arc::clone(&place);
        let body = move || {
            let _leaving = Leaving { crew: &crew, number };
            let place = handed.lock().unwrap_or_else(PoisonError::into_inner).take();
            crew.work(number, place.expect("a place is handed over once; this is a bug"));
        };
        match std::thread::Builder::new().name(name).spawn(body) {
            Ok(thread) => {
                state.hired += 1;
                state.at_work.push(Member { number, index, placement, thread, has_ended: false });
                self.deployment.instances.store(state.at_work.len(), Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                state.vacant.extend(place.lock().unwrap_or_else(PoisonError::into_inner).take());
                Err(error)
            }
        }
    }

    /// A worker's life.
    fn work(self: &Arc<Crew>, number: usize, place: Place) {
        let Place { index, placement, instance } = place;
        let expected = self.deployment.queue.with_cost(|cost, _| cost.predict(1, ShapeId::All).typical_ns);
        let expected = (expected > 0).then(|| Duration::from_nanos(expected));
        // Before a session is made, whose own threads are to have the same.
        let priority = ThreadPriority::begin(&self.machine.long_runs, placement.device, expected);
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
        let mut worker =
            Worker::new(&self.deployment, place, (examiner, priority), model, &self.rules, &cell, instance);
        let left = worker.serve();
        self.machine.watcher.forget(&cell);
        match left {
            Ok(Left::Over) => {}
            Ok(Left::Idle) => {
                let instance = worker.into_instance().and_then(|instance| self.give_back_memory(instance));
                return self.vacate(number, Place { index, placement, instance });
            }
            Err(GivenUp) => {
                let info = &self.deployment.info;
                tracing::warn!(
                    model = info.name,
                    version = info.version,
                    "a run that was given up has ended after all; its outputs are dropped"
                );
                self.deployment.metrics.workers_left_behind.decrement(1.0);
            }
        }
        let frees_when_idle = self.deployment.frees_when_idle.load(Ordering::Relaxed);
        let _background = frees_when_idle.then(Background::enter);
        drop(worker);
    }

    /// What an instance keeps for runs that nobody asks for now. One that panics is dropped.
    fn give_back_memory(&self, mut instance: Box<dyn Instance>) -> Option<Box<dyn Instance>> {
        let Some(recipe) = self.deployment.origin.recipe else { return Some(instance) };
        let info = &self.deployment.info;
        let sample = Sample::new(&info.signature, 0..1, recipe);
        let _slot = self.deployment.origin.background();
        match catch_unwind(AssertUnwindSafe(|| sample.give_back_memory(&mut *instance))) {
            Ok(Ok(())) => Some(instance),
            Ok(Err(error)) => {
                tracing::debug!(model = info.name, version = info.version, %error, "an idle session keeps its memory");
                Some(instance)
            }
            Err(_panic) => None,
        }
    }

    /// A worker leaves its place to the next thread that is started, at once where one was asked for already.
    fn vacate(self: &Arc<Crew>, number: usize, place: Place) {
        let mut state = self.lock();
        // Nobody waits for a thread that has nothing left to do but to end.
        state.at_work.retain(|member| member.number != number);
        self.deployment.instances.store(state.at_work.len(), Ordering::Relaxed);
        state.vacant.push(place);
        let is_asked_for = state.pending_starts > 0;
        state.pending_starts -= usize::from(is_asked_for);
        drop(state);
        self.changed.notify_all();
        if is_asked_for {
            self.machine.thread_starter.send(self);
        }
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
        self.deployment.instances.store(state.at_work.len(), Ordering::Relaxed);
        if let Err(error) = self.start(&mut state, Place { index, placement, instance: None }) {
            self.tell(&error);
            self.machine.thread_starter.send(self);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Closes the queue and waits until every worker has ended or was left behind, and what was admitted is answered.
    pub(crate) fn retire(self: &Arc<Crew>, freeing: Freeing) {
        // Closing the queue synchronises: a worker that finds it closed sees this.
        self.deployment.frees_when_idle.store(freeing == Freeing::WhenIdle, Ordering::Relaxed);
        self.rules.begin_retiring();
        self.deployment.queue.close();
        self.machine.examiner.leave(&self.deployment);
        let mut state = self.lock();
        loop {
            // A thread that was asked for may not have started yet, and never will once nothing is vacant.
            let has_work = self.deployment.queue.has_work();
            let comes = |place: &Place| has_work || freeing == Freeing::WhenIdle && place.instance.is_some();
            if let Some(next) = state.vacant.iter().position(comes) {
                let place = state.vacant.swap_remove(next);
                if let Err(error) = self.start(&mut state, place) {
                    self.tell(&error);
                    let waited = self.changed.wait_timeout(state, START_AGAIN_AFTER);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                continue;
            }
            if state.at_work.iter().all(|member| member.has_ended) {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let vacant = std::mem::take(&mut state.vacant);
        let members = std::mem::take(&mut state.at_work);
        drop(state);
        drop(vacant);
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

    fn tell(&self, error: &std::io::Error) {
        let info = &self.deployment.info;
        tracing::error!(model = info.name, version = info.version, %error, "cannot start a worker thread");
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
