//! Handles for what the rewards of a route's arms say; whoever keeps rewards sets them.

use metrics::{Counter, Gauge, SharedString};

use super::{
    EXPERIMENT_EXPECTED_LOSS, EXPERIMENT_P_VALUE, EXPERIMENT_POSTERIOR_HIGH, EXPERIMENT_POSTERIOR_LOW,
    EXPERIMENT_POSTERIOR_MEAN, EXPERIMENT_PROBABILITY_BEST, EXPERIMENT_REWARD_MEAN, EXPERIMENT_REWARDS,
    EXPERIMENT_SAMPLE_RATIO_P, Metric,
};

/// Of one route. Its series last as long as these, and a while longer.
pub struct ExperimentMetrics {
    /// In the order of the route's.
    pub arms: Vec<ExperimentArmMetrics>,
    /// `None` where the weights do not say how requests are dealt.
    pub sample_ratio_p: Option<Gauge>,
}

/// Of one arm.
pub struct ExperimentArmMetrics {
    pub rewards: Counter,
    pub reward_mean: Gauge,
    pub posterior_mean: Gauge,
    pub posterior_low: Gauge,
    pub posterior_high: Gauge,
    pub probability_best: Gauge,
    pub expected_loss: Gauge,
    /// `None` of the first, which the others are compared with.
    pub p_value: Option<Gauge>,
}

// === impl ExperimentMetrics ===

impl ExperimentMetrics {
    pub fn new<'a>(
        route: &str,
        arms: impl Iterator<Item = &'a str>,
        is_dealt_by_weights: bool,
    ) -> ExperimentMetrics {
        let route: SharedString = route.to_owned().into();
        let sample_ratio_p = || metrics::gauge!(EXPERIMENT_SAMPLE_RATIO_P.name, &[("route", route.clone())]);
        ExperimentMetrics {
            arms: arms.enumerate().map(|(index, arm)| arm_metrics(&route, arm, index > 0)).collect(),
            sample_ratio_p: is_dealt_by_weights.then(sample_ratio_p),
        }
    }
}

fn arm_metrics(route: &SharedString, arm: &str, is_compared: bool) -> ExperimentArmMetrics {
    let labels: [(&'static str, SharedString); 2] =
        [("route", route.clone()), ("arm", arm.to_owned().into())];
    let gauge = |metric: &Metric| metrics::gauge!(metric.name, &labels);
    ExperimentArmMetrics {
        rewards: metrics::counter!(EXPERIMENT_REWARDS.name, &labels),
        reward_mean: gauge(&EXPERIMENT_REWARD_MEAN),
        posterior_mean: gauge(&EXPERIMENT_POSTERIOR_MEAN),
        posterior_low: gauge(&EXPERIMENT_POSTERIOR_LOW),
        posterior_high: gauge(&EXPERIMENT_POSTERIOR_HIGH),
        probability_best: gauge(&EXPERIMENT_PROBABILITY_BEST),
        expected_loss: gauge(&EXPERIMENT_EXPECTED_LOSS),
        p_value: is_compared.then(|| gauge(&EXPERIMENT_P_VALUE)),
    }
}
