//! The only meeting point of request tasks and workers: hides admission, batching, wake-ups and draining.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
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
    /// When one of them wakes by itself; `None` where that is not known.
    timer: Option<Instant>,
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
        let former = Former::new(policy, cost, Instant::now());
        let state = State { former, closed: false, sleeping: 0, waking: 0, timer: None };
        Queue { state: Mutex::new(state), work: Condvar::new() }
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

    /// Waits until there is work, which [`Queue::try_batch`] takes. False means closed and empty: the worker is done.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            match state.former.poll(now) {
                Decision::Run => return true,
                Decision::Idle if state.closed => return false,
                Decision::Idle => state = self.sleep(state, None, now),
                Decision::WaitUntil(until) => state = self.sleep(state, Some(until), now),
            }
        }
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

    /// Wakes a worker if one sleeps and has something to do now, or earlier than it would wake by itself.
    fn wake_one(&self, mut state: Guard<'_, T>, now: Instant) {
        if state.sleeping <= state.waking {
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::request::ShapeKey;
    use crate::waiting::Due;

    struct Row {
        number: usize,
        key: ShapeKey,
        arrived: Instant,
        due: Due,
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
        fn due(&self) -> &Due {
            &self.due
        }
        fn is_abandoned(&self) -> bool {
            false
        }
    }

    fn row(number: usize) -> Row {
        Row { number, key: ShapeKey::default(), arrived: Instant::now(), due: Due::default() }
    }

    fn policy() -> Policy {
        Policy {
            batch_rows_max: 8,
            batch_delay: Some(Duration::ZERO),
            preferred_rows: Vec::new(),
            queue_rows_max: 64,
            queue_bytes_max: usize::MAX,
            queue_time_max: None,
            queue_requests_max: Vec::new(),
            workers: 1,
            is_eager: false,
        }
    }

    /// Many threads push, several pull, and the queue closes while they do: a lost wake-up would hang
    /// this test, a lost or doubled row fails it.
    fn storm(batch_delay: Option<Duration>) {
        const PUSHERS: usize = 4;
        const ROWS_EACH: usize = 5000;
        const WORKERS: usize = 3;
        let policy = Policy { batch_delay, workers: WORKERS, ..policy() };
        let queue: Queue<Row> = Queue::new(policy, CostModel::new(8));
        let seen: Vec<AtomicUsize> = (0..PUSHERS * ROWS_EACH).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (queue, seen) = (&queue, &seen);
                scope.spawn(move || {
                    let (mut batch, mut dropped) = (Vec::new(), Vec::new());
                    while queue.wait() {
                        // Another one may be quicker.
                        let _taken = queue.try_batch(worker, &mut batch, &mut dropped);
                        assert!(batch.len() <= 8);
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
                            while let Err((refusal, back)) = queue.push(Instant::now(), item) {
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
        storm(None);
        storm(Some(Duration::ZERO));
        storm(Some(Duration::from_micros(50)));
    }

    /// As one request of as many parts.
    fn push(queue: &Queue<Row>, numbers: &[usize]) -> Result<Vec<Place>, Refusal> {
        let items = numbers.iter().map(|number| row(*number)).collect();
        queue.push_all(Instant::now(), items).map_err(|(refusal, back)| {
            assert_eq!(back.len(), numbers.len(), "all come back");
            refusal
        })
    }

    #[test]
    fn parts_are_admitted_together_or_not_at_all() {
        let queue =
            Queue::new(Policy { batch_rows_max: 1, queue_rows_max: 3, ..policy() }, CostModel::new(1));
        assert!(push(&queue, &[0]).is_ok());
        assert_eq!(push(&queue, &[1, 2, 3]), Err(Refusal::Rows { waiting: 1 }));
        assert!(push(&queue, &[1, 2]).is_ok());
        assert_eq!(queue.depth().rows, 3);
        queue.close();
        assert_eq!(push(&queue, &[4]), Err(Refusal::Closed));
        let (mut batch, mut dropped) = (Vec::new(), Vec::new());
        assert!(matches!(queue.wish(), Wish::Work { deadline: None }));
        while queue.wait() {
            assert!(queue.try_batch(0, &mut batch, &mut dropped).is_some());
        }
        assert_eq!(queue.wish(), Wish::Nothing);
        assert_eq!(batch.iter().map(|row| row.number).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn who_leaves_frees_the_place_at_once_and_only_that() {
        let queue =
            Queue::new(Policy { batch_rows_max: 2, queue_rows_max: 3, ..policy() }, CostModel::new(2));
        let first = push(&queue, &[0]).unwrap();
        let second = push(&queue, &[1, 2]).unwrap();
        assert_eq!(push(&queue, &[3]), Err(Refusal::Rows { waiting: 3 }));
        assert!(queue.remove(&second, false), "nothing of it was taken");
        assert_eq!(queue.depth(), Depth { rows: 1, bytes: 8 });
        let third = push(&queue, &[3, 4]).unwrap();
        assert!(!queue.remove(&second, false), "its places are others' now");
        assert_eq!(queue.depth().rows, 3);
        let (mut batch, mut dropped) = (Vec::new(), Vec::new());
        assert!(queue.wait() && queue.try_batch(0, &mut batch, &mut dropped).is_some());
        assert_eq!(batch.iter().map(|row| row.number).collect::<Vec<_>>(), [0, 3]);
        assert!(!queue.remove(&first, false) && !queue.remove(&third, false), "taken, whole or in part");
        assert_eq!(queue.depth(), Depth { rows: 0, bytes: 0 });
    }
}
