//! What is decided of which evidence, with the numbers; and what is said of plans that cannot be.

use expect_test::{Expect, expect};

use super::*;
use crate::routing::tally::{RewardEvidence, Tally};

fn percent(percent: f64) -> Weight {
    Weight::from_percent(percent).unwrap()
}

/// So many requests of some milliseconds each, and so many that failed.
fn arm(requests: u64, ms: u64, failed: u64) -> ArmEvidence {
    let tally = Tally::new();
    (0..requests).for_each(|_| tally.lasted(Duration::from_millis(ms)));
    (0..failed).for_each(|_| tally.failed());
    tally.read()
}

fn check(step: usize, elapsed_s: u64, control: ArmEvidence, candidate: ArmEvidence, expected: Expect) {
    let position = Position { step, elapsed: Duration::from_secs(elapsed_s), looks: Looks::default() };
    let evidence = Evidence { control, candidate, mirrored: MirrorEvidence::default() };
    let Decision { verdict, why, looks } = decide(&Plan::default(), position, &evidence);
    expected.assert_eq(&format!("{verdict:?} at look {}: {why}", looks.candidate));
}

#[test]
fn a_candidate_waits_for_time_and_requests_and_goes_forward_then() {
    check(
        0,
        9,
        arm(5000, 10, 0),
        arm(5000, 10, 0),
        expect!["Hold(Time) at look 25: the step lasts 9s so far, at least 600s"],
    );
    check(
        0,
        600,
        arm(5000, 10, 0),
        arm(999, 10, 0),
        expect![
            "Hold(Requests) at look 18: the candidate has had 999 requests in this step, at least 1000 are asked for"
        ],
    );
    check(
        2,
        600,
        arm(999, 10, 0),
        arm(5000, 10, 0),
        expect![
            "Hold(Requests) at look 25: the control has had 999 requests in this step, at least 1000 are asked for"
        ],
    );
    check(
        1,
        600,
        arm(9000, 10, 0),
        arm(1000, 10, 0),
        expect![
            "Forward at look 18: 0 of 1000 requests (0.00 %) failed, and 0 of 9000 requests (0.00 %) of the control: 0.00 % more; the bound is 0.10 % more; 0 of 1000 requests (0.00 %) failed; the bound is 100.00 %; p50 of 1000 requests is 10.09ms, that of the control's 9000 10.09ms: 1.00 times that, surely at least 0.97; the bound is 1.50 times; p99 of 1000 requests is 10.09ms, that of the control's 9000 10.09ms: 1.00 times that, surely at least 0.97; the bound is 2.00 times"
        ],
    );
    check(
        2,
        600,
        arm(1000, 10, 0),
        arm(1000, 10, 0),
        expect![
            "Done at look 18: 0 of 1000 requests (0.00 %) failed, and 0 of 1000 requests (0.00 %) of the control: 0.00 % more; the bound is 0.10 % more; 0 of 1000 requests (0.00 %) failed; the bound is 100.00 %; p50 of 1000 requests is 10.09ms, that of the control's 1000 10.09ms: 1.00 times that, surely at least 0.97; the bound is 1.50 times; p99 of 1000 requests is 10.09ms, that of the control's 1000 10.09ms: 1.00 times that; the bound is 2.00 times"
        ],
    );
}

#[test]
fn a_candidate_is_taken_back_when_it_is_surely_worse() {
    check(
        0,
        1,
        arm(5000, 10, 0),
        arm(50, 20, 0),
        expect![
            "Back at look 5: p50 of 50 requests is 20.19ms, that of the control's 5000 10.09ms: 2.00 times that, surely at least 1.95; the bound is 1.50 times"
        ],
    );
    check(
        0,
        1,
        arm(5000, 10, 0),
        arm(90, 10, 10),
        expect![
            "Back at look 8: 10 of 100 requests (10.00 %) failed, and 0 of 5000 requests (0.00 %) of the control: 10.00 % more, surely at least 1.06 %; the bound is 0.10 % more"
        ],
    );
    check(
        0,
        1,
        arm(5000, 10, 5000),
        arm(0, 10, 5000),
        expect![
            "Back at look 25: 5000 of 5000 requests (100.00 %) failed, and 5000 of 10000 requests (50.00 %) of the control: 50.00 % more, surely at least 47.05 %; the bound is 0.10 % more"
        ],
    );
}

