//! What a version may cost before it serves: its run time per batch size, and its memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::backend::Instance;
use crate::error::LoadError;
use crate::request::ModelInfo;
use crate::samples::{Recipe, Sample};

/// Bounds that a version must keep to serve; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// By rows of a batch: the 99th percentile of the run time.
    pub run_p99_max: BTreeMap<usize, Duration>,
    /// By how much the process may grow when the version is loaded with all its instances.
    pub resident_bytes_max: Option<u64>,
}

/// Enough for a 99th percentile that is not the maximum.
const RUNS: usize = 200;
/// Slow models are measured with fewer runs ...
const TIME_MAX: Duration = Duration::from_secs(2);
/// ... but never with fewer than this.
const RUNS_MIN: usize = 5;

// === impl Budget ===

impl Budget {
    /// Measures run times on made-up rows.
    ///
    /// # Errors
    /// A bound is broken; the text has both numbers.
    pub(crate) fn check(
        &self,
        info: &ModelInfo,
        recipe: Recipe,
        instance: &mut dyn Instance,
    ) -> Result<(), LoadError> {
        for (&rows, &bound) in &self.run_p99_max {
            let sample = Sample::new(&info.signature, 0..rows, recipe);
            let start = Instant::now();
            let mut times = Vec::with_capacity(RUNS);
            while times.len() < RUNS && (times.len() < RUNS_MIN || start.elapsed() < TIME_MAX) {
                let begin = Instant::now();
                sample.run(instance).map_err(|error| {
                    LoadError::transient(format!("time budget: {rows} rows do not run: {error}"))
                })?;
                times.push(begin.elapsed());
            }
            times.sort();
            let p99 = times[(times.len() * 99).div_ceil(100) - 1];
            if p99 > bound {
                return Err(LoadError::transient(format!(
                    "time budget: the 99th percentile of {} runs of {rows} rows is {p99:.3?}, the budget is \
                     {bound:?}",
                    times.len()
                )));
            }
        }
        Ok(())
    }

    /// # Errors
    /// The process has grown by more than the bound; the text has both numbers.
    pub(crate) fn check_memory(&self, grown_bytes: u64) -> Result<(), LoadError> {
        match self.resident_bytes_max {
            Some(bound) if grown_bytes > bound => Err(LoadError::transient(format!(
                "memory budget: loading it took {grown_bytes} bytes of resident memory, the budget is {bound}"
            ))),
            _ => Ok(()),
        }
    }
}
