//! Times batches at load, and chooses the largest by it: on a CPU a larger one is often no cheaper a row, and then only waits.

use std::time::{Duration, Instant};

use crate::backend::Instance;
use crate::error::RunError;
use crate::samples::{Recipe, Sample};
use crate::sizing::BATCH_OVERHEAD;
use crate::tensor::Signature;

/// Sizes that are tried. Beyond the largest an operator has to ask.
const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// The largest batch of a model that could not be measured.
pub(crate) const ROWS_MAX_UNMEASURED: usize = ROWS[ROWS.len() - 1];

/// A size is good enough when a row costs at most this much more than at the best size.
const TOLERANCE: f64 = 1.01;

/// So many runs of a size are timed, of which the least counts ...
const RUNS_MAX: usize = 3;
/// ... or of two, when they take longer than this.
const SIZE_TIME_MAX: Duration = Duration::from_millis(50);
/// No further size is tried when that is expected to take the sweep beyond this.
const SWEEP_TIME_MAX: Duration = Duration::from_millis(600);

/// The time that one load may spend on measuring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MeasuringTime {
    begun: Instant,
    most: Duration,
}

/// What the sweep found.
#[derive(Default)]
pub(crate) struct Sweep {
    /// For each number of rows that was tried, ascending, the times of its runs: at least one.
    pub(crate) samples: Vec<(usize, Vec<Duration>)>,
}

/// Times runs of made-up rows, which have run when made by `recipe`, in batches of at most `rows_max` rows, and sizes
/// beyond the first as long as there is `time`. A run of one row that was `seen` counts where it was slow: what a first
/// run costs beside is little then, and another one much.
pub(crate) fn sweep(
    signature: &Signature,
    (recipe, seen): (Recipe, Option<Duration>),
    rows_max: usize,
    time: MeasuringTime,
    instance: &mut dyn Instance,
) -> Sweep {
    let start = Instant::now();
    let time_max = SWEEP_TIME_MAX.min(time.left());
    let mut sweep = Sweep::default();
    for rows in ROWS.into_iter().take_while(|rows| *rows <= rows_max) {
        let row_time = sweep.least().last().map_or(Duration::ZERO, |(rows, time)| time / rows as u32);
        if rows > 1 && start.elapsed() + 2 * row_time * rows as u32 > time_max {
            break;
        }
        let seen = seen.filter(|seen| rows == 1 && *seen > SIZE_TIME_MAX);
        match times(&Sample::new(signature, 0..rows, recipe), seen, time, instance) {
            Ok(times) => sweep.samples.push((rows, times)),
            Err(error) => {
                tracing::debug!(rows, %error, "a size of the sweep does not run");
                break;
            }
        }
    }
    sweep
}

fn times(
    sample: &Sample,
    seen: Option<Duration>,
    time: MeasuringTime,
    instance: &mut dyn Instance,
) -> Result<Vec<Duration>, RunError> {
    let start = Instant::now();
    let may_go_on = || start.elapsed() <= SIZE_TIME_MAX && !time.left().is_zero();
    let mut times: Vec<Duration> = seen.into_iter().collect();
    while times.len() < RUNS_MAX && (times.len() < 2 || may_go_on()) {
        let began = Instant::now();
        sample.run(instance)?;
        times.push(began.elapsed());
    }
    Ok(times)
}

// === impl MeasuringTime ===

impl MeasuringTime {
    /// It begins now.
    pub(crate) fn begin(most: Duration) -> MeasuringTime {
        MeasuringTime { begun: Instant::now(), most }
    }

    pub(crate) fn left(&self) -> Duration {
        self.most.saturating_sub(self.begun.elapsed())
    }
}

// === impl Sweep ===

impl Sweep {
    /// As if runs took what `time` says.
    pub(crate) fn of(rows_max: Option<usize>, mut time: impl FnMut(usize) -> Duration) -> Sweep {
        let rows_max = rows_max.unwrap_or(ROWS_MAX_UNMEASURED);
        let sizes = ROWS.into_iter().take_while(|rows| *rows <= rows_max);
        let samples = sizes.map(|rows| (rows, (0..RUNS_MAX).map(|_| time(rows)).collect())).collect();
        Sweep { samples }
    }

    /// The largest batch for a model that was timed so.
    pub(crate) fn rows_max(&self) -> usize {
        choose(&self.least().collect::<Vec<_>>())
    }

    /// The shortest run of one row.
    pub(crate) fn one_row(&self) -> Option<Duration> {
        self.least().find(|(rows, _)| *rows == 1).map(|(_, time)| time)
    }

    /// The largest size of at most `rows_max` rows of which a run took no longer than `time_max`, and that run; one
    /// row if none did.
    pub(crate) fn largest_within(&self, rows_max: usize, time_max: Duration) -> (usize, Duration) {
        let fits = |(rows, time): &(usize, Duration)| *rows <= rows_max && *time <= time_max;
        let largest = self.least().rfind(fits);
        largest.unwrap_or_else(|| (1, self.one_row().unwrap_or_default()))
    }

    /// Whether so many rows were run.
    pub(crate) fn has_run(&self, rows: usize) -> bool {
        self.samples.iter().any(|(size, _)| *size == rows)
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let shown = |(rows, time): (usize, Duration)| {
            format!("{:.1} us a row at {rows}", time.as_secs_f64() * 1e6 / rows as f64)
        };
        self.least().map(shown).collect::<Vec<_>>().join(", ")
    }

    fn least(&self) -> impl DoubleEndedIterator<Item = (usize, Duration)> {
        self.samples.iter().filter_map(|(rows, times)| Some((*rows, *times.iter().min()?)))
    }
}

/// The smallest size at which a row is nearly as cheap as at the best one. Where the largest size that
/// was measured is still the best, and larger ones were too slow to try, nothing speaks against those.
fn choose(times: &[(usize, Duration)]) -> usize {
    let row_cost = |&(rows, time): &(usize, Duration)| (time + BATCH_OVERHEAD).as_secs_f64() / rows as f64;
    let least = times.iter().map(row_cost).fold(f64::INFINITY, f64::min);
    let chosen = times.iter().position(|time| row_cost(time) <= least * TOLERANCE);
    match chosen {
        Some(index) if index + 1 < times.len() => times[index].0,
        _ => ROWS_MAX_UNMEASURED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Microseconds of a whole run at 1, 2, 4, ... rows.
    fn check(times_us: &[u64]) -> usize {
        let times: Vec<_> =
            ROWS.into_iter().zip(times_us.iter().map(|&us| Duration::from_micros(us))).collect();
        choose(&times)
    }

    #[test]
    fn batches_grow_as_long_as_that_saves() {
        assert_eq!(check(&[3, 3, 4, 4, 5, 7, 12]), 64, "a small network: the overhead is all there is");
        assert_eq!(check(&[420, 500, 1000, 2000, 4000, 8000, 16000]), 16, "twice as cheap from two rows on");
        assert_eq!(
            check(&[1404, 2800, 5600, 11200, 22200, 46000, 93800]),
            16,
            "a large batch costs more a row"
        );
        assert_eq!(check(&[100_000, 200_000]), 1, "two rows save nothing");
        assert_eq!(check(&[100_000, 120_000]), 64, "two rows save much, and more were too slow to try");
        assert_eq!(check(&[400_000]), 64, "nothing to compare with");
        assert_eq!(check(&[]), 64, "nothing was measured");
    }
}
