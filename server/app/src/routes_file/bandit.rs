//! What an operator may say of a bandit, in `routes.toml`, JSON and gRPC alike, and what it means.

use std::time::Duration;

use gristmill_engine::bandit::{Algorithm, Guard, Rewards, Settings};
use gristmill_engine::routing::canary::Step;
use gristmill_engine::routing::{Policy, Route, winner};
use gristmill_proto::admin::{Bandit, WinnerStep};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canary::{RawStep, read_steps};

/// What is left out is the default.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawBandit {
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rewards: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    half_life: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_max: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_rate_max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    winner_probability: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rewards_min: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<Vec<RawStep>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sticky: Option<bool>,
}

const EPSILON_BY_DEFAULT: f64 = 0.1;
/// Broken arms are to get less than a hundredth.
const PROBE_SHARE_MAX: f64 = 0.009;

// === impl RawBandit ===

impl RawBandit {
    /// A policy with what is said of a bandit beside it, and the steps of its winner.
    ///
    /// # Errors
    /// The text begins with a dot and the field's name.
    pub(crate) fn refine(policy: Policy, bandit: Option<RawBandit>) -> Result<(Policy, Vec<Step>), String> {
        match (policy, bandit) {
            (Policy::Bandit(_), Some(bandit)) => {
                let settings = bandit.settings().map(Policy::Bandit);
                let refined = settings.and_then(|policy| Ok((policy, bandit.winner_steps()?)));
                refined.map_err(|why| format!(".bandit.{why}"))
            }
            (policy, Some(_)) => {
                Err(format!(".bandit stands beside policy {}: expected policy = \"bandit\"", policy.name()))
            }
            (policy, None) => Ok((policy, Vec::new())),
        }
    }

    /// None where nobody can win.
    fn winner_steps(self) -> Result<Vec<Step>, String> {
        match (self.winner_probability, self.rollout) {
            (None, None) => Ok(Vec::new()),
            (None, Some(_)) => {
                Err("rollout stands without winner_probability: say how surely an arm must be \
                                    the best to win, such as winner_probability = 0.99"
                    .into())
            }
            (Some(_), None) => Ok(winner::default_steps()),
            (Some(_), Some(steps)) => read_steps("rollout", steps),
        }
    }

    fn settings(&self) -> Result<Settings, String> {
        let epsilon = share("epsilon", self.epsilon, 0.0, 1.0)?;
        let algorithm = match self.algorithm.as_deref() {
            None | Some("thompson") => Algorithm::Thompson,
            Some("epsilon-greedy") => {
                Algorithm::EpsilonGreedy { epsilon: epsilon.unwrap_or(EPSILON_BY_DEFAULT) }
            }
            Some("ucb1") => Algorithm::Ucb1,
            Some(other) => {
                return Err(format!("algorithm is \"{other}\": expected thompson, epsilon-greedy or ucb1"));
            }
        };
        if epsilon.is_some() && !matches!(algorithm, Algorithm::EpsilonGreedy { .. }) {
            return Err(format!("epsilon stands beside {}: expected epsilon-greedy", algorithm.name()));
        }
        let rewards = match self.rewards.as_deref() {
            None | Some("binary") => Rewards::Binary,
            Some("real") => Rewards::Real,
            Some(other) => return Err(format!("rewards is \"{other}\": expected binary or real")),
        };
        Ok(Settings {
            algorithm,
            rewards,
            half_life: duration("half_life", self.half_life.as_deref())?,
            guard: Guard {
                p99_max: duration("p99_max", self.p99_max.as_deref())?,
                error_rate_max: share("error_rate_max", self.error_rate_max, 0.0, 1.0)?,
                probe_share: share("probe_share", self.probe_share, 0.0, PROBE_SHARE_MAX)?
                    .unwrap_or(Guard::DEFAULT.probe_share),
                ..Guard::DEFAULT
            },
            winner_probability: share("winner_probability", self.winner_probability, 0.5, 1.0)?,
            rewards_min: self.rewards_min.unwrap_or(Settings::DEFAULT.rewards_min),
            sticky: self.sticky.unwrap_or(false),
        })
    }

    /// Everything that is in force, said.
    pub(crate) fn of(settings: &Settings, route: &Route) -> RawBandit {
        let Settings { algorithm, rewards, half_life, guard, winner_probability, rewards_min, sticky } =
            *settings;
        let written = |duration: Duration| humantime::format_duration(duration).to_string();
        RawBandit {
            algorithm: Some(algorithm.name().to_owned()),
            epsilon: match algorithm {
                Algorithm::EpsilonGreedy { epsilon } => Some(epsilon),
                Algorithm::Thompson | Algorithm::Ucb1 => None,
            },
            rewards: Some(if rewards == Rewards::Binary { "binary" } else { "real" }.to_owned()),
            half_life: half_life.map(written),
            p99_max: guard.p99_max.map(written),
            error_rate_max: guard.error_rate_max,
            probe_share: Some(guard.probe_share),
            winner_probability,
            rewards_min: Some(rewards_min),
            rollout: Some(route.rollout.iter().map(RawStep::of).collect())
                .filter(|steps: &Vec<RawStep>| !steps.is_empty()),
            sticky: Some(sticky),
        }
    }

    /// As an inline table.
    pub(super) fn toml(&self) -> String {
        let json = serde_json::to_value(self).expect("a struct of plain fields is JSON; this is a bug");
        inline(&json)
    }

