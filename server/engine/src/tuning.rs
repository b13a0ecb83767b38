//! What an operator may set about running a model.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::budget::Budget;
use crate::merging::Word;

/// Rows that may wait where the settings say nothing: enough for bursts, short enough to answer in time.
pub const QUEUE_ROWS_MAX_BY_DEFAULT: usize = 4096;
/// The same where a row is a single number, such as a sample of a signal.
pub const QUEUE_NUMBERS_MAX_BY_DEFAULT: usize = 1 << 20;
/// Bytes of input tensors that may wait where the settings say nothing.
pub const QUEUE_BYTES_MAX_BY_DEFAULT: usize = 256 << 20;

/// Levels of priority from this one on count as one: nobody tells so many apart.
pub const PRIORITY_LEVELS_MAX: u64 = 256;

/// Of a million live batches, those that are run again row by row where the settings say nothing.
pub const AUDITS_PER_MILLION_BY_DEFAULT: u32 = 1000;

/// What an operator may set for a model; `None` is derived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    pub instances: Option<usize>,
    pub threads: Option<usize>,
    pub batch_rows_max: Option<usize>,
    /// What the owner says about stacking rows.
    pub word: Word,
    /// Of a million live batches, those that are run again row by row.
    pub audits_per_million: Option<u32>,
    /// How long a batch waits for more rows; decided by the cost model if `None`.
    pub batch_delay: Option<Duration>,
    /// Rows at which a batch does not wait for more, ascending.
    pub preferred_rows: Vec<usize>,
    pub queue_rows_max: Option<usize>,
    pub queue_bytes_max: Option<usize>,
    /// Most predicted run time that may wait, shared by the workers; unbounded if `None`.
    pub queue_time_max: Option<Duration>,
    /// How long one run may last before it is stopped.
    pub run_timeout: Option<Duration>,
    /// Of its runs, beside those of other models that want the same cores; 1 if not set.
    pub weight: Option<usize>,
    /// How long after its arrival an answer is worth having: the deadline of every request that brings no
    /// earlier one. None where nothing is set.
    pub slo: Option<Duration>,
    /// One level where nothing is set, whatever a request says.
    pub priorities: Option<Priorities>,
    /// Of requests whose level has no policy of its own.
    pub queue_policy: QueuePolicy,
    /// By level.
    pub level_policies: BTreeMap<u64, QueuePolicy>,
    pub budget: Budget,
    /// Who is asked instead where this model would refuse for lack of time or room.
    pub degrade_to: Option<Fallback>,
    /// First come, first served, without looking ahead: for comparison only.
    pub is_eager: bool,
}

/// A cheaper way to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Another version of the same model.
    Version(u64),
    /// A label of the same model, or else another model, of which the default version is asked.
    Name(String),
}

/// Levels of priority from 1, the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priorities {
    pub levels: u64,
    /// Of requests that do not say.
    pub default_level: u64,
}

/// What waiting requests of one level may expect. Triton's, by other names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Requests, not rows, that may wait.
    pub requests_max: Option<usize>,
    /// How long a request may wait that does not say so itself.
    pub timeout: Option<Duration>,
    pub timeout_action: TimeoutAction,
    /// A request's own timeout counts where it is shorter than `timeout`.
    pub timeout_can_be_shortened: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutAction {
    /// The request is refused.
    #[default]
    Reject,
    /// The request runs when no other of its level waits.
    Delay,
}
