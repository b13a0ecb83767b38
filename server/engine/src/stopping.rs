//! When a run in progress is stopped, and when the thread that it holds is given up: pure.

use std::time::{Duration, Instant};

/// Younger runs are not looked at: most end by themselves before anybody could tell.
pub(crate) const LOOK_AFTER: Duration = Duration::from_millis(10);

/// Where nothing else is set, no run is stopped earlier for having lasted too long ...
pub(crate) const TIMEOUT_MIN_BY_DEFAULT: Duration = Duration::from_secs(60);
/// ... nor before it has lasted so many times as its rows have at their slowest.
const TIMEOUT_FACTOR: u32 = 20;

/// A run that is told to stop does so before its next operator, which rarely takes as long as this. One that was
/// allowed less time than this in all is waited for only so long again.
const GRACE_MAX: Duration = Duration::from_secs(5);

/// What is known of a run in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    pub(crate) began: Instant,
    /// How long it may last.
    pub(crate) timeout: Duration,
    /// Every caller has gone or has an answer already.
    pub(crate) is_abandoned: bool,
    /// It was told to stop.
    pub(crate) stopped: Option<(Instant, StopReason)>,
    /// Its version is being retired, and waits for it.
    pub(crate) is_retiring: bool,
}

/// Why a run is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// Nobody waits for it any more.
    Abandoned,
    /// It has lasted too long.
    TimedOut,
}

/// What to do about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoOn,
    Stop(StopReason),
    /// It does not stop. Its callers are answered, and another session and thread take its place.
    GiveUp,
}

// === impl StopReason ===

impl StopReason {
    pub(crate) const ALL: [StopReason; 2] = [StopReason::Abandoned, StopReason::TimedOut];

    pub(crate) fn label(self) -> &'static str {
        match self {
            StopReason::Abandoned => "abandoned",
            StopReason::TimedOut => "timed_out",
        }
    }
}

pub(crate) fn judge(run: &Running, now: Instant) -> Verdict {
    let grace = run.timeout.min(GRACE_MAX);
    let patience_ends = match run.stopped {
        None if now >= run.began + run.timeout => return Verdict::Stop(StopReason::TimedOut),
        None if run.is_abandoned => return Verdict::Stop(StopReason::Abandoned),
        None => return Verdict::GoOn,
        // It may be inside a long operator: it has the time that it would have had.
        Some((at, StopReason::Abandoned)) if !run.is_retiring => at.max(run.began + run.timeout) + grace,
        Some((at, _)) => at + grace,
    };
    if now >= patience_ends { Verdict::GiveUp } else { Verdict::GoOn }
}

/// How long a run of `rows` rows may last: what is set, or else what is generous for a model whose rows have taken
/// `slowest_row` each at worst.
pub(crate) fn timeout(set: Option<Duration>, slowest_row: Duration, rows: usize) -> Duration {
    let rows = u32::try_from(rows).unwrap_or(u32::MAX);
    set.unwrap_or_else(|| {
        TIMEOUT_MIN_BY_DEFAULT.max(slowest_row.saturating_mul(rows).saturating_mul(TIMEOUT_FACTOR))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute for a run that was begun at `began`.
    fn run(began: Instant) -> Running {
        let timeout = Duration::from_secs(60);
        Running { began, timeout, is_abandoned: false, stopped: None, is_retiring: false }
    }

    #[test]
    fn a_run_goes_on_while_somebody_waits_and_its_time_is_not_over() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        assert_eq!(judge(&run(began), at(20)), Verdict::GoOn);
        assert_eq!(judge(&run(began), at(59_999)), Verdict::GoOn);
        assert_eq!(judge(&run(began), at(60_000)), Verdict::Stop(StopReason::TimedOut));
        let abandoned = Running { is_abandoned: true, ..run(began) };
        assert_eq!(judge(&abandoned, at(20)), Verdict::Stop(StopReason::Abandoned));
        assert_eq!(judge(&abandoned, at(60_000)), Verdict::Stop(StopReason::TimedOut));
    }

    #[test]
    fn a_run_that_does_not_stop_is_given_up() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let timed_out = Running { stopped: Some((at(60_000), StopReason::TimedOut)), ..run(began) };
        assert_eq!(judge(&timed_out, at(60_000)), Verdict::GoOn);
        assert_eq!(judge(&timed_out, at(64_999)), Verdict::GoOn);
        assert_eq!(judge(&timed_out, at(65_000)), Verdict::GiveUp);
        let hasty = Running {
            timeout: Duration::from_millis(30),
            stopped: Some((at(40), StopReason::TimedOut)),
            ..run(began)
        };
        assert_eq!((judge(&hasty, at(69)), judge(&hasty, at(70))), (Verdict::GoOn, Verdict::GiveUp));
    }

    #[test]
    fn an_abandoned_run_has_the_time_that_it_would_have_had_unless_it_is_waited_for() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let abandoned =
            Running { is_abandoned: true, stopped: Some((at(20), StopReason::Abandoned)), ..run(began) };
        assert_eq!(
            (judge(&abandoned, at(64_999)), judge(&abandoned, at(65_000))),
            (Verdict::GoOn, Verdict::GiveUp)
        );
        let retiring = Running { is_retiring: true, ..abandoned };
        assert_eq!(
            (judge(&retiring, at(5_019)), judge(&retiring, at(5_020))),
            (Verdict::GoOn, Verdict::GiveUp)
        );
    }

    #[test]
    fn the_time_that_a_run_may_take_grows_with_what_its_rows_have_taken() {
        let check = |set: Option<u64>, slowest_row_ms, rows| {
            let set = set.map(Duration::from_millis);
            timeout(set, Duration::from_millis(slowest_row_ms), rows).as_millis()
        };
        assert_eq!(check(None, 0, 1), 60_000, "nothing has run yet");
        assert_eq!(check(None, 40, 64), 60_000);
        assert_eq!(check(None, 4_000, 64), 5_120_000);
        assert_eq!(check(Some(250), 4_000, 64), 250);
    }
}
