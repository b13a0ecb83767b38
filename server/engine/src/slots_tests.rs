//! Tests of who runs next: tables with made-up instants, and simulated crowds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

pub(super) const CPU: Device = Device::Socket(0);

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn claim(account: AccountId, slots: usize) -> Claim {
    Claim { account, device: CPU, slots, class: Class::Serving }
}

/// A ledger with one device, and its made-up clock.
pub(super) struct Desk {
    pub(super) ledger: Ledger,
    start: Instant,
    pub(super) now: Instant,
    deadlines: BTreeMap<usize, Instant>,
    idle: Vec<usize>,
}

impl Desk {
    /// Of a device whose runs are not interrupted.
    fn new(slots: usize) -> Desk {
        Desk::with(slots, Visits::Never)
    }

    pub(super) fn with(slots: usize, visits: Visits) -> Desk {
        let now = Instant::now();
        let mut ledger = Ledger::new();
        ledger.add_device(CPU, slots, visits);
        Desk { ledger, start: now, now, deadlines: BTreeMap::new(), idle: Vec::new() }
    }

    /// An account whose runs are known to take so long.
    pub(super) fn account(&mut self, weight: usize, run: Duration) -> AccountId {
        let account = self.ledger.open(weight);
        let known = self.ledger.account(account);
        known.run = Some(run);
        account
    }

    pub(super) fn take(&mut self, claim: Claim) -> Ticket {
        self.ledger.ask(claim, self.now).expect("there is room")
    }

    pub(super) fn wait(&mut self, claim: Claim) -> Ticket {
        self.ledger.ask(claim, self.now).expect_err("it has to wait")
    }

    pub(super) fn settle(&mut self) -> Vec<(Ticket, Outcome)> {
        let (deadlines, idle) = (&self.deadlines, &self.idle);
        self.ledger.settle(self.now, |account| match idle.contains(&account.0) {
            true => Wish::Nothing,
            false => Wish::Work { deadline: deadlines.get(&account.0).copied() },
        })
    }

    /// Gives back at `at` and says who was granted.
    pub(super) fn release(&mut self, ticket: Ticket, at_ms: u64) -> Vec<Ticket> {
        self.now = self.start + ms(at_ms);
        self.ledger.release(ticket, self.now, None);
        let settled = self.settle();
        assert!(settled.iter().all(|(_, outcome)| *outcome == Outcome::Granted));
        settled.into_iter().map(|(ticket, _)| ticket).collect()
    }
}

#[test]
fn a_short_run_passes_long_ones_that_wait() {
    let mut desk = Desk::new(1);
    let (heavy, other, light) = (desk.account(1, ms(20)), desk.account(1, ms(20)), desk.account(1, ms(1)));
    let running = desk.take(claim(heavy, 1));
    let second = desk.wait(claim(other, 1));
    let third = desk.wait(claim(light, 1));
    assert_eq!(desk.release(running, 20), [third], "due after 4 ms, the other after 80");
    assert_eq!(desk.release(third, 21), [second]);
}

#[test]
fn a_long_run_is_not_passed_for_ever() {
    let mut desk = Desk::new(1);
    let (heavy, light) = (desk.account(1, ms(20)), desk.account(1, ms(1)));
    let mut running = desk.take(claim(light, 1));
    let waiting = desk.wait(claim(heavy, 1));
    let mut passed = 0;
    for at in 1.. {
        let next = desk.wait(claim(light, 1));
        let granted = desk.release(running, at);
        if granted == [waiting] {
            break;
        }
        assert_eq!(granted, [next]);
        running = next;
        passed += 1;
    }
    assert!((70..=80).contains(&passed), "it was due after 80 ms, and {passed} runs of 1 ms passed it");
}

