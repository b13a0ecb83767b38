//! Decides when a batch is ready and who is in it: pure, with no clock, lock or thread.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::cost::{CostModel, ShapeId};
use crate::request::ShapeKey;

/// What the former needs to know of something that waits.
pub(crate) trait Item {
    fn rows(&self) -> usize;
    fn bytes(&self) -> usize;
    fn shape_key(&self) -> &ShapeKey;
    fn arrived(&self) -> Instant;
    fn deadline(&self) -> Option<Instant>;
    /// Nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
}

/// The limits of one version's queue and batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Most rows in one batch (at least 1).
    pub(crate) batch_rows_max: usize,
    /// How long the oldest row may wait for others while a worker is free; zero never waits.
    pub(crate) batch_delay: Duration,
    pub(crate) queue_rows_max: usize,
    pub(crate) queue_bytes_max: usize,
    /// Batches that may run at the same time (at least 1).
    pub(crate) workers: usize,
}

/// What a free worker should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Run,
    WaitUntil(Instant),
    Idle,
}

/// Which bound an item would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Rows { waiting: usize },
    Bytes { waiting: usize },
    Closed,
}

/// Why no more rows joined a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// It has the most rows allowed, or the next request does not fit.
    Full,
    /// A worker was free and took all that waited.
    Drained,
    /// All that could join did; what still waits has other shapes.
    Shape,
    /// The delay was over before the batch was full.
    Delay,
    /// The queue was closed, so waiting had no point.
    Closing,
}

/// Rows that wait, in one lane for each shape, so that shapes never block each other.
///
/// Lanes are found by a linear scan: models rarely see more than a handful of shapes at once, and
/// the queue's row bound caps the worst case.
pub(crate) struct Former<T> {
    policy: Policy,
    cost: CostModel,
    lanes: Vec<Lane<T>>,
    rows: usize,
    bytes: usize,
    closing: bool,
    /// By worker.
    running: Vec<Option<Running>>,
}

/// A batch that a worker has taken.
struct Running {
    rows: usize,
    key: ShapeKey,
}

struct Lane<T> {
    key: ShapeKey,
    items: VecDeque<T>,
    rows: usize,
}

// === impl CloseReason ===

impl CloseReason {
    pub(crate) const ALL: [CloseReason; 5] = [
        CloseReason::Full,
        CloseReason::Drained,
        CloseReason::Shape,
        CloseReason::Delay,
        CloseReason::Closing,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            CloseReason::Full => "full",
            CloseReason::Drained => "drained",
            CloseReason::Shape => "shape",
            CloseReason::Delay => "delay",
            CloseReason::Closing => "closing",
        }
    }
}

// === impl Former ===

impl<T: Item> Former<T> {
    pub(crate) fn new(policy: Policy, cost: CostModel) -> Former<T> {
        assert!(policy.batch_rows_max >= 1, "a batch holds at least one row; this is a bug");
        assert!(
            policy.queue_rows_max >= policy.batch_rows_max,
            "a queue holds at least one batch; this is a bug"
        );
        let running = (0..policy.workers).map(|_| None).collect();
        Former { policy, cost, lanes: Vec::new(), rows: 0, bytes: 0, closing: false, running }
    }

    pub(crate) fn cost(&self) -> &CostModel {
        &self.cost
    }

    /// How long the workers need, by the cost model, for half of what waits.
    pub(crate) fn half_drained(&self) -> Duration {
        let row_ns = self.cost.row_ns(self.policy.batch_rows_max, ShapeId::All);
        Duration::from_nanos(row_ns * self.rows as u64 / (2 * self.policy.workers as u64))
    }

