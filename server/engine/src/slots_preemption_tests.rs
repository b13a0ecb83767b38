//! Tests of runs that share a core: a simulated core that the kernel takes from one thread for another.

use super::*;

const CPU: Device = Device::Socket(0);
/// The kernel lets a thread that wakes up have the core at the next tick at the latest.
const TICK_US: u64 = 4_000;

fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

/// One core, a heavy version that always has more to run, and a light one, microsecond by microsecond. A visitor waits
/// for the core until the next tick, unless it is let in at once, and has it then until its run ends.
struct Core {
    ledger: Ledger,
    at_once: Duration,
    start: Instant,
    now_us: u64,
    heavy: AccountId,
    light: AccountId,
    running: Option<(Ticket, u64)>,
    queued_heavy: Option<Ticket>,
    guest: Option<Guest>,
    queued_light: Option<Ticket>,
    /// CPU time of each.
    heavy_us: u64,
    light_us: u64,
}

/// A run of the light version that was granted.
struct Guest {
    ticket: Ticket,
    has_core_at_us: u64,
    left_us: u64,
    used_us: u64,
}

/// What each of the two runs.
#[derive(Clone, Copy)]
struct Runs {
    heavy_us: u64,
    light_us: u64,
}

// === impl Core ===

impl Core {
    /// Where runs shorter than `at_once` preempt others.
    fn new(at_once: Duration) -> Core {
        let mut ledger = Ledger::new();
        ledger.add_device(CPU, 1, Visits::Allowed { at_once });
        let (heavy, light) = (ledger.open(1), ledger.open(1));
        Core {
            ledger,
            at_once,
            start: Instant::now(),
            now_us: 0,
            heavy,
            light,
            running: None,
            queued_heavy: None,
            guest: None,
            queued_light: None,
            heavy_us: 0,
            light_us: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + us(self.now_us)
    }

    fn claim(&self, account: AccountId) -> Claim {
        Claim { account, device: CPU, slots: 1, class: Class::Serving }
    }

    /// Runs that were timed when nothing else ran, as loads do.
    fn learn(&mut self, runs: Runs) {
        self.ledger.account(self.heavy).run = Some(us(runs.heavy_us));
        self.ledger.account(self.light).run = Some(us(runs.light_us));
    }

    fn ask_heavy(&mut self, runs: Runs) {
        match self.ledger.ask(self.claim(self.heavy), self.now()) {
            Ok(ticket) => self.running = Some((ticket, runs.heavy_us)),
            Err(ticket) => self.queued_heavy = Some(ticket),
        }
    }

    fn ask_light(&mut self, runs: Runs) {
        match self.ledger.ask(self.claim(self.light), self.now()) {
            Ok(ticket) => self.admit(ticket, runs),
            Err(ticket) => self.queued_light = Some(ticket),
        }
    }

    fn admit(&mut self, ticket: Ticket, runs: Runs) {
        let waits = self.ledger.shares_core(ticket) && us(runs.light_us) >= self.at_once;
        let has_core_at_us = match waits {
            true => self.now_us.next_multiple_of(TICK_US),
            false => self.now_us,
        };
        self.guest = Some(Guest { ticket, has_core_at_us, left_us: runs.light_us, used_us: 0 });
    }

    /// A microsecond goes by. Gives whether a light run ended.
    fn step(&mut self, runs: Runs) -> bool {
        self.now_us += 1;
        let mut has_ended = false;
        match &mut self.guest {
            Some(guest) if self.running.is_none() || guest.has_core_at_us < self.now_us => {
                guest.left_us -= 1;
                guest.used_us += 1;
                self.light_us += 1;
                if guest.left_us == 0 {
                    let (ticket, used) = (guest.ticket, us(guest.used_us));
                    self.guest = None;
                    self.ledger.release(ticket, self.now(), Some(used));
                    has_ended = true;
                }
            }
            _ => {
                if let Some((ticket, left_us)) = &mut self.running {
                    *left_us -= 1;
                    self.heavy_us += 1;
                    if *left_us == 0 {
                        let ticket = *ticket;
                        self.running = None;
                        match self.ledger.ask_again(ticket, self.now(), None) {
                            Ok(ticket) => self.running = Some((ticket, runs.heavy_us)),
                            Err(ticket) => self.queued_heavy = Some(ticket),
                        }
                    }
                }
            }
        }
        for (ticket, outcome) in self.ledger.settle(self.now(), |_| Wish::Work { deadline: None }) {
            assert_eq!(outcome, Outcome::Granted);
            if self.queued_heavy == Some(ticket) {
                self.queued_heavy = None;
                self.running = Some((ticket, runs.heavy_us));
            } else {
                assert_eq!(self.queued_light.take(), Some(ticket));
                self.admit(ticket, runs);
            }
        }
        has_ended
    }

    /// The light version is asked at regular intervals; gives the longest that it waited to be let in.
    fn longest_wait_us(&mut self, runs: Runs, interval_us: u64, calls: u64) -> u64 {
        self.ask_heavy(runs);
        let (mut longest, mut asked) = (0, 0);
        // Not in step with the ticks.
        let mut next_us = 137;
        while asked < calls {
            if self.now_us >= next_us && self.guest.is_none() && self.queued_light.is_none() {
                self.ask_light(runs);
                asked += 1;
                next_us += interval_us;
            }
            let waits = self.queued_light.is_some();
            self.step(runs);
            if waits {
                longest = longest.max(self.now_us - (next_us - interval_us));
            }
        }
        longest
    }
}

#[test]
fn waiting_for_a_shared_core_is_neither_charged_nor_learned() {
    for heavy_us in [3_700, 40_000, 250_000] {
        let runs = Runs { heavy_us, light_us: 10 };
        let mut core = Core::new(Duration::ZERO);
        core.learn(runs);
        let longest = core.longest_wait_us(runs, 5_003, 400);
        assert!(longest <= 50, "{longest} us beside runs of {heavy_us} us");
        let learned = core.ledger.get(core.light).run;
        assert!(learned <= Some(us(10)), "{learned:?} beside runs of {heavy_us} us");
        let learned = core.ledger.get(core.heavy).run.unwrap();
        assert!(
            learned <= us(heavy_us + 50),
            "{learned:?} of {heavy_us} us: the visitors' time is not its own"
        );
        assert_eq!(core.heavy_us + core.light_us, core.now_us, "the core is never idle");
    }
}

#[test]
fn short_runs_wait_for_nothing_and_keep_nothing_from_long_ones() {
    for heavy_us in [400, 3_700, 40_000] {
        let runs = Runs { heavy_us, light_us: 10 };
        let mut core = Core::new(us(1_000));
        core.learn(runs);
        assert_eq!(core.longest_wait_us(runs, 503, 400), 0, "beside runs of {heavy_us} us");
        let learned = core.ledger.get(core.heavy).run.unwrap();
        let visitors_us = 10 * (heavy_us / 503 + 1);
        assert!(learned <= us(heavy_us + visitors_us), "{learned:?} of {heavy_us} us");
        assert_eq!(core.heavy_us + core.light_us, core.now_us, "the core is never idle");
    }
}

#[test]
fn a_run_that_is_overdue_is_visited_as_any_other() {
    let usual = Runs { heavy_us: 4_000, light_us: 10 };
    let mut core = Core::new(Duration::ZERO);
    core.learn(usual);
    // A hundred times as long as any before it.
    let long = Runs { heavy_us: 400_000, ..usual };
    let longest = core.longest_wait_us(long, 5_003, 70);
    assert!(longest <= 50, "{longest} us");
    assert!(core.now_us < long.heavy_us, "the calls were made within its first run");
}

#[test]
fn visitors_that_always_have_more_to_run_starve_nobody() {
    let cases = [(0, 10), (0, 1_000), (1_000, 10), (1_000, 900)];
    for (at_once_us, light_us) in cases {
        let runs = Runs { heavy_us: 20_000, light_us };
        let mut core = Core::new(us(at_once_us));
        core.learn(runs);
        core.ask_heavy(runs);
        core.ask_light(runs);
        let (mut since_heavy, mut last_heavy) = (0, 0);
        while core.now_us < 4_000_000 {
            if core.step(runs) {
                core.ask_light(runs);
            }
            since_heavy = if core.heavy_us > last_heavy { 0 } else { since_heavy + 1 };
            last_heavy = core.heavy_us;
            assert!(since_heavy <= 2 * LEAD_MAX.as_micros(), "the heavy one waits at {} us", core.now_us);
        }
        let share = core.heavy_us as f64 / core.now_us as f64;
        assert!(share >= 0.45, "the heavy one has {share} beside runs of {light_us} us");
        assert!(core.light_us > 0);
    }
}
