//! How long runs take in a simulation: drawn from what was measured, by batch size.

use std::time::Duration;

use crate::cost::{CostSource, SizeCost};
use crate::random::Random;

/// Run times by rows.
#[derive(Clone, Debug, PartialEq)]
pub struct RunTimes {
    /// Ascending by rows; at least one.
    sizes: Vec<Spread>,
}

/// Run times of one size in nanoseconds, at the shares of [`SHARES`].
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    rows: usize,
    at: [f64; SHARES.len()],
}

/// What the median and the 90th and 99th percentiles are shares of, and the ends.
const SHARES: [f64; 5] = [0.0, 0.5, 0.9, 0.99, 1.0];
/// Where nothing was measured but a mean: how far the percentiles are above it, about as on an idle machine.
const P90: f64 = 1.05;
const P99: f64 = 1.2;

// === impl RunTimes ===

impl RunTimes {
    /// As a latency model says, in any order. `None` unless it has a size, and times for each.
    pub fn measured(sizes: &[SizeCost]) -> Option<RunTimes> {
        let mut sizes: Vec<Spread> = sizes.iter().map(Spread::new).collect();
        sizes.sort_by_key(|size| size.rows);
        let is_sound = |size: &Spread| size.rows >= 1 && size.at[0] > 0.0;
        (!sizes.is_empty() && sizes.iter().all(is_sound)).then_some(RunTimes { sizes })
    }

    /// Typically `fixed`, and `row` for each row.
    pub fn linear(fixed: Duration, row: Duration) -> RunTimes {
        let size = |rows: usize| {
            let typical = fixed + row * rows as u32;
            let [p90, p99] = [P90, P99].map(|factor| typical.mul_f64(factor));
            let source = CostSource::Estimate;
            SizeCost { rows, count: 0, source, p50: typical, p90, p99, typical, high: p99 }
        };
        RunTimes { sizes: [1, 2].iter().map(|rows| Spread::new(&size(*rows))).collect() }
    }

    /// The run time of a batch of `rows` rows (at least 1).
    pub fn draw(&self, rows: usize, random: &mut Random) -> Duration {
        let at = self.at(rows);
        let share = random.uniform();
        let upper = SHARES.iter().position(|end| share < *end).unwrap_or(SHARES.len() - 1);
        let part = (share - SHARES[upper - 1]) / (SHARES[upper] - SHARES[upper - 1]);
        Duration::from_nanos((at[upper - 1] + part * (at[upper] - at[upper - 1])) as u64)
    }

    /// In a straight line between sizes; beyond the last in that of the last two.
    fn at(&self, rows: usize) -> [f64; SHARES.len()] {
        let above = self.sizes.partition_point(|size| size.rows < rows).min(self.sizes.len() - 1);
        let upper = self.sizes[above];
        let Some(lower) = above.checked_sub(1).map(|below| self.sizes[below]) else {
            // A smaller batch takes no longer than a larger one, and with one size known a larger one as long as
            // its rows.
            let factor = (rows as f64 / upper.rows as f64).max(1.0);
            return upper.at.map(|time| time * factor);
        };
        let part = (rows - lower.rows) as f64 / (upper.rows - lower.rows) as f64;
        let mut at = lower.at;
        for (time, upper) in at.iter_mut().zip(upper.at) {
            *time += part * (upper - *time);
            // Beyond the last size, a line that falls is noise.
            if part > 1.0 {
                *time = time.max(upper);
            }
        }
        at
    }
}

// === impl Spread ===

impl Spread {
    fn new(size: &SizeCost) -> Spread {
        let [p50, p90, p99, typical] =
            [size.p50, size.p90, size.p99, size.typical].map(|time| time.as_nanos() as f64);
        let (p90, p99) = (p90.max(p50), p99.max(p90).max(p50));
        // The least is chosen so that the mean up to the 99th percentile is the typical time.
        let above_median = 0.4 * (p50 + p90) / 2.0 + 0.09 * (p90 + p99) / 2.0;
        let least = (4.0 * (0.99 * typical - above_median) - p50).clamp(p50 / 2.0, p50);
        // Nothing is known of the slowest in a hundred but that there are some.
        let most = p99 + (p99 - p90);
        Spread { rows: size.rows, at: [least, p50, p90, p99, most] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(rows: usize, us: [u64; 4]) -> SizeCost {
        let [p50, p90, p99, typical] = us.map(Duration::from_micros);
        SizeCost { rows, count: 9, source: CostSource::Runs, p50, p90, p99, typical, high: p99 }
    }

    /// Mean of the fastest 99 in 100, median and 99th percentile of many draws, in µs.
    fn drawn(run_times: &RunTimes, rows: usize) -> [f64; 3] {
        let mut random = Random::new(rows as u64);
        let mut draws: Vec<f64> =
            (0..20_000).map(|_| run_times.draw(rows, &mut random).as_nanos() as f64 / 1e3).collect();
        draws.sort_by(f64::total_cmp);
        let fastest = &draws[..19_800];
        [fastest.iter().sum::<f64>() / 19_800.0, draws[10_000], draws[19_800]]
    }

    #[track_caller]
    fn check(run_times: &RunTimes, rows: usize, expected: [f64; 3]) {
        let drawn = drawn(run_times, rows);
        for (drawn, expected) in drawn.iter().zip(expected) {
            assert!((drawn / expected - 1.0).abs() < 0.03, "{drawn} instead of {expected} at {rows}");
        }
    }

    #[test]
    fn draws_are_spread_as_was_measured() {
        let sizes = [size(4, [1300, 1400, 2000, 1310]), size(1, [1000, 1100, 1500, 1010])];
        let run_times = RunTimes::measured(&sizes).unwrap();
        check(&run_times, 1, [1010.0, 1000.0, 1500.0]);
        check(&run_times, 2, [1110.0, 1100.0, 1666.7]);
        check(&run_times, 4, [1310.0, 1300.0, 2000.0]);
        check(&run_times, 7, [1610.0, 1600.0, 2500.0]);
    }

    #[test]
    fn one_size_says_something_of_all() {
        let run_times = RunTimes::measured(&[size(4, [1000, 1000, 1000, 1000])]).unwrap();
        check(&run_times, 2, [1000.0; 3]);
        check(&run_times, 8, [2000.0; 3]);
        assert_eq!(RunTimes::measured(&[]), None);
        assert_eq!(RunTimes::measured(&[size(1, [0; 4])]), None);
    }

    #[test]
    fn linear_costs_go_on_without_end() {
        let run_times = RunTimes::linear(Duration::from_micros(500), Duration::from_micros(100));
        for rows in [1, 2, 7, 1000] {
            let typical = 500.0 + 100.0 * rows as f64;
            let [_, median, p99] = drawn(&run_times, rows);
            assert!((median / typical - 1.0).abs() < 0.01 && (p99 / typical / P99 - 1.0).abs() < 0.01);
        }
    }
}
