//! Runs the samples of versions whose structure leaves open whether rows may be stacked, after those serve, and some of
//! their live batches again row by row, on one thread in the background.

mod audits;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use self::audits::Audit;
use crate::audit::{Allowance, AuditedBatch};
use crate::backend::{Instance, Placement, Stopper};
use crate::background::Background;
use crate::cores;
use crate::deployment::Deployment;
use crate::error::{LoadError, RunError, panic_text};
use crate::merging::{self, Basis};
use crate::metrics::AuditOutcome;
use crate::proof::{self, Rigour, Runs, Verdict};
use crate::samples::Sample;
use crate::tensor::Tensor;

/// Examines the versions of one engine, one after the other. Its thread starts with the first.
pub(crate) struct Examiner(Arc<Shared>);

/// A load that is under way; over when this is dropped.
pub(crate) struct Loading<'a>(&'a Examiner);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<Waiting>,
    /// At most one of a version.
    audits: VecDeque<Audit>,
    allowance: Allowance,
    /// Loads that are under way.
    loading: usize,
    has_thread: bool,
    is_over: bool,
    /// The version that is examined now, and what stops its run.
    current: Option<(Weak<Deployment>, Option<Stopper>)>,
}

struct Waiting {
    deployment: Weak<Deployment>,
    since: Instant,
}

/// A session of its own for the samples of one version.
struct SampleRuns<'a> {
    deployment: &'a Arc<Deployment>,
    shared: &'a Shared,
    instance: Box<dyn Instance>,
}

/// What the thread does next.
enum Task {
    Samples(Weak<Deployment>),
    Audit(Audit),
}

/// Batches that wait to be run again, whose tensors are held meanwhile.
const AUDITS_WAITING_MAX: usize = 4;
/// Loads go first, but not for ever.
const LOADS_WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest that the end of a version waits for a sample run to end.
const LEAVE_MAX: Duration = Duration::from_secs(5);

// === impl Examiner ===

impl Examiner {
    pub(crate) fn new() -> Examiner {
        let state = State {
            waiting: VecDeque::new(),
            audits: VecDeque::new(),
            allowance: Allowance::new(cores::granted()),
            loading: 0,
            has_thread: false,
            is_over: false,
            current: None,
        };
        Examiner(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Has a version examined if samples are to decide about it.
    pub(crate) fn examine(&self, deployment: &Arc<Deployment>) {
        if !deployment.merging.awaits_samples() {
            return;
        }
        let mut state = self.0.lock();
        state.waiting.push_back(Waiting { deployment: Arc::downgrade(deployment), since: Instant::now() });
        self.wake(state);
    }

    /// Has a batch, which `batch` makes, run again row by row, unless there is no time for that or another one of the
    /// version waits. Never waits itself.
    pub(crate) fn audit(&self, deployment: &Arc<Deployment>, batch: impl FnOnce() -> Option<AuditedBatch>) {
        let mut state = self.0.lock();
        let is_its_own = |audit: &Audit| audit.is_of(deployment);
        let has_room = state.allowance.allows(Instant::now())
            && state.audits.len() < AUDITS_WAITING_MAX
            && !state.audits.iter().any(is_its_own);
        match has_room.then(batch).flatten() {
            Some(batch) => {
                state.audits.push_back(Audit::new(deployment, batch));
                self.wake(state);
            }
            None => {
                drop(state);
                deployment.audits.count(AuditOutcome::Skipped);
            }
        }
    }

    /// Has the thread look at what there is; starts it with the first.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if !state.has_thread {
            let shared = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("examine".into()).spawn(move || shared.serve());
            match thread {
                Ok(_) => state.has_thread = true,
                Err(error) => tracing::error!(%error, "cannot start the thread that examines models"),
            }
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// What begins now goes first.
    pub(crate) fn load_begins(&self) -> Loading<'_> {
        self.0.lock().loading += 1;
        Loading(self)
    }

    /// Ends what is going on for a version that does not serve any more, and waits until its session is freed, unless
    /// its run does not end.
    pub(crate) fn leave(&self, deployment: &Arc<Deployment>) {
        let state = self.0.lock();
        let is_current = |state: &mut State| {
            state.current.as_ref().is_some_and(|(current, _)| current.as_ptr() == Arc::as_ptr(deployment))
        };
        if let Some((current, Some(stopper))) = &state.current
            && current.as_ptr() == Arc::as_ptr(deployment)
        {
            stopper.stop();
        }
        drop(self.0.changed.wait_timeout_while(state, LEAVE_MAX, is_current));
    }
}

impl Drop for Examiner {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_over = true;
        if let Some((_, Some(stopper))) = &state.current {
            stopper.stop();
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

// === impl Loading ===

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let shared = &self.0.0;
        shared.lock().loading -= 1;
        shared.changed.notify_all();
    }
}

// === impl Shared ===

impl Shared {
    /// The thread's life.
    fn serve(&self) {
        // For good: there is no way back for this thread.
        drop(Background::enter());
        while let Some(task) = self.next() {
            let background = Background::enter();
            match task {
                Task::Samples(deployment) => {
                    deployment.upgrade().iter().for_each(|deployment| self.examine(deployment));
                }
                Task::Audit(audit) => self.audit(audit),
            }
            drop(background);
            self.lock().current = None;
            self.changed.notify_all();
        }
    }

