//! Schedulers of other servers, to be compared with: as simple as they are described, each given the benefit of the doubt.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Next, Part, Scheduler, nanos};

/// First come, first served: a free worker takes what waits (TF Serving with a delay of 0, TEI; Triton's dynamic
/// batcher without settings).
pub struct EagerFifo {
    queue: Fifo,
    /// What is past its deadline is left out of batches; Triton, without a queue policy, runs it.
    expires: bool,
}

/// First come, first served, in full batches, or when the oldest has waited long enough: Triton's
/// `max_queue_delay_microseconds`, with a queue policy that refuses what is past its deadline.
pub struct FixedDelay {
    queue: Fifo,
    delay_ns: u64,
}

/// Clipper's adaptive batching (NSDI '17): the largest batch grows by a row while batches are answered within the
/// objective, and shrinks by a tenth when one is not. What is past its deadline is left out, as its released code does.
pub struct AdditiveIncrease {
    queue: Fifo,
    objective: Duration,
    rows: f64,
}

/// Run times predicted by a straight line through recent runs, as in Nexus (SOSP '19), Clockwork (OSDI '20) and
/// BentoML: the first in line decides how large a batch can be, and is dropped when it cannot be in time even alone.
pub struct LinearFit {
    queue: Fifo,
    fit: Line,
}

/// What waits, in the order of arrival.
struct Fifo {
    parts: VecDeque<Part>,
    rows: usize,
    rows_max: usize,
}

/// Least squares of run time by rows, in which old runs weigh less.
#[derive(Default)]
struct Line {
    weight: f64,
    rows: f64,
    rows_squared: f64,
    ns: f64,
    rows_ns: f64,
}

/// Clipper's.
const DECREASE: f64 = 0.9;
/// A run's weight falls to 1/e while so many follow, as in the cost model's histograms.
const MEMORY_RUNS: f64 = 256.0;

// === impl EagerFifo ===

impl EagerFifo {
    pub fn new(rows_max: usize, expires: bool) -> EagerFifo {
        EagerFifo { queue: Fifo::new(rows_max), expires }
    }
}

impl Scheduler for EagerFifo {
    fn rows_max(&self) -> usize {
        self.queue.rows_max
    }

    fn arrive(&mut self, _now_ns: u64, parts: &[Part]) -> bool {
        self.queue.add(parts)
    }

    fn poll(&self, _now_ns: u64) -> Next {
        self.queue.at_once()
    }

    fn take(&mut self, now_ns: u64, _worker: usize, batch: &mut Vec<Part>, dropped: &mut Vec<Part>) {
        let now_ns = if self.expires { now_ns } else { 0 };
        self.queue.take(self.queue.rows_max, now_ns, batch, dropped);
    }
}

// === impl FixedDelay ===

impl FixedDelay {
    pub fn new(rows_max: usize, delay: Duration) -> FixedDelay {
        FixedDelay { queue: Fifo::new(rows_max), delay_ns: nanos(delay) }
    }
}

impl Scheduler for FixedDelay {
    fn rows_max(&self) -> usize {
        self.queue.rows_max
    }

    fn arrive(&mut self, _now_ns: u64, parts: &[Part]) -> bool {
        self.queue.add(parts)
    }

    fn poll(&self, now_ns: u64) -> Next {
        match self.queue.parts.front() {
            None => Next::Idle,
            Some(_) if self.queue.rows >= self.queue.rows_max => Next::Run,
            Some(oldest) if oldest.arrived_ns.saturating_add(self.delay_ns) <= now_ns => Next::Run,
            Some(oldest) => Next::WaitUntil(oldest.arrived_ns.saturating_add(self.delay_ns)),
        }
    }

    fn take(&mut self, now_ns: u64, _worker: usize, batch: &mut Vec<Part>, dropped: &mut Vec<Part>) {
        self.queue.take(self.queue.rows_max, now_ns, batch, dropped);
    }
}

// === impl AdditiveIncrease ===

impl AdditiveIncrease {
    /// `objective` is what a batch may take.
    pub fn new(rows_max: usize, objective: Duration) -> AdditiveIncrease {
        AdditiveIncrease { queue: Fifo::new(rows_max), objective, rows: 1.0 }
    }
}

impl Scheduler for AdditiveIncrease {
    fn rows_max(&self) -> usize {
        self.queue.rows_max
    }

    fn arrive(&mut self, _now_ns: u64, parts: &[Part]) -> bool {
        self.queue.add(parts)
    }

