//! Plays arrivals against a scheduler on a virtual clock: what a version would answer in time, decided by the same code that serves.

mod baselines;
pub mod comparison;
mod demand;
mod outcome;
mod ours;
mod run_times;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

pub use self::baselines::{AdditiveIncrease, EagerFifo, FixedDelay, LinearFit};
pub use self::demand::{Demand, Kind, Process};
pub use self::ours::Ours;
pub use self::outcome::Outcome;
pub use self::run_times::RunTimes;
pub use crate::random::Random;
use crate::sizing::BATCH_OVERHEAD;

/// A request, as a trace has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Since the start.
    pub at: Duration,
    /// At least 1.
    pub rows: usize,
    /// How long after its arrival the caller waits; `None` is for ever.
    pub patience: Option<Duration>,
    /// From 1, the most urgent; 0 is the model's default.
    pub priority: u64,
}

/// What runs batches.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Batches that run at the same time (at least 1).
    pub workers: usize,
    pub run_times: RunTimes,
    /// What a batch takes of its worker beside its run.
    pub batch_overhead: Duration,
}

/// Rows of one request that run together: all, unless it has more than the largest batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index of its arrival.
    pub request: usize,
    pub rows: usize,
    /// Moments are in nanoseconds since the start.
    pub arrived_ns: u64,
    /// `u64::MAX` is never.
    pub deadline_ns: u64,
    pub priority: u64,
}

/// What a free worker should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Run,
    WaitUntil(u64),
    Idle,
}

/// Decides what is admitted, when a batch is ready and who is in it. Moments are in nanoseconds since the start.
pub trait Scheduler {
    /// Most rows in one batch.
    fn rows_max(&self) -> usize;
    /// Admits all parts of one request, or none.
    fn arrive(&mut self, now_ns: u64, parts: &[Part]) -> bool;
    /// The caller of a request does not wait any longer.
    fn leave(&mut self, _request: usize) {}
    fn poll(&self, now_ns: u64) -> Next;
    /// Moves a batch for `worker`, after a poll that said `Run`, into `batch`; what it does not want to run into
    /// `dropped`.
    fn take(&mut self, now_ns: u64, worker: usize, batch: &mut Vec<Part>, dropped: &mut Vec<Part>);
    /// The batch of `rows` rows that `worker` took has run.
    fn finish(&mut self, _worker: usize, _rows: usize, _took: Duration) {}
}

/// In the order in which they count when they happen at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    RunEnds { worker: usize },
    DeadlinePasses { request: usize },
    WakeUp,
}

/// A request on its way.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    parts_missing: usize,
    /// Answered, refused, dropped or too late.
    is_over: bool,
}

/// A batch that runs.
struct Run {
    batch: Vec<Part>,
    rows: usize,
    took: Duration,
}

struct Simulation<'a> {
    arrivals: &'a [Arrival],
    machine: &'a Machine,
    scheduler: &'a mut dyn Scheduler,
    random: Random,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    /// By arrival.
    requests: Vec<Progress>,
    /// By worker.
    runs: Vec<Option<Run>>,
    /// When the next wake-up is due.
    wakes_ns: u64,
    outcome: Outcome,
}

