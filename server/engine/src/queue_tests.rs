//! What the queue gives to workers that come and go, and what it takes back.

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
                while queue.wait() == Waited::Work {
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
    let queue = Queue::new(Policy { batch_rows_max: 1, queue_rows_max: 3, ..policy() }, CostModel::new(1));
    assert!(push(&queue, &[0]).is_ok());
    assert_eq!(push(&queue, &[1, 2, 3]), Err(Refusal::Rows { waiting: 1 }));
    assert!(push(&queue, &[1, 2]).is_ok());
    assert_eq!(queue.depth().rows, 3);
    queue.close();
    assert_eq!(push(&queue, &[4]), Err(Refusal::Closed));
    let (mut batch, mut dropped) = (Vec::new(), Vec::new());
    assert!(matches!(queue.wish(), Wish::Work { deadline: None }));
    while queue.wait() == Waited::Work {
        assert!(queue.try_batch(0, &mut batch, &mut dropped).is_some());
    }
    assert_eq!(queue.wish(), Wish::Nothing);
    assert_eq!(batch.iter().map(|row| row.number).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn who_leaves_frees_the_place_at_once_and_only_that() {
    let queue = Queue::new(Policy { batch_rows_max: 2, queue_rows_max: 3, ..policy() }, CostModel::new(2));
    let first = push(&queue, &[0]).unwrap();
    let second = push(&queue, &[1, 2]).unwrap();
    assert_eq!(push(&queue, &[3]), Err(Refusal::Rows { waiting: 3 }));
    assert!(queue.remove(&second, false), "nothing of it was taken");
    assert_eq!(queue.depth(), Depth { rows: 1, bytes: 8 });
    let third = push(&queue, &[3, 4]).unwrap();
    assert!(!queue.remove(&second, false), "its places are others' now");
    assert_eq!(queue.depth().rows, 3);
    let (mut batch, mut dropped) = (Vec::new(), Vec::new());
    assert!(queue.wait() == Waited::Work && queue.try_batch(0, &mut batch, &mut dropped).is_some());
    assert_eq!(batch.iter().map(|row| row.number).collect::<Vec<_>>(), [0, 3]);
    assert!(!queue.remove(&first, false) && !queue.remove(&third, false), "taken, whole or in part");
    assert_eq!(queue.depth(), Depth { rows: 0, bytes: 0 });
}

/// Many threads push to a queue whose workers start only when they are asked for and leave whenever they find nothing
/// to do: whatever the order of pushing, leaving and coming is, no row is left behind.
#[test]
fn no_row_is_lost_between_workers_that_leave_and_those_that_come() {
    const PUSHERS: usize = 3;
    const ROWS_EACH: usize = 2000;
    const WORKERS: usize = 2;
    let policy = Policy { workers: WORKERS, ..policy() };
    let queue: Queue<Row> = Queue::new(policy, CostModel::new(8));
    let (starts, started) = crossbeam::channel::unbounded();
    queue.begin_absent(WORKERS, move || starts.send(()).unwrap());
    let seen: Vec<AtomicUsize> = (0..PUSHERS * ROWS_EACH).map(|_| AtomicUsize::new(0)).collect();
    let left = AtomicUsize::new(0);
    let work = |worker| {
        let (mut batch, mut dropped) = (Vec::new(), Vec::new());
        loop {
            match queue.wait() {
                Waited::Work => {
                    // Another one may be quicker.
                    let _taken = queue.try_batch(worker, &mut batch, &mut dropped);
                    for row in batch.drain(..).chain(dropped.drain(..)) {
                        seen[row.number].fetch_add(1, Ordering::Relaxed);
                    }
                    queue.finish(worker, Some(Duration::from_micros(3)));
                }
                Waited::Idle => {
                    left.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Waited::Over => return,
            }
        }
    };
    std::thread::scope(|scope| {
        let (queue, work) = (&queue, &work);
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|pusher| {
                scope.spawn(move || {
                    for number in pusher * ROWS_EACH..(pusher + 1) * ROWS_EACH {
                        let mut item = row(number);
                        while let Err((_, back)) = queue.push(Instant::now(), item) {
                            item = back;
                            std::thread::yield_now();
                        }
                        // Whoever is idle now is to leave.
                        queue.let_go(queue.let_go(u64::MAX));
                    }
                })
            })
            .collect();
        let mut coming = 0;
        while !pushers.iter().all(|pusher| pusher.is_finished()) || queue.has_work() {
            if started.recv_timeout(Duration::from_millis(1)).is_ok() {
                let worker = coming % WORKERS;
                scope.spawn(move || work(worker));
                coming += 1;
            }
        }
        queue.close();
    });
    assert!(seen.iter().all(|times| times.load(Ordering::Relaxed) == 1));
    assert!(left.load(Ordering::Relaxed) > 0, "no worker has left");
}
