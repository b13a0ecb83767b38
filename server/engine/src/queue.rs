//! The only meeting point of request tasks and workers: hides admission, batching, wake-ups and draining.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cost::CostModel;
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
    pub(crate) fn new(policy: Policy, cost: CostModel) -> Queue<T> {
        let state = State { former: Former::new(policy, cost), closed: false, sleeping: 0, waking: 0 };
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

    /// The batch that `worker` has taken is over: see [`Former::finish`].
    pub(crate) fn finish(&self, worker: usize, took: Option<Duration>) {
        self.lock().former.finish(worker, took);
    }

    /// Waits for work for `worker` and moves it into `batch` and `dropped` (see [`Former::take`]). Both must be empty.
    /// `None` means closed and empty: the worker is done.
    pub(crate) fn next_batch(
        &self,
        worker: usize,
        batch: &mut Vec<T>,
        dropped: &mut Vec<T>,
    ) -> Option<CloseReason> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            match state.former.poll(now) {
                Decision::Run => return Some(self.take(state, now, worker, batch, dropped)),
                Decision::Idle if state.closed => return None,
                Decision::Idle => state = self.sleep(state, None),
                Decision::WaitUntil(until) => {
                    state = self.sleep(state, Some(until.saturating_duration_since(now)));
                }
            }
        }
    }

    /// What [`Queue::next_batch`] would give at once; `None` where it would wait or end.
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
        if !state.former.is_empty() {
            // What is left is another worker's: pass the wake-up on.
            self.wake_one(state);
        }
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

    /// Looks at the cost model, which nothing else can use meanwhile.
    pub(crate) fn with_cost<R>(&self, look: impl FnOnce(&CostModel) -> R) -> R {
        look(self.lock().former.cost())
    }

    /// How long the workers are expected to need for half of what waits.
    pub(crate) fn half_drained(&self) -> Duration {
        self.lock().former.half_drained()
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::request::ShapeKey;

    struct Row {
        number: usize,
        key: ShapeKey,
        arrived: Instant,
    }

    impl Item for Row {
        fn rows(&self) -> usize {
            1
        }
        fn bytes(&self) -> usize {
            8
        }
        fn shape_key(&self) -> &ShapeKey {
            &self.key
        }
        fn arrived(&self) -> Instant {
            self.arrived
        }
        fn deadline(&self) -> Option<Instant> {
            None
        }
        fn is_abandoned(&self) -> bool {
            false
        }
    }

    fn row(number: usize) -> Row {
        Row { number, key: ShapeKey::default(), arrived: Instant::now() }
    }

    /// Many threads push, several pull, and the queue closes while they do: a lost wake-up would hang
    /// this test, a lost or doubled row fails it.
    fn storm(batch_delay: Duration) {
        const PUSHERS: usize = 4;
        const ROWS_EACH: usize = 5000;
        const WORKERS: usize = 3;
        let policy = Policy {
            batch_rows_max: 8,
            batch_delay,
            queue_rows_max: 64,
            queue_bytes_max: usize::MAX,
            workers: WORKERS,
        };
        let queue: Queue<Row> = Queue::new(policy, CostModel::new(8));
        let seen: Vec<AtomicUsize> = (0..PUSHERS * ROWS_EACH).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (queue, seen) = (&queue, &seen);
                scope.spawn(move || {
                    let (mut batch, mut dropped) = (Vec::new(), Vec::new());
                    while queue.next_batch(worker, &mut batch, &mut dropped).is_some() {
                        assert!(batch.len() <= policy.batch_rows_max);
                        for row in batch.drain(..).chain(dropped.drain(..)) {
                            seen[row.number].fetch_add(1, Ordering::Relaxed);
                        }
                        queue.finish(worker, Some(Duration::from_micros(3)));
                    }
                });
            }
            std::thread::scope(|pushers| {
                for pusher in 0..PUSHERS {
                    let queue = &queue;
                    pushers.spawn(move || {
                        for number in pusher * ROWS_EACH..(pusher + 1) * ROWS_EACH {
                            let mut item = row(number);
                            while let Err((refusal, back)) = queue.push(item) {
                                assert!(matches!(refusal, Refusal::Rows { waiting: 64 }));
                                item = back;
                                std::thread::yield_now();
                            }
                        }
                    });
                }
            });
            queue.close();
        });
        assert!(seen.iter().all(|times| times.load(Ordering::Relaxed) == 1));
        assert_eq!(queue.depth(), Depth { rows: 0, bytes: 0 });
    }

    #[test]
    fn no_wake_up_and_no_row_is_lost() {
        storm(Duration::ZERO);
        storm(Duration::from_micros(50));
    }

    #[test]
    fn parts_are_admitted_together_or_not_at_all() {
        let policy = Policy {
            batch_rows_max: 1,
            batch_delay: Duration::ZERO,
            queue_rows_max: 3,
            queue_bytes_max: usize::MAX,
            workers: 1,
        };
        let queue = Queue::new(policy, CostModel::new(1));
        assert!(queue.push(row(0)).is_ok());
        let refused = queue.push_all(vec![row(1), row(2), row(3)]).err();
        let (refusal, back) = refused.expect("four rows do not fit");
        assert_eq!((refusal, back.len()), (Refusal::Rows { waiting: 1 }, 3));
        assert!(queue.push_all(vec![row(1), row(2)]).is_ok());
        assert_eq!(queue.depth().rows, 3);
        queue.close();
        assert!(matches!(queue.push(row(4)), Err((Refusal::Closed, _))));
        let (mut batch, mut dropped) = (Vec::new(), Vec::new());
        while queue.next_batch(0, &mut batch, &mut dropped).is_some() {}
        assert_eq!(batch.iter().map(|row| row.number).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