#[test]
fn a_candidate_that_may_be_worse_by_chance_waits() {
    check(
        0,
        600,
        arm(5000, 10, 0),
        arm(999, 10, 2),
        expect![[
            r#"Hold(Gate("error_rate_increase")) at look 18: 2 of 1001 requests (0.20 %) failed, and 0 of 5000 requests (0.00 %) of the control: 0.20 % more; the bound is 0.10 % more"#
        ]],
    );
    check(
        0,
        600,
        arm(1200, 10, 0),
        arm(980, 10, 20),
        expect![[
            r#"Hold(Gate("error_rate_increase")) at look 18: 20 of 1000 requests (2.00 %) failed, and 0 of 1200 requests (0.00 %) of the control: 2.00 % more; the bound is 0.10 % more"#
        ]],
    );
    check(
        0,
        1,
        arm(5000, 10, 0),
        arm(19, 50, 0),
        expect!["Hold(Time) at look 0: the step lasts 1s so far, at least 600s"],
    );
    check(
        0,
        1,
        arm(0, 10, 0),
        arm(500, 50, 100),
        expect!["Hold(Time) at look 16: the step lasts 1s so far, at least 600s"],
    );
}

fn check_mirrored(elapsed_s: u64, requests: u64, mirrored: (u64, u64), expected: Expect) {
    let gates = Gates { mismatch_rate_max: Some(0.01), ..Gates::default() };
    let plan = Plan { gates, ..Plan::default() };
    let position = Position { step: 0, elapsed: Duration::from_secs(elapsed_s), looks: Looks::default() };
    let mirrored = MirrorEvidence { compared: mirrored.0, differing: mirrored.1 };
    let evidence = Evidence { control: arm(5000, 10, 0), candidate: arm(requests, 10, 0), mirrored };
    let Decision { verdict, why, looks } = decide(&plan, position, &evidence);
    expected.assert_eq(&format!("{verdict:?} at looks {}, {}: {why}", looks.candidate, looks.mirror));
    let again = decide(&plan, Position { looks, ..position }, &evidence);
    assert_ne!(again.verdict, Verdict::Back, "nothing is judged twice");
}

#[test]
fn a_candidate_that_answers_otherwise_is_taken_back_however_few_requests_it_had() {
    check_mirrored(
        1,
        0,
        (19, 19),
        expect!["Hold(Time) at looks 0, 0: the step lasts 1s so far, at least 600s"],
    );
    check_mirrored(
        1,
        0,
        (20, 20),
        expect![
            "Back at looks 0, 1: 20 of 20 requests (100.00 %) that the control answered were answered otherwise, or not at all, by the shadow, surely at least 67.01 %; the bound is 1.00 %"
        ],
    );
    check_mirrored(
        1,
        0,
        (1000, 50),
        expect![
            "Back at looks 0, 18: 50 of 1000 requests (5.00 %) that the control answered were answered otherwise, or not at all, by the shadow, surely at least 2.22 %; the bound is 1.00 %"
        ],
    );
    check_mirrored(
        1,
        0,
        (1000, 15),
        expect!["Hold(Time) at looks 0, 18: the step lasts 1s so far, at least 600s"],
    );
    check_mirrored(
        600,
        1000,
        (1000, 15),
        expect![[
            r#"Hold(Gate("mismatch_rate")) at looks 18, 18: 15 of 1000 requests (1.50 %) that the control answered were answered otherwise, or not at all, by the shadow, surely at least 0.28 %; the bound is 1.00 %"#
        ]],
    );
    check_mirrored(
        600,
        1000,
        (999, 0),
        expect![
            "Hold(Mirror) at looks 18, 18: 999 requests have been compared with the shadow's answers in this step, at least 1000 are asked for: if there are no more soon, raise the shadow's percent, or give the server cores, as mirrors are shed while it is busy"
        ],
    );
    check_mirrored(
        600,
        1000,
        (1000, 10),
        expect![
            "Forward at looks 18, 18: 0 of 1000 requests (0.00 %) failed, and 0 of 5000 requests (0.00 %) of the control: 0.00 % more; the bound is 0.10 % more; 0 of 1000 requests (0.00 %) failed; the bound is 100.00 %; p50 of 1000 requests is 10.09ms, that of the control's 5000 10.09ms: 1.00 times that, surely at least 0.97; the bound is 1.50 times; p99 of 1000 requests is 10.09ms, that of the control's 5000 10.09ms: 1.00 times that, surely at least 0.97; the bound is 2.00 times; 10 of 1000 requests (1.00 %) that the control answered were answered otherwise, or not at all, by the shadow, surely at least 0.11 %; the bound is 1.00 %"
        ],
    );
}