#[test]
fn the_earliest_deadline_goes_first() {
    let mut desk = Desk::new(1);
    let accounts: Vec<_> = (0..4).map(|_| desk.account(1, ms(5))).collect();
    let running = desk.take(claim(accounts[0], 1));
    let waiting: Vec<_> = accounts[1..].iter().map(|&account| desk.wait(claim(account, 1))).collect();
    // The last has no deadline and is due after four times its run.
    desk.deadlines.insert(accounts[1].0, desk.now + ms(30));
    desk.deadlines.insert(accounts[2].0, desk.now + ms(10));
    assert_eq!(desk.release(running, 5), [waiting[1]]);
    assert_eq!(desk.release(waiting[1], 10), [waiting[2]]);
    assert_eq!(desk.release(waiting[2], 15), [waiting[0]]);
}

#[test]
fn deadlines_give_nobody_more_than_a_bounded_lead() {
    let mut desk = Desk::new(1);
    let (eager, patient) = (desk.account(1, ms(10)), desk.account(1, ms(50)));
    let mut running = desk.take(claim(eager, 1));
    let waiting = desk.wait(claim(patient, 1));
    let mut at = 0;
    let lead = loop {
        at += 10;
        // Always due before the other one, which is after 200 ms.
        desk.deadlines.insert(eager.0, desk.start);
        let next = desk.wait(claim(eager, 1));
        let granted = desk.release(running, at);
        if granted == [waiting] {
            break at;
        }
        assert_eq!(granted, [next]);
        running = next;
    };
    assert_eq!(lead, 110, "the first run that ends more than 100 ms ahead");
}

#[test]
fn time_is_shared_by_weight() {
    let mut desk = Desk::new(2);
    let plans = [(1, ms(7)), (1, ms(40)), (2, ms(3)), (4, ms(11))];
    let accounts = plans.map(|(weight, run)| desk.account(weight, run));
    let mut running: Vec<(Duration, Ticket, usize)> = Vec::new();
    let mut waiting: Vec<(Ticket, usize)> = Vec::new();
    // Two workers each, which want all they can get.
    for place in [0, 1, 2, 3, 0, 1, 2, 3] {
        match desk.ledger.ask(claim(accounts[place], 1), desk.now) {
            Ok(ticket) => running.push((plans[place].1, ticket, place)),
            Err(ticket) => waiting.push((ticket, place)),
        }
    }
    let mut shares = [Duration::ZERO; 4];
    let end = ms(20_000);
    let mut at = Duration::ZERO;
    while at < end {
        desk.now = desk.start + at;
        for (ticket, _) in desk.settle() {
            let index = waiting.iter().position(|(waiter, _)| *waiter == ticket).unwrap();
            let (_, place) = waiting.remove(index);
            running.push((at + plans[place].1, ticket, place));
        }
        running.sort();
        let (ends, ticket, place) = running.remove(0);
        shares[place] += plans[place].1;
        at = ends;
        desk.now = desk.start + at;
        waiting.push((desk.ledger.ask_again(ticket, desk.now, None).expect_err("others wait"), place));
    }
    let of_all = |share: Duration| share.as_secs_f64() / (2.0 * end.as_secs_f64());
    for (share, expected) in shares.into_iter().zip([0.125, 0.125, 0.25, 0.5]) {
        assert!((of_all(share) - expected).abs() < 0.02, "{shares:?}");
    }
}

#[test]
fn one_worker_each_shares_by_weight_too() {
    let mut desk = Desk::new(1);
    let (light, heavy) = (desk.account(3, ms(5)), desk.account(1, ms(40)));
    let runs = BTreeMap::from([(light.0, 5), (heavy.0, 40)]);
    let mut running = (desk.take(claim(light, 1)), light);
    let mut waiting = (desk.wait(claim(heavy, 1)), heavy);
    let (mut at, mut shares) = (0, BTreeMap::from([(light.0, 0u64), (heavy.0, 0)]));
    while at < 20_000 {
        let run = runs[&running.1.0];
        (at, *shares.get_mut(&running.1.0).unwrap()) = (at + run, shares[&running.1.0] + run);
        desk.now = desk.start + ms(at);
        let again = desk.ledger.ask_again(running.0, desk.now, None).expect_err("the other one waits");
        running.0 = again;
        let [(granted, Outcome::Granted)] = desk.settle()[..] else { panic!("one is granted") };
        if granted == waiting.0 {
            std::mem::swap(&mut running, &mut waiting);
        }
    }
    let part = shares[&light.0] as f64 / at as f64;
    assert!((part - 0.75).abs() < 0.02, "{shares:?}");
}

