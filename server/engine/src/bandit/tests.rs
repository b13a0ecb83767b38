//! That posteriors and what follows from them are those of scipy, and that bandits go where they should.

use std::time::Duration;

use proptest::prelude::*;

use super::special::{binomial_at_least, chi_square_above, incomplete_beta, ln_gamma, student_t_below};
use super::*;
use crate::random::Random;

fn check(ours: f64, theirs: f64) {
    let difference = (ours - theirs).abs();
    assert!(difference <= 1e-10 * theirs.abs().max(1e-3), "{ours} is not {theirs}");
}

#[test]
fn special_functions_are_those_of_scipy() {
    check(ln_gamma(0.3), 1.095_797_994_818_075_6);
    check(ln_gamma(7.5), 7.534_364_236_758_734);
    check(ln_gamma(1000.5), 5_908.674_175_848_678);
    check(incomplete_beta(2.0, 3.0, 0.4), 0.524_8);
    check(incomplete_beta(0.5, 0.5, 0.1), 0.204_832_764_699_133_45);
    check(incomplete_beta(50.0, 950.0, 0.06), 0.920_943_346_098_859);
    check(incomplete_beta(40_000.0, 60_000.0, 0.402), 0.901_597_931_128_497);
    check(student_t_below(1.5, 2.0), 0.863_803_437_554_499_4);
    check(student_t_below(-3.0, 7.0), 0.009_971_063_065_996_268);
    check(student_t_below(0.2, 200.0), 0.579_158_104_120_783_3);
    check(chi_square_above(3.84, 1.0), 0.050_043_521_248_705_19);
    check(chi_square_above(1.0, 5.0), 0.962_565_773_247_296_4);
    check(chi_square_above(40.0, 3.0), 1.065_509_033_425_585e-8);
    check(binomial_at_least(5, 100, 0.01), 0.003_432_321_587_754_520_7);
    check(binomial_at_least(1, 10, 0.1), 0.651_321_559_900_000_1);
}

/// Probabilities of being the best and expected losses, by `scipy.integrate.quad`.
#[test]
fn standings_are_those_of_scipy() {
    let beta = |alpha, beta| Posterior::Beta { alpha, beta };
    let t = |degrees, location, scale| Posterior::StudentT { location, scale, degrees };
    let cases = [
        (
            vec![beta(11.0, 91.0), beta(16.0, 86.0)],
            vec![(0.146_716_21, 0.052_597_696), (0.853_283_79, 0.003_578_088)],
        ),
        (
            vec![beta(1.0, 1.0), beta(3.0, 7.0), beta(201.0, 301.0)],
            vec![(0.577_277_18, 0.091_002_019), (0.114_830_82, 0.291_002_019), (0.307_892_0, 0.190_603_613)],
        ),
        (
            vec![beta(50_001.0, 50_001.0), beta(50_401.0, 49_601.0)],
            vec![(0.036_818_57, 0.004_032_746), (0.963_181_43, 3.282_6e-5)],
        ),
        (
            vec![t(12.0, 1.0, 0.1), t(42.0, 1.1, 0.06)],
            vec![(0.205_202_41, 0.114_980_726), (0.794_797_59, 0.014_980_726)],
        ),
    ];
    for (posteriors, expected) in cases {
        for (standing, (probability, loss)) in best::standings(&posteriors).iter().zip(expected) {
            assert!((standing.probability_best - probability).abs() < 1e-5, "{standing:?}: {probability}");
            assert!((standing.expected_loss - loss).abs() < 5e-5 * loss + 1e-8, "{standing:?}: {loss}");
        }
    }
}

/// `scipy.stats.beta.ppf` and `scipy.stats.t.ppf`.
#[test]
fn intervals_are_those_of_scipy() {
    let beta = |alpha, beta| Posterior::Beta { alpha, beta };
    let t = |degrees, location, scale| Posterior::StudentT { location, scale, degrees };
    let cases = [
        (beta(16.0, 86.0), (0.093_346_619_468, 0.233_096_903_853)),
        (beta(1.0, 1001.0), (2.529_219_561_6e-5, 0.003_678_412_265)),
        (beta(1.0, 1.0), (0.025, 0.975)),
        (t(2.0, 1.0, 0.1), (0.569_734_727_025, 1.430_265_272_975)),
        (t(42.0, 1.1, 0.06), (0.978_915_097_831, 1.221_084_902_169)),
    ];
    for (posterior, (low, high)) in cases {
        let ours = posterior.interval(0.95);
        let is_near = |ours: f64, theirs: f64| (ours - theirs).abs() < 1e-7 * posterior.spread();
        assert!(is_near(ours.0, low) && is_near(ours.1, high), "{posterior:?}: {ours:?}");
    }
}

