//! How many requests got what they were promised lately: over three windows, against an objective. Pure.

use std::time::{Duration, Instant};

/// Over which time it is counted. Each window is a ring of [`SLOTS`] slots, so that it ends with the present and
/// begins on the edge of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub name: &'static str,
    pub length: Duration,
}

/// The windows of the usual alerts on several burn rates (Site Reliability Workbook, chapter 5): the shortest
/// says that it burns now, the longest that it matters.
pub const WINDOWS: [Window; 3] = [
    Window { name: "5m", length: Duration::from_secs(5 * 60) },
    Window { name: "1h", length: Duration::from_secs(60 * 60) },
    Window { name: "24h", length: Duration::from_secs(24 * 60 * 60) },
];

/// The share of requests that ought to be good, where the settings say nothing.
pub const OBJECTIVE_BY_DEFAULT: f64 = 0.999;

/// How finely a window moves.
const SLOTS: usize = 60;

/// Requests by whether they got what they were promised: an answer, within their deadline where they had one.
/// What is the client's doing (a malformed request, a caller who left) is in neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub good: u64,
    pub bad: u64,
}

/// How a model keeps its promises.
#[derive(Clone, Debug, PartialEq)]
pub struct Attainment {
    /// The share of requests that ought to be good.
    pub objective: f64,
    pub windows: [WindowAttainment; WINDOWS.len()],
}

/// The same over one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowAttainment {
    pub window: Window,
    pub tally: Tally,
    /// Good requests a second; over the time since the start where that is shorter than the window.
    pub goodput_per_second: f64,
    /// The share of requests that were good; 1 where there were none.
    pub attainment: f64,
    /// How many times faster than the objective allows requests go bad: at 1 its budget lasts exactly.
    pub burn_rate: f64,
}

/// Counts of the last 24 hours in a few kilobytes.
#[derive(Debug)]
pub(crate) struct Record {
    start: Instant,
    rings: [Ring; WINDOWS.len()],
}

#[derive(Debug)]
struct Ring {
    slots: [Tally; SLOTS],
    /// How many slots have begun before the newest since the start.
    newest: u64,
}

// === impl Tally ===

impl Tally {
    pub(crate) fn add(&mut self, is_good: bool) {
        if is_good {
            self.good += 1;
        } else {
            self.bad += 1;
        }
    }

    fn plus(self, other: Tally) -> Tally {
        Tally { good: self.good + other.good, bad: self.bad + other.bad }
    }
}

// === impl Record ===

impl Record {
    pub(crate) fn new(start: Instant) -> Record {
        let ring = || Ring { slots: [Tally::default(); SLOTS], newest: 0 };
        Record { start, rings: [ring(), ring(), ring()] }
    }

    pub(crate) fn add(&mut self, tally: Tally, now: Instant) {
        let age = now.saturating_duration_since(self.start);
        for (ring, window) in self.rings.iter_mut().zip(WINDOWS) {
            let slot = ring.turn(window, age);
            *slot = slot.plus(tally);
        }
    }

    /// What is known at `now`.
    pub(crate) fn read(&mut self, objective: f64, now: Instant) -> Attainment {
        let age = now.saturating_duration_since(self.start);
        let mut rings = self.rings.iter_mut();
        let windows = WINDOWS.map(|window| {
            let ring = rings.next().expect("there is a ring for each window; this is a bug");
            ring.turn(window, age);
            let tally = ring.slots.iter().copied().fold(Tally::default(), Tally::plus);
            WindowAttainment::new(window, tally, objective, age)
        });
        Attainment { objective, windows }
    }
}

// === impl Ring ===

impl Ring {
    /// The slot of the present, with those that have left the window emptied.
    fn turn(&mut self, window: Window, age: Duration) -> &mut Tally {
        let now = age.as_secs() / (window.length.as_secs() / SLOTS as u64);
        // Another thread may have looked at its clock earlier and come later: its counts are the newest slot's.
        let passed = now.saturating_sub(self.newest).min(SLOTS as u64);
        for slot in 1..=passed {
            self.slots[((self.newest + slot) % SLOTS as u64) as usize] = Tally::default();
        }
        self.newest = self.newest.max(now);
        &mut self.slots[(self.newest % SLOTS as u64) as usize]
    }
}

// === impl WindowAttainment ===

