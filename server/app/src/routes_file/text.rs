//! The text of `routes.toml` and what it means once read; whether the routes can be is the engine's to check.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gristmill_engine::comparison::Tolerance;
use gristmill_engine::request::VersionSelector;
use gristmill_engine::routing::canary::Canary;
use gristmill_engine::routing::{Arm, KeySource, Policy, Route, Shadow, Weight};
use serde::Deserialize;

use super::bandit::RawBandit;
use super::canary::{self, RawCanary};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    routes: BTreeMap<String, RawRoute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    policy: Option<String>,
    key: Option<String>,
    salt: Option<String>,
    arms: Vec<RawArm>,
    canary: Option<RawCanary>,
    #[serde(default)]
    shadows: Vec<RawShadow>,
    bandit: Option<RawBandit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArm {
    name: Option<String>,
    model: String,
    version: Option<u64>,
    label: Option<String>,
    weight: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShadow {
    name: Option<String>,
    model: String,
    version: Option<u64>,
    label: Option<String>,
    percent: Option<f64>,
    absolute: Option<f64>,
    relative: Option<f64>,
    #[serde(default)]
    keep_inputs: bool,
}

/// Reads the file's text.
///
/// # Errors
/// The text says where the fault is, what was expected and what came.
pub fn parse(text: &str) -> Result<Vec<Route>, String> {
    let raw: Raw = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    raw.routes.into_iter().map(|(name, raw)| route(name, raw)).collect()
}

fn route(name: String, raw: RawRoute) -> Result<Route, String> {
    let field = format!("routes.{name}");
    let policy = match &raw.policy {
        None => Policy::Split,
        Some(policy) => parse_policy(policy).map_err(|why| format!("{field}: {why}"))?,
    };
    let (policy, rollout) = RawBandit::refine(policy, raw.bandit).map_err(|why| format!("{field}{why}"))?;
    let key = match &raw.key {
        None => KeySource::Header,
        Some(key) => KeySource::parse(key).map_err(|why| format!("{field}: {why}"))?,
    };
    if policy == Policy::Canary
        && let Some(index) = raw.arms.iter().position(|arm| arm.weight.is_some())
    {
        return Err(format!(
            "{field}.arms[{index}].weight: with policy canary its steps say the weights, leave it out"
        ));
    }
    let arms = raw.arms.into_iter().enumerate();
    let arms = arms.map(|(index, raw)| arm(raw).map_err(|why| format!("{field}.arms[{index}].{why}")));
    let arms = arms.collect::<Result<_, String>>()?;
    let shadows = raw.shadows.into_iter().enumerate();
    let shadows =
        shadows.map(|(index, raw)| shadow(raw).map_err(|why| format!("{field}.shadows[{index}].{why}")));
    let shadows = shadows.collect::<Result<_, String>>()?;
    let canary = match raw.canary {
        Some(raw) => Some(canary::read(raw).map_err(|why| format!("{field}.canary.{why}"))?),
        None => (policy == Policy::Canary).then(Canary::default),
    };
    let salt = raw.salt.unwrap_or_else(|| name.clone());
    let route = Route { salt, name, policy, key, arms, canary, rollout, shadows };
    Ok(route.weighed_by_canary())
}

fn arm(raw: RawArm) -> Result<Arm, String> {
    let RawArm { name, model, version, label, weight } = raw;
    let version = match (version, label) {
        (None, None) => VersionSelector::Default,
        (Some(version), None) => VersionSelector::Number(version),
        (None, Some(label)) => VersionSelector::Label(label),
        (Some(_), Some(_)) => return Err("label stands beside a version: give one of the two".into()),
    };
    let weight = Weight::from_percent(weight.unwrap_or(0.0)).map_err(|why| format!("weight {why}"))?;
    let mut arm = Arm { name: String::new(), model, version, weight };
    arm.name = name.unwrap_or_else(|| arm.target());
    Ok(arm)
}

fn shadow(raw: RawShadow) -> Result<Shadow, String> {
    let RawShadow { name, model, version, label, percent, absolute, relative, keep_inputs } = raw;
    // Said here, where it has its own name.
    let percent = percent.unwrap_or(100.0);
    Weight::from_percent(percent).map_err(|why| format!("percent {why}"))?;
    let target = arm(RawArm { name, model, version, label, weight: Some(percent) })?;
    let default = Tolerance::default();
    let tolerance = Tolerance {
        absolute: absolute.unwrap_or(default.absolute),
        relative: relative.unwrap_or(default.relative),
    };
    Ok(Shadow { target, tolerance, keep_inputs })
}

/// # Errors
/// No policy has this name.
pub(crate) fn parse_policy(text: &str) -> Result<Policy, String> {
    Policy::ALL.into_iter().find(|policy| policy.name() == text).ok_or_else(|| {
        let known = Policy::ALL.map(Policy::name).join(", ");
        format!("policy is \"{text}\": expected one of {known}")
    })
}

/// What [`parse`] reads back as the same routes.
pub fn write(routes: &[Route]) -> String {
    let mut text =
        String::from("# Written by `gristmill routes`. What is edited here is taken over at once.\n");
    for route in routes {
        let Route { name, policy, key, salt, arms, canary, shadows, rollout: _ } = route;
        let key = quoted(&key.to_string());
        let written = write!(
            text,
            "\n[routes.{}]\npolicy = {}\nkey = {key}\nsalt = {}\narms = [\n",
            quoted(name),
            quoted(policy.name()),
            quoted(salt)
        );
        written.expect("writing to a string does not fail; this is a bug");
        for arm in arms {
            text += &format!("    {{ {}", target(arm));
            if *policy == Policy::Split {
                text += &format!(", weight = {}", arm.weight);
            }
            text += " },\n";
        }
        text += "]\n";
        if !shadows.is_empty() {
            text += "shadows = [\n";
            shadows.iter().for_each(|shadow| text += &shadow_line(shadow));
            text += "]\n";
        }
        if let Some(canary) = canary {
            canary::write(&mut text, name, canary);
        }
        if let Policy::Bandit(settings) = policy {
            text += &format!("bandit = {}\n", RawBandit::of(settings, route).toml());
        }
    }
    text
}

/// What an arm names.
fn target(arm: &Arm) -> String {
    let named = format!("name = {}, model = {}", quoted(&arm.name), quoted(&arm.model));
    match &arm.version {
        VersionSelector::Default => named,
        VersionSelector::Number(version) => format!("{named}, version = {version}"),
        VersionSelector::Label(label) => format!("{named}, label = {}", quoted(label)),
    }
}

fn shadow_line(shadow: &Shadow) -> String {
    let Shadow { target: arm, tolerance: Tolerance { absolute, relative }, keep_inputs } = shadow;
    let mut text = format!("    {{ {}, percent = {}", target(arm), arm.weight);
    text += &format!(", absolute = {absolute:?}, relative = {relative:?}");
    if *keep_inputs {
        text += ", keep_inputs = true";
    }
    text + " },\n"
}

/// As a basic string of TOML, which is one of JSON with U+007F escaped too.
pub(super) fn quoted(text: &str) -> String {
    let json = serde_json::to_string(text).expect("a string is JSON; this is a bug");
    json.replace('\u{7f}', "\\u007f")
}
