//! How many rows arrive, lately: what batches must keep up with, and what waiting for one more would cost.

/// Rows that arrive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrivals {
    /// Since when rows are counted.
    began_ns: u64,
    rows: u64,
    /// Rows a nanosecond before that.
    rate_before: f64,
}

/// The rate is a mean over about so long: a burst that a few batches can take does not count as load yet.
const MEMORY_NS: f64 = 100e6;
const WINDOW_NS: u64 = 25_000_000;

// === impl Arrivals ===

impl Arrivals {
    pub(crate) fn add(&mut self, now_ns: u64, rows: usize) {
        if now_ns.saturating_sub(self.began_ns) >= WINDOW_NS {
            *self = Arrivals { began_ns: now_ns, rows: 0, rate_before: self.rate(now_ns) };
        }
        self.rows += rows as u64;
    }

    /// Rows a nanosecond. What was before counts as if it had lasted for [`MEMORY_NS`].
    pub(crate) fn rate(&self, now_ns: u64) -> f64 {
        let elapsed_ns = now_ns.saturating_sub(self.began_ns) as f64;
        (self.rate_before * MEMORY_NS + self.rows as f64) / (MEMORY_NS + elapsed_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_what_arrives() {
        let mut arrivals = Arrivals::default();
        let per_s = |arrivals: &Arrivals, now_ms: u64| (arrivals.rate(now_ms * 1_000_000) * 1e9).round();
        assert_eq!(per_s(&arrivals, 0), 0.0);
        (0..1000).for_each(|ms| arrivals.add(ms * 1_000_000, 2));
        assert!((1900.0..=2100.0).contains(&per_s(&arrivals, 1000)), "{arrivals:?}");
        arrivals.add(1_000_000_000, 100);
        assert!((2700.0..=3100.0).contains(&per_s(&arrivals, 1000)), "a burst counts in part: {arrivals:?}");
        assert!((0.0..=50.0).contains(&per_s(&arrivals, 11_000)), "silence counts too: {arrivals:?}");
    }
}
