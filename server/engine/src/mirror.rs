//! Mirrored requests: runs them on a session of their own, in time that nobody else wants, and compares the answers.
//!
//! A request that is sampled is offered when its own answer is there, so that the two never compete, and nobody waits:
//! there is no lock between the two sides, and where there is no room the mirror is shed. One thread in the background has what was let in. It
//! begins a run only where run slots are free and nobody waits for any, gives way to every other thread while it runs,
//! and touches nothing of the version that clients see: not its queue, its statistics or its promises.

mod record;
mod session;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use crossbeam::channel::{Receiver, bounded};
use crossbeam::queue::ArrayQueue;
use smallvec::SmallVec;

use self::record::Record;
pub use self::record::{Mismatch, ShadowCounts, TensorMismatch};
use self::session::{Ran, Session, compare_outputs};
use crate::backend::Stopper;
use crate::background::Background;
use crate::cores::Slot;
use crate::deployment::Deployment;
use crate::error::InferError;
use crate::metrics::{Fate, ShadowMetrics};
use crate::prediction::PredictionId;
use crate::request::{ModelInfo, NamedTensor, Outputs, Response};
use crate::routing::{Route, Sampler, Shadow};

/// Requests that may wait to be mirrored ...
const WAITING_REQUESTS_MAX: usize = 16;
/// ... and the bytes of their inputs together.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// A mirror waits so long for a core that is left over, and is shed then.
const CORE_WAIT_MAX: Duration = Duration::from_millis(100);
/// It looks for one so often.
const CORE_PAUSE: Duration = Duration::from_millis(1);
/// Longest that the end waits for a run of a mirror.
const END_MAX: Duration = Duration::from_secs(5);

/// One shadow of a route, at work. Its thread ends with it.
pub(crate) struct Mirror {
    pub(crate) shadow: Shadow,
    salt: String,
    sampler: Sampler,
    shared: Arc<Shared>,
    /// `None` where the system granted none.
    thread: Option<Thread>,
    /// Cut when the thread ends.
    ended: Receiver<()>,
}

/// A request that is to be mirrored once it has its answer.
pub(crate) struct Sampled {
    mirrors: SmallVec<[Arc<Mirror>; 1]>,
    inputs: Arc<[NamedTensor]>,
    prediction_id: PredictionId,
}

/// What operators are shown of a shadow.
#[derive(Clone, Debug)]
pub struct ShadowReport {
    pub name: String,
    pub counts: ShadowCounts,
    /// The worst mismatches, the worst first.
    pub worst: Vec<Mismatch>,
}

struct Shared {
    shadow: Shadow,
    record: Record,
    waiting: ArrayQueue<Mirrored>,
    /// Of their inputs.
    bytes: AtomicUsize,
    /// The version that the shadow leads to now.
    target: ArcSwapOption<Deployment>,
    /// Of the session; no request comes near.
    stopper: Mutex<Option<Stopper>>,
    /// The thread looks at nothing until it is woken.
    is_asleep: AtomicBool,
    is_over: AtomicBool,
}

/// A request and what the primary made of it.
struct Mirrored {
    inputs: Arc<[NamedTensor]>,
    bytes: usize,
    prediction_id: PredictionId,
    primary: Primary,
}

enum Primary {
    Answered { model: Arc<ModelInfo>, outputs: Outputs, run: Duration },
    Failed(String),
}

/// What the thread does next.
enum Task {
    End,
    /// The version of its session is not the shadow's any more.
    FreeSession,
    Run(Box<Mirrored>, Arc<Deployment>),
}

// === impl Mirror ===

