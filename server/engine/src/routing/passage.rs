//! One request on its way through an arm, and how its end is counted.

use std::sync::Arc;
use std::time::Instant;

use super::ArmHandles;
use crate::error::InferError;
use crate::metrics::{ArmMetrics, Outcome};
use crate::prediction::{ArmName, PredictionId, Routed};

/// Dropped without an end, it counts as cancelled.
pub(crate) struct Passage {
    metrics: Arc<ArmMetrics>,
    name: Arc<ArmName>,
    prediction_id: PredictionId,
    arrived: Instant,
    is_over: bool,
}

// === impl Passage ===

impl Passage {
    pub(crate) fn begin(arm: &ArmHandles, prediction_id: PredictionId, arrived: Instant) -> Passage {
        let (metrics, name) = (Arc::clone(&arm.metrics), Arc::clone(&arm.name));
        Passage { metrics, name, prediction_id, arrived, is_over: false }
    }

    /// It was answered.
    pub(crate) fn answered(mut self) -> Routed {
        self.is_over = true;
        self.metrics.record_answer(self.arrived.elapsed());
        Routed { arm: Arc::clone(&self.name), prediction_id: self.prediction_id }
    }

    pub(crate) fn failed(mut self, error: &InferError) {
        self.is_over = true;
        self.metrics.count(Outcome::of(error));
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if !self.is_over {
            self.metrics.count(Outcome::Cancelled);
        }
    }
}
