//! Tests of the simulation: a few requests by hand, what queueing theory says, and what holds for every policy.

use expect_test::{Expect, expect};

use super::comparison::{Policy, cases};
use super::*;
use crate::cost::{CostSource, SizeCost};
use crate::tuning::Tuning;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs of 1, 2, 4, ... rows take exactly so many ms.
fn machine(workers: usize, times_ms: &[u64]) -> Machine {
    let size = |(exponent, &time): (u32, &u64)| {
        let [p50, p90, p99, typical, high] = [ms(time); 5];
        SizeCost { rows: 1 << exponent, count: 1, source: CostSource::Runs, p50, p90, p99, typical, high }
    };
    let sizes: Vec<SizeCost> = (0..).zip(times_ms).map(size).collect();
    Machine { workers, run_times: RunTimes::measured(&sizes).unwrap(), batch_overhead: Duration::ZERO }
}

/// Plays arrivals written as `2ms*3!20` (at 2 ms, of three rows, waiting for 20 ms) and says what became of them.
fn check(scheduler: &mut dyn Scheduler, machine: &Machine, script: &str, expected: Expect) {
    let number = |text: &str| text.parse::<u64>().unwrap();
    let arrivals: Vec<Arrival> = script
        .split_whitespace()
        .map(|word| {
            let (word, patience) =
                word.split_once('!').map_or((word, None), |(w, p)| (w, Some(ms(number(p)))));
            let (at, rows) = word.split_once('*').map_or((word, 1), |(w, rows)| (w, number(rows)));
            let at = ms(number(at.strip_suffix("ms").unwrap()));
            Arrival { at, rows: rows as usize, patience, priority: 0 }
        })
        .collect();
    let outcome = simulate(&arrivals, None, machine, scheduler, 1);
    let Outcome { in_time, rows_in_time, refused, dropped, late, runs, p50, p99, .. } = outcome;
    expected.assert_eq(&format!(
        "{in_time} in time ({rows_in_time} rows), {refused} refused, {dropped} dropped, {late} late, {runs} runs, \
         {p50:?} {p99:?}"
    ));
}

fn fifo(rows_max: usize) -> EagerFifo {
    EagerFifo::new(rows_max, false)
}

#[test]
fn a_free_worker_takes_what_waits() {
    let one = machine(1, &[10, 12, 16]);
    check(
        &mut fifo(4),
        &one,
        "0ms 1ms 2ms",
        expect!["3 in time (3 rows), 0 refused, 0 dropped, 0 late, 2 runs, 20ms 21ms"],
    );
    check(
        &mut fifo(1),
        &machine(2, &[10]),
        "0ms 1ms 2ms",
        expect!["3 in time (3 rows), 0 refused, 0 dropped, 0 late, 3 runs, 10ms 18ms"],
    );
}

#[test]
fn an_answer_at_the_deadline_is_in_time_and_one_after_it_is_not() {
    let one = machine(1, &[10]);
    check(
        &mut fifo(1),
        &one,
        "0ms!10 1ms!18",
        expect!["1 in time (1 rows), 0 refused, 0 dropped, 1 late, 2 runs, 10ms 10ms"],
    );
    check(
        &mut EagerFifo::new(1, true),
        &one,
        "0ms!10 1ms!8",
        expect!["1 in time (1 rows), 0 refused, 0 dropped, 1 late, 1 runs, 10ms 10ms"],
    );
}

#[test]
fn a_request_is_answered_when_its_last_part_is() {
    let two = machine(2, &[10, 20, 40]);
    check(
        &mut fifo(4),
        &two,
        "0ms*10",
        expect!["1 in time (10 rows), 0 refused, 0 dropped, 0 late, 3 runs, 60ms 60ms"],
    );
    let tuning = Tuning { batch_rows_max: Some(4), queue_rows_max: Some(10), ..Tuning::default() };
    check(
        &mut Ours::new(&tuning, &two, 1),
        &two,
        "0ms*10 1ms*12",
        expect!["1 in time (10 rows), 1 refused, 0 dropped, 0 late, 3 runs, 60ms 60ms"],
    );
}

#[test]
fn a_delay_waits_for_the_oldest_or_for_a_full_batch() {
    let one = machine(1, &[10, 10, 10]);
    let delay = || FixedDelay::new(4, ms(5));
    check(
        &mut delay(),
        &one,
        "0ms",
        expect!["1 in time (1 rows), 0 refused, 0 dropped, 0 late, 1 runs, 15ms 15ms"],
    );
    check(
        &mut delay(),
        &one,
        "0ms 1ms 2ms 3ms",
        expect!["4 in time (4 rows), 0 refused, 0 dropped, 0 late, 1 runs, 12ms 13ms"],
    );
}