#[test]
fn who_pauses_is_owed_nothing() {
    let mut desk = Desk::new(1);
    let (busy, late) = (desk.account(1, ms(10)), desk.account(1, ms(10)));
    let mut running = desk.take(claim(busy, 1));
    for at in 1..=100 {
        let next = desk.wait(claim(busy, 1));
        assert_eq!(desk.release(running, at * 10), [next]);
        running = next;
    }
    // A second of the other's time has gone by. From now on they take turns, but for the lead that is allowed.
    let mut turns = 0;
    let mut waiting = desk.wait(claim(late, 1));
    let mut waiting_busy = desk.wait(claim(busy, 1));
    for at in 101..=140 {
        let granted = desk.release(running, at * 10);
        running = granted[0];
        if running == waiting {
            turns += 1;
            waiting = desk.wait(claim(late, 1));
        } else {
            assert_eq!(running, waiting_busy);
            waiting_busy = desk.wait(claim(busy, 1));
        }
    }
    assert!((18..=26).contains(&turns), "{turns} of 40 turns");
}

#[test]
fn a_wide_run_is_waited_for_and_only_what_ends_in_time_fills_the_gap() {
    let mut desk = Desk::new(2);
    let (long, wide) = (desk.account(1, ms(100)), desk.account(1, ms(1)));
    let (short, middling) = (desk.account(1, ms(30)), desk.account(1, ms(300)));
    let running = desk.take(claim(long, 1));
    let first = desk.wait(claim(wide, 2));
    let too_long = desk.wait(claim(middling, 1));
    assert_eq!(desk.settle(), [], "the wide one is due first, and this one would keep it");
    let filler = desk.wait(claim(short, 1));
    assert_eq!(desk.settle(), [(filler, Outcome::Granted)], "done after 30 ms of 100");
    assert_eq!(desk.release(filler, 30), []);
    assert_eq!(desk.release(running, 100), [first]);
    assert_eq!(desk.release(first, 101), [too_long]);
}

#[test]
fn a_run_takes_no_more_slots_than_there_are() {
    let mut desk = Desk::new(2);
    let (wide, light) = (desk.account(1, ms(5)), desk.account(1, ms(1)));
    let running = desk.take(claim(wide, 16));
    let waiting = desk.wait(claim(light, 1));
    assert_eq!(desk.release(running, 5), [waiting]);
}

#[test]
fn who_has_nothing_to_run_is_sent_away() {
    let mut desk = Desk::new(1);
    let (one, other) = (desk.account(1, ms(5)), desk.account(1, ms(5)));
    let running = desk.take(claim(one, 1));
    let [idle, waiting] = [desk.wait(claim(one, 1)), desk.wait(claim(other, 1))];
    desk.idle.push(one.0);
    desk.now += ms(5);
    desk.ledger.release(running, desk.now, None);
    assert_eq!(desk.settle(), [(idle, Outcome::Dismissed), (waiting, Outcome::Granted)]);
    assert!(!desk.ledger.leave(idle));
    desk.ledger.close(one);
    desk.ledger.release(waiting, desk.now, None);
    desk.ledger.close(other);
    assert_eq!(desk.ledger.open(1), one, "numbers are used again");
}

