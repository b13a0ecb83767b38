//! Decides when a batch is ready and who is in it: pure, with no clock, lock or thread.
//!
//! The most urgent go first: by priority, then by deadline. A free worker takes what waits, as many rows as are
//! answered soonest together, unless waiting for one more saves the busy workers more than it costs. Rows that
//! cannot be in time any more are dropped, and so are those that would only make others late.

mod batch;
mod door;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::arrivals::Arrivals;
use crate::backlog::Backlog;
use crate::cost::{CostModel, Margin, ShapeId};
use crate::request::ShapeKey;
use crate::sizing::Sizing;
use crate::waiting::{Entry, Item, Lane, Place, Waiting};

/// The limits of one version's queue and batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Most rows in one batch (at least 1).
    pub(crate) batch_rows_max: usize,
    /// How long the oldest row may wait for others while a worker is free; decided by the cost model if `None`.
    pub(crate) batch_delay: Option<Duration>,
    /// Rows at which a batch closes without waiting for more, ascending.
    pub(crate) preferred_rows: Vec<usize>,
    pub(crate) queue_rows_max: usize,
    pub(crate) queue_bytes_max: usize,
    /// Most predicted run time that waits, shared by the workers.
    pub(crate) queue_time_max: Option<Duration>,
    /// By priority level: most requests that wait.
    pub(crate) queue_requests_max: Vec<Option<usize>>,
    /// Batches that may run at the same time (at least 1).
    pub(crate) workers: usize,
    /// First come, first served, without looking ahead: for comparison.
    pub(crate) is_eager: bool,
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
    Rows {
        waiting: usize,
    },
    Bytes {
        waiting: usize,
    },
    Requests {
        waiting: usize,
        most: usize,
    },
    /// What waits takes so long.
    Time {
        waiting: Duration,
    },
    /// It would be answered after its deadline, so much.
    Late {
        by: Duration,
    },
    /// Its own run takes longer than it has.
    Hopeless,
    Closed,
}

/// Why no more rows joined a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// It has the most rows allowed, or the next request does not fit.
    Full,
    /// It has as many rows as the settings prefer.
    Preferred,
    /// More rows would delay those in it by more than they save.
    Enough,
    /// One more row would break the tightest deadline in it.
    Deadline,
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
pub(crate) struct Former<T> {
    policy: Policy,
    cost: CostModel,
    waiting: Waiting<T>,
    arrivals: Arrivals,
    backlog: Backlog,
    /// What waits take beside what was predicted when they were admitted.
    wait_margin: Margin,
    /// When the next request whose deadline looks too near will be let in to learn from; `None` until one came.
    next_probe_ns: Option<u64>,
    /// What [`Former::admits`] let in last is such a request.
    is_probing: bool,
    /// Who yields to the others of its level, and when.
    yielding: BTreeSet<(u64, Place)>,
    /// By worker.
    running: Vec<Option<Running>>,
    busy: usize,
    /// Batches since the last one that began with the oldest.
    since_oldest: u32,
    /// Items share batches; otherwise each is one by itself, however many rows it has.
    merges: bool,
    closing: bool,
}

/// A batch that a worker has taken.
struct Running {
    rows: usize,
    key: ShapeKey,
    began_ns: u64,
    /// When it is expected to end.
    ends_ns: u64,
    /// The tightest deadline in it that looked as if it could be kept; `u64::MAX` is none.
    promised_ns: u64,
}

/// Shorter waits than a timer of the operating system can be trusted with are not worth it, in nanoseconds.
const WAIT_NS_MIN: f64 = 100_000.0;
/// Of the time that a worker has until a deadline, so much goes by between the run and the caller who reads the answer.
const ANSWER_NS: u64 = 1_000_000;
/// Waits are taken for no more than so many times what was predicted: after a stall, refusing more than that leaves
/// workers idle and brings nobody's answer forward.
const WAIT_MARGIN_MAX: f32 = 2.0;

// === impl CloseReason ===

