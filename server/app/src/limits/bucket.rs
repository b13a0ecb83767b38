//! A token bucket in one word: how many requests a second, with how many at once. Pure but for the one atomic.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A rate, as the generic cell rate algorithm has it (ITU-T I.371, annex A): a request takes one interval of the
/// time line, and the line may run ahead of the clock by the burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Nanoseconds between requests at the rate.
    interval_ns: u64,
    /// How far the time line may be ahead when a request comes.
    tolerance_ns: u64,
}

/// Until when the requests that were admitted have used up the rate, in nanoseconds since some start.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU64);

// === impl Rate ===

impl Rate {
    /// `burst` requests, at least one, may come together; then `per_second` of them a second.
    pub(super) fn new(per_second: f64, burst: u32) -> Rate {
        let interval_ns = (1e9 / per_second).max(1.0) as u64;
        Rate { interval_ns, tolerance_ns: interval_ns.saturating_mul(u64::from(burst.max(1)) - 1) }
    }

    /// What a request at `now` makes of a bucket's time line, or how long it should wait.
    fn take(self, used_until: u64, now: u64) -> Result<u64, Duration> {
        let ahead = used_until.saturating_sub(now);
        if ahead > self.tolerance_ns {
            return Err(Duration::from_nanos(ahead - self.tolerance_ns));
        }
        Ok(used_until.max(now).saturating_add(self.interval_ns))
    }
}

// === impl Bucket ===

impl Bucket {
    /// Takes a token at `now`, nanoseconds since the bucket's start, or says when there will be one.
    pub(super) fn take(&self, rate: Rate, now: u64) -> Result<(), Duration> {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            let after = rate.take(before, now)?;
            match self.0.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(meanwhile) => before = meanwhile,
            }
        }
    }

    /// Whether it is as full as at the start: nobody can tell it from a new one.
    pub(super) fn is_full(&self, now: u64) -> bool {
        self.0.load(Ordering::Relaxed) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Which of the requests at these milliseconds are admitted: `+`, or the milliseconds to wait.
    fn check(rate: Rate, arrivals_ms: &[u64]) -> String {
        let bucket = Bucket::default();
        let answers = arrivals_ms.iter().map(|at| match bucket.take(rate, at * 1_000_000) {
            Ok(()) => "+".to_owned(),
            Err(wait) => wait.as_millis().to_string(),
        });
        answers.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate::new(10.0, 3);
        assert_eq!(
            check(rate, &[0, 0, 0, 0, 50, 100, 100, 1000, 1000, 1000, 1000]),
            "+ + + 100 50 + 100 + + + 100"
        );
    }

    #[test]
    fn without_a_burst_each_waits_for_its_interval() {
        assert_eq!(check(Rate::new(2.0, 1), &[0, 1, 499, 500, 999, 1000]), "+ 499 1 + 1 +");
        assert_eq!(Rate::new(2.0, 0), Rate::new(2.0, 1));
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        assert_eq!(check(Rate::new(1.0, 1), &[0, 1, 2, 3, 1000]), "+ 999 998 997 +");
    }

    #[test]
    fn a_long_silence_fills_it_to_the_burst_and_no_further() {
        assert_eq!(check(Rate::new(1.0, 2), &[0, 3_600_000, 3_600_000, 3_600_000]), "+ + + 1000");
    }

    #[test]
    fn slow_rates_and_fast_ones_are_kept() {
        assert_eq!(check(Rate::new(0.1, 1), &[0, 1000, 10_000]), "+ 9000 +");
        let fast = Rate::new(1e12, 1);
        let bucket = Bucket::default();
        assert!((0..1000).all(|now| bucket.take(fast, now).is_ok()), "a nanosecond is the least");
    }

    #[test]
    fn a_full_bucket_is_as_good_as_new() {
        let bucket = Bucket::default();
        assert!(bucket.is_full(0));
        bucket.take(Rate::new(1.0, 5), 0).unwrap();
        assert!(!bucket.is_full(SECOND - 1));
        assert!(bucket.is_full(SECOND));
    }

    #[test]
    fn threads_share_it_without_a_token_too_many() {
        let bucket = Bucket::default();
        let rate = Rate::new(1e-3, 100);
        let admitted: usize = std::thread::scope(|threads| {
            let take = || (0..1000).filter(|_| bucket.take(rate, 7).is_ok()).count();
            let workers: Vec<_> = (0..4).map(|_| threads.spawn(take)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(admitted, 100);
    }
}