    fn poll(&self, _now_ns: u64) -> Next {
        self.queue.at_once()
    }

    fn take(&mut self, now_ns: u64, _worker: usize, batch: &mut Vec<Part>, dropped: &mut Vec<Part>) {
        self.queue.take(self.rows as usize, now_ns, batch, dropped);
    }

    fn finish(&mut self, _worker: usize, rows: usize, took: Duration) {
        if took > self.objective {
            self.rows = (self.rows * DECREASE).max(1.0);
        } else if rows >= self.rows as usize {
            self.rows = (self.rows + 1.0).min(self.queue.rows_max as f64);
        }
    }
}

// === impl LinearFit ===

impl LinearFit {
    pub fn new(rows_max: usize) -> LinearFit {
        LinearFit { queue: Fifo::new(rows_max), fit: Line::default() }
    }
}

impl Scheduler for LinearFit {
    fn rows_max(&self) -> usize {
        self.queue.rows_max
    }

    fn arrive(&mut self, _now_ns: u64, parts: &[Part]) -> bool {
        self.queue.add(parts)
    }

    fn poll(&self, _now_ns: u64) -> Next {
        self.queue.at_once()
    }

    fn take(&mut self, now_ns: u64, _worker: usize, batch: &mut Vec<Part>, dropped: &mut Vec<Part>) {
        let ends_ns = |rows: usize| now_ns as f64 + self.fit.at(rows);
        while let Some(first) = self.queue.parts.front()
            && ends_ns(first.rows) > first.deadline_ns as f64
        {
            dropped.extend(self.queue.pop());
        }
        let Some(first) = self.queue.parts.front() else { return };
        let fits = |rows: &usize| ends_ns(*rows) <= first.deadline_ns as f64;
        let rows = (1..=self.queue.rows_max).take_while(fits).last().unwrap_or(1).max(first.rows);
        self.queue.take(rows, now_ns, batch, dropped);
    }

    fn finish(&mut self, _worker: usize, rows: usize, took: Duration) {
        self.fit.add(rows, took);
    }
}

// === impl Fifo ===

impl Fifo {
    fn new(rows_max: usize) -> Fifo {
        Fifo { parts: VecDeque::new(), rows: 0, rows_max }
    }

    fn add(&mut self, parts: &[Part]) -> bool {
        self.parts.extend(parts);
        self.rows += parts.iter().map(|part| part.rows).sum::<usize>();
        true
    }

    fn pop(&mut self) -> Option<Part> {
        let part = self.parts.pop_front()?;
        self.rows -= part.rows;
        Some(part)
    }

    /// Without a delay.
    fn at_once(&self) -> Next {
        if self.parts.is_empty() { Next::Idle } else { Next::Run }
    }

    /// At most `rows` rows, but one part at least; what was due before `now_ns` is dropped.
    fn take(&mut self, rows: usize, now_ns: u64, batch: &mut Vec<Part>, dropped: &mut Vec<Part>) {
        let mut taken = 0;
        while let Some(first) = self.parts.front() {
            if first.deadline_ns <= now_ns {
                dropped.extend(self.pop());
            } else if taken == 0 || taken + first.rows <= rows {
                taken += first.rows;
                batch.extend(self.pop());
            } else {
                break;
            }
        }
    }
}

// === impl Line ===

impl Line {
    fn add(&mut self, rows: usize, took: Duration) {
        let (rows, ns) = (rows as f64, nanos(took) as f64);
        let sums = [
            (&mut self.weight, 1.0),
            (&mut self.rows, rows),
            (&mut self.rows_squared, rows * rows),
            (&mut self.ns, ns),
            (&mut self.rows_ns, rows * ns),
        ];
        for (sum, value) in sums {
            *sum = *sum * (1.0 - 1.0 / MEMORY_RUNS) + value;
        }
    }

    /// What `rows` rows take, in nanoseconds; 0 before the first run.
    fn at(&self, rows: usize) -> f64 {
        let determinant = self.weight * self.rows_squared - self.rows * self.rows;
        if self.weight == 0.0 {
            return 0.0;
        }
        // All runs had the same rows, but for rounding: as many as took so long.
        if determinant <= 1e-6 * self.weight * self.rows_squared {
            return self.ns / self.rows * rows as f64;
        }
        let slope = (self.weight * self.rows_ns - self.rows * self.ns) / determinant;
        let fixed = (self.ns - slope * self.rows) / self.weight;
        fixed + slope * rows as f64
    }
}
