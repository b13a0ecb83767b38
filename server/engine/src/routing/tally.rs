//! How the requests of one arm went, counted on the request path without locks, what they were rewarded with, and what
//! the counts say of it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts of one arm since a step of its canary began.
pub(crate) struct Tally {
    failed: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
    /// Written by whoever keeps feedback, never by requests.
    rewards: Mutex<RewardEvidence>,
}

/// What a [`Tally`] held at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmEvidence {
    /// Requests that did not get what was promised, for which the caller is not to blame.
    pub failed: u64,
    /// How many latencies fell into each bucket.
    latencies: Vec<u64>,
    measured: u64,
    pub rewards: RewardEvidence,
}

/// Rewards from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RewardEvidence {
    pub count: u64,
    pub sum: f64,
}

/// The finest difference that is told.
const UNIT_NS_LOG2: u32 = 7;
/// Buckets that share one width. Their bounds are 3 % apart at most.
const LINEAR: usize = 32;
const LINEAR_LOG2: u32 = LINEAR.ilog2();
/// Longer latencies, above 73 minutes, count as the longest.
const UNITS_MAX: u64 = (1 << 35) - 1;
const BUCKETS: usize = bucket(UNITS_MAX) + 1;

// === impl Tally ===

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            failed: AtomicU64::new(0),
            latencies: [const { AtomicU64::new(0) }; BUCKETS],
            rewards: Mutex::default(),
        }
    }

    /// It was answered after this time, or its caller went away then.
    pub(crate) fn lasted(&self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let units = (ns >> UNIT_NS_LOG2).min(UNITS_MAX);
        self.latencies[bucket(units)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rewarded(&self, reward: f64) {
        let mut rewards = self.lock_rewards();
        rewards.count += 1;
        rewards.sum += reward;
    }

    pub(crate) fn read(&self) -> ArmEvidence {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let latencies: Vec<u64> = self.latencies.iter().map(read).collect();
        let (failed, measured) = (read(&self.failed), latencies.iter().sum());
        ArmEvidence { failed, measured, latencies, rewards: *self.lock_rewards() }
    }

    fn lock_rewards(&self) -> MutexGuard<'_, RewardEvidence> {
        self.rewards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ArmEvidence ===

impl ArmEvidence {
    pub fn requests(&self) -> u64 {
        self.failed + self.measured
    }

    /// Requests whose latency is known.
    pub fn measured(&self) -> u64 {
        self.measured
    }

    /// 0 without requests.
    pub fn error_rate(&self) -> f64 {
        self.failed as f64 / self.requests().max(1) as f64
    }

    /// Between which bounds a share `quantile` of the latencies ends; `None` without any.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let rank = ((quantile * self.measured as f64).ceil() as u64).clamp(1, self.measured.max(1));
        let found = self.at_rank(rank)?;
        Some((found.start + found.end) / 2)
    }

    /// The bucket of the latency that has `rank - 1` others before it; `None` where there are not so many.
    pub(crate) fn at_rank(&self, rank: u64) -> Option<Range<Duration>> {
        let mut seen = 0;
        let index = self.latencies.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        let units = bounds(index);
        let duration = |units: u64| Duration::from_nanos(units << UNIT_NS_LOG2);
        Some(duration(units.start)..duration(units.end))
    }
}

// === impl RewardEvidence ===

impl RewardEvidence {
    /// From 0 to 1; 0 without rewards.
    pub fn mean(&self) -> f64 {
        (self.sum / self.count.max(1) as f64).clamp(0.0, 1.0)
    }
}

/// As in HdrHistogram (<https://hdrhistogram.github.io/HdrHistogram/>): each power of two is cut into equal parts.
const fn bucket(units: u64) -> usize {
    let shift = (units | (LINEAR as u64)).ilog2() - LINEAR_LOG2;
    shift as usize * LINEAR + (units >> shift) as usize
}

/// The first of a bucket's values, and the first after them.
fn bounds(bucket: usize) -> Range<u64> {
    let shift = (bucket / LINEAR).saturating_sub(1);
    let first = (bucket - shift * LINEAR) as u64;
    first << shift..(first + 1) << shift
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_latency_is_inside_its_bucket(units in 0..=UNITS_MAX) {
            let found = bounds(bucket(units));
            prop_assert!(found.contains(&units), "{units} is not in {found:?}");
            prop_assert!((found.end - found.start) * 32 <= found.start.max(32));
        }
    }

    #[test]
    fn buckets_have_no_gaps() {
        for index in 1..BUCKETS {
            assert_eq!(bounds(index - 1).end, bounds(index).start);
        }
        assert_eq!(bounds(BUCKETS - 1).end, UNITS_MAX + 1);
    }

    #[test]
    fn what_was_counted_is_read() {
        let tally = Tally::new();
        for ms in 1..=100 {
            tally.lasted(Duration::from_millis(ms));
        }
        tally.lasted(Duration::MAX);
        tally.failed();
        [0.25, 1.0].into_iter().for_each(|reward| tally.rewarded(reward));
        let evidence = tally.read();
        assert_eq!((evidence.rewards.count, evidence.rewards.mean()), (2, 0.625));
        assert_eq!((evidence.requests(), evidence.measured(), evidence.failed), (102, 101, 1));
        let median = evidence.quantile(0.5).unwrap().as_secs_f64();
        assert!((median / 0.051 - 1.0).abs() < 0.02, "{median}");
        assert_eq!(evidence.at_rank(102), None);
        assert_eq!(Tally::new().read().quantile(0.5), None);
    }
}
