//! How threads that load and free models keep out of the way of those that serve.

use std::time::Duration;

use crate::interruptions::{Interruptions, Manner};

/// Short beside any latency that is promised.
const RESTS_EVERY: Duration = Duration::from_micros(400);

/// A thread in the background: it rests until this is dropped, and stays on cores that nothing else wants until it ends.
pub(crate) struct Background {
    _rests: Option<Interruptions>,
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
        become_idle();
        let rests = Interruptions::of_this_thread(Manner::Rest)
            .and_then(|rests| rests.every(Some(RESTS_EVERY)).map(|()| rests));
        if let Err(error) = &rests {
            tracing::debug!(%error, "a thread in the background does not rest by itself");
        }
        Background { _rests: rests.ok() }
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
