//! Which share of the requests each arm gets, from what arms were rewarded with and how they behave: pure.
//!
//! Time is in seconds on any one clock, so that rewards may be played, told late, and read back after a restart.

pub mod best;
pub mod guard;
pub mod posterior;
pub mod sequential;
pub mod special;
pub mod winner;

use std::time::Duration;

pub use self::best::Standing;
pub use self::guard::{Guard, Health, Tally};
pub use self::posterior::{Evidence, Posterior};

/// What an operator says of a bandit. All numbers are finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub algorithm: Algorithm,
    pub rewards: Rewards,
    /// After this time a reward counts half; all count alike for ever if `None`.
    pub half_life: Option<Duration>,
    pub guard: Guard,
    /// An arm that is the best with this probability gets everything from then on, so that of all experiments no more
    /// than the rest end with another one; none does if `None`.
    pub winner_probability: Option<f64>,
    /// Rewards that an arm and its closest rival need before it can have won.
    pub rewards_min: u32,
    /// A key keeps its arm as far as the shares allow; otherwise each request is dealt by itself.
    pub sticky: bool,
}

/// How shares follow from rewards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    /// Each arm in proportion to its probability of being the best, as Thompson put it (Biometrika 1933): what
    /// drawing from the posteriors does request by request, done for all requests until the next rewards come.
    Thompson,
    /// The arm with the best mean, and this share for all alike.
    EpsilonGreedy { epsilon: f64 },
    /// The arm with the highest upper confidence bound (Auer, Cesa-Bianchi and Fischer 2002). Real rewards are taken
    /// to be spread as they were so far: the bound is two standard deviations times that for rewards from 0 to 1,
    /// which have half of one at most.
    Ucb1,
}

/// What rewards are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewards {
    /// From 0 to 1: successes, or parts of one.
    Binary,
    /// Any finite numbers.
    Real,
}

/// The arms of one experiment: what is known of them, and what follows.
#[derive(Clone, Debug)]
pub struct Bandit {
    settings: Settings,
    evidence: Vec<Evidence>,
    health: Vec<Health>,
    winner: Option<usize>,
    winner_share: f64,
}

// === impl Settings ===

/// Its numbers are never NaN.
impl Eq for Settings {}

impl Settings {
    pub const DEFAULT: Settings = Settings {
        algorithm: Algorithm::Thompson,
        rewards: Rewards::Binary,
        half_life: None,
        guard: Guard::DEFAULT,
        winner_probability: None,
        rewards_min: 100,
        sticky: false,
    };
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::DEFAULT
    }
}

// === impl Rewards ===

impl Rewards {
    /// # Errors
    /// It is no such reward.
    pub fn check(self, reward: f64) -> Result<(), String> {
        match self {
            Rewards::Binary if !(0.0..=1.0).contains(&reward) => {
                Err(format!("reward is {reward}: expected a number from 0 to 1, as rewards are binary"))
            }
            Rewards::Real if !reward.is_finite() => {
                Err(format!("reward is {reward}: expected a finite number"))
            }
            Rewards::Binary | Rewards::Real => Ok(()),
        }
    }

    /// What is believed of each arm's mean reward.
    pub fn posteriors(self, evidence: &[Evidence]) -> Vec<Posterior> {
        match self {
            Rewards::Binary => evidence.iter().map(Posterior::binary).collect(),
            Rewards::Real => {
                let pooled = Evidence::pooled(evidence);
                evidence.iter().map(|evidence| Posterior::real(evidence, &pooled)).collect()
            }
        }
    }
}

// === impl Bandit ===

impl Bandit {
    /// Nothing is known of any arm.
    pub fn new(settings: Settings, arms: usize) -> Bandit {
        Bandit {
            settings,
            evidence: vec![Evidence::default(); arms],
            health: vec![Health::default(); arms],
            winner: None,
            winner_share: 1.0,
        }
    }

    /// The same with what was known of an arm before.
    pub fn restore(&mut self, arm: usize, evidence: Evidence) {
        self.evidence[arm] = evidence;
    }

    /// An arm's prediction of time `at_s` was rewarded. The order in which rewards are told does not matter.
    pub fn reward(&mut self, arm: usize, reward: f64, at_s: f64) {
        self.evidence[arm].add(reward, at_s, self.settings.half_life);
    }

    /// An arm's requests ended so since the last time that this was told.
    pub fn behaved(&mut self, arm: usize, tally: Tally, now_s: f64) {
        self.health[arm].observe(&self.settings.guard, tally, now_s);
    }

    pub fn health(&self, arm: usize) -> &Health {
        &self.health[arm]
    }

    /// Who has won, if winners are looked for. One that breaks its bounds has lost.
    pub fn winner(&self) -> Option<usize> {
        self.winner
    }

    /// Has an arm be the winner with this share, the others sharing the rest as rewards say; or no arm, so that rewards
    /// decide alone.
    pub fn settle(&mut self, winner: Option<usize>, share: f64) {
        (self.winner, self.winner_share) = (winner, share);
    }

