//! What the kernel is told of threads that run models, so that short work does not wait for long work.
//!
//! Linux's fair scheduler (EEVDF; Stoica and Abdel-Wahab, 1995) lets a thread that computes have its core until the
//! next tick, 4 ms at 250 Hz, unless who wakes up is entitled to the core before that. A thread of little weight is
//! behind whoever wakes up beside it, and has all the time that they leave. So threads whose runs are long get a nice
//! value: I/O threads and short runs have the core when they need it, and use little of it.
//!
//! Workers are in the class SCHED_BATCH (needs no privilege): one that is woken does not preempt the I/O thread that
//! woke it, which goes on to admit what its socket still holds, and the batch is larger. On one core at 64 in flight this
//! took the CPU time of a request from 17.7 µs to 14.1 µs, and context switches from 1.5 to 0.57. While there are long
//! runs workers of short ones leave that class, since a thread in it preempts nobody, however little that one's weight.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::backend::Device;
use crate::cores::thread_cpu_time;

/// Nice value of threads with long runs where nothing else is set.
pub const LONG_RUN_NICENESS_BY_DEFAULT: u8 = 10;

/// Runs of so much CPU time are long: a quarter of a tick, and many times what a change of threads costs.
const LONG_RUN: Duration = Duration::from_millis(1);
/// How many runs tell how long they are. A nice value is for good: taking it back needs a privilege.
const RUNS_MIN: u32 = 16;
/// For so long after a long run more of them are expected.
const LONG_RUNS_FOR: Duration = Duration::from_secs(1);

/// Whether there are long runs, of whichever version.
#[derive(Debug)]
pub(crate) struct LongRuns {
    niceness: u8,
    made: Instant,
    /// When one last began or ended, in nanoseconds since `made`; 0 if none did.
    last_ns: AtomicU64,
}

/// Of the calling thread, a worker's.
#[derive(Debug)]
pub(crate) struct ThreadPriority<'a> {
    long_runs: &'a LongRuns,
    /// Its runs compute on this thread, and not on a GPU that it waits for.
    is_on_cpu: bool,
    is_batch: bool,
    /// It has the nice value.
    has_long_runs: bool,
    observed: Option<Observed>,
}

/// Runs since one seemed long, which may have waited for a core.
#[derive(Clone, Copy, Debug)]
struct Observed {
    runs: u32,
    /// CPU time of the thread before them.
    used: Duration,
}

// === impl LongRuns ===

impl LongRuns {
    /// With a nice value of 0 nothing is told of them.
    pub(crate) fn new(niceness: u8) -> LongRuns {
        LongRuns { niceness, made: Instant::now(), last_ns: AtomicU64::new(0) }
    }

    /// Runs shorter than this have a core at once, whatever long ones there are.
    pub(crate) fn let_in_below(&self) -> Duration {
        if self.niceness > 0 { LONG_RUN } else { Duration::ZERO }
    }

    fn note(&self, now: Instant) {
        let since = now.saturating_duration_since(self.made).as_nanos() as u64;
        self.last_ns.store(since.max(1), Ordering::Relaxed);
    }

    fn are_expected(&self, now: Instant) -> bool {
        let last = self.last_ns.load(Ordering::Relaxed);
        let last_at = self.made + Duration::from_nanos(last);
        last > 0 && now.saturating_duration_since(last_at) < LONG_RUNS_FOR
    }
}

// === impl ThreadPriority ===

