//! How long a batch of so many rows takes: learned when a version is loaded and from every run. Pure, with no clock.
//!
//! A table of run times by batch size (1, 2, 4, ...) for all shapes together and one for each of the shapes that
//! ran lately. What lies between sizes is interpolated, what lies beyond goes on in a straight line. Tables keep
//! quantiles that forget (as Clipper's containers and Orloj's distributions do), not means: a deadline is broken
//! by the slow runs.

mod histogram;

use std::time::Duration;

use smallvec::SmallVec;

use self::histogram::{Histogram, Quantiles};
use crate::request::ShapeKey;

/// What a version's batches cost.
#[derive(Clone, Debug)]
pub(crate) struct CostModel {
    all_shapes: Table,
    shapes: Vec<ShapeTable>,
    margin: Margin,
    runs: u64,
}

/// How long a batch is expected to take, in nanoseconds; 0 where nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prediction {
    /// What several of them take, divided by their number.
    pub(crate) typical_ns: u64,
    /// What one in a hundred exceeds: the 99th percentile times the margin.
    pub(crate) high_ns: u64,
}

/// Where a shape's table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ShapeId {
    #[default]
    All,
    One {
        index: u32,
        generation: u32,
    },
}

/// A factor that follows how far a quantile of the truth lies above its prediction: it grows at each miss and
/// shrinks while predictions hold, by steps whose ratio is the share of misses that is aimed at (Robbins and
/// Monro's stochastic approximation of a quantile).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Margin {
    factor: f32,
    up: f32,
    down: f32,
}

/// How the batches of one version were timed, for people and machines.
#[derive(Clone, Debug, PartialEq)]
pub struct CostTable {
    /// Dimensions that differ between requests, each rounded up to a power of two; `None` for all shapes together.
    pub shape: Option<Vec<u64>>,
    /// Ascending by rows.
    pub sizes: Vec<SizeCost>,
}

/// Run time of one batch size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizeCost {
    pub rows: usize,
    /// Runs since the version was loaded; sizes between are counted with the nearest.
    pub count: u64,
    pub source: CostSource,
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    /// What the scheduler reckons with: a mean, and a bound that one run in a hundred may exceed.
    pub typical: Duration,
    pub high: Duration,
}

/// Where a size's run time is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostSource {
    /// Runs of requests.
    Runs,
    /// The sweep when the version was loaded.
    Sweep,
    /// Other sizes.
    Estimate,
}

/// Dynamic dimensions, each as the exponent of the power of two that it is rounded up to.
type ShapeBucket = SmallVec<[u8; 8]>;

/// A table of one shape.
#[derive(Clone, Debug)]
struct ShapeTable {
    bucket: ShapeBucket,
    /// Counts the shapes that had this place before, so that a [`ShapeId`] cannot mean another.
    generation: u32,
    table: Table,
}

/// Run times by batch size.
#[derive(Clone, Debug)]
struct Table {
    /// Of 1, 2, 4, ... rows.
    cells: Vec<Cell>,
    /// What was known before the first run, from the sweep or from another table; zeros where nothing was.
    seeds: Vec<Point>,
    /// What seeds and cells predict now, without the margin.
    curve: Vec<Point>,
    /// Most rows of a batch.
    rows_max: usize,
    /// What a row costs where that is least, in nanoseconds.
    row: f32,
    /// Runs beside what the seeds would have predicted for them: this machine, now, beside an idle one then.
    scale: f32,
    runs: u64,
    /// [`CostModel::runs`] at the latest of them.
    latest_run: u64,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    /// The sweep has timed this size.
    is_swept: bool,
    histogram: Option<Box<Histogram>>,
    quantiles: Quantiles,
    runs: u64,
    latest_run: u64,
}

/// In nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    typical: f32,
    high: f32,
}

