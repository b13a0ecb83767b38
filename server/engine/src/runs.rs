//! The run in progress of each worker, who waits for it, and the thread that stops it when nobody does or it lasts too long.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::answer::Reply;
use crate::backend::Stopper;
use crate::cores::Slot;
use crate::deployment::Deployment;
use crate::error::InferError;
use crate::metrics::Outcome;
use crate::outbox::{self, Finished, Outbox, unheard};
use crate::stopping::{self, LOOK_AFTER, Running, StopReason, Verdict, judge};

/// Looks at the runs of one engine. While none lasts and none begins, its thread sleeps.
pub(crate) struct Watcher(Arc<Watch>);

struct Watch {
    /// What ages are counted from.
    epoch: Instant,
    cells: Mutex<Vec<Arc<RunCell>>>,
    mood: AtomicU8,
    thread: OnceLock<Thread>,
    is_over: AtomicBool,
}

/// The watcher sleeps until it is woken ...
const ASLEEP: u8 = 0;
/// ... looks, and no run has begun since it last did ...
const QUIET: u8 = 1;
/// ... or one has.
const STIRRED: u8 = 2;

/// How often runs are looked at: how long one goes on, at most, that nobody waits for.
const TICK: Duration = Duration::from_millis(10);
/// The watcher stays awake for so many ticks after a run has begun, so that a slow stream of requests does not pay
/// for waking it each time.
const TICKS_AWAKE: u32 = 100;

/// What a worker's thread and the watcher share.
pub(crate) struct RunCell {
    deployment: Arc<Deployment>,
    rules: Arc<RunRules>,
    /// Called once when the watcher gives the thread up.
    replace: Box<dyn Fn() + Send + Sync>,
    watch: Arc<Watch>,
    /// Nanoseconds from the epoch to the beginning of the run in progress; 0 between runs.
    began_ns: AtomicU64,
    state: Mutex<CellState>,
}

struct CellState {
    stopper: Stopper,
    /// Those of the batch that are not answered yet, at their requests' places, while a run is in progress.
    callers: Vec<Option<Caller>>,
    /// Answers of earlier runs that wait to leave with those of this one.
    unsent: Vec<Finished>,
    /// What the run holds of the machine.
    slot: Option<Slot>,
    run: Option<Run>,
    is_given_up: bool,
}

#[derive(Clone, Copy)]
struct Run {
    began: Instant,
    rows: usize,
    stopped: Option<(Instant, StopReason)>,
}

/// Whoever waits for a request of the batch.
pub(crate) struct Caller {
    pub(crate) reply: Reply,
    pub(crate) arrived: Instant,
    pub(crate) deadline: Option<Instant>,
}

/// How long the runs of one version may last.
#[derive(Default)]
pub(crate) struct RunRules {
    /// Set by the operator.
    pub(crate) timeout: Option<Duration>,
    /// The longest that a run of this version has taken so far, by row.
    slowest_row_ns: AtomicU64,
    is_retiring: AtomicBool,
}

/// The watcher has answered the callers and replaced this thread, which must end and touch nothing more.
#[derive(Debug)]
pub(crate) struct GivenUp;

// === impl Watcher ===

impl Watcher {
    /// # Panics
    /// The system does not grant a thread.
    pub(crate) fn start() -> Watcher {
        let watch = Arc::new(Watch {
            epoch: Instant::now(),
            cells: Mutex::default(),
            mood: AtomicU8::new(QUIET),
            thread: OnceLock::new(),
            is_over: AtomicBool::new(false),
        });
        let own = Arc::clone(&watch);
        let thread = std::thread::Builder::new().name("watch runs".into()).spawn(move || own.serve());
        let thread = thread.expect("a thread can be started while the server starts");
        watch.thread.get_or_init(|| thread.thread().clone());
        Watcher(watch)
    }

