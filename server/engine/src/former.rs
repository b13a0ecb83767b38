//! Decides when a batch is ready and who is in it: pure, with no clock, lock or thread.
//!
//! The most urgent go first: by priority, then by deadline. A free worker takes what waits, as many rows as are
//! answered soonest together, unless waiting for one more saves the busy workers more than it costs. Rows that
//! cannot be in time any more are dropped, and so are those that would only make others late.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::arrivals::Arrivals;
use crate::cost::{CostModel, ShapeId};
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
    Rows { waiting: usize },
    Bytes { waiting: usize },
    Requests { waiting: usize, most: usize },
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
    /// Who yields to the others of its level, and when.
    yielding: BTreeSet<(u64, Place)>,
    /// By worker.
    running: Vec<Option<Running>>,
    busy: usize,
    /// Batches since the last one that began with the oldest.
    since_oldest: u32,
    closing: bool,
}

/// A batch that a worker has taken.
struct Running {
    rows: usize,
    key: ShapeKey,
}

/// How many rows a batch gets if enough wait, and why no more.
#[derive(Clone, Copy)]
struct Target {
    rows: usize,
    reason: CloseReason,
}

/// What becomes of an item that a batch comes to.
enum Verdict {
    Join,
    Drop,
    Close(CloseReason),
}

