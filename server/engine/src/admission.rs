//! Whether a request can be in time, said when it arrives: from what runs, what goes before it and its own run. Pure.

use smallvec::SmallVec;

/// What a request would meet, in nanoseconds from now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outlook {
    /// Until each worker ends its run; 0 for one that is free.
    pub(crate) workers_left_ns: SmallVec<[u64; 8]>,
    /// What one worker would need for all that goes before.
    pub(crate) ahead_ns: u64,
    /// Its own run.
    pub(crate) run_ns: u64,
    /// What waits take beside what was predicted for them.
    pub(crate) wait_margin: f32,
}

// === impl Outlook ===

impl Outlook {
    /// When a worker can begin with it: when those that are free first have done all that goes before, as if that
    /// could be cut as one likes.
    pub(crate) fn start_ns(&self) -> u64 {
        let mut left = self.workers_left_ns.clone();
        left.sort_unstable();
        let mut ahead_ns = self.ahead_ns;
        for (index, &level_ns) in left.iter().enumerate() {
            let sharing = index as u64 + 1;
            let room_ns = left.get(index + 1).map(|next_ns| (next_ns - level_ns).saturating_mul(sharing));
            if room_ns.is_none_or(|room_ns| ahead_ns <= room_ns) {
                let start_ns = level_ns + ahead_ns / sharing;
                return (start_ns as f64 * f64::from(self.wait_margin)) as u64;
            }
            ahead_ns -= room_ns.unwrap_or(0);
        }
        0
    }

    pub(crate) fn finish_ns(&self) -> u64 {
        self.start_ns().saturating_add(self.run_ns)
    }
}

/// How much longer a run goes on that was expected to end at `ends_ns`. One that is late is expected to take as long
/// again as it is late: the longer something lasts already, the longer it will.
pub(crate) fn left_ns(ends_ns: u64, now_ns: u64) -> u64 {
    ends_ns.abs_diff(now_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(workers_left_ns: &[u64], ahead_ns: u64) -> u64 {
        let workers_left_ns = workers_left_ns.into();
        Outlook { workers_left_ns, ahead_ns, run_ns: 5, wait_margin: 1.0 }.start_ns()
    }

    #[test]
    fn a_free_worker_begins_at_once() {
        assert_eq!(start(&[0], 0), 0);
        assert_eq!(start(&[9, 0], 0), 0);
        assert_eq!(start(&[9, 4], 0), 4);
    }

    #[test]
    fn what_goes_before_is_shared_among_the_workers() {
        assert_eq!(start(&[10], 30), 40);
        assert_eq!(start(&[10, 2], 6), 8, "the other is not free yet");
        assert_eq!(start(&[10, 2], 12), 12);
        assert_eq!(start(&[0, 0, 0], 30), 10);
        assert_eq!(start(&[7, 1, 4], 3 + 6 + 9), 10);
    }

    #[test]
    fn the_margin_is_on_the_wait_alone() {
        let outlook =
            Outlook { workers_left_ns: [10].as_slice().into(), ahead_ns: 10, run_ns: 5, wait_margin: 1.5 };
        assert_eq!((outlook.start_ns(), outlook.finish_ns()), (30, 35));
    }

    #[test]
    fn a_late_run_is_expected_to_stay_late() {
        assert_eq!([left_ns(10, 4), left_ns(10, 10), left_ns(10, 14)], [6, 0, 4]);
    }
}
