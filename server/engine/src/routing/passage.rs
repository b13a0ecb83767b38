//! One request on its way through an arm, and how its end is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ArmHandles;
use crate::error::InferError;
use crate::journal::Ended;
use crate::metrics::Outcome;
use crate::prediction::{PredictionId, Routed};

/// Dropped without an end, it counts as cancelled.
pub(crate) struct Passage {
    arm: Arc<ArmHandles>,
    prediction_id: PredictionId,
    /// 0 where the arm leads nowhere.
    version: u64,
    key_hash: Option<u64>,
    arrived: Instant,
    is_over: bool,
}

// === impl Passage ===

impl Passage {
    pub(crate) fn begin(arm: Arc<ArmHandles>, prediction_id: PredictionId, arrived: Instant) -> Passage {
        Passage { arm, prediction_id, version: 0, key_hash: None, arrived, is_over: false }
    }

    /// What else is told of it: the version that the arm points at, and the hash of the request's key.
    #[must_use]
    pub(crate) fn of(mut self, version: u64, key_hash: Option<u64>) -> Passage {
        (self.version, self.key_hash) = (version, key_hash);
        self
    }

    /// It was answered.
    pub(crate) fn answered(mut self) -> Routed {
        let took = self.arrived.elapsed();
        self.arm.metrics.record_answer(took);
        self.end(Outcome::Ok, took);
        Routed { arm: Arc::clone(&self.arm.name), prediction_id: self.prediction_id }
    }

    pub(crate) fn failed(mut self, error: &InferError) {
        self.fail(Outcome::of(error));
    }

    fn fail(&mut self, outcome: Outcome) {
        self.arm.metrics.count(outcome);
        self.end(outcome, self.arrived.elapsed());
    }

    fn end(&mut self, outcome: Outcome, took: Duration) {
        self.is_over = true;
        match (&self.arm.tally, outcome) {
            // One that was cancelled took so long at least: left out, a slow arm would look fast by those who do not
            // wait for it.
            (Some(tally), Outcome::Ok | Outcome::Cancelled) => tally.lasted(took),
            (Some(tally), outcome) if outcome.verdict() == Some(false) => tally.failed(),
            _ => {}
        }
        self.arm.journal.push(|| Ended {
            prediction_id: self.prediction_id,
            arm: Arc::clone(&self.arm.name),
            version: self.version,
            key_hash: self.key_hash,
            took,
            outcome: outcome.label(),
            is_good: outcome.verdict(),
        });
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if !self.is_over {
            self.fail(Outcome::Cancelled);
        }
    }
}
