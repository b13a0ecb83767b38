//! Who is let in: what the bounds of the queue allow, and what is expected to be in time.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::{Former, Refusal, Running};
use crate::admission::{Outlook, left_ns};
use crate::waiting::Item;

/// Requests whose deadlines look too near may take this part of a worker's time to learn whether they are: run times
/// that were measured badly would else never be measured again.
const PROBE_PART: u64 = 20;
/// They come no more often than this, in nanoseconds.
const PROBE_PAUSE_NS_MIN: u64 = 100_000_000;

// === impl Former ===

impl<T: Item> Former<T> {
    /// Whether `items`, which belong together, may join what waits.
    pub(crate) fn admits(&mut self, now: Instant, items: &[T]) -> Result<(), Refusal> {
        let rows = items.iter().map(Item::rows).sum::<usize>();
        let bytes = items.iter().map(Item::bytes).sum::<usize>();
        let now_ns = self.waiting.at(now);
        self.arrivals.add(now_ns, rows);
        self.is_probing = false;
        let Some(last) = items.last() else { return Ok(()) };
        let level = last.due().level;
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
        } else if self.policy.is_eager {
            Ok(())
        } else {
            self.is_in_time(now_ns, rows, last)
        }
    }

    /// Whether a request of so many rows is expected to be in time, and what waits to stay within its bound. `last` is
    /// all of it, or the last of its parts: those before go before it.
    fn is_in_time(&mut self, now_ns: u64, rows: usize, last: &T) -> Result<(), Refusal> {
        self.backlog.advance(now_ns);
        let shape = self.cost.shape_id(last.shape_key());
        let row_ns = self.cost.row_ns(shape);
        // Nothing is known of such rows yet: they are let in to learn from.
        if row_ns == 0 {
            return Ok(());
        }
        let workers = self.policy.workers as u64;
        if let Some(most) = self.policy.queue_time_max
            && !self.waiting.is_empty()
        {
            let waiting_ns = self.backlog.total_ns() / workers;
            if u128::from(waiting_ns + rows as u64 * row_ns / workers) > most.as_nanos() {
                return Err(Refusal::Time { waiting: Duration::from_nanos(waiting_ns) });
            }
        }
        let Some(deadline) = last.due().deadline else { return Ok(()) };
        let deadline_ns = self.waiting.at(deadline);
        let slack_ns = deadline_ns.saturating_sub(now_ns);
        let own_ns = (rows - last.rows()) as u64 * row_ns;
        if self.cost.predict(last.rows(), shape).typical_ns + own_ns / workers > slack_ns {
            return self.probe(now_ns, slack_ns);
        }
        let others_ns = self.backlog.ahead_ns(last.due().level, deadline_ns);
        // At once is the best that can be done: it is tried although one run in a hundred may take too long.
        if others_ns == 0 && (self.busy == 0 || own_ns == 0 && self.busy < self.policy.workers) {
            return Ok(());
        }
        let ahead_ns = others_ns + own_ns;
        let rows_ahead = usize::try_from(ahead_ns / row_ns).unwrap_or(usize::MAX);
        let together = last.rows().saturating_add(rows_ahead).min(self.cost.efficient_rows(shape));
        let left = |running: &Option<Running>| running.as_ref().map_or(0, |run| left_ns(run.ends_ns, now_ns));
        let outlook = Outlook {
            workers_left_ns: self.running.iter().map(left).collect::<SmallVec<_>>(),
            ahead_ns,
            run_ns: self.cost.predict(together.max(last.rows()), shape).high_ns,
            wait_margin: self.wait_margin.factor(),
        };
        match outlook.finish_ns().checked_sub(slack_ns) {
            None | Some(0) => Ok(()),
            Some(by_ns) => Err(Refusal::Late { by: Duration::from_nanos(by_ns) }),
        }
    }

    /// Refuses what cannot be in time even alone, unless it is time to learn whether that is still so. A run is
    /// stopped at its last deadline, so a probe takes hardly more than its slack.
    fn probe(&mut self, now_ns: u64, slack_ns: u64) -> Result<(), Refusal> {
        let is_time = self.next_probe_ns.is_some_and(|next_ns| next_ns <= now_ns);
        if is_time || self.next_probe_ns.is_none() {
            let pause_ns = slack_ns.saturating_mul(PROBE_PART).max(PROBE_PAUSE_NS_MIN);
            self.next_probe_ns = Some(now_ns.saturating_add(pause_ns));
        }
        self.is_probing = is_time;
        if is_time { Ok(()) } else { Err(Refusal::Hopeless) }
    }
}