    /// A cell for one more worker, which [`Watcher::forget`] takes away.
    pub(crate) fn watch(
        &self,
        deployment: &Arc<Deployment>,
        rules: &Arc<RunRules>,
        replace: Box<dyn Fn() + Send + Sync>,
    ) -> Arc<RunCell> {
        let state = CellState {
            stopper: Stopper::cannot("there is no session yet"),
            callers: Vec::new(),
            unsent: Vec::new(),
            slot: None,
            run: None,
            is_given_up: false,
        };
        let cell = Arc::new(RunCell {
            deployment: Arc::clone(deployment),
            rules: Arc::clone(rules),
            replace,
            watch: Arc::clone(&self.0),
            began_ns: AtomicU64::new(0),
            state: Mutex::new(state),
        });
        self.0.lock().push(Arc::clone(&cell));
        cell
    }

    pub(crate) fn forget(&self, cell: &Arc<RunCell>) {
        self.0.lock().retain(|other| !Arc::ptr_eq(other, cell));
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.wake();
    }
}

// === impl Watch ===

impl Watch {
    fn serve(&self) {
        let mut quiet_ticks = 0;
        while !self.is_over.load(Ordering::Acquire) {
            let is_stirred = self.mood.swap(QUIET, Ordering::SeqCst) == STIRRED;
            quiet_ticks = if is_stirred { 0 } else { quiet_ticks + 1 };
            let is_running = self.look();
            if is_running || quiet_ticks < TICKS_AWAKE {
                std::thread::park_timeout(TICK);
            } else if self.fall_asleep() {
                std::thread::park();
            }
        }
    }

    /// Looks at every run; false when none is in progress.
    fn look(&self) -> bool {
        let cells = self.lock().clone();
        let now = Instant::now();
        let now_ns = self.nanoseconds(now);
        let mut is_running = false;
        for cell in cells {
            let began_ns = cell.began_ns.load(Ordering::SeqCst);
            is_running |= began_ns != 0;
            if began_ns != 0 && now_ns.saturating_sub(began_ns) >= LOOK_AFTER.as_nanos() as u64 {
                cell.look(now);
            }
        }
        is_running
    }

