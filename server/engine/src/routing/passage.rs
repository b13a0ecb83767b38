//! One request on its way through an arm, and how its end is counted.

use std::sync::Arc;
use std::time::Instant;

use super::ArmHandles;
use super::tally::Tally;
use crate::error::InferError;
use crate::metrics::{ArmMetrics, Outcome};
use crate::prediction::{ArmName, PredictionId, Routed};

/// Dropped without an end, it counts as cancelled.
pub(crate) struct Passage {
    metrics: Arc<ArmMetrics>,
    tally: Option<Arc<Tally>>,
    name: Arc<ArmName>,
    prediction_id: PredictionId,
    arrived: Instant,
    is_over: bool,
}

// === impl Passage ===

impl Passage {
    pub(crate) fn begin(arm: &ArmHandles, prediction_id: PredictionId, arrived: Instant) -> Passage {
        let (metrics, name) = (Arc::clone(&arm.metrics), Arc::clone(&arm.name));
        Passage { metrics, tally: arm.tally.clone(), name, prediction_id, arrived, is_over: false }
    }

    /// It was answered.
    pub(crate) fn answered(mut self) -> Routed {
        self.is_over = true;
        let latency = self.arrived.elapsed();
        self.metrics.record_answer(latency);
        if let Some(tally) = &self.tally {
            tally.lasted(latency);
        }
        Routed { arm: Arc::clone(&self.name), prediction_id: self.prediction_id }
    }

    pub(crate) fn failed(mut self, error: &InferError) {
        self.is_over = true;
        let outcome = Outcome::of(error);
        self.metrics.count(outcome);
        if let (Some(tally), Some(false)) = (&self.tally, outcome.verdict()) {
            tally.failed();
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if !self.is_over {
            self.metrics.count(Outcome::Cancelled);
            // It took so long at least: left out, a slow arm would look fast by those who do not wait for it.
            if let Some(tally) = &self.tally {
                tally.lasted(self.arrived.elapsed());
            }
        }
    }
}
