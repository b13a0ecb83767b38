//! The table `canary` of a route in `routes.toml`.

use std::fmt::Write as _;
use std::time::Duration;

use gristmill_engine::routing::Weight;
use gristmill_engine::routing::canary::{Canary, Gates, Plan, RewardGate, Stage, Step};
use serde::{Deserialize, Serialize};

use super::text::quoted;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCanary {
    steps: Option<Vec<RawStep>>,
    error_rate_increase_max: Option<f64>,
    error_rate_max: Option<f64>,
    p50_ratio_max: Option<f64>,
    p99_ratio_max: Option<f64>,
    mismatch_rate_max: Option<f64>,
    reward_decrease_max: Option<f64>,
    rewards_min: Option<u64>,
    confidence: Option<f64>,
    stage: Option<String>,
    step: Option<u64>,
    why: Option<String>,
}

/// Of a canary, or of a bandit's winner.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStep {
    pub(super) percent: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests: Option<u64>,
}

/// # Errors
/// The text begins with the field that is at fault.
pub(super) fn read(raw: RawCanary) -> Result<Canary, String> {
    let Plan { steps, gates, confidence } = Plan::default();
    let steps = match raw.steps {
        None => steps,
        Some(raw) => read_steps("steps", raw)?,
    };
    let gates = Gates {
        error_rate_increase_max: raw.error_rate_increase_max.unwrap_or(gates.error_rate_increase_max),
        error_rate_max: raw.error_rate_max.unwrap_or(gates.error_rate_max),
        p50_ratio_max: raw.p50_ratio_max.unwrap_or(gates.p50_ratio_max),
        p99_ratio_max: raw.p99_ratio_max.unwrap_or(gates.p99_ratio_max),
        mismatch_rate_max: raw.mismatch_rate_max,
        reward: RewardGate::read(raw.reward_decrease_max, raw.rewards_min)?,
    };
    let stage = Stage::read(raw.stage.as_deref().unwrap_or("running"), raw.step, raw.why)?;
    Ok(Canary { plan: Plan { steps, gates, confidence: raw.confidence.unwrap_or(confidence) }, stage })
}

/// # Errors
/// The text begins with `field`.
pub(super) fn read_steps(field: &str, raw: Vec<RawStep>) -> Result<Vec<Step>, String> {
    let steps = raw.into_iter().enumerate();
    steps.map(|(index, raw)| step(raw).map_err(|why| format!("{field}[{index}].{why}"))).collect()
}

fn step(raw: RawStep) -> Result<Step, String> {
    let weight = Weight::from_percent(raw.percent).map_err(|why| format!("percent {why}"))?;
    let usual = Step::to(weight);
    let time_min = match raw.time {
        None => usual.time_min,
        Some(text) => humantime::parse_duration(&text)
            .map_err(|_error| format!("time is \"{text}\": expected a duration such as \"10m\""))?,
    };
    Ok(Step { weight, time_min, requests_min: raw.requests.unwrap_or(usual.requests_min) })
}

/// What [`read`] reads back as the same canary.
pub(super) fn write(text: &mut String, route: &str, canary: &Canary) {
    let Canary { plan: Plan { steps, gates, confidence }, stage } = canary;
    let step = |step: &Step| {
        let percent = step.weight;
        match step.weight {
            Weight::ALL => format!("    {{ percent = {percent} }},\n"),
            _ => format!(
                "    {{ percent = {percent}, time = \"{}\", requests = {} }},\n",
                duration(step.time_min),
                step.requests_min
            ),
        }
    };
    let steps: String = steps.iter().map(step).collect();
    let mismatches =
        gates.mismatch_rate_max.map_or(String::new(), |rate| format!("mismatch_rate_max = {rate}\n"));
    let rewards = gates.reward.map_or(String::new(), |RewardGate { decrease_max, rewards_min }| {
        format!("reward_decrease_max = {decrease_max}\nrewards_min = {rewards_min}\n")
    });
    let written = write!(
        text,
        "[routes.{}.canary]\nsteps = [\n{steps}]\nerror_rate_increase_max = {}\nerror_rate_max = {}\n\
         p50_ratio_max = {}\np99_ratio_max = {}\n{mismatches}{rewards}confidence = {confidence}\nstage = {}\n",
        quoted(route),
        gates.error_rate_increase_max,
        gates.error_rate_max,
        gates.p50_ratio_max,
        gates.p99_ratio_max,
        quoted(stage.name()),
    );
    written.expect("writing to a string does not fail; this is a bug");
    match stage {
        Stage::Running { step } => *text += &format!("step = {}\n", step + 1),
        Stage::RolledBack { why } => *text += &format!("why = {}\n", quoted(why)),
        Stage::Done => {}
    }
}

// === impl RawStep ===

impl RawStep {
    /// What [`read_steps`] reads back as the same step.
    pub(super) fn of(step: &Step) -> RawStep {
        let percent = step.weight.percent();
        match step.weight {
            Weight::ALL => RawStep { percent, time: None, requests: None },
            _ => RawStep { percent, time: Some(duration(step.time_min)), requests: Some(step.requests_min) },
        }
    }
}

fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