#[test]
fn devices_are_apart() {
    let mut ledger = Ledger::new();
    let now = Instant::now();
    for device in [CPU, Device::Gpu(0), Device::Gpu(1), Device::Gpu(0)] {
        ledger.add_device(device, 1, Visits::Never);
    }
    let account = ledger.open(1);
    let on = |device| Claim { device, ..claim(account, 1) };
    for device in [CPU, Device::Gpu(0), Device::Gpu(1)] {
        assert!(ledger.ask(on(device), now).is_ok());
    }
    let waiting = ledger.ask(on(Device::Gpu(1)), now).expect_err("its slot is held");
    assert_eq!(ledger.settle(now, |_| Wish::Work { deadline: None }), []);
    let used: Vec<_> = ledger.devices().collect();
    assert_eq!(used, [(CPU, 1, 1), (Device::Gpu(0), 1, 1), (Device::Gpu(1), 1, 1)]);
    assert!(ledger.leave(waiting));
}

#[test]
fn the_background_has_what_is_left_and_keeps_nothing_from_others() {
    let mut desk = Desk::new(2);
    let (serving, loading) = (desk.account(1, ms(5)), desk.account(1, ms(5)));
    let background = Claim { class: Class::Background, ..claim(loading, 1) };
    let load = desk.take(background);
    let runs = [desk.take(claim(serving, 1)), desk.take(claim(serving, 1))];
    let next_load = desk.wait(background);
    let waiting = desk.wait(claim(serving, 1));
    desk.ledger.release(load, desk.now, None);
    assert_eq!(desk.settle(), [], "all cores serve");
    assert_eq!(desk.release(runs[0], 5), [waiting]);
    assert_eq!(desk.release(runs[1], 5), [next_load]);
    assert_eq!(desk.take(claim(serving, 1)), Ticket(6), "as if nothing was loaded");
}

#[test]
fn what_is_spare_goes_to_nobody_while_anybody_else_wants_it() {
    let mut desk = Desk::new(2);
    let (serving, loading) = (desk.account(1, ms(5)), desk.account(1, ms(5)));
    let background = Claim { class: Class::Background, ..claim(loading, 1) };
    let spare = |desk: &mut Desk, slots: usize| desk.ledger.ask_spare(loading, CPU, slots, desk.now);
    let all = spare(&mut desk, usize::MAX).expect("nothing runs: the whole device");
    assert_eq!(spare(&mut desk, 1), None, "that was all of it");
    let runs = [desk.take(claim(serving, 1)), desk.take(claim(serving, 1))];
    desk.ledger.release(all, desk.now, None);
    assert_eq!(spare(&mut desk, 1), None, "all cores serve");
    let waiting = desk.wait(background);
    assert_eq!(desk.release(runs[0], 5), [waiting], "loads go first");
    assert_eq!(spare(&mut desk, 1), None);
    assert_eq!(desk.release(runs[1], 5), []);
    let one = spare(&mut desk, 1).expect("one core is left");
    desk.ledger.release(waiting, desk.now, None);
    let load = desk.take(background);
    let runs = [desk.take(claim(serving, 1)), desk.take(claim(serving, 1))];
    for ticket in [one, load, runs[0], runs[1]] {
        desk.ledger.release(ticket, desk.now, None);
    }
}

/// Somebody who runs, again and again, for as long as the runs of the plan last.
#[derive(Clone, Debug)]
struct Plan {
    weight: usize,
    slots: usize,
    workers: usize,
    runs_ms: Vec<u64>,
    pause_ms: u64,
    deadline_ms: Option<u64>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let runs = prop::collection::vec(1..60u64, 1..12);
    (1..4usize, 1..5usize, 1..3usize, runs, 0..20u64, prop::option::of(1..200u64)).prop_map(
        |(weight, slots, workers, runs_ms, pause_ms, deadline_ms)| Plan {
            weight,
            slots,
            workers,
            runs_ms,
            pause_ms,
            deadline_ms,
        },
    )
}