impl WindowAttainment {
    fn new(window: Window, tally: Tally, objective: f64, age: Duration) -> WindowAttainment {
        let all = tally.good + tally.bad;
        let bad_share = if all == 0 { 0.0 } else { tally.bad as f64 / all as f64 };
        // A second at least, so that a single early request does not look like thousands.
        let time = age.min(window.length).max(Duration::from_secs(1));
        WindowAttainment {
            window,
            tally,
            goodput_per_second: tally.good as f64 / time.as_secs_f64(),
            attainment: 1.0 - bad_share,
            burn_rate: bad_share / (1.0 - objective),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};

    use super::*;

    const HOUR: u64 = 3600;

    /// Counts at seconds since the start, and what is read at `at` against an objective of 0.9.
    fn check(counts: &[(u64, u64, u64)], at: u64, expected: Expect) {
        let start = Instant::now();
        let moment = |seconds| start + Duration::from_secs(seconds);
        let mut record = Record::new(start);
        for &(seconds, good, bad) in counts {
            record.add(Tally { good, bad }, moment(seconds));
        }
        let mut text = String::new();
        for read in record.read(0.9, moment(at)).windows {
            let Tally { good, bad } = read.tally;
            writeln!(
                text,
                "{}: {good} good, {bad} bad, {:.3}/s, attained {:.3}, burns {:.2}",
                read.window.name, read.goodput_per_second, read.attainment, read.burn_rate
            )
            .unwrap();
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn nothing_was_asked_and_nothing_missed() {
        check(
            &[],
            0,
            expect![[r#"
                5m: 0 good, 0 bad, 0.000/s, attained 1.000, burns 0.00
                1h: 0 good, 0 bad, 0.000/s, attained 1.000, burns 0.00
                24h: 0 good, 0 bad, 0.000/s, attained 1.000, burns 0.00
            "#]],
        );
    }

    #[test]
    fn a_young_server_counts_over_its_age() {
        check(
            &[(0, 80, 20), (10, 100, 0)],
            20,
            expect![[r#"
                5m: 180 good, 20 bad, 9.000/s, attained 0.900, burns 1.00
                1h: 180 good, 20 bad, 9.000/s, attained 0.900, burns 1.00
                24h: 180 good, 20 bad, 9.000/s, attained 0.900, burns 1.00
            "#]],
        );
    }

    #[test]
    fn each_window_forgets_in_its_time() {
        let counts = [(0, 0, 100), (23 * HOUR, 100, 0), (24 * HOUR - 400, 50, 50), (24 * HOUR - 10, 10, 0)];
        check(
            &counts,
            24 * HOUR - 1,
            expect![[r#"
                5m: 10 good, 0 bad, 0.033/s, attained 1.000, burns 0.00
                1h: 160 good, 50 bad, 0.044/s, attained 0.762, burns 2.38
                24h: 160 good, 150 bad, 0.002/s, attained 0.516, burns 4.84
            "#]],
        );
        check(
            &counts,
            24 * HOUR + 1500,
            expect![[r#"
                5m: 0 good, 0 bad, 0.000/s, attained 1.000, burns 0.00
                1h: 60 good, 50 bad, 0.017/s, attained 0.545, burns 4.55
                24h: 160 good, 50 bad, 0.002/s, attained 0.762, burns 2.38
            "#]],
        );
    }

    #[test]
    fn after_a_long_silence_nothing_is_left() {
        check(
            &[(0, 1, 1)],
            100 * 24 * HOUR,
            expect![[r#"
                5m: 0 good, 0 bad, 0.000/s, attained 1.000, burns 0.00
                1h: 0 good, 0 bad, 0.000/s, attained 1.000, burns 0.00
                24h: 0 good, 0 bad, 0.000/s, attained 1.000, burns 0.00
            "#]],
        );
    }

    #[test]
    fn an_earlier_look_at_the_clock_loses_nothing() {
        check(
            &[(70, 1, 0), (10, 0, 1), (71, 1, 0)],
            71,
            expect![[r#"
                5m: 2 good, 1 bad, 0.028/s, attained 0.667, burns 3.33
                1h: 2 good, 1 bad, 0.028/s, attained 0.667, burns 3.33
                24h: 2 good, 1 bad, 0.028/s, attained 0.667, burns 3.33
            "#]],
        );
    }
}
