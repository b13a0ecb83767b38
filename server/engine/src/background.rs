//! How threads that load and free models keep out of the way of those that serve.

/// A thread in the background: it rests until this is dropped, and stays on cores that nothing else wants until it ends.
pub(crate) struct Background {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    _rests: Option<timer::Timer>,
}

// === impl Background ===

impl Background {
    /// Lets the calling thread run only on cores that nothing else wants (Linux's SCHED_IDLE; needs no privilege,
    /// and there is no way back without one). Threads that it starts do not inherit this.
    ///
    /// A worker that wakes on such a thread's core has it at once, which no nice value gives it. But the scheduler
    /// is fair: a thread that was preempted by another can have had its share, and then the one in the background
    /// runs until the next tick, up to 4 ms. So it rests by itself: every 400 us, for 200, unless it gets
    /// less than a fifth of a core as it is: then the others want all of them, and it takes what it is given.
    pub(crate) fn enter() -> Background {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        {
            become_idle();
            let rests = timer::Timer::start();
            if let Err(error) = &rests {
                tracing::debug!(%error, "a thread in the background does not rest by itself");
            }
            Background { _rests: rests.ok() }
        }
        #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
        Background {}
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn become_idle() {
    let parameters = libc::sched_param { sched_priority: 0 };
    let policy = libc::SCHED_IDLE | libc::SCHED_RESET_ON_FORK;
    #[expect(unsafe_code, reason = "the C library has no safe face")]
    // SAFETY: 0 is the calling thread, and the parameters are read during the call only.
    let refused = unsafe { libc::sched_setscheduler(0, policy, &parameters) } != 0;
    if refused {
        tracing::debug!(error = %std::io::Error::last_os_error(), "SCHED_IDLE was refused");
    }
}

/// A timer whose signal makes one thread rest.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod timer {
    use std::cell::Cell;
    use std::io;
    use std::sync::OnceLock;

    /// Short beside any latency that is promised.
    const INTERVAL_NS: i64 = 400_000;

    /// Of each interval. To yield is not enough: who wakes meanwhile finds the core taken, if only for a moment, and
    /// its caches full of other things.
    const REST: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 200_000 };

    /// Ignored by default, used by nothing else here, and made for being told often: Go's runtime has its threads
    /// yield by it for the same reasons.
    const SIGNAL: libc::c_int = libc::SIGURG;

    /// So often a thread looks at what it got ...
    const WINDOW_NS: i64 = 100_000_000;
    /// ... and does not rest in the next one if that was less than one part in so many.
    const STARVED_BELOW: i64 = 5;

    pub(super) struct Timer(libc::timer_t);

    /// What a thread got, in nanoseconds.
    #[derive(Clone, Copy)]
    struct Window {
        began: i64,
        ran_before: i64,
        is_starved: bool,
    }

    const FRESH: Window = Window { began: 0, ran_before: 0, is_starved: false };

    thread_local! {
        static WINDOW: Cell<Window> = const { Cell::new(FRESH) };
    }

    // === impl Timer ===

    #[expect(unsafe_code, reason = "the C library has no safe face")]
    impl Timer {
        /// For the calling thread, which must outlive it.
        pub(super) fn start() -> io::Result<Timer> {
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
            // SAFETY: takes nothing and gives a number.
            event.sigev_notify_thread_id = unsafe { libc::gettid() };
            let mut timer = std::ptr::null_mut();
            // SAFETY: both pointers are to values that live through the call.
            check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) })?;
            let timer = Timer(timer);
            // Time between two stays in the background is not time that others took.
            WINDOW.set(FRESH);
            let interval = libc::timespec { tv_sec: 0, tv_nsec: INTERVAL_NS };
            let times = libc::itimerspec { it_interval: interval, it_value: interval };
            // SAFETY: the timer exists, the times live through the call, and the old ones are not asked for.
            check(unsafe { libc::timer_settime(timer.0, 0, &times, std::ptr::null_mut()) })?;
            Ok(timer)
        }
    }

    #[expect(unsafe_code, reason = "the C library has no safe face")]
    impl Drop for Timer {
        fn drop(&mut self) {
            // SAFETY: the timer exists, and nothing has it after this.
            let deleted = check(unsafe { libc::timer_delete(self.0) });
            deleted.expect("the timer exists; this is a bug");
        }
    }

    /// Interrupted system calls are begun again, so that what the thread runs does not notice.
    #[expect(unsafe_code, reason = "the C library has no safe face")]
    fn install() -> io::Result<()> {
        extern "C" fn give_way(_signal: libc::c_int) {
            let window = WINDOW.get().at(now(libc::CLOCK_MONOTONIC), now(libc::CLOCK_THREAD_CPUTIME_ID));
            WINDOW.set(window);
            if !window.is_starved {
                // SAFETY: may be called by a handler, reads a constant, and reports errors by its value, so that
                // errno stays as it is. Where it ends early, the thread rests for less.
                unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &REST, std::ptr::null_mut()) };
            }
        }
        // SAFETY: all of it are numbers and pointers, for which zero is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = give_way as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
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
                },
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

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