/// Plays `arrivals`, in the order of their moments, to their ends. An answer counts where it comes within the
/// caller's patience and within `slo`. Run times are drawn with `seed`.
pub fn simulate(
    arrivals: &[Arrival],
    slo: Option<Duration>,
    machine: &Machine,
    scheduler: &mut dyn Scheduler,
    seed: u64,
) -> Outcome {
    let mut simulation = Simulation {
        arrivals,
        machine,
        scheduler,
        random: Random::new(seed),
        events: BinaryHeap::new(),
        requests: vec![Progress::default(); arrivals.len()],
        runs: (0..machine.workers).map(|_| None).collect(),
        wakes_ns: u64::MAX,
        outcome: Outcome::new(arrivals, machine.workers),
    };
    for (request, arrival) in arrivals.iter().enumerate() {
        let at_ns = nanos(arrival.at);
        simulation.play_until(at_ns);
        simulation.arrive(request, arrival, slo);
        simulation.dispatch(at_ns);
    }
    simulation.play_until(u64::MAX);
    simulation.outcome.finish()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

// === impl Machine ===

impl Machine {
    /// Batches cost what the scheduler reckons that they cost beside their runs.
    pub fn new(workers: usize, run_times: RunTimes) -> Machine {
        Machine { workers, run_times, batch_overhead: BATCH_OVERHEAD }
    }
}

// === impl Simulation ===

impl Simulation<'_> {
    /// Whatever happens before a moment, or at it.
    fn play_until(&mut self, until_ns: u64) {
        while let Some(&Reverse((at_ns, event))) = self.events.peek()
            && at_ns <= until_ns
        {
            self.events.pop();
            match event {
                Event::RunEnds { worker } => self.end_run(at_ns, worker),
                Event::DeadlinePasses { request } => self.pass_deadline(request),
                Event::WakeUp => self.wakes_ns = u64::MAX,
            }
            self.dispatch(at_ns);
        }
    }

    fn arrive(&mut self, request: usize, arrival: &Arrival, slo: Option<Duration>) {
        let arrived_ns = nanos(arrival.at);
        let patience = arrival.patience.into_iter().chain(slo).min();
        let deadline_ns = patience.map_or(u64::MAX, |patience| arrived_ns.saturating_add(nanos(patience)));
        let rows_max = self.scheduler.rows_max();
        let part = |rows| Part { request, rows, arrived_ns, deadline_ns, priority: arrival.priority };
        let whole = (0..arrival.rows / rows_max).map(|_| part(rows_max));
        let rest = (!arrival.rows.is_multiple_of(rows_max)).then(|| part(arrival.rows % rows_max));
        let parts: Vec<Part> = whole.chain(rest).collect();
        if !self.scheduler.arrive(arrived_ns, &parts) {
            self.requests[request].is_over = true;
            self.outcome.refused += 1;
            return;
        }
        self.requests[request].parts_missing = parts.len();
        if deadline_ns != u64::MAX {
            self.events.push(Reverse((deadline_ns, Event::DeadlinePasses { request })));
        }
    }

    fn pass_deadline(&mut self, request: usize) {
        if !self.requests[request].is_over {
            self.requests[request].is_over = true;
            self.outcome.late += 1;
            self.scheduler.leave(request);
        }
    }

    /// Gives the free workers what they are to run.
    fn dispatch(&mut self, now_ns: u64) {
        for worker in 0..self.runs.len() {
            while self.runs[worker].is_none() {
                match self.scheduler.poll(now_ns) {
                    Next::Idle => return,
                    Next::WaitUntil(at_ns) => {
                        if at_ns < self.wakes_ns {
                            self.wakes_ns = at_ns;
                            self.events.push(Reverse((at_ns, Event::WakeUp)));
                        }
                        return;
                    }
                    Next::Run => self.take(now_ns, worker),
                }
            }
        }
    }

    fn take(&mut self, now_ns: u64, worker: usize) {
        let (mut batch, mut dropped) = (Vec::new(), Vec::new());
        self.scheduler.take(now_ns, worker, &mut batch, &mut dropped);
        assert!(!batch.is_empty() || !dropped.is_empty(), "who says `Run` gives something; this is a bug");
        for part in dropped {
            if !self.requests[part.request].is_over {
                self.requests[part.request].is_over = true;
                self.outcome.dropped += 1;
                self.scheduler.leave(part.request);
            }
        }
        if batch.is_empty() {
            return;
        }
        let rows = batch.iter().map(|part| part.rows).sum();
        let took = self.machine.run_times.draw(rows, &mut self.random);
        let busy = took + self.machine.batch_overhead;
        self.events.push(Reverse((now_ns.saturating_add(nanos(busy)), Event::RunEnds { worker })));
        self.runs[worker] = Some(Run { batch, rows, took });
        self.outcome.count_run(rows, busy);
    }

    fn end_run(&mut self, now_ns: u64, worker: usize) {
        let run = self.runs[worker].take().expect("a run ends once; this is a bug");
        self.scheduler.finish(worker, run.rows, run.took);
        for part in run.batch {
            let request = &mut self.requests[part.request];
            if request.is_over {
                continue;
            }
            request.parts_missing -= 1;
            if request.parts_missing == 0 {
                request.is_over = true;
                let rows = self.arrivals[part.request].rows;
                self.outcome.count_answer(rows, now_ns - part.arrived_ns);
            }
        }
    }
}

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod tests;
