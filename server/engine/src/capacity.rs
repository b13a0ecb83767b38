//! What a version is predicted to be able to do: its run times, its largest batch and why, the highest rate at its SLO.

use std::time::Duration;

use crate::cost::{CostModel, CostTable, ShapeId};

/// What the scheduler knows of a version, for people and machines.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyModel {
    /// Of all shapes together, then of those that were needed lately.
    pub tables: Vec<CostTable>,
    /// What the bounds in the tables are raised by; 1 where predictions hold.
    pub margin: f64,
    /// What the waits that admission predicts are raised by; 1 where they hold.
    pub wait_margin: f64,
    pub batch_rows_max: usize,
    /// Why the largest batch has so many rows.
    pub batch_rows_why: String,
    /// Batches that may run at the same time.
    pub workers: usize,
    pub slo: Option<Duration>,
    /// `None` where nothing has been timed.
    pub capacity: Option<Capacity>,
}

/// The highest rate that a version is predicted to keep up with.
///
/// It is what its workers can do. What sockets and messages take of the same cores is not part of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    pub rows_per_s: f64,
    /// Rows in a batch at that rate.
    pub batch_rows: usize,
    /// How busy the workers may be, so that 99 in 100 rows are answered within the SLO; 1 without an SLO.
    pub utilization: f64,
}

impl Capacity {
    /// The best over all sizes up to `rows_max` rows.
    ///
    /// A row waits for the end of a run, then for the rows before it, then for its own run. For the middle part
    /// Kingman's formula is taken with runs of equal length and batches that fill from single rows (so the square of
    /// the variation of their arrivals is 1 / rows), and an exponential tail, whose 99th percentile is ln 100 times
    /// its mean. A rate of 0 means that not even a single row can be expected to be in time.
    pub(crate) fn new(
        cost: &CostModel,
        rows_max: usize,
        workers: usize,
        slo: Option<Duration>,
    ) -> Option<Capacity> {
        let sizes = (0..usize::BITS).map(|exponent| 1 << exponent).take_while(|rows| *rows < rows_max);
        let at = |rows: usize| {
            let prediction = cost.predict(rows, ShapeId::All);
            let [typical, high] = [prediction.typical_ns, prediction.high_ns].map(|ns| ns as f64 / 1e9);
            let utilization = match slo {
                None => 1.0,
                Some(slo) => {
                    let slack = (slo.as_secs_f64() - high - typical).max(0.0);
                    let load = 2.0 * (rows * workers) as f64 * slack / (100f64.ln() * typical);
                    load / (1.0 + load)
                }
            };
            let rows_per_s = utilization * (workers * rows) as f64 / typical;
            (typical > 0.0).then_some(Capacity { rows_per_s, batch_rows: rows, utilization })
        };
        let all = sizes.chain([rows_max]).filter_map(at);
        all.reduce(|best, other| if other.rows_per_s > best.rows_per_s { other } else { best })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// `times_us` at 1, 2, 4, ... rows, which are also the largest batch.
    fn check(times_us: &[u64], workers: usize, slo_ms: Option<u64>, expected: Expect) {
        let sweep: Vec<_> = (0..)
            .zip(times_us)
            .map(|(exponent, &us)| (1usize << exponent, vec![Duration::from_micros(us)]))
            .collect();
        let rows_max = 1 << times_us.len().saturating_sub(1);
        let cost = CostModel::seeded(rows_max, &sweep);
        let text = match Capacity::new(&cost, rows_max, workers, slo_ms.map(Duration::from_millis)) {
            None => "unknown".to_owned(),
            Some(Capacity { rows_per_s, batch_rows, utilization }) => {
                format!("{rows_per_s:.0} rows/s in batches of {batch_rows} at {:.0} %", 100.0 * utilization)
            }
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn without_an_slo_it_is_what_the_workers_can_do() {
        check(&[], 2, None, expect!["unknown"]);
        check(&[10_000], 1, None, expect!["100 rows/s in batches of 1 at 100 %"]);
        check(&[10_000, 11_000, 14_000], 2, None, expect!["571 rows/s in batches of 4 at 100 %"]);
        check(&[10_000, 25_000, 60_000], 2, None, expect!["200 rows/s in batches of 1 at 100 %"]);
    }

    #[test]
    fn an_slo_leaves_room_for_waiting() {
        check(&[10_000, 11_000, 14_000], 1, Some(1000), expect!["283 rows/s in batches of 4 at 99 %"]);
        check(&[10_000, 11_000, 14_000], 1, Some(50), expect!["209 rows/s in batches of 4 at 73 %"]);
        check(&[10_000, 11_000, 14_000], 1, Some(25), expect!["35 rows/s in batches of 2 at 19 %"]);
        check(&[10_000, 11_000, 14_000], 1, Some(15), expect!["0 rows/s in batches of 1 at 0 %"]);
    }
}
