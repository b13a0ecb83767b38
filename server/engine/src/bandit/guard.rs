//! Whether an arm keeps its bounds on latency and errors, from counts of its requests.

use std::time::Duration;

use super::special::binomial_at_least;

/// The bounds of every arm. One that breaks them gets no requests, whatever its reward, but probes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// On the 99th percentile of the time to the answer; none if `None`.
    pub p99_max: Option<Duration>,
    /// On the share of requests that fail; none if `None`.
    pub error_rate_max: Option<f64>,
    /// How many requests an arm must have had lately to be judged.
    pub requests_min: u64,
    /// Of all requests, for all broken arms together: how they can be seen to have recovered.
    pub probe_share: f64,
}

/// Requests that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub requests: u64,
    /// Answered later than the bound on the 99th percentile.
    pub slow: u64,
    pub failed: u64,
}

/// How one arm behaves.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// What is older than two windows is forgotten.
    now: Tally,
    before: Tally,
    window_began_s: f64,
    fault: Option<Fault>,
}

/// The bound that an arm breaks, with the numbers at the time.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub since_s: f64,
    pub why: String,
}

/// Half of how long requests are remembered.
const WINDOW_S: f64 = 30.0;
/// A bound is broken when what was seen had at most this probability if it were just kept: small, because it is
/// looked at again and again.
const CHANCE_MAX: f64 = 1e-4;
/// Probes that a broken arm is judged by.
const PROBES: u64 = 300;
/// The share of answers that may be later than the 99th percentile.
const SLOW_SHARE: f64 = 0.01;

// === impl Guard ===

impl Default for Guard {
    fn default() -> Guard {
        Guard::DEFAULT
    }
}

impl Guard {
    pub const DEFAULT: Guard =
        Guard { p99_max: None, error_rate_max: None, requests_min: 20, probe_share: 0.005 };

    /// How a request counts that ended after `took`; `None` where that was not the arm's doing.
    pub fn tally(&self, took: Duration, is_good: Option<bool>) -> Option<Tally> {
        let is_good = is_good?;
        let is_slow = is_good && self.p99_max.is_some_and(|p99_max| took > p99_max);
        Some(Tally { requests: 1, slow: u64::from(is_slow), failed: u64::from(!is_good) })
    }

    /// The shares that may be slow and that may fail, with what there was of either.
    fn bounds(&self, tally: Tally) -> [Option<(f64, u64, &'static str)>; 2] {
        [
            self.p99_max
                .map(|_| (SLOW_SHARE, tally.slow, "were later than the bound on the 99th percentile")),
            self.error_rate_max.map(|share| (share, tally.failed, "failed")),
        ]
    }

    fn broken(&self, tally: Tally) -> Option<String> {
        let is_broken = |(share, hits, _): &(f64, u64, &str)| {
            *hits as f64 > share * tally.requests as f64
                && binomial_at_least(*hits, tally.requests, *share) < CHANCE_MAX
        };
        let (share, hits, what) = self.bounds(tally).into_iter().flatten().find(is_broken)?;
        let percent = 100.0 * share;
        Some(format!("{hits} of its last {} requests {what}, where {percent} % may", tally.requests))
    }

    fn is_kept(&self, tally: Tally) -> bool {
        let is_kept = |(share, hits, _): (f64, u64, &str)| hits as f64 <= share * tally.requests as f64;
        self.bounds(tally).into_iter().flatten().all(is_kept)
    }
}

// === impl Tally ===

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.requests += other.requests;
        self.slow += other.slow;
        self.failed += other.failed;
    }
}

// === impl Health ===

impl Health {
    pub fn is_broken(&self) -> bool {
        self.fault.is_some()
    }

    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    pub(super) fn observe(&mut self, guard: &Guard, tally: Tally, now_s: f64) {
        match &self.fault {
            None => {
                if now_s - self.window_began_s >= WINDOW_S {
                    let is_recent = now_s - self.window_began_s < 2.0 * WINDOW_S;
                    self.before = if is_recent { self.now } else { Tally::default() };
                    self.now = Tally::default();
                    self.window_began_s = now_s;
                }
                self.now += tally;
                let mut lately = self.before;
                lately += self.now;
                if lately.requests >= guard.requests_min
                    && let Some(why) = guard.broken(lately)
                {
                    *self = Health { fault: Some(Fault { since_s: now_s, why }), ..Health::default() };
                }
            }
            Some(_) => {
                self.now += tally;
                if self.now.requests >= PROBES {
                    let is_kept = guard.is_kept(self.now);
                    self.now = Tally::default();
                    if is_kept {
                        *self = Health { window_began_s: now_s, ..Health::default() };
                    }
                }
            }
        }
    }
}