    /// Waits for a batch, or for a version and the end of loads; `None` at the end.
    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(audit) = state.audits.pop_front() {
                state.current = Some((audit.deployment(), None));
                return Some(Task::Audit(audit));
            }
            let patience = match state.waiting.front() {
                None => Duration::MAX,
                Some(_) if state.loading == 0 => Duration::ZERO,
                Some(first) => LOADS_WAIT_MAX.saturating_sub(first.since.elapsed()),
            };
            if patience.is_zero()
                && let Some(Waiting { deployment, .. }) = state.waiting.pop_front()
            {
                state.current = Some((Weak::clone(&deployment), None));
                return Some(Task::Samples(deployment));
            }
            state = match patience {
                Duration::MAX => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                _ => {
                    let waited = self.changed.wait_timeout(state, patience);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn examine(&self, deployment: &Arc<Deployment>) {
        let Basis::Samples { open, rigour } = deployment.merging.basis() else { return };
        let judge = || self.judge(deployment, *rigour);
        let verdict = catch_unwind(AssertUnwindSafe(judge)).unwrap_or_else(|panic| {
            Some(Verdict::Nothing(format!("a sample run panicked: {}", panic_text(&*panic))))
        });
        let Some(verdict) = verdict.filter(|_| !deployment.queue.is_closed()) else { return };
        let (may_merge, text) = merging::conclude(open, &verdict);
        deployment.set_merging(may_merge, text.clone());
        let (model, version) = (&deployment.info.name, deployment.info.version);
        match may_merge {
            true => tracing::info!(model, version, why = text, "requests share runs from now on"),
            false => tracing::warn!(model, version, why = text, "each request runs alone"),
        }
    }

    /// `None` where the version has ended meanwhile. The session is freed with the verdict.
    fn judge(&self, deployment: &Arc<Deployment>, rigour: Rigour) -> Option<Verdict> {
        if deployment.queue.is_closed() {
            return None;
        }
        let instance = match self.instance(deployment) {
            Ok(instance) => instance,
            Err(error) => return Some(Verdict::Nothing(format!("no session can be made: {error}"))),
        };
        let mut runs = SampleRuns { deployment, shared: self, instance };
        proof::prove(&deployment.info.signature, rigour, &mut runs)
    }

    /// A session beside those that serve, whose runs end with the version.
    fn instance(&self, deployment: &Arc<Deployment>) -> Result<Box<dyn Instance>, LoadError> {
        // Threads that a runtime starts would not be in the background.
        let placement = Placement { device: deployment.origin.device(), threads: 1 };
        let instance = deployment.origin.model.instance(placement)?;
        self.lock().current = Some((Arc::downgrade(deployment), Some(instance.stopper())));
        Ok(instance)
    }

    /// Whether runs of a version are to end.
    fn is_over(&self, deployment: &Deployment) -> bool {
        deployment.queue.is_closed() || self.lock().is_over
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl SampleRuns ===

impl Runs for SampleRuns<'_> {
    fn run(&mut self, sample: &Sample) -> Result<Vec<Tensor>, RunError> {
        // As loads do: where no core is free for long it goes on, in what time the others leave it. Else a version
        // whose requests share no runs, and therefore want all cores, would never come to share them.
        let _slot = self.deployment.origin.background();
        if self.shared.is_over(self.deployment) {
            return Err(RunError::Stopped);
        }
        sample.run(&mut *self.instance)
    }
}
