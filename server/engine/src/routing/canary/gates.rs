//! The gates of a canary: what each measures of both arms, how sure that is, and the bound. A gate is a pure function
//! of the evidence; what is added here is judged.

use std::time::Duration;

use super::bounds::{mean_max, mean_min, rank_above, rank_below, share_max, share_min};
use super::{Evidence, Gates};
use crate::routing::tally::ArmEvidence;

/// What one gate found.
pub(super) struct Finding {
    pub(super) gate: &'static str,
    /// What was measured.
    pub(super) estimate: f64,
    /// Surely no less, at the chance of being wrong that was asked for; `None` where nothing is sure.
    pub(super) at_least: Option<f64>,
    /// The bound.
    pub(super) most: f64,
    /// The numbers, for people.
    pub(super) text: String,
}

/// How many [`findings`] there can be: they share one chance of being wrong, with [`mismatch_rate`] and
/// [`reward_decrease`] where these are asked for.
pub(super) const GATES: usize = 4;

/// What each gate finds, where each may be wrong with a chance of `alpha`. None of a gate that lacks latencies.
pub(super) fn findings(gates: &Gates, evidence: &Evidence, alpha: f64) -> Vec<Finding> {
    let found: [Option<Finding>; GATES] = [
        Some(error_rate_increase(evidence, gates.error_rate_increase_max, alpha)),
        Some(error_rate(evidence, gates.error_rate_max, alpha)),
        ratio("p50", 0.50, evidence, gates.p50_ratio_max, alpha),
        ratio("p99", 0.99, evidence, gates.p99_ratio_max, alpha),
    ];
    found.into_iter().flatten().collect()
}

/// What was compared, where a gate asks for it. It may be wrong with a chance of `alpha`.
pub(super) fn mismatch_rate(gates: &Gates, evidence: &Evidence, alpha: f64) -> Option<Finding> {
    let (most, mirrored) = (gates.mismatch_rate_max?, evidence.mirrored);
    let low = share_min(mirrored.differing, mirrored.compared, alpha);
    let at_least = (low > 0.0).then_some(low);
    let text = format!(
        "{} of {} requests ({}) that the control answered were answered otherwise, or not at all, by the shadow{}; the bound is {}",
        mirrored.differing,
        mirrored.compared,
        percent(mirrored.mismatch_rate()),
        surely(at_least.map(percent)),
        percent(most)
    );
    Some(Finding { gate: "mismatch_rate", estimate: mirrored.mismatch_rate(), at_least, most, text })
}

/// What the rewards say, where a gate asks for them. It may be wrong with a chance of `alpha`.
pub(super) fn reward_decrease(gates: &Gates, evidence: &Evidence, alpha: f64) -> Option<Finding> {
    let most = gates.reward?.decrease_max;
    let (control, candidate) = (evidence.control.rewards, evidence.candidate.rewards);
    let estimate = control.mean() - candidate.mean();
    // Either bound may be wrong.
    let low = mean_min(control.mean(), control.count, alpha / 2.0);
    let high = mean_max(candidate.mean(), candidate.count, alpha / 2.0);
    let at_least = (low > high).then_some(low - high);
    let reward = |reward: f64| format!("{reward:.4}");
    let text = format!(
        "the mean of {} rewards is {}, that of the control's {} is {}: {} less{}; the bound is {} less",
        candidate.count,
        reward(candidate.mean()),
        control.count,
        reward(control.mean()),
        reward(estimate),
        surely(at_least.map(reward)),
        reward(most)
    );
    Some(Finding { gate: "reward_decrease", estimate, at_least, most, text })
}

// === impl Finding ===

impl Finding {
    pub(super) fn is_beyond(&self) -> bool {
        self.estimate > self.most
    }

    pub(super) fn is_surely_beyond(&self) -> bool {
        self.at_least.is_some_and(|at_least| at_least > self.most)
    }
}

fn error_rate_increase(evidence: &Evidence, most: f64, alpha: f64) -> Finding {
    let Evidence { control, candidate, .. } = evidence;
    let estimate = candidate.error_rate() - control.error_rate();
    // Either bound may be wrong.
    let low = share_min(candidate.failed, candidate.requests(), alpha / 2.0);
    let high = share_max(control.failed, control.requests(), alpha / 2.0);
    let at_least = (low > high).then_some(low - high);
    let text = format!(
        "{} failed, and {} of the control: {} more{}; the bound is {} more",
        failures(candidate),
        failures(control),
        percent(estimate),
        surely(at_least.map(percent)),
        percent(most)
    );
    Finding { gate: "error_rate_increase", estimate, at_least, most, text }
}

fn error_rate(evidence: &Evidence, most: f64, alpha: f64) -> Finding {
    let candidate = &evidence.candidate;
    let low = share_min(candidate.failed, candidate.requests(), alpha);
    let at_least = (low > 0.0).then_some(low);
    let text = format!(
        "{} failed{}; the bound is {}",
        failures(candidate),
        surely(at_least.map(percent)),
        percent(most)
    );
    Finding { gate: "error_rate", estimate: candidate.error_rate(), at_least, most, text }
}

fn ratio(gate: &'static str, quantile: f64, evidence: &Evidence, most: f64, alpha: f64) -> Option<Finding> {
    let Evidence { control, candidate, .. } = evidence;
    let divide = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
    let (own, other) = (candidate.quantile(quantile)?, control.quantile(quantile)?);
    // Either bound may be wrong. The ends of buckets, so that rounding makes nobody look slower.
    let low = rank_below(quantile, candidate.measured(), alpha / 2.0)
        .and_then(|rank| candidate.at_rank(rank))
        .map(|bucket| bucket.start);
    let high = rank_above(quantile, control.measured(), alpha / 2.0)
        .and_then(|rank| control.at_rank(rank))
        .map(|bucket| bucket.end);
    let at_least = low.zip(high).map(|(low, high)| divide(low, high));
    let (estimate, times) = (divide(own, other), |ratio: f64| format!("{ratio:.2}"));
    let text = format!(
        "{gate} of {} requests is {own:.2?}, that of the control's {} {other:.2?}: {} times that{}; the bound is {} times",
        candidate.measured(),
        control.measured(),
        times(estimate),
        surely(at_least.map(times)),
        times(most)
    );
    Some(Finding { gate, estimate, at_least, most, text })
}

fn failures(arm: &ArmEvidence) -> String {
    format!("{} of {} requests ({})", arm.failed, arm.requests(), percent(arm.error_rate()))
}

fn surely(at_least: Option<String>) -> String {
    at_least.map_or(String::new(), |at_least| format!(", surely at least {at_least}"))
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
