//! One limit and what has been used of it: a rate, and requests that are open at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::file::Limit;

/// Bounds of the retry delay where it is an estimate.
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Limiter {
    limit: Limit,
    bucket: Bucket,
    open: AtomicU32,
    /// Moving average of how long a request is open.
    open_ns: AtomicU64,
}

/// Counts one open request until it is dropped.
#[derive(Debug)]
pub(super) struct Open {
    /// `None` where nobody counts.
    limiter: Option<Arc<Limiter>>,
    since: Instant,
}

#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    Rate { retry_after: Duration },
    Concurrency { open_max: u32, retry_after: Duration },
}

// === impl Limiter ===

impl Limiter {
    pub(super) fn new(limit: Limit) -> Limiter {
        Limiter { limit, bucket: Bucket::default(), open: AtomicU32::new(0), open_ns: AtomicU64::new(0) }
    }

    /// Admits a request at `now`, which is `elapsed` nanoseconds since the start of its bucket.
    pub(super) fn admit(self: &Arc<Limiter>, elapsed: u64, now: Instant) -> Result<Open, Refusal> {
        // Before the rate, so that a refusal takes no token.
        let limiter = match self.limit.concurrent_max {
            Some(open_max) => Some(self.open(open_max)?),
            None => None,
        };
        let Some(rate) = self.limit.rate else { return Ok(Open { limiter, since: now }) };
        match self.bucket.take(rate, elapsed) {
            Ok(()) => Ok(Open { limiter, since: now }),
            Err(retry_after) => {
                if limiter.is_some() {
                    self.open.fetch_sub(1, Ordering::Relaxed);
                }
                Err(Refusal::Rate { retry_after })
            }
        }
    }

    fn open(self: &Arc<Limiter>, open_max: u32) -> Result<Arc<Limiter>, Refusal> {
        let more = |open: u32| (open < open_max).then_some(open + 1);
        match self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Arc::clone(self)),
            Err(_) => {
                // One of them ends after this time, if they began one after the other.
                let next = self.open_ns.load(Ordering::Relaxed) / u64::from(open_max);
                let retry_after = Duration::from_nanos(next).clamp(RETRY_MIN, RETRY_MAX);
                Err(Refusal::Concurrency { open_max, retry_after })
            }
        }
    }

    pub(super) fn is_idle(&self, elapsed: u64) -> bool {
        self.open.load(Ordering::Relaxed) == 0 && self.bucket.is_full(elapsed)
    }

    fn close(&self, open_for: Duration) {
        let average = self.open_ns.load(Ordering::Relaxed);
        let sample = u64::try_from(open_for.as_nanos()).unwrap_or(u64::MAX / 8);
        // A racing request may overwrite this sample; the average does not need every one.
        let next = if average == 0 { sample } else { average / 8 * 7 + sample / 8 };
        self.open_ns.store(next, Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(limiter) = &self.limiter {
            limiter.close(self.since.elapsed());
        }
    }
}
