//! When a request is due and for what it may wait: what an operator set, applied to what a caller said. Pure.

use std::time::{Duration, Instant};

use crate::request::Query;
use crate::tuning::{Fallback, PRIORITY_LEVELS_MAX, QueuePolicy, TimeoutAction, Tuning};
use crate::waiting::Due;

/// What an operator promises about a version's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) slo: Option<Duration>,
    /// Who answers what would be refused for lack of time or room.
    pub(crate) degrade_to: Option<Fallback>,
    /// From the most urgent priority; at least one.
    levels: Vec<QueuePolicy>,
    /// Index of the level of a request that does not say.
    default_level: usize,
}

// === impl Terms ===

impl Terms {
    pub(crate) fn new(tuning: &Tuning) -> Terms {
        let (count, default) = match &tuning.priorities {
            Some(priorities) => (priorities.levels.clamp(1, PRIORITY_LEVELS_MAX), priorities.default_level),
            None => (1, 1),
        };
        let index = |level: u64| level.clamp(1, count) as usize - 1;
        let own = |level: u64| tuning.level_policies.get(&level).copied().unwrap_or(tuning.queue_policy);
        let levels = (1..=count).map(own).collect();
        let degrade_to = tuning.degrade_to.clone();
        Terms { slo: tuning.slo, degrade_to, levels, default_level: index(default) }
    }

    /// By level: most requests that wait.
    pub(crate) fn requests_max(&self) -> Vec<Option<usize>> {
        self.levels.iter().map(|level| level.requests_max).collect()
    }

    /// When a query that arrives now is due. The deadline is the earliest of all: the SLO counts where the caller is
    /// more patient too. It is the owner's word on what an answer is worth, while patience is mostly a client
    /// library's default, and one patient caller would make everybody's queue longer.
    pub(crate) fn due(&self, query: &Query, arrived: Instant) -> Due {
        let level = match usize::try_from(query.priority) {
            Ok(level @ 1..) if level <= self.levels.len() => level - 1,
            // As in Triton: a priority that does not exist is none.
            _ => self.default_level,
        };
        let policy = &self.levels[level];
        let delays = policy.timeout_action == TimeoutAction::Delay;
        // Triton's own meaning of `timeout`: it may shorten what the policy says, and does what the policy does.
        let own = query.timeout.filter(|_| policy.timeout_can_be_shortened);
        let after = |time: Option<Duration>| time.and_then(|time| arrived.checked_add(time));
        let timeout = after(policy.timeout).into_iter().chain(own).min();
        // Elsewhere it is one of the deadlines.
        let patience = query.timeout.filter(|_| own.is_none() || !delays);
        Due {
            level: level as u8,
            deadline: query.deadline.into_iter().chain(patience).chain(after(self.slo)).min(),
            start_by: timeout.filter(|_| !delays),
            yield_at: timeout.filter(|_| delays),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::tuning::Priorities;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What becomes of a query with this deadline and timeout, in ms after its arrival, and this priority.
    fn check(tuning: &Tuning, deadline: Option<u64>, timeout: Option<u64>, priority: u64, expected: Expect) {
        let now = Instant::now();
        let after = |time: Option<u64>| time.map(|time| now + ms(time));
        let query =
            Query { deadline: after(deadline), timeout: after(timeout), priority, ..Query::default() };
        let due = Terms::new(tuning).due(&query, now);
        let mut text = format!("level {}", due.level);
        let moments = [("deadline", due.deadline), ("start by", due.start_by), ("yield at", due.yield_at)];
        for (name, moment) in moments {
            if let Some(moment) = moment {
                text += &format!(", {name} {:?}", moment - now);
            }
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn the_earliest_deadline_counts() {
        let slo = Tuning { slo: Some(ms(50)), ..Tuning::default() };
        check(&Tuning::default(), None, None, 0, expect!["level 0"]);
        check(&Tuning::default(), Some(30), Some(20), 0, expect!["level 0, deadline 20ms"]);
        check(&slo, None, None, 0, expect!["level 0, deadline 50ms"]);
        check(&slo, Some(30), None, 0, expect!["level 0, deadline 30ms"]);
        check(&slo, Some(3000), Some(4000), 0, expect!["level 0, deadline 50ms"]);
    }

    #[test]
    fn a_priority_that_does_not_exist_is_the_default() {
        let priorities = Some(Priorities { levels: 3, default_level: 2 });
        let three = Tuning { priorities, ..Tuning::default() };
        for (priority, level) in [(0, 1), (1, 0), (2, 1), (3, 2), (4, 1), (u64::MAX, 1)] {
            let query = Query { priority, ..Query::default() };
            assert_eq!(Terms::new(&three).due(&query, Instant::now()).level, level, "{priority}");
        }
        check(&Tuning::default(), None, None, 7, expect!["level 0"]);
        let priorities = Some(Priorities { levels: u64::MAX, default_level: 1000 });
        let many = Terms::new(&Tuning { priorities, ..Tuning::default() });
        assert_eq!(many.due(&Query::default(), Instant::now()).level, 255);
    }

    #[test]
    fn a_queue_policy_refuses_or_delays() {
        let policy = QueuePolicy { timeout: Some(ms(40)), ..QueuePolicy::default() };
        let of = |queue_policy: QueuePolicy| Tuning { queue_policy, ..Tuning::default() };
        check(&of(policy), None, None, 0, expect!["level 0, start by 40ms"]);
        check(&of(policy), None, Some(20), 0, expect!["level 0, deadline 20ms, start by 40ms"]);
        let shortened = QueuePolicy { timeout_can_be_shortened: true, ..policy };
        check(&of(shortened), None, Some(20), 0, expect!["level 0, deadline 20ms, start by 20ms"]);
        check(&of(shortened), None, Some(90), 0, expect!["level 0, deadline 90ms, start by 40ms"]);
        let delays = QueuePolicy { timeout_action: TimeoutAction::Delay, ..policy };
        check(&of(delays), Some(90), Some(20), 0, expect!["level 0, deadline 20ms, yield at 40ms"]);
        let delays = QueuePolicy { timeout_action: TimeoutAction::Delay, ..shortened };
        check(&of(delays), Some(90), Some(20), 0, expect!["level 0, deadline 90ms, yield at 20ms"]);
    }

    #[test]
    fn a_level_may_have_its_own_policy() {
        let policy = |timeout, requests_max| QueuePolicy {
            timeout: Some(ms(timeout)),
            requests_max: Some(requests_max),
            ..QueuePolicy::default()
        };
        let tuning = Tuning {
            priorities: Some(Priorities { levels: 2, default_level: 2 }),
            queue_policy: policy(40, 4),
            level_policies: BTreeMap::from([(1, policy(10, 1))]),
            ..Tuning::default()
        };
        check(&tuning, None, None, 1, expect!["level 0, start by 10ms"]);
        check(&tuning, None, None, 2, expect!["level 1, start by 40ms"]);
        assert_eq!(Terms::new(&tuning).requests_max(), [Some(1), Some(4)]);
    }
}