#[test]
fn nothing_is_judged_twice_by_the_same_look() {
    let mirrored = MirrorEvidence::default();
    let evidence = Evidence { control: arm(5000, 10, 0), candidate: arm(50, 20, 0), mirrored };
    let mut position = Position { step: 0, elapsed: Duration::ZERO, looks: Looks::default() };
    let first = decide(&Plan::default(), position, &evidence);
    assert_eq!(first.verdict, Verdict::Back);
    position.looks = first.looks;
    assert_eq!(decide(&Plan::default(), position, &evidence).verdict, Verdict::Hold(Wait::Time));
    let looks = [0, 19, 20, 24, 25, 31, 32, 1000, 1_000_000].map(look);
    assert_eq!(looks, [0, 0, 1, 1, 2, 2, 3, 18, 49]);
}

#[test]
fn a_gate_that_allows_everything_breaks_nothing() {
    let gates = Gates {
        error_rate_increase_max: 1.0,
        error_rate_max: 1.0,
        p50_ratio_max: 1e9,
        p99_ratio_max: 1e9,
        mismatch_rate_max: Some(1.0),
        reward: Some(RewardGate { decrease_max: 1.0, rewards_min: 20 }),
    };
    let plan = Plan { gates, ..Plan::default() };
    plan.check().unwrap();
    let position = Position { step: 0, elapsed: Duration::from_secs(600), looks: Looks::default() };
    let mirrored = MirrorEvidence { compared: 5000, differing: 5000 };
    let (mut control, mut candidate) = (arm(5000, 1, 0), arm(1000, 4000, 9000));
    (control.rewards, candidate.rewards) =
        (RewardEvidence { count: 500, sum: 500.0 }, RewardEvidence { count: 500, sum: 0.0 });
    let evidence = Evidence { control, candidate, mirrored };
    assert_eq!(decide(&plan, position, &evidence).verdict, Verdict::Forward);
}

fn check_fault(change: impl FnOnce(&mut Plan), expected: Expect) {
    let mut plan = Plan::default();
    change(&mut plan);
    expected.assert_eq(&plan.check().err().unwrap_or_default());
}

#[test]
fn faults_say_what_was_expected() {
    check_fault(|_| {}, expect![[""]]);
    check_fault(
        |plan| plan.steps.clear(),
        expect!["has 0 steps: expected 2 to 32, ascending to 100 percent, such as 1, 10, 50 and 100"],
    );
    check_fault(|plan| plan.steps.truncate(3), expect!["step 3 is the last and at 50 percent: expected 100"]);
    check_fault(
        |plan| plan.steps[1].weight = percent(1.0),
        expect!["step 2 is at 1 percent, after one at 1: expected more from step to step"],
    );
    check_fault(|plan| plan.steps[0].weight = percent(0.0), expect!["step 1 is at 0 percent: expected more"]);
    check_fault(
        |plan| plan.steps[2].weight = Weight::ALL,
        expect!["step 4 is at 100 percent, after one at 100: expected more from step to step"],
    );
    check_fault(
        |plan| plan.steps[3].requests_min = 1,
        expect![
            "step 4 asks for time or requests at 100 percent, where nothing is left to compare with: leave them out"
        ],
    );
    check_fault(
        |plan| plan.steps[0].requests_min = 19,
        expect!["step 1 asks for 19 requests: expected at least 20, fewer tell nothing"],
    );
    check_fault(
        |plan| plan.gates.error_rate_max = 5.0,
        expect!["error_rate_max is 5: expected a share of requests from 0 to 1, such as 0.01"],
    );
    check_fault(
        |plan| plan.gates.mismatch_rate_max = Some(-1.0),
        expect!["mismatch_rate_max is -1: expected a share of requests from 0 to 1, such as 0.01"],
    );
    check_fault(
        |plan| plan.gates.p99_ratio_max = f64::INFINITY,
        expect![
            "p99_ratio_max is inf: expected a number above 0, such as 1.5; one such as 1e9 allows everything"
        ],
    );
    check_fault(
        |plan| plan.confidence = 1.0,
        expect!["confidence is 1: expected 0.5 to 0.999999, such as 0.99"],
    );
}
