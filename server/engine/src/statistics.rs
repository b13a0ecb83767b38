//! Counts and durations of one version since it was loaded, as the statistics APIs show them.

use std::time::Duration;

/// How often something happened and how long it took in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub count: u64,
    pub total: Duration,
}

/// A consistent enough copy of a version's counters. Durations are per request, except in `batches`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Milliseconds since the Unix epoch at the end of the latest run; 0 before the first.
    pub last_inference_ms: u64,
    /// Rows that were answered.
    pub inference_count: u64,
    /// Runs of the model.
    pub execution_count: u64,
    pub success: Counted,
    pub fail: Counted,
    pub queue: Counted,
    pub compute_input: Counted,
    pub compute_infer: Counted,
    pub compute_output: Counted,
    /// By rows in the batch, ascending; only sizes that ran.
    pub batches: Vec<BatchStatistics>,
}

/// Runs of one batch size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchStatistics {
    pub rows: usize,
    pub compute_input: Counted,
    pub compute_infer: Counted,
    pub compute_output: Counted,
}