/// What has waited for so long is overlooked: it may have to go before what is more urgent ...
const PATIENCE_NS: u64 = 1_000_000_000;
/// ... but only in one of so many batches, so that what is more urgent keeps most of the workers.
const OVERLOOKED_EVERY: u32 = 8;
/// Shorter waits than a timer of the operating system can be trusted with are not worth it, in nanoseconds.
const WAIT_NS_MIN: f64 = 100_000.0;

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
            yielding: BTreeSet::new(),
            running,
            busy: 0,
            since_oldest: 0,
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
        let row_ns = self.cost.row_ns(ShapeId::All);
        Duration::from_nanos(row_ns * self.rows() as u64 / (2 * self.policy.workers as u64))
    }

    /// From now on nothing is admitted and nothing waits for company.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// Whether `items`, which belong together, may join what waits.
    pub(crate) fn admits(&mut self, now: Instant, items: &[T]) -> Result<(), Refusal> {
        let rows = items.iter().map(Item::rows).sum::<usize>();
        let bytes = items.iter().map(Item::bytes).sum::<usize>();
        self.arrivals.add(self.waiting.at(now), rows);
        let level = items.first().map_or(0, |item| item.due().level);
        let requests = self.waiting.items(level);
        let requests_max = self.policy.queue_requests_max.get(usize::from(level)).copied().flatten();
        if self.closing {
            Err(Refusal::Closed)
        } else if self.rows() + rows > self.policy.queue_rows_max {
            Err(Refusal::Rows { waiting: self.rows() })
        } else if self.bytes() + bytes > self.policy.queue_bytes_max {
            Err(Refusal::Bytes { waiting: self.bytes() })
        } else if let Some(most) = requests_max.filter(|most| requests + items.len() > *most) {
            Err(Refusal::Requests { waiting: requests, most })
        } else {
            Ok(())
        }
    }

    /// Adds an item that [`Former::admits`] has let in.
    pub(crate) fn add(&mut self, item: T) -> Place {
        let rows = item.rows();
        assert!(rows >= 1 && rows <= self.policy.batch_rows_max, "an item fits one batch; this is a bug");
        let yield_at = item.due().yield_at;
        let place = self.waiting.add(item, &self.cost);
        if let Some(yield_at) = yield_at {
            self.yielding.insert((self.waiting.at(yield_at), place));
        }
        place
    }

    /// Takes back what nobody waits for any more; `None` if it has been taken already.
    pub(crate) fn remove(&mut self, place: Place) -> Option<T> {
        let entry = self.waiting.remove(place)?;
        Some(self.forget(place, entry))
    }

    fn forget(&mut self, place: Place, entry: Entry<T>) -> T {
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

    /// Moves the next batch, for `worker`, into `batch`, and into `dropped` those on the way that cannot be in time
    /// any more or were abandoned. `batch` stays empty when only such items were met.
    ///
    /// Must follow a [`Former::poll`] at `now` that said `Run`.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        worker: usize,
        batch: &mut Vec<T>,
        dropped: &mut Vec<T>,
    ) -> CloseReason {
        let now_ns = self.waiting.at(now);
        self.let_yield(now_ns);
        let (index, mut next) = self.choose(now_ns).expect("poll said Run; this is a bug");
        let lane = self.waiting.lane_at(index);
        let key = lane.key.clone();
        let target = self.target(lane, now_ns);
        let (mut rows, mut tightest_ns) = (0, u64::MAX);
        let reason = loop {
            match self.verdict(next, index, target, rows, tightest_ns, now_ns) {
                Verdict::Close(reason) => break reason,
                Verdict::Drop => dropped.push(self.remove_slot(next)),
                Verdict::Join => {
                    tightest_ns = tightest_ns.min(self.waiting.entry(next).deadline_ns);
                    let item = self.remove_slot(next);
                    rows += item.rows();
                    batch.push(item);
                }
            }
            match self.waiting.first_in(index) {
                Some(slot) => next = slot,
                None => break self.reason_at_the_end(rows, target),
            }
        };
        if rows > 0 {
            self.busy += usize::from(self.running[worker].is_none());
            self.running[worker] = Some(Running { rows, key });
        }
        reason
    }

    /// The batch that `worker` has taken is over. `took` is how long it ran, if that says something of others.
    pub(crate) fn finish(&mut self, worker: usize, took: Option<Duration>) {
        let Some(batch) = self.running[worker].take() else { return };
        self.busy -= 1;
        if let Some(took) = took {
            let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.cost.record(batch.rows, &batch.key, took_ns);
        }
    }

    fn remove_slot(&mut self, slot: u32) -> T {
        let entry = self.waiting.remove_slot(slot);
        self.forget(entry.place(slot), entry)
    }

    /// Queue policies' timeouts that delay instead of refusing.
    fn let_yield(&mut self, now_ns: u64) {
        while let Some(&(yield_ns, place)) = self.yielding.first()
            && yield_ns <= now_ns
        {
            self.yielding.pop_first();
            self.waiting.yield_to_others(place);
        }
    }

    /// When a free worker need not wait any longer for more rows of this lane; the past is at once.
    fn ready_ns(&self, lane: &Lane, now_ns: u64) -> u64 {
        let is_explicit = self.policy.batch_delay.is_some();
        if self.closing || self.policy.is_eager || (!is_explicit && self.busy == 0) {
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
        // What is most urgent does not wait beyond its last chance.
        let first = lane.first().map_or(u64::MAX, |slot| self.waiting.entry(slot).deadline_ns);
        ready_ns.min(first.saturating_sub(self.cost.predict(lane.rows, lane.shape).high_ns))
    }

    /// The lane whose turn it is, and what its batch begins with.
    fn choose(&mut self, now_ns: u64) -> Option<(usize, u32)> {
        self.since_oldest += 1;
        if self.since_oldest > OVERLOOKED_EVERY
            && let Some(overlooked) = self.overlooked(now_ns)
        {
            self.since_oldest = 0;
            return Some(overlooked);
        }
        let rank = |(_, lane): &(usize, &Lane)| lane.first().map(|slot| self.waiting.entry(slot).rank);
        // Yielding to others, which comes between poll and here, can have taken away what made a lane ready.
        let ready = self.ready_lanes(now_ns).min_by_key(rank);
        let (index, lane) = ready.or_else(|| self.waiting.lanes().min_by_key(rank))?;
        Some((index, lane.first()?))
    }

    /// The oldest, if it has waited too long.
    fn overlooked(&self, now_ns: u64) -> Option<(usize, u32)> {
        let oldest_ns = |(_, lane): &(usize, &Lane)| self.waiting.oldest_ns(lane);
        let (index, lane) = self.ready_lanes(now_ns).min_by_key(oldest_ns)?;
        let is_overlooked = self.waiting.oldest_ns(lane) + PATIENCE_NS <= now_ns && !self.policy.is_eager;
        is_overlooked.then_some((index, lane.oldest()?))
    }

    fn ready_lanes(&self, now_ns: u64) -> impl Iterator<Item = (usize, &Lane)> {
        self.waiting.lanes().filter(move |(_, lane)| self.ready_ns(lane, now_ns) <= now_ns)
    }

    /// How many rows the lane's next batch should have.
    fn target(&self, lane: &Lane, now_ns: u64) -> Target {
        let full = Target { rows: self.policy.batch_rows_max, reason: CloseReason::Full };
        if self.policy.is_eager || self.closing {
            return full;
        }
        let delay_ns = self.policy.batch_delay.map_or(0, |delay| delay.as_nanos() as u64);
        let is_overdue = delay_ns > 0 && self.waiting.oldest_ns(lane).saturating_add(delay_ns) <= now_ns;
        match self.policy.preferred_rows.iter().rfind(|rows| **rows <= lane.rows) {
            Some(&rows) if !is_overdue => Target { rows, reason: CloseReason::Preferred },
            None if self.policy.batch_delay.is_none() && self.policy.preferred_rows.is_empty() => {
                let free = self.policy.workers - self.busy;
                let rows = self.sizing(lane.shape, now_ns).soonest(lane.rows, free);
                if rows == full.rows { full } else { Target { rows, reason: CloseReason::Enough } }
            }
            _ => full,
        }
    }

    fn sizing(&self, shape: ShapeId, now_ns: u64) -> Sizing<'_> {
        Sizing {
            cost: &self.cost,
            shape,
            rows_max: self.policy.batch_rows_max,
            workers: self.policy.workers,
            arrival_rate: self.arrivals.rate(now_ns),
        }
    }

    fn verdict(
        &self,
        slot: u32,
        lane: usize,
        target: Target,
        rows: usize,
        tightest_ns: u64,
        now_ns: u64,
    ) -> Verdict {
        let entry = self.waiting.entry(slot);
        let item = &entry.item;
        if entry.expires_ns <= now_ns || item.is_abandoned() {
            return Verdict::Drop;
        }
        let shape = self.waiting.lane_at(lane).shape;
        let looks_ahead = !self.policy.is_eager && entry.deadline_ns != u64::MAX;
        let ends_ns = |rows: usize| now_ns + self.cost.predict(rows, shape).high_ns;
        if looks_ahead && now_ns + self.cost.predict(item.rows(), shape).typical_ns > entry.deadline_ns {
            return Verdict::Drop;
        }
        let together = rows + item.rows();
        if together > self.policy.batch_rows_max {
            return Verdict::Close(CloseReason::Full);
        }
        if rows == 0 {
            let spoils = looks_ahead && self.spoils(entry, lane, now_ns);
            return if spoils { Verdict::Drop } else { Verdict::Join };
        }
        if together > target.rows {
            return Verdict::Close(target.reason);
        }
        let tightest_ns = tightest_ns.min(entry.deadline_ns);
        if tightest_ns != u64::MAX && !self.policy.is_eager && ends_ns(together) > tightest_ns {
            return Verdict::Close(CloseReason::Deadline);
        }
        Verdict::Join
    }

    /// Whether a batch that begins with `first` makes later ones late: because of its deadline only few rows can
    /// join it, batches so small do not keep up with what arrives, and others that could fill a larger one would not be
    /// in time any more after it (Nexus' early drop, SOSP'19).
    fn spoils(&self, first: &Entry<T>, lane: usize, now_ns: u64) -> bool {
        let lane = self.waiting.lane_at(lane);
        let sizing = self.sizing(lane.shape, now_ns);
        let rows = sizing.within(first.deadline_ns - now_ns).max(first.item.rows());
        if rows >= lane.rows {
            return false;
        }
        let wanted = sizing.keeping_up();
        if rows >= wanted {
            return false;
        }
        let after_ns = now_ns + self.cost.predict(rows, lane.shape).typical_ns;
        let run_ns = self.cost.predict(wanted, lane.shape).high_ns;
        let mut others = 0;
        for slot in lane.from(first.rank.level, now_ns + run_ns) {
            let other = self.waiting.entry(slot);
            if others == 0 && other.deadline_ns >= after_ns + run_ns {
                // Not even the first of them is hurt.
                return false;
            }
            others += other.item.rows();
            if others >= wanted {
                return true;
            }
        }
        false
    }

    /// Why a batch closes when nothing of its lane is left.
    fn reason_at_the_end(&self, rows: usize, target: Target) -> CloseReason {
        if rows >= target.rows {
            target.reason
        } else if self.closing {
            CloseReason::Closing
        } else if self.policy.batch_delay.is_some_and(|delay| !delay.is_zero()) {
            CloseReason::Delay
        } else if self.waiting.is_empty() {
            CloseReason::Drained
        } else {
            CloseReason::Shape
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
