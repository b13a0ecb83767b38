//! How much work waits ahead of something: sums of predicted run time by priority and deadline, in constant time. Pure.

/// Predicted run time of what waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backlog {
    /// The slot of now; it only grows.
    base: u64,
    /// By priority level.
    levels: Vec<Level>,
}

/// What was added for one item, to be taken off again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) cost_ns: u64,
    slot: u64,
    /// It was due beyond the slots when it was added.
    is_later: bool,
}

/// Sums of one level, by when things are due: before now, in the slots from now on, and beyond those.
#[derive(Clone, Debug)]
struct Level {
    overdue_ns: u64,
    slots: Box<[u64; SLOTS]>,
    groups: [u64; GROUPS],
    later_ns: u64,
    total_ns: u64,
}

/// A slot is about a millisecond wide, and all of them a second. Things of one slot count as ahead of each other.
const SLOT_NS_LOG2: u32 = 20;
const SLOTS: usize = 1024;
const GROUP: usize = 32;
const GROUPS: usize = SLOTS / GROUP;

// === impl Backlog ===

impl Backlog {
    /// Moves on to `now_ns`.
    pub(crate) fn advance(&mut self, now_ns: u64) {
        let base = now_ns >> SLOT_NS_LOG2;
        if base <= self.base {
            return;
        }
        for level in &mut self.levels {
            let passed = (base - self.base).min(SLOTS as u64);
            (self.base..self.base + passed).for_each(|slot| level.pass(slot));
        }
        self.base = base;
    }

    /// Adds something that will take a worker `cost_ns` and is due at `due_ns`.
    pub(crate) fn add(&mut self, level: u8, due_ns: u64, cost_ns: u64) -> Charge {
        let slot = due_ns >> SLOT_NS_LOG2;
        let charge = Charge { cost_ns, slot, is_later: slot >= self.base + SLOTS as u64 };
        let level = usize::from(level);
        if level >= self.levels.len() {
            self.levels.resize_with(level + 1, Level::new);
        }
        self.levels[level].change(charge, self.base, |sum| *sum += cost_ns);
        charge
    }

    pub(crate) fn remove(&mut self, level: u8, charge: Charge) {
        self.levels[usize::from(level)].change(charge, self.base, |sum| *sum -= charge.cost_ns);
    }

    /// What goes before something that is due at `due_ns`: all of higher levels, and what is due until then in its
    /// own.
    pub(crate) fn ahead_ns(&self, level: u8, due_ns: u64) -> u64 {
        let level = usize::from(level);
        let higher: u64 = self.levels.iter().take(level).map(|level| level.total_ns).sum();
        higher + self.levels.get(level).map_or(0, |own| own.until(due_ns >> SLOT_NS_LOG2, self.base))
    }

    pub(crate) fn total_ns(&self) -> u64 {
        self.levels.iter().map(|level| level.total_ns).sum()
    }
}

// === impl Level ===

impl Level {
    fn new() -> Level {
        Level { overdue_ns: 0, slots: Box::new([0; SLOTS]), groups: [0; GROUPS], later_ns: 0, total_ns: 0 }
    }

    /// What was due in `slot` is overdue from now on.
    fn pass(&mut self, slot: u64) {
        let index = index(slot);
        let due = std::mem::take(&mut self.slots[index]);
        self.groups[index / GROUP] -= due;
        self.overdue_ns += due;
    }

    fn change(&mut self, charge: Charge, base: u64, change: impl Fn(&mut u64)) {
        change(&mut self.total_ns);
        if charge.is_later {
            change(&mut self.later_ns);
        } else if charge.slot < base {
            change(&mut self.overdue_ns);
        } else {
            let index = index(charge.slot);
            change(&mut self.slots[index]);
            change(&mut self.groups[index / GROUP]);
        }
    }

    /// What is due until the end of `slot`.
    fn until(&self, slot: u64, base: u64) -> u64 {
        if slot >= base + SLOTS as u64 {
            return self.total_ns;
        }
        if slot < base {
            return self.overdue_ns;
        }
        let (first, last) = (index(base), index(slot));
        let due = match first <= last {
            true => self.between(first, last + 1),
            // The slots go round.
            false => self.between(first, SLOTS) + self.between(0, last + 1),
        };
        self.overdue_ns + due
    }

    /// Sum of the slots from `start` to before `end`.
    fn between(&self, start: usize, end: usize) -> u64 {
        let (first_group, last_group) = (start.div_ceil(GROUP), end / GROUP);
        if first_group > last_group {
            return self.slots[start..end].iter().sum();
        }
        let edges = self.slots[start..first_group * GROUP].iter().chain(&self.slots[last_group * GROUP..end]);
        edges.sum::<u64>() + self.groups[first_group..last_group].iter().sum::<u64>()
    }
}

fn index(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1 << SLOT_NS_LOG2;

    #[test]
    fn priority_counts_before_deadline() {
        let mut backlog = Backlog::default();
        backlog.advance(5000 * MS);
        backlog.add(1, 5010 * MS, 100);
        let urgent = backlog.add(0, 5900 * MS, 7);
        backlog.add(1, 5020 * MS, 30);
        assert_eq!(backlog.ahead_ns(0, 5899 * MS), 0);
        assert_eq!(backlog.ahead_ns(1, 5009 * MS), 7);
        assert_eq!(backlog.ahead_ns(1, 5010 * MS), 107);
        assert_eq!(backlog.ahead_ns(2, 5000 * MS), 137);
        backlog.remove(0, urgent);
        assert_eq!((backlog.ahead_ns(1, 5900 * MS), backlog.total_ns()), (130, 130));
    }

    #[test]
    fn what_is_overdue_is_ahead_of_all() {
        let mut backlog = Backlog::default();
        let charge = backlog.add(0, 900 * MS, 40);
        assert_eq!(backlog.ahead_ns(0, 100 * MS), 0);
        backlog.advance(5000 * MS);
        assert_eq!(backlog.ahead_ns(0, 5001 * MS), 40);
        backlog.remove(0, charge);
        assert_eq!(backlog.ahead_ns(0, 9000 * MS), 0);
    }

    proptest! {
        /// The sums are those of adding up what waits, for as long as nothing due beyond the slots comes near.
        #[test]
        fn sums_are_exact(
            acts in prop::collection::vec((0u8..3, 0u64..900, 1u64..1000, 0u64..60, any::<bool>()), 1..200),
            asked in prop::collection::vec((0u8..3, 0u64..900), 1..10),
        ) {
            let mut backlog = Backlog::default();
            let mut waiting: Vec<(u8, u64, Charge)> = Vec::new();
            let mut now = 0;
            for (level, after, cost_ns, pause, leaves) in acts {
                now += pause;
                backlog.advance(now * MS);
                let due = now + after;
                waiting.push((level, due, backlog.add(level, due * MS, cost_ns)));
                if leaves {
                    let (level, _, charge) = waiting.swap_remove(waiting.len() / 2);
                    backlog.remove(level, charge);
                }
            }
            for (level, after) in asked {
                let due = now + after;
                let is_ahead = |other: &&(u8, u64, Charge)| other.0 < level || (other.0 == level && other.1 <= due);
                let expected: u64 = waiting.iter().filter(is_ahead).map(|other| other.2.cost_ns).sum();
                prop_assert_eq!(backlog.ahead_ns(level, due * MS), expected);
            }
            for (level, _, charge) in waiting {
                backlog.remove(level, charge);
            }
            prop_assert_eq!(backlog.total_ns(), 0);
        }
    }
}
