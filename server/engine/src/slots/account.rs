//! What one version has used of the slots, and how long its runs take.

use std::time::Duration;

/// No run that has not been timed yet is taken for longer than this.
const UNKNOWN_RUN: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Account {
    pub(super) weight: u64,
    /// Slot time used so far, and expected of the runs in progress, in nanoseconds divided by the weight.
    pub(super) used: u64,
    /// Moving average of how long its runs take with their cores to themselves; `None` before the first.
    pub(super) run: Option<Duration>,
    /// Its holders and waiters.
    pub(super) active: usize,
}

// === impl Account ===

impl Account {
    pub(super) fn new(weight: usize) -> Account {
        Account { weight: weight.max(1) as u64, used: 0, run: None, active: 0 }
    }

    pub(super) fn expected(&self) -> Duration {
        self.run.unwrap_or(UNKNOWN_RUN)
    }

    /// A run took so long with its cores to itself.
    pub(super) fn learn(&mut self, took: Duration) {
        self.run = Some(self.run.map_or(took, |run| (run * 7 + took) / 8));
    }

    pub(super) fn cost(&self, time: Duration, slots: usize) -> u64 {
        time.as_nanos() as u64 * slots as u64 / self.weight
    }
}
