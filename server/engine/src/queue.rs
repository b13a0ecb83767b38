//! The only meeting point of request tasks and workers: hides admission, batching, wake-ups and draining.

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::cost::CostModel;
use crate::former::{CloseReason, Decision, Former, Policy, Refusal};
use crate::slots::Wish;
use crate::waiting::{Item, Place};

/// Requests that wait for a worker. Bounded: a push never blocks, it is refused.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    work: Condvar,
    /// Has the thread of an absent worker started. Called without the lock, by whoever brings work: it must be quick.
    start_worker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct State<T> {
    former: Former<T>,
    closed: bool,
    /// Workers that wait on the condition.
    sleeping: usize,
    /// Of those, how many have been notified and have not woken yet: a burst of pushes pays for one
    /// wake-up a worker, not for one a push. A wake-up by time-out takes one off as well, so the count
    /// errs towards a notification too many, never one too few.
    waking: usize,
    /// Workers that have no thread now, and for which none was asked for yet.
    absent: usize,
    /// Batches that were ever taken.
    taken: u64,
    /// Workers that find nothing to do are to leave.
    is_unused: bool,
    /// When one of them wakes by itself; `None` where that is not known.
    timer: Option<Instant>,
}

type Guard<'a, T> = MutexGuard<'a, State<T>>;

/// What a worker is to do after it has waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There is work, which [`Queue::try_batch`] takes.
    Work,
    /// There was none for long: the worker counts as absent from now on.
    Idle,
    /// The queue is closed and empty.
    Over,
}

/// Rows and bytes that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

impl<T: Item> Queue<T> {
    pub(crate) fn new(policy: Policy, cost: CostModel) -> Queue<T> {
        let former = Former::new(policy, cost, Instant::now());
        let state = State {
            former,
            closed: false,
            sleeping: 0,
            waking: 0,
            absent: 0,
            taken: 0,
            is_unused: false,
            timer: None,
        };
        Queue { state: Mutex::new(state), work: Condvar::new(), start_worker: OnceLock::new() }
    }

    /// Admits one item that arrives now, or gives it back at once with the bound that it would break.
    pub(crate) fn push(&self, now: Instant, item: T) -> Result<Place, (Refusal, T)> {
        let mut state = self.lock();
        if let Err(refusal) = state.former.admits(now, std::slice::from_ref(&item)) {
            return Err((refusal, item));
        }
        let place = state.former.add(item);
        self.wake_one(state, now);
        Ok(place)
    }

    /// Admits all of `items`, the parts of one request, or none, so that no request is left half admitted.
    pub(crate) fn push_all(&self, now: Instant, items: Vec<T>) -> Result<Vec<Place>, (Refusal, Vec<T>)> {
        let mut state = self.lock();
        if let Err(refusal) = state.former.admits(now, &items) {
            return Err((refusal, items));
        }
        let places = items.into_iter().map(|item| state.former.add(item)).collect();
        self.wake_one(state, now);
        Ok(places)
    }

    /// Takes back what nobody waits for any more, because its time is over or because its caller has left. True if
    /// nothing of it had been taken.
    pub(crate) fn remove(&self, places: &[Place], is_late: bool) -> bool {
        let mut state = self.lock();
        let removed: SmallVec<[T; 1]> =
            places.iter().filter_map(|place| state.former.remove(*place, is_late)).collect();
        drop(state);
        // Their tensors are freed here, where no worker waits for the lock.
        removed.len() == places.len()
    }

    /// The batch that `worker` has taken is over: see [`Former::finish`].
    pub(crate) fn finish(&self, worker: usize, took: Option<Duration>) {
        self.lock().former.finish(worker, took);
    }

    /// From now on `workers` have no thread, and `start_worker` is called each time that one is to start.
    pub(crate) fn begin_absent(&self, workers: usize, start_worker: impl Fn() + Send + Sync + 'static) {
        self.start_worker.get_or_init(|| Box::new(start_worker));
        self.lock().absent = workers;
    }

