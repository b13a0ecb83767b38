//! The canary of a route as an operator writes it in JSON.

use gristmill_proto::admin::{Canary, CanaryStep};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetCanary {
    #[serde(default)]
    steps: Vec<SetStep>,
    error_rate_increase_max: Option<f64>,
    error_rate_max: Option<f64>,
    p50_ratio_max: Option<f64>,
    p99_ratio_max: Option<f64>,
    mismatch_rate_max: Option<f64>,
    reward_decrease_max: Option<f64>,
    rewards_min: Option<u64>,
    confidence: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetStep {
    percent: f64,
    time_s: Option<f64>,
    requests: Option<u64>,
}

// === impl SetCanary ===

impl SetCanary {
    pub(super) fn message(self) -> Canary {
        let step = |step: SetStep| {
            let SetStep { percent, time_s, requests } = step;
            CanaryStep { percent, time_s, requests }
        };
        Canary {
            steps: self.steps.into_iter().map(step).collect(),
            error_rate_increase_max: self.error_rate_increase_max,
            error_rate_max: self.error_rate_max,
            p50_ratio_max: self.p50_ratio_max,
            p99_ratio_max: self.p99_ratio_max,
            mismatch_rate_max: self.mismatch_rate_max,
            reward_decrease_max: self.reward_decrease_max,
            rewards_min: self.rewards_min,
            confidence: self.confidence,
            ..Canary::default()
        }
    }
}
