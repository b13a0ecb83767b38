//! What is known of each arm of each route: how requests ended, what they were rewarded with, and what that says.

use std::collections::BTreeMap;

use gristmill_engine::bandit::{Evidence, Standing, best, sequential};
use gristmill_engine::journal::Ended;
use gristmill_engine::metrics::ExperimentMetrics;
use gristmill_engine::prediction::ArmName;
use gristmill_engine::routing::{Policy, Route};
use gristmill_proto::admin as pb;
use hdrhistogram::Histogram;

use super::bandits::Bandits;
use super::store::Store;

/// Of all routes in force, since they are, or since the server started.
#[derive(Default)]
pub(super) struct Experiments {
    tracked: BTreeMap<String, Tracked>,
}

struct Tracked {
    route: Route,
    arms: Vec<Arm>,
    metrics: ExperimentMetrics,
    /// Something has changed since the metrics said it.
    is_due: bool,
}

struct Arm {
    requests: u64,
    failed: u64,
    /// Microseconds, of answers.
    latency_us: Histogram<u32>,
    /// The smallest of all looks.
    p: f64,
}

/// Two digits, as in what versions are compared by.
const DIGITS: u8 = 2;
/// Of the intervals that are shown.
const CREDIBLE: f64 = 0.95;

// === impl Experiments ===

impl Experiments {
    /// A route that has changed is counted anew; what its arms were rewarded with stays theirs.
    pub(super) fn follow(&mut self, routes: &[Route], store: Option<&Store>, bandits: &Bandits, now_ms: u64) {
        self.tracked.retain(|_, tracked| routes.contains(&tracked.route));
        for route in routes.iter().filter(|route| !self.tracked.contains_key(&route.name)).collect::<Vec<_>>()
        {
            let mut tracked = Tracked::new(route.clone());
            // At once: a gauge says 0 until it is set.
            tracked.publish(store, bandits, now_ms);
            self.tracked.insert(route.name.clone(), tracked);
        }
    }

    pub(super) fn ended(&mut self, ended: &[Ended]) {
        for ended in ended {
            let Some(tracked) = self.tracked.get_mut(&ended.arm.route) else { continue };
            let arm = tracked.route.arms.iter().position(|arm| arm.name == ended.arm.arm);
            tracked.is_due = true;
            if let Some(arm) = arm.map(|arm| &mut tracked.arms[arm]) {
                arm.requests += 1;
                arm.failed += u64::from(ended.is_good == Some(false));
                if ended.is_good == Some(true) {
                    let us = u64::try_from(ended.took.as_micros()).unwrap_or(u64::MAX);
                    arm.latency_us.saturating_record(us.max(1));
                }
            }
        }
    }

    /// Looks at the rewards.
    pub(super) fn look(&mut self, store: &Store) {
        for tracked in self.tracked.values_mut() {
            tracked.is_due = true;
            let evidence = tracked.evidence(Some(store));
            for (arm, of) in tracked.arms.iter_mut().zip(&evidence).skip(1) {
                arm.p = arm.p.min(sequential::difference_p(of, &evidence[0]));
            }
        }
    }

    /// Has the metrics say what is known now.
    pub(super) fn publish(&mut self, store: Option<&Store>, bandits: &Bandits, now_ms: u64) {
        for tracked in self.tracked.values_mut() {
            // What fades changes by itself.
            if tracked.is_due || bandits.rules(&tracked.route.name).half_life.is_some() {
                tracked.publish(store, bandits, now_ms);
            }
        }
    }

    pub(super) fn shown(&self, store: Option<&Store>, bandits: &Bandits, now_ms: u64) -> Vec<pb::Experiment> {
        self.tracked.values().map(|tracked| tracked.shown(store, bandits, now_ms)).collect()
    }
}

// === impl Tracked ===

impl Tracked {
    fn new(route: Route) -> Tracked {
        let arms = route.arms.iter().map(|_| Arm::new()).collect();
        let names = route.arms.iter().map(|arm| arm.name.as_str());
        let metrics = ExperimentMetrics::new(&route.name, names, is_dealt_by_weights(&route));
        Tracked { arms, metrics, is_due: true, route }
    }

