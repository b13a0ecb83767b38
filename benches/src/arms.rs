//! A bandit in a closed loop with made-up arms: requests, rewards that come late or never, and what is regretted.
//!
//! All chance comes from tables that are functions of a seed, so that `fixtures/thompson.py` plays the same ones.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::time::Duration;

use gristmill_engine::bandit::{Algorithm, Bandit, Guard, Rewards, Settings, Tally};
use gristmill_engine::random::Random;

/// One kind of experiment.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub rewards: Rewards,
    pub arms: Vec<Truth>,
    /// How many requests later a reward is told, on average: exponential.
    pub delay_requests: f64,
    /// The share of rewards that are never told.
    pub missing: f64,
    pub half_life: Option<Duration>,
}

/// What an arm is really like.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    /// In the first half.
    pub mean: f64,
    /// In the second.
    pub mean_later: f64,
    /// The share of its answers that are later than the bound on the 99th percentile.
    pub slow: f64,
}

/// How it went with one seed.
#[derive(Clone, Debug)]
pub struct Course {
    /// Sum of what the best arm that keeps its bounds is better by, after each of so many equal parts.
    pub regret: Vec<f64>,
    /// The request at which an arm had won with `winner_probability` 0.99, and whether it is the best one that keeps
    /// its bounds.
    pub decision: Option<(usize, bool)>,
    /// Where an arm broke its bound: the request at which that was seen, and its share of the requests after.
    pub detection: Option<(usize, f64)>,
}

pub const REQUESTS: usize = 20_000;
/// Points of a course.
pub const PARTS: usize = 50;
const REQUESTS_PER_S: f64 = 200.0;
/// Shares are published ten times a second.
const PUBLISHED_EVERY: usize = 20;
/// Real rewards are normal with this standard deviation.
const DEVIATION: f64 = 0.5;
const WINNER_PROBABILITY: f64 = 0.99;
/// Of publications, so often it is asked whether an arm has won.
const JUDGED_EVERY: usize = 5;

/// Streams of a seed's table: two for each arm's rewards, then those of all arms, then each arm's latency.
const DELAYS: u64 = 100;
const MISSING: u64 = 101;
const CHOICES: u64 = 102;
const SLOW: u64 = 110;

pub fn cases() -> Vec<Case> {
    let same = |mean| Truth { mean, mean_later: mean, slow: 0.0 };
    let case = |name, means: &[f64]| Case {
        name,
        rewards: Rewards::Binary,
        arms: means.iter().map(|mean| same(*mean)).collect(),
        delay_requests: 0.0,
        missing: 0.0,
        half_life: None,
    };
    vec![
        case("gap of 1 %", &[0.10, 0.11]),
        case("gap of 5 %", &[0.50, 0.55]),
        case("gap of 10 %, five arms", &[0.10, 0.12, 0.15, 0.20, 0.30]),
        Case { rewards: Rewards::Real, ..case("real rewards, gap of 10 %", &[1.0, 1.1, 0.9]) },
        Case { delay_requests: 2000.0, missing: 0.3, ..case("late by 10 s, 30 % missing", &[0.50, 0.55]) },
        Case {
            arms: vec![Truth { mean: 0.6, mean_later: 0.3, slow: 0.0 }, same(0.5)],
            half_life: Some(Duration::from_secs(10)),
            ..case("turns bad midway", &[])
        },
        Case {
            arms: vec![same(0.5), Truth { slow: 0.05, ..same(0.6) }],
            ..case("best reward, broken p99", &[])
        },
    ]
}

/// A number from 0 to 1 of a table: the first of SplitMix64 from a state that says the place.
pub fn uniform(seed: u64, stream: u64, request: usize) -> f64 {
    Random::new((seed << 40) | (stream << 32) | request as u64).uniform()
}

// === impl Case ===

