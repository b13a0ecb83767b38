//! Whether a repository that has lost all of its models is believed: pure.
//!
//! A volume that is not mounted, or not yet, looks like one whose models were all removed.

use std::time::{Duration, Instant};

/// What has been seen of a repository without models.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    /// Since when each look has said the same.
    since: Option<Instant>,
}

/// What to make of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    Believed,
    /// What serves goes on; a look from then on that says the same is believed.
    Doubted {
        until: Instant,
    },
}

/// Doubt lasts so long at least: a mount that is repaired by hand or by an orchestrator is often back by then.
const DOUBT_MIN: Duration = Duration::from_secs(30);

// === impl Doubt ===

impl Doubt {
    /// Judges a look, after which nothing of what serves would be left or, without `loses_all`, something would.
    pub(crate) fn judge(&mut self, loses_all: bool, settle: Duration, now: Instant) -> Belief {
        if !loses_all {
            self.since = None;
            return Belief::Believed;
        }
        let since = *self.since.get_or_insert(now);
        let until = since + settle.max(DOUBT_MIN);
        if now < until {
            return Belief::Doubted { until };
        }
        self.since = None;
        Belief::Believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_millis(500);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_loss_of_everything_is_believed_when_it_is_seen_again_after_the_time() {
        let start = Instant::now();
        let mut doubt = Doubt::default();
        assert_eq!(doubt.judge(false, SETTLE, start), Belief::Believed);
        let until = start + seconds(35);
        for second in [5, 10, 34] {
            let judged = doubt.judge(true, SETTLE, start + seconds(second));
            assert_eq!(judged, Belief::Doubted { until }, "{second}");
        }
        assert_eq!(doubt.judge(true, SETTLE, until), Belief::Believed);
        // The next loss is another one.
        let again = until + seconds(1);
        assert_eq!(doubt.judge(true, SETTLE, again), Belief::Doubted { until: again + DOUBT_MIN });
    }

    #[test]
    fn models_that_come_back_end_the_doubt() {
        let start = Instant::now();
        let mut doubt = Doubt::default();
        assert_eq!(doubt.judge(true, SETTLE, start), Belief::Doubted { until: start + seconds(30) });
        assert_eq!(doubt.judge(false, SETTLE, start + seconds(29)), Belief::Believed);
        let again = start + seconds(31);
        assert_eq!(doubt.judge(true, SETTLE, again), Belief::Doubted { until: again + seconds(30) });
    }

    #[test]
    fn a_long_settle_time_is_waited_for() {
        let start = Instant::now();
        let mut doubt = Doubt::default();
        let settle = seconds(120);
        assert_eq!(doubt.judge(true, settle, start), Belief::Doubted { until: start + settle });
        let late = start + seconds(119);
        assert_eq!(doubt.judge(true, settle, late), Belief::Doubted { until: start + settle });
        assert_eq!(
            doubt.judge(true, settle, start + seconds(500)),
            Belief::Believed,
            "however late the look"
        );
    }
}
