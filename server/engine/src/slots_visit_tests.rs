//! Tests of who may run beside those that hold all slots.

use super::tests::{CPU, Desk, claim, ms};
use super::*;

#[test]
fn a_short_run_visits_long_ones_and_no_more_of_them_than_there_are_slots() {
    let mut desk = Desk::with(2, Visits::Allowed { at_once: Duration::ZERO });
    let (long, short) = (desk.account(1, ms(100)), desk.account(1, ms(5)));
    let unknown = desk.ledger.open(1);
    let running = [desk.take(claim(long, 1)), desk.take(claim(long, 1))];
    let next = desk.wait(claim(long, 1));
    let untimed = desk.wait(claim(unknown, 1));
    let wide = desk.wait(claim(short, 2));
    assert!(desk.ledger.leave(wide), "it would take all cores from the others");
    let visitors = [desk.take(claim(short, 1)), desk.take(claim(short, 1))];
    assert_eq!(desk.ledger.devices().next(), Some((CPU, 2, 4)));
    let waiting = desk.wait(claim(short, 1));
    assert_eq!(desk.release(visitors[0], 6), [waiting]);
    assert_eq!(desk.release(visitors[1], 6), []);
    assert_eq!(desk.release(waiting, 90), []);
    assert_eq!(desk.release(running[0], 99), [untimed]);
    let soon = desk.wait(claim(short, 1));
    assert_eq!(desk.release(running[1], 100), [soon], "beside one of 1 ms it waits for its turn");
    assert!(desk.ledger.leave(next));
}

#[test]
fn who_waits_for_a_run_that_is_overdue_visits_it() {
    let mut desk = Desk::with(1, Visits::Allowed { at_once: Duration::ZERO });
    let (long, short) = (desk.account(1, ms(10)), desk.account(1, ms(6)));
    desk.take(claim(long, 1));
    let waiting = desk.wait(claim(short, 1));
    let after = desk.ledger.looks_again_after(waiting).unwrap();
    assert_eq!(after, ms(12));
    desk.now += ms(11);
    assert_eq!(desk.settle(), []);
    desk.now += ms(1);
    assert_eq!(desk.settle(), [(waiting, Outcome::Granted)]);
}

#[test]
fn runs_that_the_kernel_lets_in_hold_no_slot() {
    let mut desk = Desk::with(1, Visits::Allowed { at_once: ms(2) });
    let (long, short) = (desk.account(1, ms(100)), desk.account(1, ms(1)));
    let first = desk.take(claim(short, 1));
    assert!(!desk.ledger.shares_core(first), "it is alone");
    let running = desk.take(claim(long, 1));
    let second = desk.take(claim(short, 1));
    assert!(desk.ledger.shares_core(second));
    assert_eq!(desk.ledger.devices().next(), Some((CPU, 1, 3)));
    let next = desk.wait(claim(long, 1));
    assert!(desk.ledger.ask_spare(long, CPU, 1, desk.now).is_none());
    assert_eq!(desk.release(first, 1), []);
    assert_eq!(desk.release(second, 1), []);
    assert_eq!(desk.release(running, 100), [next]);
}

#[test]
fn who_has_had_more_than_its_share_does_not_visit() {
    let mut desk = Desk::with(1, Visits::Allowed { at_once: Duration::ZERO });
    let (long, short) = (desk.account(1, ms(1000)), desk.account(1, ms(10)));
    desk.take(claim(long, 1));
    desk.ledger.account(long).used = 0;
    let mut visits = 0;
    while let Ok(visitor) = desk.ledger.ask(claim(short, 1), desk.now) {
        visits += 1;
        desk.release(visitor, 10 * visits);
    }
    assert_eq!(visits, 11, "the lead of 100 ms");
}
