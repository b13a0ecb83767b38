//! Run times of one shape by batch size: what is known of each size, and the curve that is drawn through them.

use std::time::Duration;

use smallvec::SmallVec;

use super::histogram::{Histogram, Quantiles};
use super::{CostSource, SizeCost};

/// Run times by batch size.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Of 1, 2, 4, ... rows.
    pub(super) cells: Vec<Cell>,
    /// What was known before the first run, from the sweep or from another table; zeros where nothing was.
    pub(super) seeds: Vec<Point>,
    /// What seeds and cells predict now, without the margin.
    pub(super) curve: Vec<Point>,
    /// Most rows of a batch.
    pub(super) rows_max: usize,
    /// What a row costs where that is least, in nanoseconds.
    pub(super) row: f32,
    /// Rows of the smallest batch in which a row costs nearly as little.
    pub(super) efficient_rows: usize,
    /// Runs beside what the seeds would have predicted for them: this machine, now, beside an idle one then.
    scale: f32,
    runs: u64,
    /// [`CostModel::runs`] at the latest of them.
    pub(super) latest_run: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    /// The sweep has timed this size.
    pub(super) is_swept: bool,
    histogram: Option<Box<Histogram>>,
    quantiles: Quantiles,
    runs: u64,
    pub(super) latest_run: u64,
}

/// In nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    pub(super) typical: f32,
    pub(super) high: f32,
}

/// From so many runs on, a size is known from them alone.
const RUNS_KNOWN: u64 = 8;
/// Up to so many runs of a size each one moves its quantiles; beyond, they are computed every few runs.
const RUNS_FEW: u64 = 64;
const QUANTILES_EVERY: u64 = 16;
/// The scale follows the mean of so many runs.
const SCALE_RUNS: f32 = 32.0;
/// A run moves the scale as if it were at most so many times longer or shorter than expected.
const SCALE_STEP_MAX: f32 = 4.0;
/// A row that costs at most this much more than at best costs nearly as little.
const NEARLY_LEAST: f32 = 1.05;
/// A batch costs at most this much more than one of half its rows: two of those would do as well, apart from what
/// caches make of it. It keeps a size that once ran badly from never being tried again.
const DOUBLING_MAX: f32 = 2.2;
/// The 99th percentile of a few samples of the sweep is at most this much above the least, which is what an idle
/// machine needs: one that stalled then says little about the load to come.
const SEED_SPREAD_MAX: f32 = 2.0;

/// Of the power of two that is the least factor away.
fn nearest_exponent(rows: usize) -> usize {
    let exponent = rows.ilog2() as usize;
    // rows / 2^e > sqrt(2), in integers.
    let is_nearer_to_next = (rows as u128) * (rows as u128) > 1 << (2 * exponent + 1);
    exponent + usize::from(is_nearer_to_next)
}

/// What `curve`, of 1, 2, 4, ... rows, says of any number of rows: in a straight line between two sizes, and
/// beyond the last in that of the last two.
pub(super) fn at(curve: &[Point], rows: usize) -> Point {
    let lower = (rows.ilog2() as usize).min(curve.len() - 1);
    let base = curve[lower];
    let over = rows - (1 << lower);
    if over == 0 {
        return base;
    }
    let (slope, width) = match curve.get(lower + 1) {
        Some(next) => (next.less(base), 1 << lower),
        None if lower == 0 => (base, 1),
        None => (base.less(curve[lower - 1]).map(|value| value.max(0.0)), 1 << (lower - 1)),
    };
    let share = over as f32 / width as f32;
    let typical = base.typical + slope.typical * share;
    Point { typical, high: typical.max(base.high + slope.high * share) }
}

/// Draws a curve through the sizes of which something is known. Leaves it as it is where nothing is.
pub(super) fn complete(known: &[Option<Point>], curve: &mut [Point]) {
    let Some(first) = known.iter().position(Option::is_some) else { return };
    for exponent in 0..known.len() {
        curve[exponent] = match known[exponent] {
            Some(point) => point,
            // A smaller batch takes no longer than a larger one.
            None if exponent < first => known[first].unwrap_or_default(),
            None if exponent == 1 => curve[0].map(|value| 2.0 * value),
            None => {
                let [before, last] = [curve[exponent - 2], curve[exponent - 1]];
                let on = |before: f32, last: f32| last + 2.0 * (last - before).max(0.0);
                Point { typical: on(before.typical, last.typical), high: on(before.high, last.high) }
            }
        };
    }
}

// === impl Table ===

impl Table {
    pub(super) fn new(seeds: Vec<Point>, rows_max: usize) -> Table {
        let mut table = Table {
            cells: vec![Cell::default(); seeds.len()],
            curve: seeds.clone(),
            seeds,
            rows_max,
            row: 0.0,
            efficient_rows: 1,
            scale: 1.0,
            runs: 0,
            latest_run: 0,
        };
        table.draw_curve();
        table
    }