/// Shapes with a table of their own; the others share one.
const SHAPES_MAX: usize = 16;
/// A shape's table gives way to another's when so many runs were of other shapes.
const SHAPE_KEPT_RUNS: u64 = 256;
/// From so many runs on, a size is known from them alone.
const RUNS_KNOWN: u64 = 8;
/// The scale follows the mean of so many runs.
const SCALE_RUNS: f32 = 32.0;
/// A run moves the scale as if it were at most so many times longer or shorter than expected.
const SCALE_STEP_MAX: f32 = 4.0;
/// A batch costs at most this much more than one of half its rows: two of those would do as well, apart from what
/// caches make of it. It keeps a size that once ran badly from never being tried again.
const DOUBLING_MAX: f32 = 2.2;
/// The 99th percentile of a few samples of the sweep is at most this much above the least, which is what an idle
/// machine needs: one that stalled then says little about the load to come.
const SEED_SPREAD_MAX: f32 = 2.0;
const RUN_NS_MIN: u64 = 1000;
/// Beyond, a prediction is useless anyway.
const MARGIN_MAX: f32 = 4.0;

// === impl CostModel ===

impl CostModel {
    /// A model that knows nothing yet of batches up to `rows_max` rows.
    pub(crate) fn new(rows_max: usize) -> CostModel {
        let sizes = rows_max.next_power_of_two().ilog2() as usize + 1;
        CostModel {
            all_shapes: Table::new(vec![Point::default(); sizes], rows_max),
            shapes: Vec::new(),
            // One run in a hundred may exceed `high`: a tenth up, a thousandth down.
            margin: Margin::new(0.1, 0.001),
            runs: 0,
        }
    }

    /// The same with what a sweep has measured: for each number of rows, a power of two, some run times.
    pub(crate) fn seeded(rows_max: usize, sweep: &[(usize, Vec<Duration>)]) -> CostModel {
        let mut model = CostModel::new(rows_max);
        let table = &mut model.all_shapes;
        let mut known = vec![None; table.cells.len()];
        for (rows, samples) in sweep {
            let exponent = rows.ilog2() as usize;
            if let (Some(cell), Some(seed)) = (table.cells.get_mut(exponent), Point::of_samples(samples)) {
                cell.is_swept = true;
                known[exponent] = Some(seed);
            }
        }
        complete(&known, &mut table.seeds);
        table.draw_curve();
        model
    }

    /// Where requests of this shape are counted.
    pub(crate) fn shape_id(&self, key: &ShapeKey) -> ShapeId {
        if key.dims().is_empty() {
            return ShapeId::All;
        }
        let bucket = bucket(key);
        match self.shapes.iter().position(|shape| shape.bucket == bucket) {
            Some(index) => ShapeId::One { index: index as u32, generation: self.shapes[index].generation },
            None => ShapeId::All,
        }
    }

    /// How long a batch of `rows` rows (at least 1) takes.
    pub(crate) fn predict(&self, rows: usize, shape: ShapeId) -> Prediction {
        let point = at(&self.table(shape).curve, rows);
        Prediction { typical_ns: point.typical as u64, high_ns: (point.high * self.margin.factor) as u64 }
    }

    /// What a row costs in the batches that are cheapest a row, in nanoseconds.
    pub(crate) fn row_ns(&self, shape: ShapeId) -> u64 {
        self.table(shape).row as u64
    }

    /// Learns from a run of `rows` rows of one shape.
    pub(crate) fn record(&mut self, rows: usize, key: &ShapeKey, took_ns: u64) {
        // No run is that quick: zero would stand for what is not known.
        let took_ns = took_ns.max(RUN_NS_MIN);
        self.runs += 1;
        let runs = self.runs;
        let predicted = self.predict(rows, self.shape_id(key)).high_ns;
        if predicted > 0 {
            self.margin.observe(took_ns > predicted);
        }
        if !key.dims().is_empty()
            && let Some(table) = self.own_table(bucket(key))
        {
            table.record(rows, took_ns, runs);
        }
        self.all_shapes.record(rows, took_ns, runs);
    }

    /// The table of a shape that has just run, made if there is room for it.
    fn own_table(&mut self, bucket: ShapeBucket) -> Option<&mut Table> {
        let index = match self.shapes.iter().position(|shape| shape.bucket == bucket) {
            Some(index) => index,
            None => {
                // Reckons with all shapes' times until it has its own.
                let table = Table::new(self.all_shapes.curve.clone(), self.all_shapes.rows_max);
                if self.shapes.len() < SHAPES_MAX {
                    self.shapes.push(ShapeTable { bucket, generation: 0, table });
                    self.shapes.len() - 1
                } else {
                    let shapes = self.shapes.iter_mut().enumerate();
                    let (index, oldest) = shapes.min_by_key(|(_, shape)| shape.table.latest_run)?;
                    if self.runs - oldest.table.latest_run < SHAPE_KEPT_RUNS {
                        return None;
                    }
                    let generation = oldest.generation.wrapping_add(1);
                    *oldest = ShapeTable { bucket, generation, table };
                    index
                }
            }
        };
        Some(&mut self.shapes[index].table)
    }