impl<'a> ThreadPriority<'a> {
    /// Its runs are on `device`; `expected` is how long they are known to take, if anything is known.
    pub(crate) fn begin(
        long_runs: &'a LongRuns,
        device: Device,
        expected: Option<Duration>,
    ) -> ThreadPriority<'a> {
        let is_on_cpu = matches!(device, Device::Socket(_));
        let mut priority =
            ThreadPriority { long_runs, is_on_cpu, is_batch: false, has_long_runs: false, observed: None };
        priority.be_batch(true);
        if is_on_cpu && expected.is_some_and(|run| run >= LONG_RUN) {
            priority.lower();
        }
        priority
    }

    /// A run begins.
    pub(crate) fn run_begins(&self, now: Instant) {
        if self.has_long_runs {
            self.long_runs.note(now);
        }
    }

    /// A run has ended that took so long, perhaps for want of a core.
    pub(crate) fn run_ended(&mut self, took: Duration, now: Instant) {
        if self.has_long_runs {
            return self.long_runs.note(now);
        }
        if !self.is_on_cpu {
            return;
        }
        match &mut self.observed {
            None if took >= LONG_RUN => self.observed = Some(Observed { runs: 0, used: thread_cpu_time() }),
            None => {}
            Some(observed) => {
                observed.runs += 1;
                if observed.runs < RUNS_MIN {
                    return;
                }
                let Observed { runs, used } = *observed;
                self.observed = None;
                if (thread_cpu_time() - used) / runs >= LONG_RUN {
                    self.lower();
                }
            }
        }
    }

    /// The thread is about to wait for work.
    pub(crate) fn waits(&mut self, now: Instant) {
        let is_batch = self.has_long_runs || !self.long_runs.are_expected(now);
        if is_batch != self.is_batch {
            self.be_batch(is_batch);
        }
    }

    fn lower(&mut self) {
        self.has_long_runs = self.long_runs.niceness > 0;
        if !self.has_long_runs {
            return;
        }
        self.be_batch(true);
        // Of the calling thread alone, as everything of the scheduler is on Linux.
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::nice(i32::from(self.long_runs.niceness)) {
            tracing::debug!(%error, "a nice value was refused");
        }
    }

    #[cfg_attr(not(all(target_os = "linux", target_env = "gnu")), expect(clippy::unused_self))]
    fn be_batch(&mut self, is_batch: bool) {
        self.is_batch = is_batch;
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        {
            let policy = if is_batch { libc::SCHED_BATCH } else { libc::SCHED_OTHER };
            let parameters = libc::sched_param { sched_priority: 0 };
            #[expect(unsafe_code, reason = "the C library has no safe face")]
            // SAFETY: 0 is the calling thread, and the parameters are read during the call only.
            let refused = unsafe { libc::sched_setscheduler(0, policy, &parameters) } != 0;
            if refused {
                tracing::debug!(error = %std::io::Error::last_os_error(), policy, "a scheduling policy was refused");
            }
        }
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    const CPU: Device = Device::Socket(0);

    /// The policy and the nice value of the calling thread.
    fn own() -> (i32, i32) {
        #[expect(unsafe_code, reason = "the C library has no safe face")]
        // SAFETY: 0 is the calling thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        (policy, rustix::process::getpriority_process(None).expect("every thread has one"))
    }

    fn on_its_own<R: Send>(check: impl FnOnce(i32) -> R + Send) -> R {
        std::thread::scope(|scope| scope.spawn(|| check(own().1)).join().expect("it does not panic"))
    }

    #[test]
    fn threads_that_are_known_to_have_long_runs_are_nice_from_the_start() {
        let long_runs = LongRuns::new(10);
        on_its_own(|nice| {
            let mut priority = ThreadPriority::begin(&long_runs, CPU, Some(Duration::from_millis(4)));
            assert_eq!(own(), (libc::SCHED_BATCH, (nice + 10).min(19)));
            priority.run_begins(Instant::now());
            priority.waits(Instant::now());
            assert_eq!(own(), (libc::SCHED_BATCH, (nice + 10).min(19)));
        });
        on_its_own(|nice| {
            let mut priority = ThreadPriority::begin(&long_runs, CPU, Some(Duration::from_micros(10)));
            assert_eq!(own(), (libc::SCHED_BATCH, nice));
            priority.waits(Instant::now());
            assert_eq!(own(), (libc::SCHED_OTHER, nice), "it may have to preempt one of the others");
            priority.waits(Instant::now() + 2 * LONG_RUNS_FOR);
            assert_eq!(own(), (libc::SCHED_BATCH, nice));
        });
    }

    #[test]
    fn runs_that_wait_for_a_core_are_not_taken_for_long() {
        let long_runs = LongRuns::new(10);
        on_its_own(|nice| {
            let mut priority = ThreadPriority::begin(&long_runs, CPU, None);
            for _ in 0..10 * RUNS_MIN {
                priority.run_ended(Duration::from_millis(8), Instant::now());
            }
            assert_eq!(own(), (libc::SCHED_BATCH, nice));
        });
    }

    #[test]
    fn runs_that_compute_for_long_are_known_after_some_of_them() {
        let long_runs = LongRuns::new(10);
        on_its_own(|nice| {
            let mut priority = ThreadPriority::begin(&long_runs, CPU, None);
            for _ in 0..=RUNS_MIN {
                assert_eq!(own(), (libc::SCHED_BATCH, nice));
                let end = thread_cpu_time() + 2 * LONG_RUN;
                while thread_cpu_time() < end {}
                priority.run_ended(2 * LONG_RUN, Instant::now());
            }
            assert_eq!(own(), (libc::SCHED_BATCH, (nice + 10).min(19)));
        });
    }

    #[test]
    fn threads_that_wait_for_a_gpu_keep_their_weight() {
        let long_runs = LongRuns::new(10);
        on_its_own(|nice| {
            let long = Some(Duration::from_millis(4));
            let priority = ThreadPriority::begin(&long_runs, Device::Gpu(0), long);
            priority.run_begins(Instant::now());
            assert_eq!(own(), (libc::SCHED_BATCH, nice));
            assert!(!long_runs.are_expected(Instant::now()));
        });
    }

    #[test]
    fn a_nice_value_of_0_changes_nothing() {
        let long_runs = LongRuns::new(0);
        on_its_own(|nice| {
            let mut priority = ThreadPriority::begin(&long_runs, CPU, Some(Duration::from_secs(1)));
            priority.run_begins(Instant::now());
            priority.waits(Instant::now());
            assert_eq!(own(), (libc::SCHED_BATCH, nice));
        });
    }
}
