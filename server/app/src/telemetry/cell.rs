//! What metric handles write to: a counter, a gauge, a histogram with fixed buckets. All lock-free.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use metrics::{CounterFn, GaugeFn, HistogramFn};

use crate::trace_context::TraceId;

#[derive(Debug, Default)]
pub(super) struct CounterCell(AtomicU64);

/// Holds the bits of a float.
#[derive(Debug, Default)]
pub(super) struct GaugeCell(AtomicU64);

/// Counts by bucket, so that its size does not depend on how much was recorded or when it was read.
#[derive(Debug)]
pub(super) struct HistogramCell {
    /// Upper bounds, ascending and inclusive.
    bounds: &'static [f64],
    /// One for each bound, and one for what is above them all.
    counts: Box<[AtomicU64]>,
    /// The bits of a float.
    sum: AtomicU64,
    /// The newest of each bucket; empty until there is one.
    exemplars: Mutex<Vec<Option<Exemplar>>>,
}

/// A recorded value that has a trace which somebody can look at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Exemplar {
    pub(super) trace_id: TraceId,
    pub(super) value: f64,
    pub(super) at: SystemTime,
}

/// A histogram as it is shown.
#[derive(Debug, PartialEq)]
pub(super) struct Buckets {
    pub(super) bounds: &'static [f64],
    /// How many values are at most each bound; the last is of all values.
    pub(super) cumulative: Vec<u64>,
    pub(super) sum: f64,
    /// As many as buckets, or none.
    pub(super) exemplars: Vec<Option<Exemplar>>,
}

// === impl CounterCell ===

impl CounterCell {
    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl CounterFn for CounterCell {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}

// === impl GaugeCell ===

impl GaugeCell {
    pub(super) fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl GaugeFn for GaugeCell {
    fn increment(&self, value: f64) {
        add(&self.0, value);
    }

    fn decrement(&self, value: f64) {
        add(&self.0, -value);
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

// === impl HistogramCell ===

impl HistogramCell {
    pub(super) fn new(bounds: &'static [f64]) -> HistogramCell {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        HistogramCell { bounds, counts, sum: AtomicU64::new(0), exemplars: Mutex::default() }
    }

    /// Keeps an example of a value that was recorded.
    pub(super) fn keep(&self, exemplar: Exemplar) {
        let mut exemplars = self.lock_exemplars();
        exemplars.resize(self.counts.len(), None);
        exemplars[self.bucket(exemplar.value)] = Some(exemplar);
    }

    fn bucket(&self, value: f64) -> usize {
        self.bounds.partition_point(|bound| value > *bound || value.is_nan())
    }

    fn lock_exemplars(&self) -> MutexGuard<'_, Vec<Option<Exemplar>>> {
        self.exemplars.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read(&self) -> Buckets {
        // Before the counts: what an exemplar is of is then among them.
        let exemplars = self.lock_exemplars().clone();
        let mut total = 0;
        let cumulative = self.counts.iter().map(|count| {
            total += count.load(Ordering::Relaxed);
            total
        });
        Buckets {
            bounds: self.bounds,
            cumulative: cumulative.collect(),
            sum: f64::from_bits(self.sum.load(Ordering::Relaxed)),
            exemplars,
        }
    }
}

impl HistogramFn for HistogramCell {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        self.counts[self.bucket(value)].fetch_add(count as u64, Ordering::Relaxed);
        add(&self.sum, value * count as f64);
    }
}

/// Adds to a float that is kept as its bits.
fn add(cell: &AtomicU64, value: f64) {
    let mut before = cell.load(Ordering::Relaxed);
    loop {
        let after = (f64::from_bits(before) + value).to_bits();
        match cell.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(meanwhile) => before = meanwhile,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive() {
        let cell = HistogramCell::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 2.0, 3.0] {
            cell.record(value);
        }
        let Buckets { bounds, cumulative, sum, exemplars } = cell.read();
        assert_eq!((bounds, cumulative.as_slice(), sum), ([1.0, 2.0].as_slice(), [2, 4, 5].as_slice(), 8.0));
        assert_eq!(exemplars, []);
    }

    #[test]
    fn what_is_not_a_number_is_in_the_last_bucket() {
        let cell = HistogramCell::new(&[1.0]);
        cell.record(f64::NAN);
        assert_eq!(cell.read().cumulative, [0, 1]);
    }

    #[test]
    fn the_newest_exemplar_of_each_bucket_is_kept() {
        let cell = HistogramCell::new(&[1.0, 2.0]);
        let exemplar =
            |id: u8, value: f64| Exemplar { trace_id: TraceId([id; 16]), value, at: SystemTime::UNIX_EPOCH };
        for (id, value) in [(1, 0.5), (2, 9.0), (3, 1.0)] {
            cell.keep(exemplar(id, value));
        }
        assert_eq!(cell.read().exemplars, [Some(exemplar(3, 1.0)), None, Some(exemplar(2, 9.0))]);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let (histogram, gauge) = (HistogramCell::new(&[1.0]), GaugeCell::default());
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..10_000 {
                        histogram.record(0.5);
                        gauge.increment(1.0);
                    }
                });
            }
        });
        let read = histogram.read();
        assert_eq!((read.cumulative.as_slice(), read.sum), ([40_000, 40_000].as_slice(), 20_000.0));
        assert_eq!(gauge.value(), 40_000.0);
    }
}
