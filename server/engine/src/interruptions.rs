//! Interrupts one thread at regular intervals, whatever it computes, so that others have its core in between.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Grows with runs that callers wait for, while there are threads that rest.
static RUNS: AtomicU64 = AtomicU64::new(0);
/// Timers of threads that rest.
static RESTING: AtomicU64 = AtomicU64::new(0);

/// What a thread does when it is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Leaves its core alone for 200 us. It does not where there was no run lately, so that nobody minds, and where it got
    /// less than a fifth of a core lately: then others want all of them, and it takes what it is given. To yield is
    /// not enough for work that nobody waits for: who wakes meanwhile finds the core taken, if only for a moment, and
    /// its caches full of other things.
    Rest,
    /// Has the core again at once where nobody else wants it.
    Yield,
}

/// A timer whose signal interrupts the thread that made it, until this is dropped; that thread must outlive it.
pub(crate) struct Interruptions(imp::Timer);

/// A run begins that callers wait for: threads that rest are to do so for a while.
pub(crate) fn note_run() {
    // Mostly nobody asks, and workers on many cores do not write to one place for nothing.
    if RESTING.load(Ordering::Relaxed) == 0 {
        return;
    }
    // Runs that begin at the same time may count as one: it is only asked whether there were any.
    RUNS.store(RUNS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

// === impl Interruptions ===

impl Interruptions {
    /// For the calling thread; none come before `every` says how often.
    ///
    /// # Errors
    /// The system has no such timers, or no more of them.
    pub(crate) fn of_this_thread(manner: Manner) -> io::Result<Interruptions> {
        imp::Timer::new(manner).map(Interruptions)
    }

    /// Interrupts at this interval from now on; `None`: no more.
    ///
    /// # Errors
    /// The system refuses the interval.
    pub(crate) fn every(&self, interval: Option<Duration>) -> io::Result<()> {
        self.0.set(interval.unwrap_or_default())
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod imp {
    use std::io;
    use std::time::Duration;

    use super::Manner;

    pub(super) enum Timer {}

    impl Timer {
        pub(super) fn new(_manner: Manner) -> io::Result<Timer> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) fn set(&self, _interval: Duration) -> io::Result<()> {
            match *self {}
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod imp {
    use std::cell::Cell;
    use std::io;
    use std::sync::OnceLock;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::{Manner, RESTING, RUNS};

    const REST: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 200_000 };

    /// Ignored by default, used by nothing else here, and made for being told often: Go's runtime has its threads
    /// yield by it for the same reasons.
    const SIGNAL: libc::c_int = libc::SIGURG;

    /// So often a thread that rests looks at what it got ...
    const WINDOW_NS: i64 = 100_000_000;
    /// ... and does not rest in the next one if that was less than one part in so many.
    const STARVED_BELOW: i64 = 5;
    /// For so long after a run others are expected.
    const RUNS_FOR_NS: i64 = 200_000_000;

    pub(super) struct Timer {
        timer: libc::timer_t,
        manner: Manner,
    }

    /// What a thread got, and what it knows of runs, in nanoseconds.
    #[derive(Clone, Copy)]
    struct Window {
        began: i64,
        ran_before: i64,
        is_starved: bool,
        /// When it last saw that there had been a run.
        saw_run: i64,
        /// How many there had been then.
        runs: u64,
    }

    const FRESH: Window =
        Window { began: 0, ran_before: 0, is_starved: false, saw_run: i64::MIN / 2, runs: 0 };

    thread_local! {
        static WINDOW: Cell<Window> = const { Cell::new(FRESH) };
    }

    // === impl Timer ===

    #[expect(unsafe_code, reason = "the C library has no safe face")]
    impl Timer {
        pub(super) fn new(manner: Manner) -> io::Result<Timer> {
            static HANDLER: OnceLock<Option<i32>> = OnceLock::new();
            if let Some(error) =
                HANDLER.get_or_init(|| install().err().and_then(|error| error.raw_os_error()))
            {
                return Err(io::Error::from_raw_os_error(*error));
            }
            // SAFETY: all of it are numbers and pointers, for which zero is a value.
            let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = SIGNAL;
            // A number that the handler gets, and nothing that is followed.
            event.sigev_value.sival_ptr = std::ptr::without_provenance_mut(manner as usize);
            // SAFETY: takes nothing and gives a number.
            event.sigev_notify_thread_id = unsafe { libc::gettid() };
            let mut timer = std::ptr::null_mut();
            // SAFETY: both pointers are to values that live through the call.
            check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) })?;
            if manner == Manner::Rest {
                // Time between two stays in the background is not time that others took.
                RESTING.fetch_add(1, Ordering::Relaxed);
                WINDOW.set(Window { runs: RUNS.load(Ordering::Relaxed), ..FRESH });
            }
            Ok(Timer { timer, manner })
        }

        pub(super) fn set(&self, interval: Duration) -> io::Result<()> {
            let interval = libc::timespec {
                tv_sec: interval.as_secs() as libc::time_t,
                tv_nsec: interval.subsec_nanos().into(),
            };
            let times = libc::itimerspec { it_interval: interval, it_value: interval };
            // SAFETY: the timer exists, the times live through the call, and the old ones are not asked for.
            check(unsafe { libc::timer_settime(self.timer, 0, &times, std::ptr::null_mut()) })
        }
    }

    #[expect(unsafe_code, reason = "the C library has no safe face")]
    impl Drop for Timer {
        fn drop(&mut self) {
            if self.manner == Manner::Rest {
                RESTING.fetch_sub(1, Ordering::Relaxed);
            }
            // SAFETY: the timer exists, and nothing has it after this.
            let deleted = check(unsafe { libc::timer_delete(self.timer) });
            deleted.expect("the timer exists; this is a bug");
        }
    }

    /// Interrupted system calls are begun again, so that what the thread runs does not notice.
    #[expect(unsafe_code, reason = "the C library has no safe face")]
    fn install() -> io::Result<()> {
        extern "C" fn interrupt(_: libc::c_int, signal: *mut libc::siginfo_t, _: *mut libc::c_void) {
            // SAFETY: the system gives a handler with SA_SIGINFO what it was told by whoever sent the signal.
            let manner = unsafe { (*signal).si_value() }.sival_ptr.addr();
            if manner == Manner::Yield as usize {
                // SAFETY: a call to the system without arguments, which cannot fail.
                unsafe { libc::sched_yield() };
                return;
            }
            let now_ns = now(libc::CLOCK_MONOTONIC);
            let window = WINDOW.get().saw(RUNS.load(Ordering::Relaxed), now_ns);
            let window = window.at(now_ns, now(libc::CLOCK_THREAD_CPUTIME_ID));
            WINDOW.set(window);
            if window.rests(now_ns) {
                // SAFETY: may be called by a handler, reads a constant, and reports errors by its value, so that
                // errno stays as it is. Where it ends early, the thread rests for less.
                unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &REST, std::ptr::null_mut()) };
            }
        }
        // SAFETY: all of it are numbers and pointers, for which zero is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = interrupt as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_SIGINFO;
        // SAFETY: the action lives through the call, and its handler calls nothing but what a handler may.
        check(unsafe { libc::sigaction(SIGNAL, &action, std::ptr::null_mut()) })
    }

    /// May be called by a signal's handler.
    #[expect(unsafe_code, reason = "the standard library has no clock of a thread's time")]
    fn now(clock: libc::clockid_t) -> i64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the time lives through the call, which fails for no clock that every Linux has.
        unsafe { libc::clock_gettime(clock, &mut time) };
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    }

    fn check(result: libc::c_int) -> io::Result<()> {
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    // === impl Window ===

    impl Window {
        /// At `now`, when the thread has run for `ran` in all.
        fn at(self, now: i64, ran: i64) -> Window {
            match now - self.began {
                ..WINDOW_NS => self,
                passed => Window {
                    began: now,
                    ran_before: ran,
                    is_starved: self.began > 0 && (ran - self.ran_before) * STARVED_BELOW < passed,
                    ..self
                },
            }
        }

        /// At `now` so many runs have begun.
        fn saw(self, runs: u64, now: i64) -> Window {
            match runs == self.runs {
                true => self,
                false => Window { runs, saw_run: now, ..self },
            }
        }

        fn rests(self, now: i64) -> bool {
            !self.is_starved && now - self.saw_run < RUNS_FOR_NS
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// How often the calling thread has left its core because it waits for something.
        #[expect(unsafe_code, reason = "the C library has no safe face")]
        fn times_left() -> i64 {
            // SAFETY: all of it are numbers, for which zero is a value.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: the usage lives through the call.
            check(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) }).unwrap();
            usage.ru_nvcsw
        }

        #[test]
        fn a_thread_that_only_computes_leaves_its_core_when_it_is_interrupted() {
            std::thread::spawn(|| {
                let timer = Timer::new(Manner::Rest).unwrap();
                let before = times_left();
                timer.set(Duration::from_micros(100)).unwrap();
                // Ten seconds of computing, where it is never interrupted.
                let end = now(libc::CLOCK_THREAD_CPUTIME_ID) + 10_000_000_000;
                while times_left() < before + 3 {
                    crate::interruptions::note_run();
                    assert!(now(libc::CLOCK_THREAD_CPUTIME_ID) < end, "it had its core all the time");
                }
            })
            .join()
            .unwrap();
        }

        #[test]
        fn a_thread_rests_while_there_are_runs() {
            let window = FRESH.at(WINDOW_NS, 0).saw(0, WINDOW_NS);
            assert!(!window.rests(WINDOW_NS), "there was none");
            let window = window.saw(1, 2 * WINDOW_NS);
            assert!(window.rests(2 * WINDOW_NS) && window.rests(3 * WINDOW_NS));
            let later = 2 * WINDOW_NS + RUNS_FOR_NS;
            assert!(!window.rests(later));
            assert!(window.saw(2, later).rests(later), "as soon as there is one");
        }

        #[test]
        fn a_thread_that_gets_less_than_a_fifth_of_a_core_does_not_rest() {
            let first = FRESH.at(5 * WINDOW_NS, 7);
            assert!(!first.is_starved, "nothing is known yet");
            let half = first.at(6 * WINDOW_NS, 7 + WINDOW_NS / 2);
            assert!(!half.is_starved);
            let little = half.at(7 * WINDOW_NS, 7 + WINDOW_NS / 2 + WINDOW_NS / 6);
            assert!(little.is_starved);
            assert!(little.at(7 * WINDOW_NS + 1, little.ran_before + 1).is_starved, "until the next window");
            assert!(!little.at(8 * WINDOW_NS, little.ran_before + WINDOW_NS / 4).is_starved);
        }
    }
}