    fn publish(&mut self, store: Option<&Store>, bandits: &Bandits, now_ms: u64) {
        self.is_due = false;
        let shown = self.shown(store, bandits, now_ms);
        for (metrics, arm) in self.metrics.arms.iter().zip(&shown.arms) {
            metrics.rewards.absolute(arm.rewards);
            metrics.reward_mean.set(arm.reward_mean);
            metrics.posterior_mean.set(arm.posterior_mean);
            metrics.posterior_low.set(arm.posterior_low);
            metrics.posterior_high.set(arm.posterior_high);
            metrics.probability_best.set(arm.probability_best);
            metrics.expected_loss.set(arm.expected_loss);
            if let (Some(gauge), Some(p_value)) = (&metrics.p_value, arm.p_value) {
                gauge.set(p_value);
            }
        }
        if let Some(gauge) = &self.metrics.sample_ratio_p {
            gauge.set(shown.sample_ratio_p.unwrap_or(f64::NAN));
        }
    }

    fn evidence(&self, store: Option<&Store>) -> Vec<Evidence> {
        let of = |arm: &gristmill_engine::routing::Arm| {
            let name = ArmName { route: self.route.name.clone(), arm: arm.name.clone() };
            store.map(|store| store.knowledge(&name).all).unwrap_or_default()
        };
        self.route.arms.iter().map(of).collect()
    }

    fn shown(&self, store: Option<&Store>, bandits: &Bandits, now_ms: u64) -> pb::Experiment {
        let evidence = self.evidence(store);
        let bandit = bandits.shown(&self.route.name, now_ms);
        let standings: Vec<Standing> = match &bandit {
            Some(bandit) => bandit.standings.clone(),
            None => best::standings(&bandits.rules(&self.route.name).rewards.posteriors(&evidence)),
        };
        let share = |index: usize| match &bandit {
            Some(bandit) => bandit.shares.get(index).copied().unwrap_or(0.0),
            None => self.route.arms[index].weight.percent() / 100.0,
        };
        let requests: Vec<u64> = self.arms.iter().map(|arm| arm.requests).collect();
        let shares: Vec<f64> = (0..self.arms.len()).map(share).collect();
        let arm = |(index, arm): (usize, &Arm)| {
            let milliseconds = |quantile| arm.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
            let standing = &standings[index];
            let (low, high) = standing.posterior.interval(CREDIBLE);
            let fault = bandit.as_ref().and_then(|bandit| bandit.faults[index].clone());
            pb::ExperimentArm {
                name: self.route.arms[index].name.clone(),
                share: shares[index],
                requests: arm.requests,
                failed: arm.failed,
                p50_ms: milliseconds(0.5),
                p90_ms: milliseconds(0.9),
                p99_ms: milliseconds(0.99),
                rewards: evidence[index].count.round() as u64,
                reward_mean: evidence[index].mean,
                posterior_mean: standing.posterior.mean(),
                posterior_low: low,
                posterior_high: high,
                probability_best: standing.probability_best,
                expected_loss: standing.expected_loss,
                p_value: (index > 0).then_some(arm.p),
                fault: fault.unwrap_or_default(),
            }
        };
        pb::Experiment {
            route: self.route.name.clone(),
            policy: self.route.policy.name().to_owned(),
            winner: bandit.as_ref().and_then(|bandit| bandit.winner.clone()).unwrap_or_default(),
            sample_ratio_p: match is_dealt_by_weights(&self.route) {
                true => sequential::sample_ratio_p(&requests, &shares),
                false => None,
            },
            arms: self.arms.iter().enumerate().map(arm).collect(),
            rollout: bandit.as_ref().and_then(|bandit| bandit.rollout.clone()),
        }
    }
}

fn is_dealt_by_weights(route: &Route) -> bool {
    match route.policy {
        Policy::Split | Policy::Canary => true,
        // The shares of a bandit were others before.
        Policy::Fallback | Policy::Bandit(_) => false,
    }
}

// === impl Arm ===

impl Arm {
    fn new() -> Arm {
        let latency_us = Histogram::new(DIGITS).expect("two digits are allowed; this is a bug");
        Arm { requests: 0, failed: 0, latency_us, p: 1.0 }
    }
}