    /// From now on a run that begins wakes this thread; false when one has begun meanwhile.
    fn fall_asleep(&self) -> bool {
        self.mood.compare_exchange(QUIET, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            && !self.lock().iter().any(|cell| cell.began_ns.load(Ordering::SeqCst) != 0)
    }

    /// A run has begun.
    fn stir(&self) {
        if self.mood.load(Ordering::SeqCst) != STIRRED && self.mood.swap(STIRRED, Ordering::SeqCst) == ASLEEP
        {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn nanoseconds(&self, instant: Instant) -> u64 {
        // Never 0, which stands for no run.
        1 + instant.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<RunCell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl RunCell ===

impl RunCell {
    /// From now on runs are those of another instance.
    pub(crate) fn set_stopper(&self, stopper: Stopper) {
        self.lock().stopper = stopper;
    }

    /// A run of `rows` rows begins; `callers`, what is in `outbox` and the slot are taken over until its end.
    pub(crate) fn begin(
        &self,
        callers: &mut Vec<Option<Caller>>,
        outbox: &mut Outbox<'_>,
        slot: &mut Option<Slot>,
        rows: usize,
        now: Instant,
    ) {
        let mut state = self.lock();
        std::mem::swap(&mut state.callers, callers);
        outbox.lend(&mut state.unsent);
        state.slot = slot.take();
        state.run = Some(Run { began: now, rows, stopped: None });
        drop(state);
        self.began_ns.store(self.watch.nanoseconds(now), Ordering::SeqCst);
        self.watch.stir();
    }

    /// The run in progress, if any, has ended: gives back what was taken over, and says why the run was told to
    /// stop if it was.
    pub(crate) fn end(
        &self,
        callers: &mut Vec<Option<Caller>>,
        outbox: &mut Outbox<'_>,
        slot: &mut Option<Slot>,
    ) -> Result<Option<StopReason>, GivenUp> {
        self.began_ns.store(0, Ordering::SeqCst);
        let mut state = self.lock();
        if state.is_given_up {
            return Err(GivenUp);
        }
        let Some(run) = state.run.take() else { return Ok(None) };
        std::mem::swap(&mut state.callers, callers);
        outbox.take_back(&mut state.unsent);
        *slot = state.slot.take();
        if run.stopped.is_some() {
            state.stopper.rearm();
        }
        Ok(run.stopped.map(|(_, reason)| reason))
    }

    /// Judges the run in progress and acts.
    fn look(&self, now: Instant) {
        let mut state = self.lock();
        let Some(run) = state.run else { return };
        if !state.unsent.is_empty() {
            outbox::send(&mut state.unsent, &self.deployment);
        }
        let callers = state.callers.iter().flatten();
        let running = Running {
            began: run.began,
            timeout: self.rules.timeout(run.rows),
            is_abandoned: { callers }.all(|caller| caller.reply.is_abandoned()),
            stopped: run.stopped,
            is_retiring: self.rules.is_retiring.load(Ordering::Relaxed),
        };
        match judge(&running, now) {
            Verdict::GoOn => {}
            Verdict::Stop(reason) => {
                state.run = Some(Run { stopped: Some((now, reason)), ..run });
                // Under the lock, so that no later run is hit.
                state.stopper.stop();
                self.deployment.metrics.count_stopped(reason);
            }
            Verdict::GiveUp => self.give_up(state, &running, now),
        }
    }

    fn give_up(&self, mut state: MutexGuard<'_, CellState>, run: &Running, now: Instant) {
        state.is_given_up = true;
        state.run = None;
        let callers = std::mem::take(&mut state.callers);
        let obstacle = state.stopper.obstacle();
        let slot = state.slot.take();
        drop(state);
        // Whatever that thread still computes, others go on.
        drop(slot);
        self.began_ns.store(0, Ordering::SeqCst);
        let model = &self.deployment.info;
        tracing::error!(
            model = model.name,
            version = model.version,
            lasted = ?now.saturating_duration_since(run.began),
            run_timeout = ?run.timeout,
            obstacle,
            "a run did not end when it was stopped; its thread is left behind and its session replaced"
        );
        for caller in callers.into_iter().flatten() {
            let error = InferError::Backend(format!(
                "the run took longer than {:?} and did not end when it was stopped; its session is replaced",
                run.timeout
            ));
            caller.fail(&self.deployment, error);
        }
        (self.replace)();
    }

    fn lock(&self) -> MutexGuard<'_, CellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl RunRules ===

impl RunRules {
    pub(crate) fn new(timeout: Option<Duration>) -> RunRules {
        RunRules { timeout, ..RunRules::default() }
    }

    /// How long a run of `rows` rows may last.
    pub(crate) fn timeout(&self, rows: usize) -> Duration {
        let slowest_row = Duration::from_nanos(self.slowest_row_ns.load(Ordering::Relaxed));
        stopping::timeout(self.timeout, slowest_row, rows)
    }

    /// A run of `rows` rows has given its outputs.
    pub(crate) fn ran(&self, took: Duration, rows: usize) {
        let row_ns = took.as_nanos() as u64 / rows.max(1) as u64;
        if row_ns > self.slowest_row_ns.load(Ordering::Relaxed) {
            self.slowest_row_ns.fetch_max(row_ns, Ordering::Relaxed);
        }
    }

    /// From now on somebody waits for the last run to end.
    pub(crate) fn begin_retiring(&self) {
        self.is_retiring.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_retiring(&self) -> bool {
        self.is_retiring.load(Ordering::Relaxed)
    }
}

// === impl Caller ===

impl Caller {
    /// Answers with an error, and counts it.
    pub(crate) fn fail(self, deployment: &Deployment, error: InferError) {
        let outcome = Outcome::of(&error);
        if outcome == Outcome::BackendError {
            deployment.record_model_failure();
        }
        // A caller whose deadline has passed was told so by the front door's clock, and has left.
        let unheard = unheard(&self.reply, self.deadline, Instant::now());
        if unheard.is_none() {
            deployment.record_failure(self.arrived.elapsed());
        }
        // Counted before it is sent, as answers are.
        deployment.count(unheard.unwrap_or(outcome));
        let _heard = self.reply.send(Err(error));
    }

    /// Nobody waits any more: counts why.
    pub(crate) fn count_gone(self, deployment: &Deployment, now: Instant) {
        let outcome = unheard(&self.reply, self.deadline, now);
        deployment.count(outcome.unwrap_or(Outcome::Cancelled));
    }
}