impl CloseReason {
    pub(crate) const ALL: [CloseReason; 8] = [
        CloseReason::Full,
        CloseReason::Preferred,
        CloseReason::Enough,
        CloseReason::Deadline,
        CloseReason::Drained,
        CloseReason::Shape,
        CloseReason::Delay,
        CloseReason::Closing,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            CloseReason::Full => "full",
            CloseReason::Preferred => "preferred",
            CloseReason::Enough => "enough",
            CloseReason::Deadline => "deadline",
            CloseReason::Drained => "drained",
            CloseReason::Shape => "shape",
            CloseReason::Delay => "delay",
            CloseReason::Closing => "closing",
        }
    }
}

// === impl Former ===

impl<T: Item> Former<T> {
    /// `epoch` comes before every other moment that it will be told.
    pub(crate) fn new(policy: Policy, cost: CostModel, epoch: Instant) -> Former<T> {
        assert!(policy.batch_rows_max >= 1, "a batch holds at least one row; this is a bug");
        assert!(
            policy.queue_rows_max >= policy.batch_rows_max,
            "a queue holds at least one batch; this is a bug"
        );
        let running = (0..policy.workers).map(|_| None).collect();
        Former {
            waiting: Waiting::new(epoch, policy.is_eager),
            policy,
            cost,
            arrivals: Arrivals::default(),
            backlog: Backlog::default(),
            // Six rows in a thousand may be late, so that 99 in 100 are in time.
            wait_margin: Margin::new(0.05, 0.0003, WAIT_MARGIN_MAX),
            next_probe_ns: None,
            is_probing: false,
            yielding: BTreeSet::new(),
            running,
            busy: 0,
            since_oldest: 0,
            merges: true,
            closing: false,
        }
    }

    pub(crate) fn cost(&self) -> &CostModel {
        &self.cost
    }

    pub(crate) fn rows(&self) -> usize {
        self.waiting.rows()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.waiting.bytes()
    }

    /// How long the workers need, by the cost model, for half of what waits.
    pub(crate) fn half_drained(&self) -> Duration {
        Duration::from_nanos(self.backlog.total_ns() / (2 * self.policy.workers as u64))
    }

    /// What waits take beside what was predicted for them.
    pub(crate) fn wait_margin(&self) -> f32 {
        self.wait_margin.factor()
    }

    /// Of what would be taken next.
    pub(crate) fn earliest_deadline(&self) -> Option<Instant> {
        let firsts = self.waiting.lanes().filter_map(|(index, _)| self.waiting.first_in(index));
        let earliest_ns = firsts.map(|slot| self.waiting.entry(slot).deadline_ns).min()?;
        (earliest_ns < u64::MAX).then(|| self.waiting.instant(earliest_ns))
    }

    /// From now on items share batches, or do not.
    pub(crate) fn set_merging(&mut self, merges: bool) {
        self.merges = merges;
    }

    /// Most rows of a batch of several items.
    fn rows_max(&self) -> usize {
        if self.merges { self.policy.batch_rows_max } else { 1 }
    }

    /// From now on nothing is admitted and nothing waits for company.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// Adds an item that [`Former::admits`] has let in.
    pub(crate) fn add(&mut self, item: T) -> Place {
        let rows = item.rows();
        assert!(rows >= 1, "an item has rows; this is a bug");
        let yield_at = item.due().yield_at;
        let shape = self.cost.shape_id(item.shape_key());
        let place = self.waiting.add(item, &self.cost);
        let entry = self.waiting.entry_mut(place.slot());
        let cost_ns = rows as u64 * self.cost.row_ns(shape);
        entry.charge = self.backlog.add(entry.rank.level, entry.rank.due_ns, cost_ns);
        entry.is_probe = self.is_probing;
        if let Some(yield_at) = yield_at {
            self.yielding.insert((self.waiting.at(yield_at), place));
        }
        place
    }