/// One arm alone, many arms alike, and arms about which far more or far less is known than about others.
#[test]
fn standings_hold_at_the_extremes() {
    let beta = |alpha, beta| Posterior::Beta { alpha, beta };
    let probabilities = |posteriors: &[Posterior]| -> Vec<f64> {
        best::standings(posteriors).iter().map(|standing| standing.probability_best).collect()
    };
    assert_eq!(probabilities(&[beta(3.0, 4.0)]), [1.0]);
    let alike = probabilities(&[beta(5.0, 50.0); 40]);
    assert!(alike.iter().all(|probability| near(*probability, 1.0 / 40.0)), "{alike:?}");
    // Of a mean that is surely 0.3, and one that may be anything.
    let of = probabilities(&[beta(3e8, 7e8), beta(1.0, 1.0)]);
    assert!((of[0] - 0.3).abs() < 1e-4, "{of:?}");
    let of = best::standings(&[beta(1.0, 1e7), beta(1e7, 1.0)]);
    assert!(near(of[1].probability_best, 1.0) && near(of[1].expected_loss, 0.0), "{of:?}");
    assert!((of[0].expected_loss - 1.0).abs() < 1e-6, "{of:?}");
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

proptest! {
    #[test]
    fn the_order_in_which_rewards_come_does_not_matter(
        rewards in proptest::collection::vec((-5.0..5.0f64, 0.0..100.0f64), 1..30),
        turn in 0..30usize,
    ) {
        let half_life = Some(Duration::from_secs(20));
        let told = |rewards: &[(f64, f64)]| {
            let mut evidence = Evidence::default();
            rewards.iter().for_each(|(reward, at_s)| evidence.add(*reward, *at_s, half_life));
            evidence.at(200.0, half_life)
        };
        let mut turned = rewards.clone();
        turned.rotate_left(turn % rewards.len());
        turned.reverse();
        let (one, other) = (told(&rewards), told(&turned));
        prop_assert!(near(one.count, other.count) && near(one.mean, other.mean), "{one:?} {other:?}");
        prop_assert!(near(one.deviations, other.deviations), "{one:?} {other:?}");
    }

    #[test]
    fn shares_are_all_there_is(
        rewards in proptest::collection::vec((0..4usize, 0.0..1.0f64), 0..60),
        broken in proptest::collection::vec(any::<bool>(), 4),
        algorithm in prop_oneof![
            Just(Algorithm::Thompson),
            Just(Algorithm::EpsilonGreedy { epsilon: 0.1 }),
            Just(Algorithm::Ucb1)
        ],
        real in any::<bool>(),
    ) {
        let rewards_are = if real { Rewards::Real } else { Rewards::Binary };
        let guard = Guard { error_rate_max: Some(0.01), ..Guard::default() };
        let mut bandit = Bandit::new(Settings { algorithm, rewards: rewards_are, guard, ..Settings::default() }, 4);
        rewards.iter().for_each(|(arm, reward)| bandit.reward(*arm, *reward, 1.0));
        let faulty = Tally { requests: 100, slow: 0, failed: 50 };
        (0..4).filter(|arm| broken[*arm]).for_each(|arm| bandit.behaved(arm, faulty, 1.0));
        let shares = bandit.shares(2.0);
        prop_assert!(near(shares.iter().sum(), 1.0), "{shares:?}");
        prop_assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
        if broken.iter().any(|broken| !broken) {
            let of_broken: f64 = (0..4).filter(|arm| broken[*arm]).map(|arm| shares[arm]).sum();
            prop_assert!(of_broken < 0.01, "{shares:?}");
        }
    }
}

#[test]
fn rewards_fade_by_half_lives() {
    let half_life = Some(Duration::from_secs(10));
    let mut evidence = Evidence::default();
    evidence.add(1.0, 0.0, half_life);
    evidence.add(0.0, 10.0, half_life);
    let evidence = evidence.at(20.0, half_life);
    assert!(near(evidence.count, 0.75) && near(evidence.mean, 1.0 / 3.0), "{evidence:?}");
    let untouched = Evidence { count: 3.0, ..Evidence::default() }.at(1e9, None);
    assert_eq!(untouched.count, 3.0);
}

#[test]
fn nothing_known_is_dealt_alike() {
    for rewards in [Rewards::Binary, Rewards::Real] {
        for algorithm in [Algorithm::Thompson, Algorithm::EpsilonGreedy { epsilon: 0.1 }, Algorithm::Ucb1] {
            let mut bandit = Bandit::new(Settings { algorithm, rewards, ..Settings::default() }, 3);
            let shares = bandit.shares(0.0);
            assert!(shares.iter().all(|share| (share - 1.0 / 3.0).abs() < 1e-6), "{algorithm:?} {shares:?}");
        }
    }
}

/// Rewards arms with these probabilities, and returns the shares at the end.
fn play(settings: Settings, probabilities: &[f64]) -> Vec<f64> {
    let mut bandit = Bandit::new(settings, probabilities.len());
    let mut random = Random::new(1);
    for step in 0..2000 {
        for (arm, probability) in probabilities.iter().enumerate() {
            bandit.reward(arm, f64::from(u8::from(random.uniform() < *probability)), f64::from(step));
        }
    }
    bandit.shares(2000.0)
}

#[test]
fn the_best_arm_gets_most() {
    let of =
        |algorithm, rewards| play(Settings { algorithm, rewards, ..Settings::default() }, &[0.5, 0.6, 0.4]);
    for rewards in [Rewards::Binary, Rewards::Real] {
        assert!(of(Algorithm::Thompson, rewards)[1] > 0.999);
        let greedy = of(Algorithm::EpsilonGreedy { epsilon: 0.3 }, rewards);
        assert!(greedy.iter().zip([0.1, 0.8, 0.1]).all(|(ours, share)| near(*ours, share)), "{greedy:?}");
        assert_eq!(of(Algorithm::Ucb1, rewards), [0.0, 1.0, 0.0]);
    }
}

#[test]
fn a_winner_keeps_everything_unless_it_breaks_its_bounds() {
    let settings = Settings {
        winner_probability: Some(0.99),
        rewards_min: 10,
        guard: Guard { error_rate_max: Some(0.01), ..Guard::default() },
        ..Settings::default()
    };
    let mut bandit = Bandit::new(settings, 2);
    (0..9).for_each(|_| bandit.reward(0, 0.0, 0.0));
    (0..50).for_each(|_| bandit.reward(1, 1.0, 0.0));
    bandit.shares(0.0);
    assert_eq!(bandit.winner(), None, "one of them is not known well enough");
    bandit.reward(0, 0.0, 0.0);
    assert_eq!((bandit.shares(0.0), bandit.winner()), (vec![0.0, 1.0], Some(1)));
    bandit.behaved(1, Tally { requests: 40, slow: 0, failed: 20 }, 1.0);
    assert_eq!((bandit.shares(1.0), bandit.winner()), (vec![0.995, 0.005], None));
    let fault = bandit.health(1).fault().unwrap();
    assert_eq!(fault.why, "20 of its last 40 requests failed, where 1 % may");
    bandit.settle(Some(0), 1.0);
    bandit.behaved(0, Tally { requests: 40, slow: 0, failed: 20 }, 1.0);
    assert_eq!(
        (bandit.shares(1.0), bandit.winner()),
        (vec![0.995, 0.005], None),
        "the first is no winner either"
    );
}

#[test]
fn a_winner_and_its_closest_rival_are_known_well_and_the_others_are_far_behind() {
    let won = |arms: &[(f64, f64)]| {
        let evidence: Vec<Evidence> = arms
            .iter()
            .map(|(count, mean)| Evidence { count: *count, mean: *mean, ..Evidence::default() })
            .collect();
        let standings = best::standings(&Rewards::Binary.posteriors(&evidence));
        winner::winner(&standings, &evidence, 0.99, 100)
    };
    assert_eq!(won(&[(100.0, 0.1), (100.0, 0.4)]), Some(1));
    assert_eq!(won(&[(99.0, 0.1), (100.0, 0.4)]), None, "the rival is not known");
    assert_eq!(won(&[(100.0, 0.1), (99.0, 0.4)]), None, "nor is the best");
    assert_eq!(won(&[(100.0, 0.1), (100.0, 0.2)]), None, "they are too close");
    assert_eq!(
        won(&[(30.0, 0.1), (200.0, 0.4), (100.0, 0.2)]),
        Some(1),
        "one that is far behind may be less known"
    );
    assert_eq!(
        won(&[(3.0, 0.0), (200.0, 0.4), (100.0, 0.2)]),
        None,
        "but not so little that it may be the best"
    );
    assert_eq!(won(&[(1000.0, 0.9)]), None, "one alone is the best of nothing");
}

#[test]
fn an_arm_recovers_by_its_probes_alone() {
    let guard = Guard { p99_max: Some(Duration::from_millis(10)), ..Guard::default() };
    let mut health = Health::default();
    let tally = |requests, slow| Tally { requests, slow, failed: requests };
    health.observe(&guard, tally(19, 19), 0.0);
    assert!(!health.is_broken(), "too few requests to tell");
    health.observe(&guard, tally(1, 0), 1.0);
    assert!(health.is_broken());
    health.observe(&guard, tally(299, 0), 2.0);
    assert!(health.is_broken(), "too few probes");
    health.observe(&guard, tally(1, 299), 2.0);
    assert!(health.is_broken(), "they were slow");
    health.observe(&guard, tally(300, 3), 3.0);
    assert!(!health.is_broken());
    assert!(!health.is_broken() && health.fault().is_none());
}

#[test]
fn an_arm_at_its_bounds_keeps_them() {
    let guard =
        Guard { p99_max: Some(Duration::from_millis(10)), error_rate_max: Some(0.02), ..Guard::default() };
    for seed in 0..20 {
        let (mut health, mut random) = (Health::default(), Random::new(seed));
        for second in 0..600 {
            let hits =
                |random: &mut Random, share| (0..10).filter(|_| random.uniform() < share).count() as u64;
            let tally =
                Tally { requests: 10, slow: hits(&mut random, 0.008), failed: hits(&mut random, 0.015) };
            health.observe(&guard, tally, f64::from(second));
        }
        assert!(!health.is_broken(), "{:?}", health.fault());
    }
}

/// Two arms with these probabilities, looked at after every tenth reward of each: the smallest p-value.
fn smallest_p(one: f64, other: f64, rewards: usize, seed: u64) -> f64 {
    let mut random = Random::new(seed);
    let mut evidence = [Evidence::default(); 2];
    let mut smallest: f64 = 1.0;
    for step in 1..=rewards {
        for (arm, probability) in [one, other].into_iter().enumerate() {
            evidence[arm].add(f64::from(u8::from(random.uniform() < probability)), 0.0, None);
        }
        if step % 10 == 0 {
            smallest = smallest.min(sequential::difference_p(&evidence[0], &evidence[1]));
        }
    }
    smallest
}

#[test]
fn looking_again_and_again_finds_no_difference_where_there_is_none() {
    let found = (0..200).filter(|seed| smallest_p(0.3, 0.3, 3000, *seed) < 0.05).count();
    assert!(found <= 10, "{found} of 200");
    let found = (0..50).filter(|seed| smallest_p(0.3, 0.4, 3000, *seed) < 0.05).count();
    assert!(found >= 48, "{found} of 50");
}

#[test]
fn requests_that_were_dealt_otherwise_are_noticed() {
    let p = |requests: &[u64], shares: &[f64]| sequential::sample_ratio_p(requests, shares);
    assert_eq!(p(&[5, 4], &[0.9, 0.1]), None, "too few");
    assert_eq!(p(&[500], &[1.0]), None, "nothing to compare");
    // scipy.stats.chisquare([5050, 4950, 0]) of the first two.
    check(p(&[5050, 4950, 0], &[0.5, 0.5, 0.0]).unwrap(), 0.317_310_507_862_914_04);
    assert!(p(&[5300, 4700], &[0.5, 0.5]).unwrap() < 1e-6);
}
