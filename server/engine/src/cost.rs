//! How long a batch of so many rows takes: learned when a version is loaded and from every run. Pure, with no clock.
//!
//! A table of run times by batch size (1, 2, 4, ...) for all shapes together and one for each of the shapes that
//! ran lately. What lies between sizes is interpolated, what lies beyond goes on in a straight line. Tables keep
//! quantiles that forget (as Clipper's containers and Orloj's distributions do), not means: a deadline is broken
//! by the slow runs.

mod histogram;
mod table;

use std::time::Duration;

use smallvec::SmallVec;

use self::table::{Point, Table, at, complete};
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
    max: f32,
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

/// Shapes with a table of their own; the others share one.
const SHAPES_MAX: usize = 16;
/// A shape's table gives way to another's when so many runs were of other shapes.
const SHAPE_KEPT_RUNS: u64 = 256;
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
            margin: Margin::new(0.1, 0.001, MARGIN_MAX),
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

    /// Rows of the smallest batch in which a row costs nearly as little.
    pub(crate) fn efficient_rows(&self, shape: ShapeId) -> usize {
        self.table(shape).efficient_rows
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

// === impl Margin ===

impl Margin {
    /// Aims at `down / up` misses.
    pub(crate) fn new(up: f32, down: f32, max: f32) -> Margin {
        Margin { factor: 1.0, up, down, max }
    }

    pub(crate) fn observe(&mut self, missed: bool) {
        if missed { self.missed() } else { self.met(1) }
    }

    pub(crate) fn missed(&mut self) {
        self.factor = (self.factor * (1.0 + self.up)).min(self.max);
    }

    /// So many predictions held.
    pub(crate) fn met(&mut self, times: usize) {
        self.factor = (self.factor * (1.0 - self.down * times as f32)).max(1.0);
    }

    pub(crate) fn factor(&self) -> f32 {
        self.factor
    }
}

#[cfg(test)]
#[path = "cost_tests.rs"]
mod tests;
