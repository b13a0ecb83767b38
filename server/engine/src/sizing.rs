//! How many rows a batch should have: what answers soonest, what keeps up, what is in time. Pure.

use std::time::Duration;

use crate::cost::{CostModel, ShapeId};

/// What the sizes of a lane's batches are weighed by.
pub(crate) struct Sizing<'a> {
    pub(crate) cost: &'a CostModel,
    pub(crate) shape: ShapeId,
    pub(crate) rows_max: usize,
    pub(crate) workers: usize,
    /// Rows that arrive, a nanosecond.
    pub(crate) arrival_rate: f64,
}

/// What a batch costs beside its run: two thread crossings, gathering, slicing, and caches that have gone
/// cold. Weighs against small batches of quick models; of the order of what `cargo bench --bench throughput`
/// shows a row to cost beside its run, and twice what one request in flight adds to a bare echo.
pub(crate) const BATCH_OVERHEAD: Duration = Duration::from_micros(50);
const BATCH_OVERHEAD_NS: f64 = BATCH_OVERHEAD.as_nanos() as f64;

/// Load of the workers up to which a batch size counts as keeping up: beyond, queues grow at every fluctuation.
const LOAD_MAX: f64 = 0.8;
/// A larger batch is preferred to a smaller one that answers sooner by no more than this part ...
const SOONER_MIN: f64 = 0.1;
/// ... or by no more than this, in nanoseconds: it takes less from the other models and from the sockets.
const SOONER_MIN_NS: f64 = 100_000.0;
/// Of two sizes with nearly the same rate the smaller one is preferred.
const NEARLY: f64 = 0.95;
/// The same where more arrives than can be kept up with: every row counts then.
const HARDLY_LESS: f64 = 0.99;

// === impl Sizing ===

