//! Who is in the next batch: whose turn it is, how many rows, and who is left out or dropped.

use std::time::Instant;

use super::{CloseReason, Former, Running};
use crate::cost::ShapeId;
use crate::waiting::{Entry, Item, Lane};

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
pub(super) const PATIENCE_NS: u64 = 1_000_000_000;
/// ... but only in one of so many batches, so that what is more urgent keeps most of the workers.
pub(super) const OVERLOOKED_EVERY: u32 = 8;
/// A batch that is smaller than those that keep up harms nobody if it takes at least this part of their rows a second:
/// what was promised to its rows weighs more than the rest.
const HARMLESS: f64 = 0.8;

// === impl Former ===

impl<T: Item> Former<T> {
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
        self.backlog.advance(now_ns);
        self.let_yield(now_ns);
        let (index, mut next) = self.choose(now_ns).expect("poll said Run; this is a bug");
        let lane = self.waiting.lane_at(index);
        let (key, shape) = (lane.key.clone(), lane.shape);
        let target = self.target(lane, now_ns);
        let (mut rows, mut tightest_ns, mut promised_ns) = (0, u64::MAX, u64::MAX);
        let reason = loop {
            match self.verdict(next, index, target, rows, tightest_ns, now_ns) {
                Verdict::Close(reason) => break reason,
                Verdict::Drop => dropped.push(self.drop_slot(next, shape, now_ns)),
                Verdict::Join => {
                    let entry = self.waiting.entry(next);
                    tightest_ns = tightest_ns.min(entry.deadline_ns);
                    if !entry.is_probe {
                        promised_ns = promised_ns.min(entry.deadline_ns);
                    }
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
            let ends_ns = now_ns + self.cost.predict(rows, shape).typical_ns;
            self.running[worker] = Some(Running { rows, key, began_ns: now_ns, ends_ns, promised_ns });
        }
        reason
    }

    /// Takes out what is not to run. If it was let in for a deadline that cannot be kept now, waits take longer than
    /// was predicted.
    fn drop_slot(&mut self, slot: u32, shape: ShapeId, now_ns: u64) -> T {
        let entry = self.waiting.entry(slot);
        if !entry.is_probe && !entry.item.is_abandoned() && self.is_late(entry, shape, now_ns) {
            self.wait_margin.missed();
        }
        self.remove_slot(slot)
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
        let full = Target { rows: self.rows_max(), reason: CloseReason::Full };
        if self.policy.is_eager || self.closing || !self.merges {
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
        let looks_ahead = !self.policy.is_eager && !entry.is_probe && entry.deadline_ns != u64::MAX;
        let ends_ns = |rows: usize| now_ns + self.cost.predict(rows, shape).high_ns;
        if looks_ahead && self.is_late(entry, shape, now_ns) {
            return Verdict::Drop;
        }
        // The first is in whatever it has: it was cut to fit, or is to run whole.
        if rows == 0 {
            let spoils = looks_ahead && self.spoils(entry, lane, now_ns);
            return if spoils { Verdict::Drop } else { Verdict::Join };
        }
        if self.waiting.lane_at(lane).key.is_alone() {
            return Verdict::Close(CloseReason::Shape);
        }
        let together = rows + item.rows();
        if together > self.rows_max() {
            return Verdict::Close(CloseReason::Full);
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

    /// Whether it would be answered too late even if it ran now, alone.
    fn is_late(&self, entry: &Entry<T>, shape: ShapeId, now_ns: u64) -> bool {
        now_ns.saturating_add(self.cost.predict(entry.item.rows(), shape).typical_ns) > entry.deadline_ns
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
        if rows >= wanted || sizing.rate(rows) >= sizing.rate(wanted) * HARMLESS {
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
