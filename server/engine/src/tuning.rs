//! What an operator may set about running a model.

use std::time::Duration;

use crate::budget::Budget;

/// Rows that may wait where the settings say nothing: enough for bursts, short enough to answer in time.
pub const QUEUE_ROWS_MAX_BY_DEFAULT: usize = 4096;
/// Bytes of input tensors that may wait where the settings say nothing.
pub const QUEUE_BYTES_MAX_BY_DEFAULT: usize = 256 << 20;

/// What an operator may set for a model; `None` is derived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    pub instances: Option<usize>,
    pub threads: Option<usize>,
    pub batch_rows_max: Option<usize>,
    pub batch_delay: Option<Duration>,
    pub queue_rows_max: Option<usize>,
    pub queue_bytes_max: Option<usize>,
    /// How long after its arrival an answer is worth having: the deadline of every request that brings no
    /// earlier one. None where nothing is set.
    pub slo: Option<Duration>,
    pub budget: Budget,
}