proptest! {
    #[test]
    fn slots_are_never_overdrawn_nobody_waits_for_ever_and_no_slot_is_idle_for_nothing(
        capacity in 1..5usize,
        // In milliseconds; `None` where nobody visits.
        at_once in prop::option::of(prop::sample::select(vec![0u64, 20])),
        plans in prop::collection::vec(plan(), 1..6),
    ) {
        let start = Instant::now();
        let mut ledger = Ledger::new();
        let visits = at_once.map_or(Visits::Never, |at_once| Visits::Allowed { at_once: ms(at_once) });
        ledger.add_device(CPU, capacity, visits);
        let accounts: Vec<_> = plans.iter().map(|plan| ledger.open(plan.weight)).collect();
        // What happens next: (when, worker, what it holds); a worker that holds nothing asks.
        let mut events: Vec<(u64, usize, Option<Ticket>)> = Vec::new();
        let mut workers: Vec<(usize, Vec<u64>)> = Vec::new();
        for (place, plan) in plans.iter().enumerate() {
            for _ in 0..plan.workers {
                events.push((0, workers.len(), None));
                workers.push((place, plan.runs_ms.clone()));
            }
        }
        let needed = |worker: usize, workers: &[(usize, Vec<u64>)]| plans[workers[worker].0].slots.min(capacity);
        let mut waiting: Vec<(Ticket, usize)> = Vec::new();
        let mut in_use = 0;
        while let Some(index) = (0..events.len()).min_by_key(|&index| events[index]) {
            let (at, worker, held) = events.swap_remove(index);
            let now = start + ms(at);
            let (place, runs) = &mut workers[worker];
            let claim = claim(accounts[*place], plans[*place].slots);
            match held {
                Some(ticket) => {
                    ledger.release(ticket, now, None);
                    in_use -= plans[*place].slots.min(capacity);
                    runs.pop();
                    if !runs.is_empty() {
                        events.push((at + plans[*place].pause_ms, worker, None));
                    }
                }
                None => match ledger.ask(claim, now) {
                    Ok(ticket) => {
                        in_use += plans[*place].slots.min(capacity);
                        events.push((at + runs[runs.len() - 1], worker, Some(ticket)));
                    }
                    Err(ticket) => waiting.push((ticket, worker)),
                },
            }
            let deadline = |account: AccountId| {
                let place = accounts.iter().position(|known| *known == account).unwrap();
                plans[place].deadline_ms.map(|deadline| now + ms(deadline))
            };
            for (ticket, outcome) in ledger.settle(now, |account| Wish::Work { deadline: deadline(account) }) {
                prop_assert_eq!(outcome, Outcome::Granted);
                let index = waiting.iter().position(|(waiter, _)| *waiter == ticket).unwrap();
                let (_, worker) = waiting.swap_remove(index);
                in_use += needed(worker, &workers);
                events.push((at + workers[worker].1[workers[worker].1.len() - 1], worker, Some(ticket)));
            }
            let held = ledger.devices[0].serving;
            prop_assert!(held <= capacity, "{} of {} slots", held, capacity);
            match at_once {
                None => prop_assert_eq!(in_use, held),
                Some(0) => prop_assert!(in_use <= 2 * capacity, "{} beside {} slots", in_use, capacity),
                Some(_) => {}
            }
            // Where all runs need one slot, none is free while somebody waits; else the one that is due may need
            // more than are free.
            if plans.iter().all(|plan| plan.slots == 1) {
                prop_assert!(waiting.is_empty() || held == capacity);
            } else {
                prop_assert!(waiting.is_empty() || in_use > 0);
            }
        }
        prop_assert!(waiting.is_empty() && workers.iter().all(|(_, runs)| runs.is_empty()));
        prop_assert!(in_use == 0 && !ledger.has_waiters());
        for account in accounts {
            ledger.close(account);
        }
    }
}
