//! What operators say and are told of the canary of a route.

use std::time::Duration;

use gristmill_engine::control::CanaryDetails;
use gristmill_engine::routing::Weight;
use gristmill_engine::routing::canary::{Canary, Gates, MirrorEvidence, Plan, RewardGate, Stage, Step};
use gristmill_engine::routing::tally::ArmEvidence;
use gristmill_proto::admin as pb;
use serde_json::{Value, json};

/// A canary as an operator writes it: at its first step.
pub(super) fn read(canary: pb::Canary) -> Result<Canary, String> {
    let Plan { steps, gates, confidence } = Plan::default();
    let given = canary.steps.into_iter().map(step).collect::<Result<Vec<_>, _>>()?;
    let gates = Gates {
        error_rate_increase_max: canary.error_rate_increase_max.unwrap_or(gates.error_rate_increase_max),
        error_rate_max: canary.error_rate_max.unwrap_or(gates.error_rate_max),
        p50_ratio_max: canary.p50_ratio_max.unwrap_or(gates.p50_ratio_max),
        p99_ratio_max: canary.p99_ratio_max.unwrap_or(gates.p99_ratio_max),
        mismatch_rate_max: canary.mismatch_rate_max,
        reward: RewardGate::read(canary.reward_decrease_max, canary.rewards_min)?,
    };
    let steps = if given.is_empty() { steps } else { given };
    let plan = Plan { steps, gates, confidence: canary.confidence.unwrap_or(confidence) };
    Ok(Canary { plan, stage: Stage::default() })
}

fn step(step: pb::CanaryStep) -> Result<Step, String> {
    let pb::CanaryStep { percent, time_s, requests } = step;
    let weight = Weight::from_percent(percent).map_err(|why| format!("percent of a step {why}"))?;
    let usual = Step::to(weight);
    let time_min = match time_s {
        None => usual.time_min,
        Some(seconds) => Duration::try_from_secs_f64(seconds)
            .map_err(|_error| format!("time_s of a step is {seconds}: expected seconds, such as 600"))?,
    };
    Ok(Step { weight, time_min, requests_min: requests.unwrap_or(usual.requests_min) })
}

pub(super) fn message(canary: Canary, details: Option<CanaryDetails>) -> pb::Canary {
    let Canary { plan: Plan { steps, gates, confidence }, stage } = canary;
    let step = |step: Step| pb::CanaryStep {
        percent: step.weight.percent(),
        time_s: Some(step.time_min.as_secs_f64()),
        requests: Some(step.requests_min),
    };
    let mut message = pb::Canary {
        steps: steps.into_iter().map(step).collect(),
        error_rate_increase_max: Some(gates.error_rate_increase_max),
        error_rate_max: Some(gates.error_rate_max),
        p50_ratio_max: Some(gates.p50_ratio_max),
        p99_ratio_max: Some(gates.p99_ratio_max),
        mismatch_rate_max: gates.mismatch_rate_max,
        reward_decrease_max: gates.reward.map(|gate| gate.decrease_max),
        rewards_min: gates.reward.map(|gate| gate.rewards_min),
        confidence: Some(confidence),
        stage: stage.name().to_owned(),
        step: if let Stage::Running { step } = stage { step as u64 + 1 } else { 0 },
        ..pb::Canary::default()
    };
    let Some(CanaryDetails { state, elapsed, evidence, mirrored, events }) = details else { return message };
    let [control, candidate] = match evidence {
        Some(evidence) => evidence.map(|evidence| Some(arm(&evidence))),
        None => [None, None],
    };
    (message.state, message.elapsed_s) = (state, rounded(elapsed.as_secs_f64()));
    (message.control, message.candidate) = (control, candidate);
    let mirror = |MirrorEvidence { compared, differing }| pb::CanaryMirror { compared, differing };
    message.mirrored = mirrored.map(mirror);
    let event = |event: gristmill_engine::control::CanaryEvent| pb::CanaryEvent {
        seconds_ago: rounded(event.age.as_secs_f64()),
        what: event.what,
        why: event.why,
    };
    message.events = events.into_iter().map(event).collect();
    message
}

fn arm(evidence: &ArmEvidence) -> pb::CanaryArm {
    let ms =
        |quantile: f64| evidence.quantile(quantile).map_or(0.0, |found| rounded(found.as_secs_f64() * 1e3));
    pb::CanaryArm {
        requests: evidence.requests(),
        failed: evidence.failed,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        rewards: evidence.rewards.count,
        reward_mean: evidence.rewards.mean(),
    }
}

/// Three digits after the point: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

pub(super) fn to_json(canary: &pb::Canary) -> Value {
    let step = |step: &pb::CanaryStep| json!({"percent": step.percent, "time_s": step.time_s, "requests": step.requests});
    let arm = |arm: &pb::CanaryArm| {
        json!({
            "requests": arm.requests,
            "failed": arm.failed,
            "p50_ms": arm.p50_ms,
            "p99_ms": arm.p99_ms,
            "rewards": arm.rewards,
            "reward_mean": arm.reward_mean,
        })
    };
    let mirror =
        |mirror: &pb::CanaryMirror| json!({"compared": mirror.compared, "differing": mirror.differing});
    let event = |event: &pb::CanaryEvent| json!({"seconds_ago": event.seconds_ago, "what": event.what, "why": event.why});
    json!({
        "steps": canary.steps.iter().map(step).collect::<Value>(),
        "error_rate_increase_max": canary.error_rate_increase_max,
        "error_rate_max": canary.error_rate_max,
        "p50_ratio_max": canary.p50_ratio_max,
        "p99_ratio_max": canary.p99_ratio_max,
        "mismatch_rate_max": canary.mismatch_rate_max,
        "reward_decrease_max": canary.reward_decrease_max,
        "rewards_min": canary.rewards_min,
        "confidence": canary.confidence,
        "stage": canary.stage,
        "step": canary.step,
        "state": canary.state,
        "elapsed_s": canary.elapsed_s,
        "control": canary.control.as_ref().map(arm),
        "candidate": canary.candidate.as_ref().map(arm),
        "mirrored": canary.mirrored.as_ref().map(mirror),
        "events": canary.events.iter().map(event).collect::<Value>(),
    })
}
