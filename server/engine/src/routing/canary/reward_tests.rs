//! The gate on rewards: what is decided of which, played against made-up rewards, and what the README says of both.

use expect_test::{Expect, expect};

use super::simulation::Chance;
use super::*;
use crate::routing::tally::Tally;

const GATE: RewardGate = RewardGate { decrease_max: 0.02, rewards_min: 100 };

fn plan(gate: RewardGate) -> Plan {
    Plan { gates: Gates { reward: Some(gate), ..Gates::default() }, ..Plan::default() }
}

/// So many requests of 10 ms, and so many rewards, of which the first `good` are 1 and the others 0.
fn arm(requests: u64, rewards: u64, good: u64) -> ArmEvidence {
    let tally = Tally::new();
    (0..requests).for_each(|_| tally.lasted(Duration::from_millis(10)));
    (0..rewards).for_each(|reward| tally.rewarded(if reward < good { 1.0 } else { 0.0 }));
    tally.read()
}

fn check(elapsed_s: u64, control: (u64, u64), candidate: (u64, u64), expected: Expect) {
    let position = Position { step: 0, elapsed: Duration::from_secs(elapsed_s), looks: Looks::default() };
    let evidence = Evidence {
        control: arm(9000, control.0, control.1),
        candidate: arm(1000, candidate.0, candidate.1),
        mirrored: MirrorEvidence::default(),
    };
    let Decision { verdict, why, looks } = decide(&plan(GATE), position, &evidence);
    // Of what is told of all gates the last.
    let why = why.rsplit("; the mean").next().unwrap_or_default();
    expected.assert_eq(&format!("{verdict:?} at look {}: {why}", looks.rewards));
    let again = decide(&plan(GATE), Position { looks, ..position }, &evidence);
    assert_ne!(again.verdict, Verdict::Back, "nothing is judged twice");
}

#[test]
fn a_candidate_waits_for_rewards_and_is_taken_back_when_they_are_surely_lower() {
    check(
        600,
        (900, 300),
        (99, 33),
        expect![
            "Hold(Rewards) at look 8: 99 predictions that the candidate made in this step have been rewarded, at least 100 are asked for"
        ],
    );
    check(
        600,
        (99, 33),
        (900, 300),
        expect![
            "Hold(Rewards) at look 8: 99 predictions that the control made in this step have been rewarded, at least 100 are asked for"
        ],
    );
    check(
        600,
        (900, 300),
        (100, 33),
        expect![
            "Forward at look 8:  of 100 rewards is 0.3300, that of the control's 900 is 0.3333: 0.0033 less; the bound is 0.0200 less"
        ],
    );
    check(
        600,
        (900, 300),
        (100, 28),
        expect![[
            r#"Hold(Gate("reward_decrease")) at look 8: the mean of 100 rewards is 0.2800, that of the control's 900 is 0.3333: 0.0533 less; the bound is 0.0200 less"#
        ]],
    );
    check(1, (900, 300), (100, 28), expect!["Hold(Time) at look 8: the step lasts 1s so far, at least 600s"]);
    check(
        1,
        (900, 300),
        (100, 5),
        expect![
            "Back at look 8: the mean of 100 rewards is 0.0500, that of the control's 900 is 0.3333: 0.2833 less, surely at least 0.0294; the bound is 0.0200 less"
        ],
    );
    check(1, (900, 300), (19, 0), expect!["Hold(Time) at look 0: the step lasts 1s so far, at least 600s"]);
}

/// How many rewards the candidate has until it is taken back, where it has one for nine of the control's; `None` where
/// it is not within so many. A part `sure` of the mean is had in each, the rest by chance: with 0 they are successes.
fn rewards_until_back(plan: &Plan, sure: f64, means: [f64; 2], seed: u64, rewards_max: u64) -> Option<u64> {
    let mut chance = Chance::new(seed);
    let tallies = [Tally::new(), Tally::new()];
    let mut position = Position { step: 1, elapsed: Duration::ZERO, looks: Looks::default() };
    for rewards in 1..=rewards_max {
        for (tally, (mean, times)) in tallies.iter().zip(means.into_iter().zip([9, 1])) {
            let reward =
                |chance: &mut Chance| sure * mean + (1.0 - sure) * f64::from(u8::from(chance.unit() < mean));
            (0..times).for_each(|_| tally.rewarded(reward(&mut chance)));
        }
        // Nothing can be decided in between.
        if look(rewards) == position.looks.rewards {
            continue;
        }
        let [control, candidate] = [0, 1].map(|arm: usize| tallies[arm].read());
        let evidence = Evidence { control, candidate, mirrored: MirrorEvidence::default() };
        let Decision { verdict, looks, .. } = decide(plan, position, &evidence);
        position.looks = looks;
        if verdict == Verdict::Back {
            return Some(rewards);
        }
    }
    None
}

/// The README states these numbers.
#[test]
fn a_candidate_of_lower_rewards_is_taken_back_within_the_stated_rewards() {
    for (candidate, stated) in [(0.1, 500), (0.2, 3000), (0.25, 30_000)] {
        let rewards =
            (0..100).map(|seed| rewards_until_back(&plan(GATE), 0.0, [0.3, candidate], seed, 10 * stated));
        let most = rewards.map(|rewards| rewards.expect("it is taken back")).max().unwrap();
        assert!(most <= stated, "{candidate}: {most}");
    }
}

/// Exactly at its bound it is hardest to tell, and it is looked at as soon as one look follows another.
#[test]
fn a_candidate_at_its_bound_of_rewards_is_taken_back_no_more_often_than_confidence_allows() {
    let plan = Plan { confidence: 0.9, ..plan(RewardGate { decrease_max: 0.1, ..GATE }) };
    for sure in [0.0, 0.25] {
        let seeds = 100;
        let back = |seed: &u64| rewards_until_back(&plan, sure, [0.4, 0.3], 1000 + seed, 10_000).is_some();
        let back = (0..seeds).filter(back).count();
        assert!(back as f64 <= (1.0 - plan.confidence) * seeds as f64, "{back} of {seeds}");
    }
}

#[test]
fn gates_are_read_and_checked() {
    assert_eq!(RewardGate::read(None, None), Ok(None));
    assert_eq!(RewardGate::read(Some(0.02), None), Ok(Some(GATE)));
    let fault = |gate: Result<Option<RewardGate>, String>, expected: Expect| {
        let checked = gate.and_then(|gate| plan(gate.unwrap_or(GATE)).check());
        expected.assert_eq(&checked.err().unwrap_or_default());
    };
    fault(RewardGate::read(Some(0.0), Some(20)), expect![[""]]);
    fault(
        RewardGate::read(None, Some(20)),
        expect![
            "rewards_min stands without reward_decrease_max: give both, such as reward_decrease_max = 0.02, or neither"
        ],
    );
    fault(
        RewardGate::read(Some(2.0), None),
        expect!["reward_decrease_max is 2: expected a difference of mean rewards from 0 to 1, such as 0.02"],
    );
    fault(
        RewardGate::read(Some(0.1), Some(19)),
        expect!["rewards_min is 19: expected at least 20, fewer tell nothing"],
    );
}
