//! The only meeting point of request tasks and workers: hides admission, batching, wake-ups and draining.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::former::{CloseReason, Decision, Former, Item, Policy, Refusal};

/// Requests that wait for a worker. Bounded: a push never blocks, it is refused.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    work: Condvar,
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
}

type Guard<'a, T> = MutexGuard<'a, State<T>>;

/// Rows and bytes that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

impl<T: Item> Queue<T> {
    pub(crate) fn new(policy: Policy) -> Queue<T> {
        let state = State { former: Former::new(policy), closed: false, sleeping: 0, waking: 0 };
        Queue { state: Mutex::new(state), work: Condvar::new() }
    }

    /// Admits one item, or gives it back at once with the bound that it would break.
    pub(crate) fn push(&self, item: T) -> Result<(), (Refusal, T)> {
        let mut state = self.lock();
        if let Err(refusal) = state.former.admits(item.rows(), item.bytes()) {
            return Err((refusal, item));
        }
        state.former.add(item);
        self.wake_one(state);
        Ok(())
    }

    /// Admits all of `items` or none, so that no request is left half admitted.
    pub(crate) fn push_all(&self, items: Vec<T>) -> Result<(), (Refusal, Vec<T>)> {
        let rows = items.iter().map(Item::rows).sum();
        let bytes = items.iter().map(Item::bytes).sum();
        let mut state = self.lock();
        if let Err(refusal) = state.former.admits(rows, bytes) {
            return Err((refusal, items));
        }
        for item in items {
            state.former.add(item);
        }
        self.wake_one(state);
        Ok(())
    }

    /// Waits for work and moves it into `batch` and `dropped` (see [`Former::take`]). Both must be empty.
    /// `None` means closed and empty: the worker is done.
    pub(crate) fn next_batch(&self, batch: &mut Vec<T>, dropped: &mut Vec<T>) -> Option<CloseReason> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            match state.former.poll(now) {
                Decision::Run => {
                    let reason = state.former.take(now, batch, dropped);
                    if !state.former.is_empty() {
                        // What is left is another worker's: pass the wake-up on.
                        self.wake_one(state);
                    }
                    return Some(reason);
                }
                Decision::Idle if state.closed => return None,
                Decision::Idle => state = self.sleep(state, None),
                Decision::WaitUntil(until) => {
                    state = self.sleep(state, Some(until.saturating_duration_since(now)));
                }
            }
        }
    }

    /// Admits nothing more; workers finish what was admitted.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.former.close();
        drop(state);
        self.work.notify_all();
    }

    pub(crate) fn depth(&self) -> Depth {
        let state = self.lock();
        Depth { rows: state.former.rows(), bytes: state.former.bytes() }
    }

    fn sleep<'a>(&'a self, mut state: Guard<'a, T>, at_most: Option<Duration>) -> Guard<'a, T> {
        state.sleeping += 1;
        let mut state = match at_most {
            None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(at_most) => self.work.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0,
        };
        state.sleeping -= 1;
        state.waking = state.waking.saturating_sub(1);
        state
    }

    fn wake_one(&self, mut state: Guard<'_, T>) {
        if state.sleeping > state.waking {
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
