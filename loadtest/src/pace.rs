//! Hides how a task waits for a moment more exactly than tokio's timer, whose steps are 1 ms.

use std::time::Duration;

use tokio::time::Instant;

/// Waits for moments. `fine` needs Linux; `coarse` serves elsewhere and under a paused clock.
#[derive(Debug)]
pub(crate) struct Pacer {
    #[cfg(target_os = "linux")]
    timer: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
}

// === impl Pacer ===

#[cfg(target_os = "linux")]
impl Pacer {
    /// Waits with the kernel's high-resolution timer; must be called inside a tokio runtime.
    #[expect(
        deprecated,
        reason = "the replacement is unsafe for types that may change their descriptor; OwnedFd cannot"
    )]
    pub(crate) fn fine() -> std::io::Result<Pacer> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Pacer { timer: Some(tokio::io::unix::AsyncFd::new(timer)?) })
    }

    #[cfg(test)]
    pub(crate) fn coarse() -> Pacer {
        Pacer { timer: None }
    }

    pub(crate) async fn wait_until(&self, moment: Instant) -> std::io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let Some(timer) = &self.timer else {
            tokio::time::sleep_until(moment).await;
            return Ok(());
        };
        let wait = moment.saturating_duration_since(Instant::now());
        if wait == Duration::ZERO {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() },
        };
        timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut guard = timer.readable().await?;
            let mut expirations = [0; 8];
            match guard.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?)) {
                Ok(read) => return read.map(|_| ()),
                Err(_would_block) => continue,
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Pacer {
    /// Waits with tokio's timer, in steps of 1 ms.
    pub(crate) fn fine() -> std::io::Result<Pacer> {
        Ok(Pacer {})
    }

    #[cfg(test)]
    pub(crate) fn coarse() -> Pacer {
        Pacer {}
    }

    pub(crate) async fn wait_until(&self, moment: Instant) -> std::io::Result<()> {
        tokio::time::sleep_until(moment).await;
        Ok(())
    }
}