    /// That the winner is the best of those that keep their bounds; `None` without a winner.
    pub fn winner_probability(&self, now_s: f64) -> Option<f64> {
        let (sound, of_sound) = self.sound(now_s);
        let winner = sound.iter().position(|arm| Some(*arm) == self.winner)?;
        let standings = best::standings(&self.settings.rewards.posteriors(&of_sound));
        Some(standings[winner].probability_best)
    }

    /// What is known of each arm, as much as it counts now.
    pub fn evidence(&self, now_s: f64) -> Vec<Evidence> {
        self.evidence.iter().map(|evidence| evidence.at(now_s, self.settings.half_life)).collect()
    }

    /// How all arms stand beside each other, whether they keep their bounds or not.
    pub fn standings(&self, now_s: f64) -> Vec<Standing> {
        best::standings(&self.settings.rewards.posteriors(&self.evidence(now_s)))
    }

    /// Each arm's share of the requests from now on; together they are 1. An arm that breaks its bounds gets none
    /// but its part of the probes; if all do, the first gets what they would have.
    pub fn shares(&mut self, now_s: f64) -> Vec<f64> {
        let arms = self.evidence.len();
        let (sound, of_sound) = self.sound(now_s);
        self.winner = self.winner.filter(|winner| !self.health[*winner].is_broken());
        let among = match self.winner.and_then(|winner| sound.iter().position(|arm| *arm == winner)) {
            Some(winner) => self.beside(winner, &of_sound),
            None => {
                let standings = best::standings(&self.settings.rewards.posteriors(&of_sound));
                match self.has_won(&standings, &of_sound) {
                    Some(winner) => {
                        self.settle(Some(sound[winner]), 1.0);
                        self.beside(winner, &of_sound)
                    }
                    None => self.settings.algorithm.shares(self.settings.rewards, &of_sound, &standings),
                }
            }
        };
        let broken = arms - sound.len();
        let probes = if broken == 0 { 0.0 } else { self.settings.guard.probe_share };
        let mut shares = vec![probes / broken.max(1) as f64; arms];
        for (arm, share) in sound.into_iter().zip(among) {
            shares[arm] = (1.0 - probes) * share;
        }
        shares
    }

    /// The arms that keep their bounds, the first where none does, with what is known of them.
    fn sound(&self, now_s: f64) -> (Vec<usize>, Vec<Evidence>) {
        let mut sound: Vec<usize> =
            (0..self.evidence.len()).filter(|arm| !self.health[*arm].is_broken()).collect();
        if sound.is_empty() {
            sound.push(0);
        }
        let evidence = self.evidence(now_s);
        let of_sound = sound.iter().map(|arm| evidence[*arm]).collect();
        (sound, of_sound)
    }

    /// The shares of arms one of which has won.
    fn beside(&self, winner: usize, evidence: &[Evidence]) -> Vec<f64> {
        let share = if evidence.len() == 1 { 1.0 } else { self.winner_share };
        let mut others = evidence.to_vec();
        others.remove(winner);
        let mut shares = match share < 1.0 {
            true => {
                let standings = best::standings(&self.settings.rewards.posteriors(&others));
                self.settings.algorithm.shares(self.settings.rewards, &others, &standings)
            }
            false => vec![0.0; others.len()],
        };
        shares.iter_mut().for_each(|other| *other *= 1.0 - share);
        shares.insert(winner, share);
        shares
    }

    fn has_won(&self, standings: &[Standing], evidence: &[Evidence]) -> Option<usize> {
        let Settings { winner_probability, rewards_min, .. } = self.settings;
        winner::winner(standings, evidence, winner_probability?, rewards_min)
    }
}

// === impl Algorithm ===

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Thompson => "thompson",
            Algorithm::EpsilonGreedy { .. } => "epsilon-greedy",
            Algorithm::Ucb1 => "ucb1",
        }
    }

    fn shares(self, rewards: Rewards, evidence: &[Evidence], standings: &[Standing]) -> Vec<f64> {
        let count = evidence.len() as f64;
        match self {
            Algorithm::Thompson => standings.iter().map(|standing| standing.probability_best).collect(),
            Algorithm::EpsilonGreedy { epsilon } => {
                let greedy = highest(standings.iter().map(|standing| standing.posterior.mean()));
                greedy.into_iter().map(|share| epsilon / count + (1.0 - epsilon) * share).collect()
            }
            Algorithm::Ucb1 => {
                let pooled = Evidence::pooled(evidence);
                let spread = match rewards {
                    Rewards::Binary => 1.0,
                    Rewards::Real => 2.0 * pooled.variance().sqrt(),
                };
                let rounds = pooled.count.max(1.0).ln();
                highest(evidence.iter().map(|arm| match arm.count {
                    // Nothing is known of it.
                    0.0 => f64::INFINITY,
                    rewards => arm.mean + spread * (2.0 * rounds / rewards).sqrt(),
                }))
            }
        }
    }
}

/// Everything to those with the highest score, alike.
fn highest(scores: impl Iterator<Item = f64>) -> Vec<f64> {
    let scores: Vec<f64> = scores.collect();
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sharers = scores.iter().filter(|score| **score == highest).count() as f64;
    scores.into_iter().map(|score| if score == highest { 1.0 / sharers } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests;