    /// The batch that `worker` has taken is over. `took` is how long it ran, if that says something of others.
    pub(crate) fn finish(&mut self, worker: usize, took: Option<Duration>) {
        if let (Some(batch), Some(took)) = (self.running[worker].take(), took) {
            let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.cost.record(batch.rows, &batch.key, took_ns);
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// From now on nothing is admitted and nothing waits for company.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// Whether `rows` rows of `bytes` bytes may join what waits.
    pub(crate) fn admits(&self, rows: usize, bytes: usize) -> Result<(), Refusal> {
        if self.closing {
            Err(Refusal::Closed)
        } else if self.rows + rows > self.policy.queue_rows_max {
            Err(Refusal::Rows { waiting: self.rows })
        } else if self.bytes + bytes > self.policy.queue_bytes_max {
            Err(Refusal::Bytes { waiting: self.bytes })
        } else {
            Ok(())
        }
    }

    /// Adds an item that [`Former::admits`] has let in.
    pub(crate) fn add(&mut self, item: T) {
        let (rows, bytes) = (item.rows(), item.bytes());
        assert!(rows >= 1 && rows <= self.policy.batch_rows_max, "an item fits one batch; this is a bug");
        self.rows += rows;
        self.bytes += bytes;
        match self.lanes.iter_mut().find(|lane| lane.key == *item.shape_key()) {
            Some(lane) => {
                lane.rows += rows;
                lane.items.push_back(item);
            }
            None => {
                let key = item.shape_key().clone();
                self.lanes.push(Lane { key, items: VecDeque::from([item]), rows });
            }
        }
    }

    pub(crate) fn poll(&self, now: Instant) -> Decision {
        if self.is_empty() {
            return Decision::Idle;
        }
        if self.ready_lane(now).is_some() {
            return Decision::Run;
        }
        let oldest = self.lanes.iter().filter_map(Lane::oldest).min();
        Decision::WaitUntil(
            oldest.expect("rows wait, so a lane has an item; this is a bug") + self.policy.batch_delay,
        )
    }

    /// Moves the next batch, for `worker`, into `batch`, and into `dropped` those on the way whose deadline has
    /// passed or who were abandoned. `batch` stays empty when only such items were met.
    ///
    /// Must follow a [`Former::poll`] at `now` that said `Run`.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        worker: usize,
        batch: &mut Vec<T>,
        dropped: &mut Vec<T>,
    ) -> CloseReason {
        let index = self.ready_lane(now).expect("poll said Run; this is a bug");
        let lane = &mut self.lanes[index];
        let mut rows = 0;
        let mut full = false;
        while let Some(item) = lane.items.pop_front() {
            let passed = item.deadline().is_some_and(|deadline| deadline <= now);
            let unwanted = passed || item.is_abandoned();
            if !unwanted && rows + item.rows() > self.policy.batch_rows_max {
                lane.items.push_front(item);
                full = true;
                break;
            }
            lane.rows -= item.rows();
            self.rows -= item.rows();
            self.bytes -= item.bytes();
            if unwanted {
                dropped.push(item);
            } else {
                rows += item.rows();
                batch.push(item);
            }
        }
        self.running[worker] = (rows > 0).then(|| Running { rows, key: lane.key.clone() });
        if lane.items.is_empty() {
            self.lanes.swap_remove(index);
        }
        if full || rows == self.policy.batch_rows_max {
            CloseReason::Full
        } else if self.closing {
            CloseReason::Closing
        } else if !self.policy.batch_delay.is_zero() {
            CloseReason::Delay
        } else if self.lanes.is_empty() {
            CloseReason::Drained
        } else {
            CloseReason::Shape
        }
    }

    /// The lane with the oldest item among those that need not wait longer.
    fn ready_lane(&self, now: Instant) -> Option<usize> {
        self.lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| {
                self.closing
                    || lane.rows >= self.policy.batch_rows_max
                    || lane.oldest().is_some_and(|oldest| oldest + self.policy.batch_delay <= now)
            })
            .min_by_key(|(_, lane)| lane.oldest())
            .map(|(index, _)| index)
    }
}

impl<T: Item> Lane<T> {
    fn oldest(&self) -> Option<Instant> {
        self.items.front().map(Item::arrived)
    }
}

#[cfg(test)]
#[path = "former_tests.rs"]
mod tests;
