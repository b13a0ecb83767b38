//! Recent durations as a histogram that forgets: fixed memory, quantiles within an eighth.

/// Buckets to an octave: as in an HDR histogram with three significant bits, a bucket is at most an eighth wide.
const PER_OCTAVE: usize = 8;
/// Shorter durations count as this power of two, in nanoseconds: about a microsecond.
const FIRST_EXPONENT: usize = 10;
/// Up to 2^42 ns, more than an hour.
const OCTAVES: usize = 32;
const BUCKETS: usize = OCTAVES * PER_OCTAVE;
/// A sample's weight falls to 1/e while so many follow: enough for a 99th percentile, and a second's worth of
/// runs of a quick model.
const MEMORY_RUNS: f32 = 256.0;
/// Weights are scaled back before `f32` loses the small ones.
const WEIGHT_MAX: f32 = 1e6;

/// Durations in nanoseconds, of which old ones weigh less. New samples weigh ever more instead of old ones being
/// scaled down ("forward decay", Cormode et al., ICDE 2009), so that a sample costs one addition.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    weights: [f32; BUCKETS],
    total: f32,
    /// What the next sample weighs.
    weight: f32,
    /// Buckets outside are empty.
    first: usize,
    last: usize,
}

/// What a histogram says, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Quantiles {
    /// Mean of the fastest 99 %: sums of it predict how long several runs take, and one stall does not move it.
    pub(super) typical: f32,
    pub(super) p50: f32,
    pub(super) p90: f32,
    pub(super) p99: f32,
}

// === impl Histogram ===

impl Histogram {
    pub(super) fn new() -> Histogram {
        Histogram { weights: [0.0; BUCKETS], total: 0.0, weight: 1.0, first: BUCKETS, last: 0 }
    }

    pub(super) fn record(&mut self, duration_ns: u64) {
        let bucket = bucket(duration_ns);
        self.weights[bucket] += self.weight;
        self.total += self.weight;
        self.first = self.first.min(bucket);
        self.last = self.last.max(bucket);
        self.weight *= 1.0 + 1.0 / MEMORY_RUNS;
        if self.weight > WEIGHT_MAX {
            self.rescale();
        }
    }

    fn rescale(&mut self) {
        let scale = 1.0 / self.weight;
        for weight in &mut self.weights {
            *weight *= scale;
            // What has no weight any more must not keep the range wide.
            if *weight < 1.0 / WEIGHT_MAX {
                *weight = 0.0;
            }
        }
        self.total = self.weights.iter().sum();
        self.weight = 1.0;
        self.first = self.weights.iter().position(|&weight| weight > 0.0).unwrap_or(BUCKETS);
        self.last = self.weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0);
    }

    /// All zero without samples.
    pub(super) fn quantiles(&self) -> Quantiles {
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| share * self.total);
        let (mut below, mut sum) = (0.0, 0.0);
        let mut quantiles = Quantiles::default();
        for bucket in self.first..=self.last.min(BUCKETS - 1) {
            let weight = self.weights[bucket];
            if weight == 0.0 {
                continue;
            }
            let (lower, width) = bounds(bucket);
            for (wanted, quantile) in
                [(p50, &mut quantiles.p50), (p90, &mut quantiles.p90), (p99, &mut quantiles.p99)]
            {
                if below < wanted {
                    *quantile = lower + width * ((wanted - below) / weight).min(1.0);
                }
            }
            let counted = weight.min((p99 - below).max(0.0));
            sum += counted * (lower + 0.5 * width * counted / weight);
            below += weight;
        }
        quantiles.typical = if p99 > 0.0 { sum / p99 } else { 0.0 };
        quantiles
    }
}

/// Eight equal parts of each octave.
fn bucket(duration_ns: u64) -> usize {
    let bounded = duration_ns.clamp(1 << FIRST_EXPONENT, (1 << (FIRST_EXPONENT + OCTAVES)) - 1);
    let exponent = bounded.ilog2() as usize;
    let part = (bounded >> (exponent - PER_OCTAVE.ilog2() as usize)) as usize % PER_OCTAVE;
    (exponent - FIRST_EXPONENT) * PER_OCTAVE + part
}

/// A bucket's lower bound and width, in nanoseconds.
fn bounds(bucket: usize) -> (f32, f32) {
    let width = (1u64 << (FIRST_EXPONENT - PER_OCTAVE.ilog2() as usize + bucket / PER_OCTAVE)) as f32;
    ((PER_OCTAVE + bucket % PER_OCTAVE) as f32 * width, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(durations_ns: impl IntoIterator<Item = u64>) -> Quantiles {
        let mut histogram = Histogram::new();
        durations_ns.into_iter().for_each(|duration| histogram.record(duration));
        histogram.quantiles()
    }

    fn is_within(value: f32, expected: f32, share: f32) -> bool {
        (value - expected).abs() <= share * expected
    }

    #[test]
    fn quantiles_are_within_an_eighth() {
        assert_eq!(of([]), Quantiles::default());
        for duration in [1_100u64, 50_000, 1_234_567, 3_000_000_000] {
            let quantiles = of([duration]);
            for quantile in [quantiles.typical, quantiles.p50, quantiles.p99] {
                assert!(is_within(quantile, duration as f32, 0.125), "{quantile} of {duration}");
            }
        }
        let spread = of((1..=200).map(|number| number * 10_000));
        assert!(is_within(spread.p50, 1.2e6, 0.15), "later ones weigh more: {spread:?}");
        assert!(is_within(spread.p99, 1.98e6, 0.05), "{spread:?}");
    }

    #[test]
    fn a_stall_moves_the_99th_percentile_at_most() {
        let with_stalls = of((0..1000).map(|run| if run % 150 == 0 { 500_000_000 } else { 1_000_000 }));
        assert!(is_within(with_stalls.typical, 1e6, 0.125), "{with_stalls:?}");
        assert!(is_within(with_stalls.p50, 1e6, 0.125), "{with_stalls:?}");
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let slower = of((0..2000).map(|run| if run < 1000 { 1_000_000 } else { 4_000_000 }));
        assert!(is_within(slower.typical, 4e6, 0.125), "{slower:?}");
        assert!(is_within(slower.p50, 4e6, 0.125), "{slower:?}");
        let mut histogram = Histogram::new();
        (0..20_000).for_each(|_| histogram.record(2_000_000));
        assert!(histogram.weight <= WEIGHT_MAX && histogram.total.is_finite());
        assert!(is_within(histogram.quantiles().p99, 2e6, 0.125));
    }

    #[test]
    fn the_ends_of_the_range_hold_what_is_beyond() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        let (lower, width) = bounds(BUCKETS - 1);
        assert_eq!(lower + width, (1u64 << (FIRST_EXPONENT + OCTAVES)) as f32);
    }
}