#[test]
fn the_first_in_line_decides_a_fitted_batch() {
    let one = machine(1, &[10, 12, 16, 24]);
    let mut fit = LinearFit::new(8);
    check(
        &mut fit,
        &one,
        "0ms 0ms*2 30ms!20 30ms!20 30ms!20 30ms!20 60ms*8!20 61ms!8",
        expect!["4 in time (5 rows), 0 refused, 4 dropped, 0 late, 4 runs, 20ms 22ms"],
    );
}

#[test]
fn the_largest_batch_follows_the_objective() {
    let one = machine(1, &[10, 12, 16, 24]);
    let mut clipper = AdditiveIncrease::new(8, ms(16));
    let part = Part { request: 0, rows: 1, arrived_ns: 0, deadline_ns: u64::MAX, priority: 0 };
    let mut sizes = Vec::new();
    for _ in 0..30 {
        clipper.arrive(0, &[part; 8]);
        let (mut batch, mut dropped) = (Vec::new(), Vec::new());
        clipper.take(0, 0, &mut batch, &mut dropped);
        clipper.finish(0, batch.len(), one.run_times.draw(batch.len(), &mut Random::new(1)));
        sizes.push(batch.len());
    }
    assert_eq!(sizes[..6], [1, 2, 3, 4, 5, 4], "8 rows take longer");
    assert!(sizes[6..].iter().all(|rows| (3..=5).contains(rows)), "{sizes:?}");
}

/// With equal run times and Poisson arrivals, a share of 1 - load finds a free server (M/D/1).
#[test]
fn queues_are_as_long_as_theory_says() {
    let one = machine(1, &[10]);
    for load in [0.3, 0.7] {
        let kinds = vec![Kind { weight: 1.0, rows: 1, patience: Some(ms(10)), priority: 0 }];
        let demand = Demand { process: Process::Poisson { per_s: load * 100.0 }, kinds };
        let arrivals = demand.arrivals(Duration::from_secs(1000), 5);
        let outcome = simulate(&arrivals, None, &one, &mut fifo(1), 5);
        assert!((outcome.attainment() - (1.0 - load)).abs() < 0.01, "{load}: {outcome:?}");
        assert!((outcome.utilization() - load).abs() < 0.01, "{load}: {outcome:?}");
    }
}

/// What a version would do is what its queue is told to do, priorities and bounds too.
#[test]
fn ours_keeps_its_bounds_and_its_deadlines() {
    let two = machine(1, &[10, 12, 16]);
    let tuning = Tuning { queue_rows_max: Some(4), batch_rows_max: Some(4), ..Tuning::default() };
    check(
        &mut Ours::new(&tuning, &two, 1),
        &two,
        "0ms 1ms 1ms 1ms 1ms 1ms",
        expect!["5 in time (5 rows), 1 refused, 0 dropped, 0 late, 2 runs, 25ms 25ms"],
    );
    let slo = Tuning { slo: Some(ms(25)), batch_rows_max: Some(1), ..Tuning::default() };
    let arrivals = [0, 1, 2, 3].map(|at| Arrival { at: ms(at), rows: 1, patience: None, priority: 0 });
    let mut ours = Ours::new(&slo, &two, 1);
    let outcome = simulate(&arrivals, slo.slo, &two, &mut ours, 1);
    assert_eq!((outcome.in_time, outcome.runs), (2, 2), "the others are not begun: {outcome:?}");
}

#[test]
fn every_request_comes_to_one_end_whatever_the_policy() {
    for case in cases() {
        let arrivals = case.demand.arrivals(ms(700), 3);
        let families = [
            Policy::EagerFifo { expires: false },
            Policy::EagerFifo { expires: true },
            Policy::FixedDelay(ms(3)),
            Policy::AdditiveIncrease(ms(20)),
            Policy::LinearFit,
            Policy::Ours,
        ];
        for policy in families {
            let outcome = policy.play(&arrivals, Some(ms(50)), &case.machine, case.rows_max, 3);
            let Outcome { requests, in_time, refused, dropped, late, .. } = outcome;
            assert_eq!(requests, in_time + refused + dropped + late, "{policy} {}", case.name);
            assert!(
                in_time > 0 && outcome.p50 <= outcome.p99 && outcome.p99 <= ms(50),
                "{policy}: {outcome:?}"
            );
        }
    }
}