    fn table(&self, shape: ShapeId) -> &Table {
        let ShapeId::One { index, generation } = shape else { return &self.all_shapes };
        match self.shapes.get(index as usize) {
            Some(shape) if shape.generation == generation => &shape.table,
            _ => &self.all_shapes,
        }
    }

    /// By how much predictions are raised.
    pub(crate) fn margin(&self) -> f32 {
        self.margin.factor
    }

    /// All that is known: of all shapes together, then of those that have a table of their own.
    pub(crate) fn tables(&self) -> Vec<CostTable> {
        let own = self.shapes.iter().map(|shape| (Some(&shape.bucket), &shape.table));
        let all = std::iter::once((None, &self.all_shapes)).chain(own);
        all.map(|(bucket, table)| CostTable {
            shape: bucket.map(|bucket| bucket.iter().map(|&exponent| 1 << exponent).collect()),
            sizes: table.sizes(self.margin.factor),
        })
        .collect()
    }
}

fn bucket(key: &ShapeKey) -> ShapeBucket {
    let exponent = |&size: &usize| match size {
        0 | 1 => 0,
        // The marker of an input that is left out is beyond what a u64 can be shifted by.
        _ => ((size - 1).ilog2() + 1).min(63) as u8,
    };
    key.dims().iter().map(exponent).collect()
}

/// Of the power of two that is the least factor away.
fn nearest_exponent(rows: usize) -> usize {
    let exponent = rows.ilog2() as usize;
    // rows / 2^e > sqrt(2), in integers.
    let is_nearer_to_next = (rows as u128) * (rows as u128) > 1 << (2 * exponent + 1);
    exponent + usize::from(is_nearer_to_next)
}

/// What `curve`, of 1, 2, 4, ... rows, says of any number of rows: in a straight line between two sizes, and
/// beyond the last in that of the last two.
fn at(curve: &[Point], rows: usize) -> Point {
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
fn complete(known: &[Option<Point>], curve: &mut [Point]) {
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
    fn new(seeds: Vec<Point>, rows_max: usize) -> Table {
        let mut table = Table {
            cells: vec![Cell::default(); seeds.len()],
            curve: seeds.clone(),
            seeds,
            rows_max,
            row: 0.0,
            scale: 1.0,
            runs: 0,
            latest_run: 0,
        };
        table.draw_curve();
        table
    }

    fn record(&mut self, rows: usize, took_ns: u64, run: u64) {
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
        self.cells[exponent].record((took * ratio) as u64, run);
        self.draw_curve();
    }

    /// Derives what each size is predicted to take.
    fn draw_curve(&mut self) {
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
        let sizes = (0..self.curve.len()).map(|exponent| 1 << exponent).filter(|rows| *rows < self.rows_max);
        let costs = sizes.chain([self.rows_max]).map(|rows| at(&self.curve, rows).typical / rows as f32);
        self.row = costs.min_by(f32::total_cmp).unwrap_or(0.0);
    }

    fn sizes(&self, margin: f32) -> Vec<SizeCost> {
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
    fn record(&mut self, took_ns: u64, run: u64) {
        let histogram = self.histogram.get_or_insert_with(|| Box::new(Histogram::new()));
        histogram.record(took_ns);
        self.quantiles = histogram.quantiles();
        self.runs += 1;
        self.latest_run = run;
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
    fn of_samples(samples: &[Duration]) -> Option<Point> {
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

// === impl Margin ===

impl Margin {
    /// Aims at `down / up` misses.
    pub(crate) fn new(up: f32, down: f32) -> Margin {
        Margin { factor: 1.0, up, down }
    }

    pub(crate) fn observe(&mut self, missed: bool) {
        let step = if missed { 1.0 + self.up } else { 1.0 - self.down };
        self.factor = (self.factor * step).clamp(1.0, MARGIN_MAX);
    }
}

#[cfg(test)]
#[path = "cost_tests.rs"]
mod tests;