    pub(crate) fn message(self) -> Bandit {
        let step = |RawStep { percent, time, requests }: RawStep| WinnerStep { percent, time, requests };
        let RawBandit { algorithm, epsilon, rewards, half_life, p99_max, .. } = self;
        Bandit {
            algorithm,
            epsilon,
            rewards,
            half_life,
            p99_max,
            error_rate_max: self.error_rate_max,
            probe_share: self.probe_share,
            winner_probability: self.winner_probability,
            rewards_min: self.rewards_min,
            sticky: self.sticky,
            rollout: self.rollout.into_iter().flatten().map(step).collect(),
        }
    }

    pub(crate) fn from_message(bandit: Bandit) -> RawBandit {
        let step = |WinnerStep { percent, time, requests }: WinnerStep| RawStep { percent, time, requests };
        let rollout: Vec<RawStep> = bandit.rollout.into_iter().map(step).collect();
        let Bandit { algorithm, epsilon, rewards, half_life, p99_max, .. } = bandit;
        RawBandit {
            algorithm,
            epsilon,
            rewards,
            half_life,
            p99_max,
            error_rate_max: bandit.error_rate_max,
            probe_share: bandit.probe_share,
            winner_probability: bandit.winner_probability,
            rewards_min: bandit.rewards_min,
            rollout: Some(rollout).filter(|steps| !steps.is_empty()),
            sticky: bandit.sticky,
        }
    }
}

/// As an inline table, an array or a value of TOML. Strings here hold nothing that it writes otherwise than JSON.
fn inline(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name} = {}", inline(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(inline).collect();
            format!("[{}]", values.join(", "))
        }
        value => value.to_string(),
    }
}

fn share(name: &str, value: Option<f64>, least: f64, most: f64) -> Result<Option<f64>, String> {
    match value {
        Some(share) if !(least..=most).contains(&share) => {
            Err(format!("{name} is {share}: expected a number from {least} to {most}"))
        }
        share => Ok(share),
    }
}

fn duration(name: &str, value: Option<&str>) -> Result<Option<Duration>, String> {
    let read = |text: &str| {
        let duration = humantime::parse_duration(text).ok().filter(|duration| !duration.is_zero());
        duration.ok_or_else(|| format!("{name} is \"{text}\": expected a duration, such as 50ms"))
    };
    value.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Settings, Vec<Step>), String> {
        let raw = toml::from_str::<RawBandit>(text).map_err(|error| error.to_string())?;
        Ok((raw.settings()?, raw.winner_steps()?))
    }

    fn route(rollout: Vec<Step>) -> Route {
        let (name, salt) = (String::new(), String::new());
        let (policy, key) = (Policy::Split, gristmill_engine::routing::KeySource::Header);
        Route { name, policy, key, salt, arms: Vec::new(), canary: None, rollout, shadows: Vec::new() }
    }

    #[test]
    fn what_is_said_is_said_again() {
        let texts = [
            "",
            "algorithm = \"ucb1\"\nrewards = \"real\"\nsticky = true",
            "algorithm = \"epsilon-greedy\"\nepsilon = 0.25\nhalf_life = \"1day 2h\"\np99_max = \"1ms\"",
            "error_rate_max = 0.01\nprobe_share = 0\nwinner_probability = 0.95\nrewards_min = 7",
            "winner_probability = 0.95\nrollout = [{ percent = 60, time = \"90s\" }, { percent = 100 }]",
        ];
        for text in texts {
            let (settings, rollout) = read(text).unwrap();
            let said = RawBandit::of(&settings, &route(rollout.clone()));
            let table: toml::Table = toml::from_str(&format!("bandit = {}", said.toml())).unwrap();
            let again = toml::to_string(&table["bandit"]).unwrap();
            assert_eq!(read(&again), Ok((settings, rollout)), "{text}");
            assert_eq!(RawBandit::from_message(said.clone().message()), said);
        }
        assert_eq!(read("").unwrap(), (Settings::DEFAULT, Vec::new()));
        assert_eq!(read("winner_probability = 0.95").unwrap().1, winner::default_steps());
    }

    #[test]
    fn faults_say_what_was_expected() {
        for (text, why) in [
            ("algorithm = \"luck\"", "algorithm is \"luck\": expected thompson, epsilon-greedy or ucb1"),
            ("epsilon = 0.1", "epsilon stands beside thompson: expected epsilon-greedy"),
            ("rewards = \"complex\"", "rewards is \"complex\": expected binary or real"),
            ("half_life = \"soon\"", "half_life is \"soon\": expected a duration, such as 50ms"),
            ("probe_share = 0.5", "probe_share is 0.5: expected a number from 0 to 0.009"),
            ("winner_probability = nan", "winner_probability is NaN: expected a number from 0.5 to 1"),
            (
                "rollout = [{ percent = 100 }]",
                "rollout stands without winner_probability: say how surely an arm must be the best to win, such as \
                 winner_probability = 0.99",
            ),
            (
                "winner_probability = 0.9\nrollout = [{ percent = 50, time = \"soon\" }]",
                "rollout[0].time is \"soon\": expected a duration such as \"10m\"",
            ),
        ] {
            assert_eq!(read(text), Err(why.to_owned()));
        }
        let why = RawBandit::refine(Policy::Split, Some(RawBandit::default())).unwrap_err();
        assert_eq!(why, ".bandit stands beside policy split: expected policy = \"bandit\"");
    }
}