    pub(super) fn record(&mut self, rows: usize, took_ns: u64, run: u64) {
        let took = took_ns as f32;
        let seeded = at(&self.seeds, rows).typical;
        if seeded > 0.0 {
            // The mean of the first few, then one that follows; a single stall says little.
            let share = 1.0 / SCALE_RUNS.min(self.runs as f32 + 1.0);
            let ratio = (took / seeded).clamp(self.scale / SCALE_STEP_MAX, self.scale * SCALE_STEP_MAX);
            self.scale += share * (ratio - self.scale);
        }
        self.runs += 1;
        self.latest_run = run;
        // Counted with the nearest size, as what that would have taken.
        let exponent = nearest_exponent(rows).min(self.cells.len() - 1);
        let size = 1 << exponent;
        let (own, nearest) = (at(&self.curve, rows).typical, self.curve[exponent].typical);
        let ratio = if own > 0.0 { nearest / own } else { size as f32 / rows as f32 };
        if self.cells[exponent].record((took * ratio) as u64, run) {
            self.draw_curve();
        }
    }

    /// Derives what each size is predicted to take.
    pub(super) fn draw_curve(&mut self) {
        let cells = self.cells.iter().zip(&self.seeds);
        let known: SmallVec<[Option<Point>; 24]> =
            cells.map(|(cell, seed)| cell.point(seed.map(|value| value * self.scale))).collect();
        complete(&known, &mut self.curve);
        // Of two neighbours the one that ran last knows better what this machine is like now.
        for exponent in 1..self.cells.len() {
            if self.cells[exponent - 1].latest_run > self.cells[exponent].latest_run {
                let most = self.curve[exponent - 1].map(|value| DOUBLING_MAX * value);
                self.curve[exponent] = self.curve[exponent].at_most(most);
            }
        }
        for exponent in (1..self.cells.len()).rev() {
            if self.cells[exponent].latest_run > self.cells[exponent - 1].latest_run {
                self.curve[exponent - 1] = self.curve[exponent - 1].at_most(self.curve[exponent]);
            }
        }
        for point in &mut self.curve {
            point.high = point.high.max(point.typical);
        }
        let row = |rows: usize| at(&self.curve, rows).typical / rows as f32;
        let powers = (0..self.curve.len()).map(|exponent| 1 << exponent);
        let sizes = || powers.clone().filter(|rows| *rows < self.rows_max).chain([self.rows_max]);
        let least = sizes().map(row).min_by(f32::total_cmp).unwrap_or(0.0);
        let efficient = sizes().find(|rows| row(*rows) <= least * NEARLY_LEAST);
        (self.row, self.efficient_rows) = (least, efficient.unwrap_or(1));
    }

    pub(super) fn sizes(&self, margin: f32) -> Vec<SizeCost> {
        let nanos = |value: f32| Duration::from_nanos(value as u64);
        let cells = self.cells.iter().enumerate();
        let known = cells.filter(|(exponent, _)| self.curve[*exponent].typical > 0.0);
        known
            .map(|(exponent, cell)| {
                let (point, seed) = (self.curve[exponent], self.seeds[exponent]);
                let (source, quantiles) = match cell {
                    Cell { runs: 1.., quantiles, .. } => (CostSource::Runs, *quantiles),
                    Cell { is_swept: true, .. } => (CostSource::Sweep, seed.as_quantiles()),
                    _ => (CostSource::Estimate, point.as_quantiles()),
                };
                SizeCost {
                    rows: 1 << exponent,
                    count: cell.runs,
                    source,
                    p50: nanos(quantiles.p50),
                    p90: nanos(quantiles.p90),
                    p99: nanos(quantiles.p99),
                    typical: nanos(point.typical),
                    high: nanos(point.high * margin),
                }
            })
            .collect()
    }
}

// === impl Cell ===

impl Cell {
    /// True when its quantiles are new: of many runs, one more moves them little.
    fn record(&mut self, took_ns: u64, run: u64) -> bool {
        let histogram = self.histogram.get_or_insert_with(|| Box::new(Histogram::new()));
        histogram.record(took_ns);
        self.runs += 1;
        self.latest_run = run;
        let is_due = self.runs <= RUNS_FEW || self.runs.is_multiple_of(QUANTILES_EVERY);
        if is_due {
            self.quantiles = histogram.quantiles();
        }
        is_due
    }

    /// Few runs count for less than the seed: their 99th percentile is the worst of them.
    fn point(&self, seed: Point) -> Option<Point> {
        if seed.typical > 0.0 && self.runs < RUNS_KNOWN {
            Some(seed)
        } else if self.runs > 0 {
            Some(Point { typical: self.quantiles.typical, high: self.quantiles.p99 })
        } else {
            None
        }
    }
}

// === impl Point ===

impl Point {
    /// The least sample is what the work takes; what is above it, up to a point, is what may happen.
    pub(super) fn of_samples(samples: &[Duration]) -> Option<Point> {
        let nanos = |duration: &Duration| duration.as_nanos() as f32;
        let typical = samples.iter().map(nanos).min_by(f32::total_cmp)?;
        let most = samples.iter().map(nanos).max_by(f32::total_cmp)?;
        Some(Point { typical, high: most.min(typical * SEED_SPREAD_MAX) })
    }

    fn map(self, change: impl Fn(f32) -> f32) -> Point {
        Point { typical: change(self.typical), high: change(self.high) }
    }

    fn less(self, other: Point) -> Point {
        Point { typical: self.typical - other.typical, high: self.high - other.high }
    }

    fn at_most(self, other: Point) -> Point {
        Point { typical: self.typical.min(other.typical), high: self.high.min(other.high) }
    }

    /// Of a few samples no more is known.
    fn as_quantiles(self) -> Quantiles {
        Quantiles { typical: self.typical, p50: self.typical, p90: self.high, p99: self.high }
    }
}
