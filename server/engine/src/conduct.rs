//! How a version behaves lately, and whether a new one behaves worse than the one before it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Bounds for a version that has just become the default. When it breaks one, the one before comes back.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// How long it is watched.
    pub period: Duration,
    /// Judged only when both versions have answered so many requests lately.
    pub requests_min: u64,
    /// By how much its share of requests that the model failed may exceed that of the one before.
    pub error_rate_increase_max: f64,
    /// How many times the 99th percentile of the one before its own may be; not judged if `None`.
    pub p99_ratio_max: Option<f64>,
}

/// Counts of two windows: what is older than both is forgotten.
#[derive(Debug)]
pub(crate) struct Conduct {
    /// `None` until there is something to count: two histograms are some tens of kilobytes.
    windows: Option<Box<Windows>>,
    began: Instant,
}

#[derive(Debug)]
struct Windows {
    now: Window,
    before: Window,
}

#[derive(Clone, Debug)]
struct Window {
    failed: u64,
    /// Microseconds from admission to each answer.
    latency_us: Histogram<u32>,
}

/// What is known of a version's last one or two windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// Answered, or failed by the model.
    pub(crate) requests: u64,
    pub(crate) error_rate: f64,
    pub(crate) p99: Duration,
}

/// Long enough for a percentile, short enough to be of the same load as a version that follows.
const WINDOW: Duration = Duration::from_secs(60);
/// Two digits are enough to compare, and keep a histogram small.
const DIGITS: u8 = 2;
/// Longer latencies count as this.
const LATENCY_US_MAX: u64 = 3_600_000_000;

// === impl Watch ===

impl Default for Watch {
    /// Only errors are judged: a version that fails one request in twenty more is worse in any use, while how
    /// slow is too slow is for the operator to say.
    fn default() -> Watch {
        Watch {
            period: Duration::from_secs(60),
            requests_min: 100,
            error_rate_increase_max: 0.05,
            p99_ratio_max: None,
        }
    }
}

impl Watch {
    /// Which bound `new` breaks beside `old`, with the numbers.
    pub(crate) fn judge(&self, new: Summary, old: Summary) -> Option<String> {
        if new.requests.min(old.requests) < self.requests_min {
            return None;
        }
        if new.error_rate > old.error_rate + self.error_rate_increase_max {
            return Some(format!(
                "{:.1} % of its last {} requests failed, and {:.1} % of those of the version before; the bound is \
                 {:.1} % more",
                100.0 * new.error_rate,
                new.requests,
                100.0 * old.error_rate,
                100.0 * self.error_rate_increase_max
            ));
        }
        let ratio_max = self.p99_ratio_max?;
        let ratio = new.p99.as_secs_f64() / old.p99.as_secs_f64().max(f64::MIN_POSITIVE);
        (ratio > ratio_max).then(|| {
            format!(
                "its 99th percentile is {:.1?}, that of the version before {:.1?}; the bound is {ratio_max} times that",
                new.p99, old.p99
            )
        })
    }
}

// === impl Conduct ===

impl Conduct {
    pub(crate) fn new(now: Instant) -> Conduct {
        Conduct { windows: None, began: now }
    }

    pub(crate) fn answered(&mut self, latencies: impl Iterator<Item = Duration>, now: Instant) {
        let window = self.turn(now);
        for latency in latencies {
            let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            window.latency_us.saturating_record(latency_us.min(LATENCY_US_MAX));
        }
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.turn(now).failed += 1;
    }

    pub(crate) fn summary(&self) -> Summary {
        let Some(Windows { now, before }) = self.windows.as_deref() else {
            return Summary { requests: 0, error_rate: 0.0, p99: Duration::ZERO };
        };
        let mut latency = now.latency_us.clone();
        latency.add(&before.latency_us).expect("both have the same bounds; this is a bug");
        let failed = now.failed + before.failed;
        let requests = failed + latency.len();
        Summary {
            requests,
            error_rate: if requests == 0 { 0.0 } else { failed as f64 / requests as f64 },
            p99: Duration::from_micros(latency.value_at_quantile(0.99)),
        }
    }

    /// The window that counts at `now`.
    fn turn(&mut self, now: Instant) -> &mut Window {
        let new = || Box::new(Windows { now: Window::new(), before: Window::new() });
        let windows = self.windows.get_or_insert_with(new);
        if now.saturating_duration_since(self.began) >= WINDOW {
            std::mem::swap(&mut windows.now, &mut windows.before);
            windows.now.clear();
            self.began = now;
        }
        &mut windows.now
    }
}

// === impl Window ===

impl Window {
    fn new() -> Window {
        let latency_us =
            Histogram::new_with_max(LATENCY_US_MAX, DIGITS).expect("the bounds are sound; this is a bug");
        Window { failed: 0, latency_us }
    }

    fn clear(&mut self) {
        self.failed = 0;
        self.latency_us.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(requests: u64, error_rate: f64, p99_ms: u64) -> Summary {
        Summary { requests, error_rate, p99: Duration::from_millis(p99_ms) }
    }

    #[test]
    fn a_version_that_fails_more_is_worse() {
        let watch = Watch::default();
        assert_eq!(watch.judge(summary(1000, 0.01, 5), summary(1000, 0.0, 5)), None);
        assert_eq!(watch.judge(summary(99, 1.0, 5), summary(1000, 0.0, 5)), None, "too few to tell");
        assert_eq!(watch.judge(summary(1000, 1.0, 5), summary(99, 0.0, 5)), None, "nothing to compare with");
        assert_eq!(
            watch.judge(summary(200, 0.5, 5), summary(1000, 0.01, 5)).unwrap(),
            "50.0 % of its last 200 requests failed, and 1.0 % of those of the version before; the bound is 5.0 % more"
        );
    }

    #[test]
    fn slowness_is_judged_where_a_bound_is_stated() {
        let stated = Watch { p99_ratio_max: Some(2.0), ..Watch::default() };
        assert_eq!(Watch::default().judge(summary(200, 0.0, 500), summary(200, 0.0, 5)), None);
        assert_eq!(stated.judge(summary(200, 0.0, 10), summary(200, 0.0, 5)), None);
        assert_eq!(
            stated.judge(summary(200, 0.0, 11), summary(200, 0.0, 5)).unwrap(),
            "its 99th percentile is 11.0ms, that of the version before 5.0ms; the bound is 2 times that"
        );
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let start = Instant::now();
        let mut conduct = Conduct::new(start);
        conduct.failed(start);
        conduct.answered([Duration::from_millis(3); 3].into_iter(), start);
        assert_eq!(conduct.summary().requests, 4);
        assert_eq!(conduct.summary().error_rate, 0.25);
        conduct.answered([Duration::from_millis(1); 4].into_iter(), start + WINDOW);
        assert_eq!(conduct.summary().error_rate, 0.125, "the window before still counts");
        conduct.answered([Duration::from_millis(1)].into_iter(), start + 2 * WINDOW);
        assert_eq!(conduct.summary().error_rate, 0.0);
        assert_eq!(conduct.summary().requests, 5);
    }
}
