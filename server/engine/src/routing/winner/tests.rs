//! What is decided of a winner, and rollouts played against arms that are known, on a made-up clock.

use expect_test::{Expect, expect};

use super::*;
use crate::bandit::{Bandit, Guard, Settings, Tally};
use crate::random::Random;

fn steps(steps: &[(f64, u64, u64)]) -> Vec<Step> {
    let step = |&(share, seconds, requests_min): &(f64, u64, u64)| Step {
        weight: Weight::from_percent(share).unwrap(),
        time_min: Duration::from_secs(seconds),
        requests_min,
    };
    steps.iter().map(step).collect()
}

const QUICK: [(f64, u64, u64); 3] = [(50.0, 20, 100), (90.0, 20, 100), (100.0, 0, 0)];

fn check(elapsed_s: f64, requests: u64, probability_best: f64, expected: Expect) {
    let mut rollout = Rollout::begin(&steps(&QUICK), 100.0);
    rollout.count(requests);
    let (verdict, why) = rollout.decide(probability_best, 0.95, 100.0 + elapsed_s);
    expected.assert_eq(&format!("{verdict:?}: {why}"));
}

#[test]
fn a_winner_goes_forward_while_it_is_surely_the_best() {
    check(19.0, 500, 0.99, expect!["Hold(Time): the step lasts 19s so far, at least 20s"]);
    check(
        20.0,
        99,
        0.99,
        expect!["Hold(Requests): the winner has had 99 requests in this step, at least 100 are asked for"],
    );
    check(
        20.0,
        100,
        0.94,
        expect![[
            r#"Hold(Gate("probability_best")): it is the best with a probability of 0.9400, at least 0.95 is asked for"#
        ]],
    );
    check(
        1.0,
        0,
        0.4,
        expect![
            "Back: it is the best with a probability of 0.4000, less than 0.5: another arm may be better"
        ],
    );
    check(
        20.0,
        100,
        0.96,
        expect!["Forward: it is the best with a probability of 0.9600 after 100 requests in 20s"],
    );
    let rollout = Rollout::begin(&steps(&QUICK), 0.0).forward(0.0);
    assert_eq!((rollout.place(), rollout.weight().percent(), rollout.is_done()), ((2, 3), 90.0, false));
    let done = rollout.forward(0.0);
    assert!(done.is_done() && done.forward(0.0) == done);
    assert_eq!(done.decide(0.1, 0.95, 0.0).0, Verdict::Done, "only its bounds can end that");
}

#[test]
fn a_rollout_resumes_where_the_winner_had_as_much() {
    let resumed =
        |percent| Rollout::resume(&steps(&QUICK), Weight::from_percent(percent).unwrap(), 0.0).place();
    assert_eq!([0.0, 50.0, 60.0, 90.0, 100.0].map(resumed), [(1, 3), (1, 3), (2, 3), (2, 3), (3, 3)]);
    assert!(Rollout::begin(&[], 0.0).is_done(), "without steps everything at once");
    let defaults: Vec<f64> = default_steps().iter().map(|step| step.weight.percent()).collect();
    assert_eq!(defaults, [90.0, 99.0, 100.0]);
}

/// What became of a winner.
#[derive(Debug, PartialEq)]
enum Event {
    Won(usize),
    Grew(f64),
    Lost(usize),
}