impl Mirror {
    /// Starts the thread of a shadow.
    pub(crate) fn start(route: &Route, shadow: &Shadow) -> Arc<Mirror> {
        let record = Record::new(ShadowMetrics::new(&route.name, &shadow.target.name));
        let shared = Arc::new(Shared {
            shadow: shadow.clone(),
            record,
            waiting: ArrayQueue::new(WAITING_REQUESTS_MAX),
            bytes: AtomicUsize::new(0),
            target: ArcSwapOption::empty(),
            stopper: Mutex::default(),
            is_asleep: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let (sender, ended) = bounded(0);
        let own = Arc::clone(&shared);
        let body = move || {
            // For good: there is no way back for this thread.
            drop(Background::enter());
            serve(&own);
            drop(sender);
        };
        let thread = std::thread::Builder::new().name(format!("mirror {}", route.name)).spawn(body);
        if let Err(error) = &thread {
            // What is offered fills the allowance, and is shed then.
            tracing::error!(route = route.name, shadow = shadow.target.name, %error, "cannot start a mirror's thread");
        }
        let thread = thread.ok().map(|handle| handle.thread().clone());
        let sampler = Sampler::new(&route.salt, shadow);
        Arc::new(Mirror { shadow: shadow.clone(), salt: route.salt.clone(), sampler, shared, thread, ended })
    }

    /// Whether it does already what this shadow of the route says.
    pub(crate) fn is_of(&self, route: &Route, shadow: &Shadow) -> bool {
        self.salt == route.salt && self.shadow == *shadow
    }

    /// The version that requests are mirrored to from now on.
    pub(crate) fn aim(&self, target: Option<&Arc<Deployment>>) {
        self.shared.target.store(target.map(Arc::clone));
        self.wake();
    }

    pub(crate) fn counts(&self) -> ShadowCounts {
        self.shared.record.counts()
    }

    pub(crate) fn report(&self) -> ShadowReport {
        let record = &self.shared.record;
        ShadowReport { name: self.shadow.target.name.clone(), counts: record.counts(), worst: record.worst() }
    }

    /// Waits for the end that was begun, and says whether the session is freed.
    pub(crate) fn has_ended(&self) -> bool {
        // Nothing is ever sent.
        self.ended.recv_timeout(END_MAX).is_err_and(|error| error.is_disconnected())
    }

    /// Has the thread end, and the run that it may be in.
    pub(crate) fn begin_end(&self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(stopper) = &*self.shared.stopper.lock().unwrap_or_else(PoisonError::into_inner) {
            stopper.stop();
        }
        self.wake();
    }

    /// Has the thread look at what there is, unless it is about to anyway.
    fn wake(&self) {
        // With the one in `next`: either this sees that the thread sleeps, or the thread what was just stored.
        fence(Ordering::SeqCst);
        if self.shared.is_asleep.load(Ordering::Relaxed)
            && self.shared.is_asleep.swap(false, Ordering::SeqCst)
        {
            self.thread.iter().for_each(Thread::unpark);
        }
    }

    /// Takes a request if there is room, and never waits.
    fn offer(&self, mirrored: Mirrored) {
        let Shared { record, waiting, bytes, target, .. } = &*self.shared;
        match (&*target.load(), &mirrored.primary) {
            (None, _) => return record.count(Fate::NotServing),
            // To be compared with itself says nothing.
            (Some(target), Primary::Answered { model, .. }) if Arc::ptr_eq(&target.info, model) => return,
            _ => {}
        }
        let own = mirrored.bytes;
        let has_room = bytes.fetch_add(own, Ordering::Relaxed) + own <= WAITING_BYTES_MAX;
        if !has_room || waiting.push(mirrored).is_err() {
            bytes.fetch_sub(own, Ordering::Relaxed);
            return record.count(Fate::NoRoom);
        }
        self.wake();
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // Not waited for: this may be a request's thread.
        self.begin_end();
    }
}

// === impl Sampled ===

impl Sampled {
    /// Those of `mirrors` that a request with this key goes to, if any.
    pub(crate) fn choose<'a>(
        mirrors: impl Iterator<Item = &'a Arc<Mirror>>,
        inputs: &[NamedTensor],
        key: &[u8],
        prediction_id: PredictionId,
    ) -> Option<Sampled> {
        let chosen: SmallVec<[Arc<Mirror>; 1]> =
            mirrors.filter(|mirror| mirror.sampler.takes(key)).map(Arc::clone).collect();
        (!chosen.is_empty()).then(|| Sampled { mirrors: chosen, inputs: inputs.into(), prediction_id })
    }

    /// The primary is over.
    pub(crate) fn offer(&self, answered: &Result<Response, InferError>) {
        let bytes = self.inputs.iter().map(|input| input.tensor.data().len()).sum();
        for mirror in &self.mirrors {
            let primary = match answered {
                Ok(Response { model, outputs, timing, .. }) => {
                    Primary::Answered { model: Arc::clone(model), outputs: outputs.clone(), run: timing.run }
                }
                Err(error @ (InferError::Backend(_) | InferError::InvalidInput(_))) => {
                    Primary::Failed(error.to_string())
                }
                // It was not run: there is nothing to compare with.
                Err(_) => {
                    mirror.shared.record.count(Fate::Unanswered);
                    continue;
                }
            };
            let (inputs, prediction_id) = (Arc::clone(&self.inputs), self.prediction_id);
            mirror.offer(Mirrored { inputs, bytes, prediction_id, primary });
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Waits for something to do.
    fn next(&self, session: Option<&Arc<Deployment>>) -> Task {
        loop {
            if let Some(task) = self.look(session) {
                return task;
            }
            self.is_asleep.store(true, Ordering::SeqCst);
            // With the one in `wake`.
            fence(Ordering::SeqCst);
            let found = self.look(session);
            while found.is_none() && self.is_asleep.load(Ordering::SeqCst) {
                std::thread::park();
            }
            self.is_asleep.store(false, Ordering::SeqCst);
            if let Some(task) = found {
                return task;
            }
        }
    }

    /// What there is to do now.
    fn look(&self, session: Option<&Arc<Deployment>>) -> Option<Task> {
        if self.is_over.load(Ordering::SeqCst) {
            return Some(Task::End);
        }
        let target = self.target.load_full();
        let is_current =
            |held: &Arc<Deployment>| target.as_ref().is_some_and(|target| Arc::ptr_eq(target, held));
        if session.is_some_and(|held| !is_current(held)) {
            return Some(Task::FreeSession);
        }
        while let Some(mirrored) = self.waiting.pop() {
            self.bytes.fetch_sub(mirrored.bytes, Ordering::Relaxed);
            match target {
                Some(target) => return Some(Task::Run(Box::new(mirrored), target)),
                None => self.record.count(Fate::NotServing),
            }
        }
        None
    }

    /// From now on the end stops the runs of this session.
    fn set_stopper(&self, stopper: Option<Stopper>) {
        let mut held = self.stopper.lock().unwrap_or_else(PoisonError::into_inner);
        *held = stopper;
        if let (Some(stopper), true) = (&*held, self.is_over.load(Ordering::SeqCst)) {
            stopper.stop();
        }
    }
}

/// The thread's life.
fn serve(shared: &Shared) {
    let mut session: Option<Session> = None;
    loop {
        let (mirrored, target) = match shared.next(session.as_ref().map(Session::deployment)) {
            Task::End => return,
            Task::FreeSession => {
                let _background = Background::enter();
                shared.set_stopper(None);
                session = None;
                continue;
            }
            Task::Run(mirrored, target) => (mirrored, target),
        };
        let Some(_slot) = core(&target) else {
            shared.record.count(Fate::NoCore);
            continue;
        };
        let _background = Background::enter();
        let held = session.get_or_insert_with(|| {
            let session = Session::new(target);
            shared.set_stopper(Some(session.stopper()));
            session
        });
        let ran = held.run(&mirrored.inputs);
        if held.is_broken() {
            shared.set_stopper(Some(held.renew()));
        }
        conclude(shared, *mirrored, held.deployment(), ran);
    }
}

/// A slot on the version's device that nobody wants, if there is one soon.
fn core(target: &Arc<Deployment>) -> Option<Slot> {
    let patience_ends = Instant::now() + CORE_WAIT_MAX;
    loop {
        if let Some(slot) = target.origin.spare() {
            return Some(slot);
        }
        if Instant::now() >= patience_ends {
            return None;
        }
        std::thread::park_timeout(CORE_PAUSE);
    }
}

/// Compares the two answers and counts what came of it.
fn conclude(shared: &Shared, mirrored: Mirrored, target: &Deployment, ran: Result<Ran, String>) {
    let Mirrored { inputs, prediction_id, primary, .. } = mirrored;
    let record = &shared.record;
    let (model, outputs, primary_run, ran) = match (primary, ran) {
        (Primary::Answered { model, outputs, run }, Ok(ran)) => (model, outputs, run, ran),
        (Primary::Answered { .. }, Err(why)) => return record.failed(Fate::ShadowFailed, why),
        (Primary::Failed(why), Ok(_)) => return record.failed(Fate::PrimaryFailed, why),
        (Primary::Failed(_), Err(why)) => return record.failed(Fate::BothFailed, why),
    };
    let tensors = compare_outputs(
        &model.signature,
        &outputs,
        &target.info.signature,
        &ran.outputs,
        shared.shadow.tolerance,
    );
    if tensors.is_empty() {
        return record.count(Fate::Unanswered);
    }
    let mismatch = Mismatch {
        at: SystemTime::now(),
        prediction_id,
        primary: (model.name.clone(), model.version),
        shadow: (target.info.name.clone(), target.info.version),
        primary_run,
        shadow_run: ran.took,
        tensors,
        inputs: None,
    };
    record.compared(mismatch, shared.shadow.keep_inputs.then_some(&*inputs));
}