impl Case {
    pub fn play(&self, algorithm: Algorithm, seed: u64) -> Course {
        let guard = Guard { p99_max: Some(Duration::from_millis(50)), ..Guard::default() };
        let settings = Settings {
            algorithm,
            rewards: self.rewards,
            half_life: self.half_life,
            guard,
            ..Settings::default()
        };
        let mut bandit = Bandit::new(settings, self.arms.len());
        // Learns the same and deals nothing: what is regretted does not depend on when it is decided.
        let judge = Settings { winner_probability: Some(WINNER_PROBABILITY), ..settings };
        let mut judge = Bandit::new(judge, self.arms.len());
        let mut shares = bandit.shares(0.0);
        let mut tallies = vec![Tally::default(); self.arms.len()];
        let mut due: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        let mut course = Course { regret: Vec::with_capacity(PARTS), decision: None, detection: None };
        let (mut regret, mut of_broken) = (0.0, 0);
        for request in 0..REQUESTS {
            let at_s = request as f64 / REQUESTS_PER_S;
            while let Some(entry) = due.first_entry().filter(|entry| *entry.key() <= request) {
                for (arm, of) in entry.remove() {
                    let reward = self.reward(arm, seed, of);
                    bandit.reward(arm, reward, of as f64 / REQUESTS_PER_S);
                    judge.reward(arm, reward, of as f64 / REQUESTS_PER_S);
                }
            }
            if request.is_multiple_of(PUBLISHED_EVERY) {
                for (arm, tally) in tallies.iter_mut().enumerate() {
                    bandit.behaved(arm, *tally, at_s);
                    judge.behaved(arm, std::mem::take(tally), at_s);
                    if bandit.health(arm).is_broken() && course.detection.is_none() {
                        course.detection = Some((request, 0.0));
                    }
                }
                shares = bandit.shares(at_s);
                if course.decision.is_none() && request.is_multiple_of(JUDGED_EVERY * PUBLISHED_EVERY) {
                    judge.shares(at_s);
                    course.decision = judge.winner().map(|arm| (request, self.is_best(arm, request)));
                }
            }
            let arm = pick(&shares, uniform(seed, CHOICES, request));
            let is_slow = uniform(seed, SLOW + arm as u64, request) < self.arms[arm].slow;
            tallies[arm] += Tally { requests: 1, slow: u64::from(is_slow), failed: 0 };
            of_broken += usize::from(course.detection.is_some() && self.arms[arm].slow > 0.0);
            regret += self.best(request) - self.mean(arm, request);
            if (request + 1).is_multiple_of(REQUESTS / PARTS) {
                course.regret.push(regret);
            }
            if uniform(seed, MISSING, request) >= self.missing {
                let delay = -(1.0 - uniform(seed, DELAYS, request)).ln() * self.delay_requests;
                due.entry(request + 1 + delay.floor() as usize).or_default().push((arm, request));
            }
        }
        if let Some((seen, share)) = &mut course.detection {
            *share = of_broken as f64 / (REQUESTS - *seen) as f64;
        }
        course
    }

    fn is_best(&self, arm: usize, request: usize) -> bool {
        self.arms[arm].slow == 0.0 && self.mean(arm, request) >= self.best(request)
    }

    fn mean(&self, arm: usize, request: usize) -> f64 {
        let Truth { mean, mean_later, .. } = self.arms[arm];
        if request < REQUESTS / 2 { mean } else { mean_later }
    }

    fn best(&self, request: usize) -> f64 {
        let sound = (0..self.arms.len()).filter(|arm| self.arms[*arm].slow == 0.0);
        sound.map(|arm| self.mean(arm, request)).fold(f64::NEG_INFINITY, f64::max)
    }

    fn reward(&self, arm: usize, seed: u64, request: usize) -> f64 {
        let stream = 2 * arm as u64;
        let first = uniform(seed, stream, request);
        let mean = self.mean(arm, request);
        match self.rewards {
            Rewards::Binary => f64::from(u8::from(first < mean)),
            // Box and Muller 1958.
            Rewards::Real => {
                let angle = TAU * uniform(seed, stream + 1, request);
                mean + DEVIATION * (-2.0 * (1.0 - first).ln()).sqrt() * angle.cos()
            }
        }
    }
}

fn pick(shares: &[f64], at: f64) -> usize {
    let mut sum = 0.0;
    let arm = shares.iter().position(|share| {
        sum += share;
        at < sum
    });
    // The shares may add up to a little less than 1.
    arm.unwrap_or(shares.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_with_a_broken_p99_is_seen_and_left() {
        let case = cases().pop().expect("there are cases");
        let course = case.play(Algorithm::Thompson, 1);
        let (seen, share) = course.detection.expect("it was seen");
        assert!(seen < REQUESTS / 10 && share < 0.01, "{seen} {share}");
        assert_eq!(course.decision, None, "one alone is the best of nothing");
    }

    #[test]
    fn the_best_of_five_arms_is_decided_on_though_the_worst_are_hardly_asked() {
        let case = &cases()[2];
        assert_eq!(case.arms.len(), 5);
        let (request, is_right) = case.play(Algorithm::Thompson, 1).decision.expect("it was decided");
        assert!(request > 500 && is_right, "{request}");
    }

    #[test]
    fn tables_are_those_of_the_reference() {
        let told = [(1, 0, 0), (60, 101, 19_999), (7, 110, 5)]
            .map(|(seed, stream, request)| format!("{:.12}", uniform(seed, stream, request)));
        assert_eq!(told, ["0.124472687242", "0.996034285066", "0.217021960399"]);
    }
}