    /// Takes back what nobody waits for any more, because its deadline has passed or because its caller has left;
    /// `None` if it has been taken already.
    pub(crate) fn remove(&mut self, place: Place, is_late: bool) -> Option<T> {
        let entry = self.waiting.remove(place)?;
        if is_late && !entry.is_probe {
            self.wait_margin.missed();
        }
        Some(self.forget(place, entry))
    }

    fn forget(&mut self, place: Place, entry: Entry<T>) -> T {
        self.backlog.remove(entry.rank.level, entry.charge);
        if let Some(yield_at) = entry.item.due().yield_at {
            self.yielding.remove(&(self.waiting.at(yield_at), place));
        }
        entry.item
    }

    pub(crate) fn poll(&self, now: Instant) -> Decision {
        let now_ns = self.waiting.at(now);
        match self.waiting.lanes().map(|(_, lane)| self.ready_ns(lane, now_ns)).min() {
            None => Decision::Idle,
            Some(ready_ns) if ready_ns <= now_ns => Decision::Run,
            Some(ready_ns) => Decision::WaitUntil(self.waiting.instant(ready_ns)),
        }
    }

    /// The batch that `worker` has taken is over. `took` is how long it ran, if that says something of others.
    pub(crate) fn finish(&mut self, worker: usize, took: Option<Duration>) {
        let Some(batch) = self.running[worker].take() else { return };
        self.busy -= 1;
        if let Some(took) = took {
            let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.cost.record(batch.rows, &batch.key, took_ns);
            if batch.promised_ns != u64::MAX {
                let answered_ns = batch.began_ns.saturating_add(took_ns).saturating_add(ANSWER_NS);
                match answered_ns > batch.promised_ns {
                    true => self.wait_margin.missed(),
                    false => self.wait_margin.met(batch.rows),
                }
            }
        }
    }

    /// When a free worker need not wait any longer for more rows of this lane; the past is at once.
    fn ready_ns(&self, lane: &Lane, now_ns: u64) -> u64 {
        let is_explicit = self.policy.batch_delay.is_some();
        if self.closing || !self.merges || self.policy.is_eager || (!is_explicit && self.busy == 0) {
            return 0;
        }
        let oldest_ns = self.waiting.oldest_ns(lane);
        let ready_ns = match self.policy.batch_delay {
            _ if lane.rows >= self.policy.batch_rows_max => return 0,
            Some(_) if self.policy.preferred_rows.first().is_some_and(|rows| lane.rows >= *rows) => return 0,
            Some(delay) => oldest_ns.saturating_add(delay.as_nanos() as u64),
            None => {
                // As in renting skis: waiting costs the rows here at most what it could have saved.
                let sizing = self.sizing(lane.shape, now_ns);
                let saved_ns = sizing.saved_by_one_more(lane.rows);
                let cost_ns = lane.rows as f64 / sizing.arrival_rate;
                match saved_ns >= WAIT_NS_MIN && cost_ns < saved_ns {
                    true => oldest_ns.saturating_add(saved_ns as u64),
                    false => return 0,
                }
            }
        };
        // What is most urgent does not wait beyond its last chance in the batch that there will be by then.
        let first = lane.first().map_or(u64::MAX, |slot| self.waiting.entry(slot).deadline_ns);
        let joining = ready_ns.saturating_sub(now_ns) as f64 * self.arrivals.rate(now_ns);
        let rows = lane.rows.saturating_add(joining.ceil() as usize).min(self.policy.batch_rows_max);
        ready_ns.min(first.saturating_sub(self.cost.predict(rows, lane.shape).high_ns))
    }

    fn sizing(&self, shape: ShapeId, now_ns: u64) -> Sizing<'_> {
        Sizing {
            cost: &self.cost,
            shape,
            rows_max: self.rows_max(),
            workers: self.policy.workers,
            arrival_rate: self.arrivals.rate(now_ns),
        }
    }
}

#[cfg(test)]
#[path = "former_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "former_script.rs"]
mod script;
#[cfg(test)]
#[path = "former_tests.rs"]
mod tests;
