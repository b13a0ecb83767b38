//! What a simulation came to: how many requests were answered in time, and what it took.

use std::time::Duration;

use super::Arrival;

/// Counts of one simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub requests: u64,
    /// Answered before their deadlines.
    pub in_time: u64,
    pub rows_in_time: u64,
    /// Not admitted.
    pub refused: u64,
    /// Admitted, and given up before they ran.
    pub dropped: u64,
    /// Not answered when their deadlines passed.
    pub late: u64,
    pub runs: u64,
    pub rows_run: u64,
    /// From the start to the last arrival.
    pub span: Duration,
    /// Of those answered in time, from arrival to answer.
    pub p50: Duration,
    pub p99: Duration,
    workers: usize,
    busy: Duration,
    latencies_ns: Vec<u64>,
}

// === impl Outcome ===

impl Outcome {
    pub(super) fn new(arrivals: &[Arrival], workers: usize) -> Outcome {
        Outcome {
            requests: arrivals.len() as u64,
            in_time: 0,
            rows_in_time: 0,
            refused: 0,
            dropped: 0,
            late: 0,
            runs: 0,
            rows_run: 0,
            span: arrivals.last().map_or(Duration::ZERO, |arrival| arrival.at),
            p50: Duration::ZERO,
            p99: Duration::ZERO,
            workers,
            busy: Duration::ZERO,
            latencies_ns: Vec::new(),
        }
    }

    pub(super) fn count_run(&mut self, rows: usize, busy: Duration) {
        self.runs += 1;
        self.rows_run += rows as u64;
        self.busy += busy;
    }

    pub(super) fn count_answer(&mut self, rows: usize, latency_ns: u64) {
        self.in_time += 1;
        self.rows_in_time += rows as u64;
        self.latencies_ns.push(latency_ns);
    }

    pub(super) fn finish(mut self) -> Outcome {
        let mut latencies = std::mem::take(&mut self.latencies_ns);
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            Duration::from_nanos(latencies.get(index).or(latencies.last()).copied().unwrap_or(0))
        };
        (self.p50, self.p99) = (at(0.5), at(0.99));
        self
    }

    /// Requests answered in time, a second.
    pub fn goodput_per_s(&self) -> f64 {
        ratio(self.in_time as f64, self.span.as_secs_f64())
    }

    /// Share of the requests that were answered in time; 0 of none.
    pub fn attainment(&self) -> f64 {
        ratio(self.in_time as f64, self.requests as f64)
    }

    /// Rows in a batch, on average.
    pub fn batch_rows(&self) -> f64 {
        ratio(self.rows_run as f64, self.runs as f64)
    }

    /// Share of the workers' time that runs took; can exceed 1 where the last runs end after the last arrival.
    pub fn utilization(&self) -> f64 {
        ratio(self.busy.as_secs_f64(), self.workers as f64 * self.span.as_secs_f64())
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
