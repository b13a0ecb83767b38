//! How the winner of a bandit comes to get everything, step by step, and when it does not: pure.
//!
//! An arm has won when it is the best with a stated probability. Each step gives it a share of the requests, and the
//! other arms the rest. It goes forward when the step has lasted long enough, the winner has had enough requests in it,
//! and it is still the best with that probability. It is no winner any more when another arm has become likelier to be
//! the best, or when it breaks its bounds, which the bandit itself judges. Time is in seconds on any one clock.

use std::time::Duration;

use super::canary::{Step, Verdict, Wait, check_steps};
use super::{Policy, Route, Weight};

/// Where a winner is in its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    steps: Vec<Step>,
    step: usize,
    began_s: f64,
    /// That the winner has had since then.
    requests: u64,
}

/// An arm that is less surely the best than this has lost to another one.
const PROBABILITY_MIN: f64 = 0.5;

/// What is asked where nothing else is said.
///
/// Rewards alone may have given the winner more than the first step does: the others are to have enough requests to be
/// compared with.
pub fn default_steps() -> Vec<Step> {
    let steps = [90.0, 99.0, 100.0].map(|percent| Weight::from_percent(percent).map(Step::to));
    steps.into_iter().collect::<Result<_, _>>().expect("these are percentages; this is a bug")
}

// === impl Rollout ===

impl Rollout {
    /// At the first step; with everything where there are none.
    pub fn begin(steps: &[Step], now_s: f64) -> Rollout {
        Rollout::resume(steps, Weight::default(), now_s)
    }

    /// At the first step that gives a winner as much as it had. Time and requests are counted anew.
    pub fn resume(steps: &[Step], had: Weight, now_s: f64) -> Rollout {
        let steps = if steps.is_empty() { vec![Step::to(Weight::ALL)] } else { steps.to_vec() };
        let step = steps.iter().position(|step| step.weight >= had).unwrap_or(steps.len() - 1);
        Rollout { steps, step, began_s: now_s, requests: 0 }
    }

    /// The next step.
    #[must_use]
    pub fn forward(&self, now_s: f64) -> Rollout {
        let step = (self.step + 1).min(self.steps.len() - 1);
        Rollout { steps: self.steps.clone(), step, began_s: now_s, requests: 0 }
    }

    /// Requests of the winner ended.
    pub fn count(&mut self, requests: u64) {
        self.requests += requests;
    }

    /// Which step it is of how many, from 1.
    pub fn place(&self) -> (usize, usize) {
        (self.step + 1, self.steps.len())
    }

    /// What the winner gets.
    pub fn weight(&self) -> Weight {
        self.steps[self.step].weight
    }

    pub fn is_done(&self) -> bool {
        self.weight() == Weight::ALL
    }

    /// Decides whether the winner goes forward, where it must be the best with a probability of `asked_for`. The text
    /// has the numbers.
    pub fn decide(&self, probability_best: f64, asked_for: f64, now_s: f64) -> (Verdict, String) {
        if self.is_done() {
            return (Verdict::Done, "it has won, and gets everything".into());
        }
        let step = &self.steps[self.step];
        let elapsed = Duration::try_from_secs_f64(now_s - self.began_s).unwrap_or_default();
        let standing = format!("it is the best with a probability of {probability_best:.4}");
        if probability_best < PROBABILITY_MIN {
            return (
                Verdict::Back,
                format!("{standing}, less than {PROBABILITY_MIN}: another arm may be better"),
            );
        }
        if let Some(why) = step.lacks_time(elapsed) {
            return (Verdict::Hold(Wait::Time), why);
        }
        if let Some(why) = step.lacks_requests("winner", self.requests) {
            return (Verdict::Hold(Wait::Requests), why);
        }
        if probability_best < asked_for {
            let why = format!("{standing}, at least {asked_for} is asked for");
            return (Verdict::Hold(Wait::Gate("probability_best")), why);
        }
        let why = format!("{standing} after {} requests in {elapsed:.0?}", self.requests);
        match self.steps[self.step + 1].weight {
            Weight::ALL => (Verdict::Done, why),
            _ => (Verdict::Forward, why),
        }
    }
}

/// Whether a route can be, as far as its winner's steps go.
///
/// # Errors
/// The text says what was expected and what came.
pub(super) fn check_rollout(route: &Route) -> Result<(), String> {
    match route.policy {
        Policy::Bandit(_) if route.rollout.is_empty() => Ok(()),
        Policy::Bandit(_) => check_steps(&route.rollout, 1).map_err(|why| format!("its rollout: {why}")),
        _ if route.rollout.is_empty() => Ok(()),
        policy => Err(format!("has a rollout and policy {}: expected policy bandit", policy.name())),
    }
}

#[cfg(test)]
mod tests;
