//! How a canary is asked for on the command line, and how it is printed.

use std::time::Duration;

use clap::Args;
use gristmill_proto::admin as pb;

/// With --policy canary.
#[derive(Clone, Debug, Args)]
pub struct CanaryArgs {
    /// A step of a canary: the candidate's share in percent, the time that it lasts and the requests that either arm
    /// has at least. Give it again for each step up to 100. By default 1, 10, 50 and 100, each 10m and 1000.
    #[arg(long = "step", value_parser = read_step, value_name = "PERCENT[:TIME[:REQUESTS]]")]
    pub steps: Vec<pb::CanaryStep>,
    /// By how much the candidate's share of failed requests may exceed the control's. By default 0.001.
    #[arg(long, value_name = "SHARE")]
    pub error_rate_increase_max: Option<f64>,
    /// The candidate's share of failed requests, whatever the control does. By default 1, which allows all.
    #[arg(long, value_name = "SHARE")]
    pub error_rate_max: Option<f64>,
    /// How many times the control's median latency the candidate's may be. By default 1.5.
    #[arg(long, value_name = "RATIO")]
    pub p50_ratio_max: Option<f64>,
    /// The same of the 99th percentile. By default 2.
    #[arg(long, value_name = "RATIO")]
    pub p99_ratio_max: Option<f64>,
    /// Which share of the control's requests a shadow may answer otherwise that leads to what the candidate leads to:
    /// give it with --shadow. Nothing is asked of it by default.
    #[arg(long, value_name = "SHARE")]
    pub mismatch_rate_max: Option<f64>,
    /// By how much the candidate's mean reward may be below the control's, of rewards from 0 to 1 that feedback tells.
    /// Nothing is asked of them by default.
    #[arg(long, value_name = "DIFFERENCE")]
    pub reward_decrease_max: Option<f64>,
    /// How many predictions of either arm must have been rewarded in a step, with --reward-decrease-max. By default 100.
    #[arg(long, value_name = "REWARDS")]
    pub rewards_min: Option<u64>,
    /// A candidate that keeps these bounds is taken back with a chance of one minus this at most. By default 0.99.
    #[arg(long, value_name = "SHARE")]
    pub confidence: Option<f64>,
}

// === impl CanaryArgs ===

impl CanaryArgs {
    /// `None` where nothing was said.
    pub(super) fn message(self) -> Option<pb::Canary> {
        let message = pb::Canary {
            steps: self.steps,
            error_rate_increase_max: self.error_rate_increase_max,
            error_rate_max: self.error_rate_max,
            p50_ratio_max: self.p50_ratio_max,
            p99_ratio_max: self.p99_ratio_max,
            mismatch_rate_max: self.mismatch_rate_max,
            reward_decrease_max: self.reward_decrease_max,
            rewards_min: self.rewards_min,
            confidence: self.confidence,
            ..pb::Canary::default()
        };
        (message != pb::Canary::default()).then_some(message)
    }
}

/// Where a canary stands and what led there, as lines.
pub(super) fn lines(canary: &pb::Canary) -> Vec<String> {
    let place = match canary.stage.as_str() {
        "running" => format!("step {} of {}", canary.step, canary.steps.len()),
        "rolled_back" => "taken back".to_owned(),
        stage => stage.to_owned(),
    };
    let mut lines = vec![format!("canary: {place}: {}", canary.state)];
    for (name, arm) in [("control", &canary.control), ("candidate", &canary.candidate)] {
        if let Some(pb::CanaryArm { requests, failed, p50_ms, p99_ms, rewards, reward_mean }) = arm {
            let rewards = match canary.reward_decrease_max {
                Some(_) => format!(", {rewards} rewards of {reward_mean:.4} on average"),
                None => String::new(),
            };
            lines.push(format!(
                "  {name}: {requests} requests in this step, {failed} failed, p50 {p50_ms} ms, p99 {p99_ms} ms{rewards}"
            ));
        }
    }
    if let Some(pb::CanaryMirror { compared, differing }) = canary.mirrored {
        lines.push(format!(
            "  shadow: {compared} requests compared in this step, {differing} answered otherwise"
        ));
    }
    for event in &canary.events {
        let age = Duration::from_secs(event.seconds_ago.max(0.0) as u64);
        lines.push(format!("  {} ago: {}: {}", humantime::format_duration(age), event.what, event.why));
    }
    lines
}

/// `PERCENT[:TIME[:REQUESTS]]`.
fn read_step(text: &str) -> Result<pb::CanaryStep, String> {
    let expected = || "expected PERCENT[:TIME[:REQUESTS]], such as 10:10m:1000".to_owned();
    let mut parts = text.split(':');
    let percent = parts.next().and_then(|percent| percent.parse().ok()).ok_or_else(expected)?;
    let time = parts.next().map(|time| humantime::parse_duration(time).map_err(|_error| expected()));
    let time_s = time.transpose()?.map(|time| time.as_secs_f64());
    let requests = parts.next().map(|requests| requests.parse().map_err(|_error| expected())).transpose()?;
    match parts.next() {
        None => Ok(pb::CanaryStep { percent, time_s, requests }),
        Some(_) => Err(expected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_one_word() {
        let read = |text| read_step(text).map(|step| (step.percent, step.time_s, step.requests));
        assert_eq!(read("10"), Ok((10.0, None, None)));
        assert_eq!(read("0.5:10m"), Ok((0.5, Some(600.0), None)));
        assert_eq!(read("10:90s:50"), Ok((10.0, Some(90.0), Some(50))));
        for wrong in ["", "x", "10:soon", "10:1s:many", "10:1s:1:1"] {
            assert!(read(wrong).unwrap_err().starts_with("expected PERCENT"), "{wrong}");
        }
    }
}
