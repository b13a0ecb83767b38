//! Throughput and latency of a server at several numbers of calls in flight, and what it does at a given p99.

use serde::Serialize;

/// What was measured at one number of calls in flight.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    pub calls_per_s: f64,
    pub p99_ms: f64,
}

/// By the number of calls in flight, ascending.
#[derive(Clone, Debug, Serialize)]
pub struct Curve(pub Vec<Point>);

// === impl Curve ===

impl Curve {
    /// The p99 at the middle number of calls.
    ///
    /// # Panics
    /// There are no points.
    pub fn middle_p99_ms(&self) -> f64 {
        self.0[self.0.len() / 2].p99_ms
    }

    /// The most calls a second with a p99 of at most `p99_ms`: those of a point, or between two neighbours, where
    /// both numbers are taken to change by constant factors. 0 if every point takes longer.
    pub fn calls_per_s_at(&self, p99_ms: f64) -> f64 {
        let points = self.0.iter().filter(|point| point.p99_ms <= p99_ms).map(|point| point.calls_per_s);
        let between = self.0.windows(2).filter_map(|pair| {
            let [low, high] = pair else { return None };
            let is_between = low.p99_ms <= p99_ms && p99_ms < high.p99_ms;
            let part = (p99_ms / low.p99_ms).ln() / (high.p99_ms / low.p99_ms).ln();
            is_between.then(|| low.calls_per_s * (high.calls_per_s / low.calls_per_s).powf(part))
        });
        points.chain(between).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_read_at_a_p99() {
        let point = |calls_per_s, p99_ms| Point { calls_per_s, p99_ms };
        let curve = Curve(vec![point(100.0, 1.0), point(400.0, 4.0), point(300.0, 16.0)]);
        assert_eq!(curve.middle_p99_ms(), 4.0);
        assert_eq!(curve.calls_per_s_at(0.9), 0.0);
        assert_eq!(curve.calls_per_s_at(1.0), 100.0);
        assert_eq!(curve.calls_per_s_at(2.0), 200.0);
        assert_eq!(curve.calls_per_s_at(4.0), 400.0);
        assert_eq!(curve.calls_per_s_at(100.0), 400.0, "more calls in flight may give less");
    }
}