    /// Waits until there is work, the queue is over, or [`Queue::let_go`] finds that nobody uses it.
    pub(crate) fn wait(&self) -> Waited {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            match state.former.poll(now) {
                Decision::Run => return Waited::Work,
                Decision::Idle if state.closed => return Waited::Over,
                Decision::Idle if state.is_unused => {
                    state.absent += 1;
                    return Waited::Idle;
                }
                Decision::Idle => state = self.sleep(state, None, now),
                Decision::WaitUntil(until) => state = self.sleep(state, Some(until), now),
            }
        }
    }

    /// Lets the workers go if no batch was taken since `taken` of them were; returns how many were by now.
    pub(crate) fn let_go(&self, taken: u64) -> u64 {
        let mut state = self.lock();
        let now_taken = state.taken;
        if now_taken == taken {
            state.is_unused = true;
            drop(state);
            self.work.notify_all();
        }
        now_taken
    }

    /// Whether something waits, to be run now or later.
    pub(crate) fn has_work(&self) -> bool {
        self.lock().former.poll(Instant::now()) != Decision::Idle
    }

    /// Whether there is something to run now.
    pub(crate) fn is_ready(&self) -> bool {
        self.lock().former.poll(Instant::now()) == Decision::Run
    }

    /// Wakes another worker for what there is to run, because the one that was woken cannot take it now.
    pub(crate) fn pass_on(&self) {
        self.wake_one(self.lock(), Instant::now());
    }

    /// What there is to run now.
    pub(crate) fn wish(&self) -> Wish {
        let state = self.lock();
        match state.former.poll(Instant::now()) {
            Decision::Run => Wish::Work { deadline: state.former.earliest_deadline() },
            Decision::Idle | Decision::WaitUntil(_) => Wish::Nothing,
        }
    }

    /// Moves a batch for `worker` into `batch` and `dropped` (see [`Former::take`]), which must be empty. `None` where
    /// there is nothing to run now.
    pub(crate) fn try_batch(
        &self,
        worker: usize,
        batch: &mut Vec<T>,
        dropped: &mut Vec<T>,
    ) -> Option<CloseReason> {
        let state = self.lock();
        let now = Instant::now();
        match state.former.poll(now) {
            Decision::Run => Some(self.take(state, now, worker, batch, dropped)),
            Decision::Idle | Decision::WaitUntil(_) => None,
        }
    }

    fn take(
        &self,
        mut state: Guard<'_, T>,
        now: Instant,
        worker: usize,
        batch: &mut Vec<T>,
        dropped: &mut Vec<T>,
    ) -> CloseReason {
        let reason = state.former.take(now, worker, batch, dropped);
        state.taken += 1;
        state.is_unused = false;
        // What is left is another worker's.
        self.wake_one(state, now);
        reason
    }

    /// Admits nothing more; workers finish what was admitted.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.former.close();
        drop(state);
        self.work.notify_all();
    }

    /// From now on requests share batches, or run whole and alone.
    pub(crate) fn set_merging(&self, merges: bool) {
        let mut state = self.lock();
        state.former.set_merging(merges);
        drop(state);
        // What may run now, and when, has changed.
        self.work.notify_all();
    }

    /// Nothing more is admitted.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Looks at the cost model and at the margin of waits, which nothing else can use meanwhile.
    pub(crate) fn with_cost<R>(&self, look: impl FnOnce(&CostModel, f32) -> R) -> R {
        let state = self.lock();
        look(state.former.cost(), state.former.wait_margin())
    }

    /// How long the workers are expected to need for half of what waits.
    pub(crate) fn half_drained(&self) -> Duration {
        self.lock().former.half_drained()
    }

    pub(crate) fn depth(&self) -> Depth {
        let state = self.lock();
        Depth { rows: state.former.rows(), bytes: state.former.bytes() }
    }

    fn sleep<'a>(&'a self, mut state: Guard<'a, T>, until: Option<Instant>, now: Instant) -> Guard<'a, T> {
        state.sleeping += 1;
        let mut state = match until {
            None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                state.timer = state.timer.into_iter().chain([until]).min();
                let at_most = until.saturating_duration_since(now);
                let waited = self.work.wait_timeout(state, at_most);
                let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
                state.timer = None;
                state
            }
        };
        state.sleeping -= 1;
        state.waking = state.waking.saturating_sub(1);
        state
    }

    /// Wakes a worker if one sleeps and has something to do now, or earlier than it would wake by itself. Where none
    /// sleeps the thread of an absent one is started for that.
    fn wake_one(&self, mut state: Guard<'_, T>, now: Instant) {
        if state.sleeping <= state.waking {
            if state.absent > 0 && state.former.poll(now) != Decision::Idle {
                state.absent -= 1;
                drop(state);
                if let Some(start_worker) = self.start_worker.get() {
                    start_worker();
                }
            }
            return;
        }
        let is_needed = match state.former.poll(now) {
            Decision::Run => true,
            Decision::WaitUntil(until) => state.timer.is_none_or(|timer| until < timer),
            Decision::Idle => false,
        };
        if is_needed {
            state.waking += 1;
            drop(state);
            self.work.notify_one();
        }
    }

    /// The former's code does not panic half-way through a change, so a poisoned lock is still sound.
    fn lock(&self) -> Guard<'_, T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
