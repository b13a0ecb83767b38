//! How models are loaded and when the server is ready, as the command line sets it.

use std::time::Duration;

use crate::cores;
pub use crate::thread_priority::LONG_RUN_NICENESS_BY_DEFAULT;

/// How a reconciler goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Versions that are loaded side by side while something serves. Before that, and until each of the first set has
    /// been tried, one for each core.
    pub loads_max: usize,
    pub load_timeout: Duration,
    /// Of a load, the time that is spent on measuring; two runs are measured though they take longer.
    pub load_measure_time_max: Duration,
    /// A worker that has had no work for so long gives its thread back; its session stays.
    pub worker_idle_max: Duration,
    /// Models are loaded only when they are asked for.
    pub explicit: bool,
    /// The server is ready only while every model serves, also one that has just come.
    pub strict_readiness: bool,
    /// Threads that compute at the same time in runs on the CPU; as many as all models want if `None`.
    pub run_slots: Option<usize>,
    /// Added to the nice value of threads whose runs take a millisecond or more, so that I/O and short runs have their cores
    /// at once; 0 to 19.
    pub long_run_niceness: u8,
    /// What samples have to decide is decided before a version serves: for whoever only looks.
    pub proves_at_load: bool,
    /// Gives memory that was freed back to the system; called in the background after loads and retirements.
    pub release_memory: fn(),
}

/// Loading is given up after this where nothing else is set: a large model on a slow disk fits.
const LOAD_TIMEOUT_BY_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// Measuring at load takes so long at most where nothing else is set: the cost model learns from requests, too.
pub const LOAD_MEASURE_TIME_MAX_BY_DEFAULT: Duration = Duration::from_secs(1);

/// Longer than the pauses of a stream of requests that is worth a thread.
pub const WORKER_IDLE_MAX_BY_DEFAULT: Duration = Duration::from_secs(30);

// === impl Options ===

impl Default for Options {
    fn default() -> Options {
        Options {
            loads_max: 1,
            load_timeout: LOAD_TIMEOUT_BY_DEFAULT,
            load_measure_time_max: LOAD_MEASURE_TIME_MAX_BY_DEFAULT,
            worker_idle_max: WORKER_IDLE_MAX_BY_DEFAULT,
            explicit: false,
            strict_readiness: false,
            run_slots: Some(cores::granted()),
            long_run_niceness: LONG_RUN_NICENESS_BY_DEFAULT,
            proves_at_load: false,
            release_memory: || {},
        }
    }
}