impl Sizing<'_> {
    /// Rows of the batches in which `waiting` rows are answered soonest, on average, when `free` workers share them.
    ///
    /// Batches of b rows end one after the other, every t(b), and so the mean over all rows is
    /// t(b) (rounds + 1) / 2. Sizes that do not keep up with what arrives do not count; where none does, the
    /// smallest that gives up hardly any throughput is best. A model whose batches take as long as their rows one by
    /// one is so not batched.
    pub(crate) fn soonest(&self, waiting: usize, free: usize) -> usize {
        let mean = |rows: usize| {
            let rounds = waiting.div_ceil(rows * free.max(1));
            (self.typical(rows) + BATCH_OVERHEAD_NS) * (rounds + 1) as f64 / 2.0
        };
        // Nothing is known, or all that wait take so little together that no size is worth weighing.
        if self.typical(waiting.min(self.rows_max)) <= SOONER_MIN_NS && waiting <= self.rows_max {
            return self.rows_max;
        }
        let keeps_up = |rows: &usize| self.rate(*rows) * LOAD_MAX >= self.arrival_rate;
        let Some(least) = self.sizes().filter(keeps_up).map(mean).min_by(f64::total_cmp) else {
            return self.at_rate(f64::INFINITY, HARDLY_LESS);
        };
        let most = (least * (1.0 + SOONER_MIN)).max(least + SOONER_MIN_NS);
        let nearly = self.sizes().filter(keeps_up).filter(|rows| mean(*rows) <= most);
        nearly.last().unwrap_or(self.rows_max)
    }

    /// Rows of the smallest batches that keep up with what arrives, or come near to it.
    pub(crate) fn keeping_up(&self) -> usize {
        self.at_rate(self.arrival_rate, NEARLY)
    }

    /// Rows of the smallest batches that take `rate`, or `share` of the highest that there is.
    fn at_rate(&self, rate: f64, share: f64) -> usize {
        let most = self.sizes().map(|rows| self.rate(rows)).fold(0.0, f64::max);
        let wanted = rate.min(most * share);
        self.sizes().find(|rows| self.rate(*rows) >= wanted).unwrap_or(self.rows_max)
    }

    /// Rows of the largest batch that is expected to end within `slack_ns`, among the sizes that are weighed; 0 if
    /// none is.
    pub(crate) fn within(&self, slack_ns: u64) -> usize {
        let fits = |rows: &usize| self.cost.predict(*rows, self.shape).high_ns <= slack_ns;
        self.sizes().take_while(fits).last().unwrap_or(0)
    }

    /// What it saves the workers, in nanoseconds, if one more row joins a batch of `rows` and need not run alone.
    pub(crate) fn saved_by_one_more(&self, rows: usize) -> f64 {
        self.typical(rows) + self.typical(1) - self.typical(rows + 1)
    }

    fn typical(&self, rows: usize) -> f64 {
        self.cost.predict(rows, self.shape).typical_ns as f64
    }

    /// Rows a nanosecond of all workers.
    pub(crate) fn rate(&self, rows: usize) -> f64 {
        (self.workers * rows) as f64 / (self.typical(rows) + BATCH_OVERHEAD_NS)
    }

    fn sizes(&self) -> impl Iterator<Item = usize> {
        let powers = (0..usize::BITS).map(|exponent| 1 << exponent);
        powers.take_while(|rows| *rows < self.rows_max).chain([self.rows_max])
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// `times_us` are those of 1, 2, 4, ... rows; the last is the largest batch.
    fn sizing(times_us: &[u64], workers: usize, arrivals_per_s: f64, look: impl FnOnce(&Sizing<'_>)) {
        let sweep: Vec<_> = (0..)
            .zip(times_us)
            .map(|(exponent, &us)| (1usize << exponent, vec![Duration::from_micros(us)]))
            .collect();
        let rows_max = 1 << (times_us.len() - 1);
        let cost = CostModel::seeded(rows_max, &sweep);
        let arrival_rate = arrivals_per_s / 1e9;
        look(&Sizing { cost: &cost, shape: ShapeId::All, rows_max, workers, arrival_rate });
    }

    /// For each number of waiting rows the batch that answers them soonest, with one free worker.
    fn check_soonest(times_us: &[u64], arrivals_per_s: f64, expected: Expect) {
        sizing(times_us, 1, arrivals_per_s, |sizing| {
            let line = |waiting: usize| format!("{waiting}: {}", sizing.soonest(waiting, 1));
            expected.assert_eq(&[1, 2, 4, 8, 64, 1000].map(line).join(", "));
        });
    }

    const LINEAR: &[u64] = &[10_000, 20_000, 40_000, 80_000];
    const AFFINE: &[u64] = &[10_000, 11_000, 13_000, 17_000];
    const QUICK: &[u64] = &[3, 4, 5, 8, 14, 26, 50];

    #[test]
    fn a_model_that_gains_nothing_is_not_batched() {
        check_soonest(LINEAR, 10.0, expect!["1: 1, 2: 1, 4: 1, 8: 1, 64: 4, 1000: 8"]);
        check_soonest(LINEAR, 99.0, expect!["1: 1, 2: 1, 4: 1, 8: 1, 64: 1, 1000: 1"]);
    }

    #[test]
    fn a_model_that_gains_is() {
        check_soonest(AFFINE, 10.0, expect!["1: 2, 2: 2, 4: 4, 8: 8, 64: 8, 1000: 8"]);
        check_soonest(AFFINE, 300.0, expect!["1: 8, 2: 8, 4: 8, 8: 8, 64: 8, 1000: 8"]);
    }

    #[test]
    fn small_gains_do_not_split_quick_batches() {
        check_soonest(QUICK, 10_000.0, expect!["1: 64, 2: 64, 4: 64, 8: 64, 64: 64, 1000: 64"]);
    }

    #[test]
    fn free_workers_share_slow_rows_only() {
        sizing(LINEAR, 4, 10.0, |sizing| assert_eq!(sizing.soonest(8, 4), 1));
        sizing(AFFINE, 4, 10.0, |sizing| assert_eq!((sizing.soonest(8, 4), sizing.soonest(8, 1)), (2, 8)));
        sizing(QUICK, 4, 10.0, |sizing| assert_eq!(sizing.soonest(64, 4), 64));
    }

    #[test]
    fn keeping_up_takes_no_more_rows_than_needed() {
        for (arrivals_per_s, rows) in [(10.0, 1), (150.0, 2), (250.0, 4), (400.0, 8), (9999.0, 8)] {
            sizing(AFFINE, 1, arrivals_per_s, |sizing| {
                assert_eq!(sizing.keeping_up(), rows, "{arrivals_per_s}")
            });
        }
        sizing(LINEAR, 1, 9999.0, |sizing| assert_eq!(sizing.keeping_up(), 1, "none is better"));
    }

    #[test]
    fn what_fits_into_the_time_left() {
        sizing(AFFINE, 1, 0.0, |sizing| {
            let rows = [9, 10, 12, 13, 16, 100].map(|ms| sizing.within(ms * 1_000_000));
            assert_eq!(rows, [0, 1, 2, 4, 4, 8]);
        });
    }

    #[test]
    fn one_more_saves_what_is_fixed() {
        sizing(AFFINE, 1, 0.0, |sizing| {
            assert_eq!([1, 3].map(|rows| sizing.saved_by_one_more(rows) / 1e6), [9.0, 9.0]);
        });
        sizing(LINEAR, 1, 0.0, |sizing| assert_eq!(sizing.saved_by_one_more(3), 0.0));
    }
}
