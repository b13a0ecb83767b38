//! Which promises of one model were kept, whichever of its versions made them: counts over windows, how close to
//! their deadlines answers were, and the metrics of both.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::attainment::{Attainment, OBJECTIVE_BY_DEFAULT, Record, Tally};
use crate::metrics::{Outcome, ServiceLevelHandles, ServiceLevelMetrics};

/// Shared by a model's versions; outlives them.
pub(crate) struct ServiceLevel {
    /// The bits of a float.
    objective: AtomicU64,
    record: Mutex<Record>,
    metrics: ServiceLevelMetrics,
}

// === impl ServiceLevel ===

impl ServiceLevel {
    pub(crate) fn new(model: &str, now: Instant) -> Arc<ServiceLevel> {
        Arc::new(ServiceLevel {
            objective: AtomicU64::new(OBJECTIVE_BY_DEFAULT.to_bits()),
            record: Mutex::new(Record::new(now)),
            metrics: ServiceLevelMetrics::new(model.to_owned(), ServiceLevelHandles::resolve),
        })
    }

    /// The share of requests that ought to be good, from now on.
    pub(crate) fn set_objective(&self, objective: f64) {
        self.objective.store(objective.to_bits(), Ordering::Relaxed);
    }

    /// A request that has ended.
    pub(crate) fn count(&self, outcome: Outcome, now: Instant) {
        let mut tally = Tally::default();
        if let Some(is_good) = outcome.verdict() {
            tally.add(is_good);
            self.count_all(tally, now);
        }
    }

    /// Requests that have ended together.
    pub(crate) fn count_all(&self, tally: Tally, now: Instant) {
        self.metrics.good.increment(tally.good);
        self.metrics.bad.increment(tally.bad);
        self.lock().add(tally, now);
    }

    /// A result that was there at `now` and wanted by `deadline`.
    pub(crate) fn record_slack(&self, deadline: Instant, now: Instant) {
        match now.checked_duration_since(deadline) {
            Some(overrun) if !overrun.is_zero() => self.metrics.overrun_seconds.record(overrun),
            _ => self.metrics.slack_seconds.record(deadline.saturating_duration_since(now)),
        }
    }

    pub(crate) fn read(&self, now: Instant) -> Attainment {
        let objective = f64::from_bits(self.objective.load(Ordering::Relaxed));
        self.lock().read(objective, now)
    }

    pub(crate) fn refresh_gauges(&self, now: Instant) {
        if let Some(metrics) = self.metrics.if_used() {
            metrics.set(&self.read(now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