/// Two arms that are rewarded with these probabilities, at 100 requests a second, looked at every second. The winner
/// turns slow at this percent.
fn play(means: [f64; 2], slow_at: Option<f64>, seconds: u32, seed: u64) -> (Vec<Event>, Vec<f64>) {
    let guard = Guard { p99_max: Some(Duration::from_millis(50)), ..Guard::default() };
    let settings = Settings { winner_probability: Some(0.99), rewards_min: 20, guard, ..Settings::default() };
    let (mut bandit, mut random) = (Bandit::new(settings, 2), Random::new(seed));
    let (mut events, mut rollout, mut winner): (Vec<Event>, Option<Rollout>, Option<usize>) =
        (vec![], None, None);
    let mut shares = bandit.shares(0.0);
    for second in 0..seconds {
        let now_s = f64::from(second);
        for _ in 0..100 {
            let arm = usize::from(random.uniform() >= shares[0]);
            bandit.reward(arm, f64::from(u8::from(random.uniform() < means[arm])), now_s);
            let mut slow = 0;
            if let Some(rollout) = rollout.as_mut().filter(|_| winner == Some(arm)) {
                rollout.count(1);
                slow = u64::from(slow_at == Some(rollout.weight().percent()));
            }
            bandit.behaved(arm, Tally { requests: 1, slow, failed: 0 }, now_s);
        }
        if let (Some(arm), Some(now)) = (winner, &rollout)
            && !now.is_done()
        {
            match now.decide(bandit.winner_probability(now_s).unwrap_or(0.0), 0.99, now_s).0 {
                Verdict::Hold(_) => {}
                Verdict::Forward | Verdict::Done => {
                    let next = now.forward(now_s);
                    bandit.settle(Some(arm), next.weight().percent() / 100.0);
                    events.push(Event::Grew(next.weight().percent()));
                    rollout = Some(next);
                }
                Verdict::Back => bandit.settle(None, 1.0),
            }
        }
        shares = bandit.shares(now_s);
        if bandit.winner() != winner {
            events.extend(winner.map(Event::Lost));
            winner = bandit.winner();
            rollout = winner.map(|_| Rollout::begin(&steps(&QUICK), now_s));
            if let (Some(arm), Some(rollout)) = (winner, &rollout) {
                bandit.settle(winner, rollout.weight().percent() / 100.0);
                shares = bandit.shares(now_s);
                events.push(Event::Won(arm));
            }
        }
        if matches!(events.last(), Some(Event::Lost(_) | Event::Grew(100.0))) {
            break;
        }
    }
    (events, shares)
}

#[test]
fn a_winner_gets_everything_step_by_step() {
    for seed in 0..10 {
        let (events, shares) = play([0.3, 0.5], None, 600, seed);
        assert_eq!(events, [Event::Won(1), Event::Grew(90.0), Event::Grew(100.0)], "seed {seed}");
        assert_eq!(shares, [0.0, 1.0]);
    }
}

#[test]
fn a_winner_that_breaks_its_bounds_loses_what_it_was_given() {
    for seed in 0..10 {
        let (events, shares) = play([0.3, 0.5], Some(90.0), 600, seed);
        assert_eq!(events, [Event::Won(1), Event::Grew(90.0), Event::Lost(1)], "seed {seed}");
        assert_eq!(shares, [0.995, 0.005], "it gets probes alone");
    }
}

#[test]
fn the_others_share_what_the_winner_leaves_as_rewards_say() {
    let mut bandit = Bandit::new(Settings { winner_probability: Some(0.9), ..Settings::default() }, 3);
    for (arm, mean) in [(0, 0.2), (1, 0.9), (2, 0.5)] {
        (0..200).for_each(|reward| {
            bandit.reward(arm, f64::from(u8::from(f64::from(reward) < 200.0 * mean)), 0.0)
        });
    }
    assert_eq!((bandit.shares(0.0)[1], bandit.winner()), (1.0, Some(1)));
    bandit.settle(Some(1), 0.9);
    let shares = bandit.shares(0.0);
    assert!(
        (shares[1] - 0.9).abs() < 1e-12 && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-12,
        "{shares:?}"
    );
    assert!(shares[2] > 0.0999, "{shares:?}");
}

#[test]
fn rollouts_that_cannot_be_are_refused() {
    let route = |policy, rollout| Route {
        name: "r".into(),
        policy,
        key: crate::routing::KeySource::Header,
        salt: "s".into(),
        arms: Vec::new(),
        canary: None,
        rollout,
        shadows: Vec::new(),
    };
    let bandit = Policy::Bandit(Settings::DEFAULT);
    let fault = |policy, steps| check_rollout(&route(policy, steps)).err().unwrap_or_default();
    assert_eq!(fault(bandit, default_steps()), "");
    assert_eq!(fault(bandit, steps(&[(100.0, 0, 0)])), "", "everything at once");
    assert_eq!(
        fault(Policy::Split, default_steps()),
        "has a rollout and policy split: expected policy bandit"
    );
    assert_eq!(
        fault(bandit, steps(&[(50.0, 0, 20), (50.0, 0, 20), (100.0, 0, 0)])),
        "its rollout: step 2 is at 50 percent, after one at 50: expected more from step to step"
    );
    assert_eq!(
        fault(bandit, steps(&[(50.0, 0, 20)])),
        "its rollout: step 1 is the last and at 50 percent: expected 100"
    );
}
