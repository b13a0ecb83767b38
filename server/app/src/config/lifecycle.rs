//! What `model.toml` says about versions: which serve, under which names, for how long, at what cost.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_engine::budget::Budget;
use gristmill_engine::conduct::Watch;
use gristmill_engine::registry::{Lifecycle, VersionPolicy};
use serde::Deserialize;

use super::duration;

/// Most versions that `latest` may ask for: more is a typing error.
const VERSIONS_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected \"all\", a list such as [1, 3], or { latest = 2 }")]
pub(super) enum RawVersions {
    Word(AllVersions),
    List(BTreeSet<u64>),
    Latest { latest: usize },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AllVersions {
    All,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBudget {
    /// By rows of a batch, which are keys and therefore text.
    #[serde(default)]
    run_p99: BTreeMap<String, String>,
    resident_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"off\" or a table with period, requests_min, error_rate_increase_max and p99_ratio_max"
)]
pub(super) enum RawWatch {
    Word(Off),
    Table(RawBounds),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Off {
    Off,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBounds {
    period: Option<String>,
    requests_min: Option<u64>,
    error_rate_increase_max: Option<f64>,
    p99_ratio_max: Option<f64>,
}

fn watch(raw: Option<RawWatch>) -> Result<Option<Watch>, String> {
    let bounds = match raw {
        Some(RawWatch::Word(Off::Off)) => return Ok(None),
        Some(RawWatch::Table(bounds)) => bounds,
        None => RawBounds::default(),
    };
    let default = Watch::default();
    let error_rate_increase_max = bounds.error_rate_increase_max.unwrap_or(default.error_rate_increase_max);
    if !(0.0..=1.0).contains(&error_rate_increase_max) {
        return Err(format!("watch.error_rate_increase_max is {error_rate_increase_max}: expected 0 to 1"));
    }
    if let Some(ratio) = bounds.p99_ratio_max.filter(|ratio| ratio.is_nan() || *ratio < 1.0) {
        return Err(format!("watch.p99_ratio_max is {ratio}: expected at least 1"));
    }
    Ok(Some(Watch {
        period: match &bounds.period {
            Some(text) => duration("watch.period", "5m", text)?,
            None => default.period,
        },
        requests_min: bounds.requests_min.unwrap_or(default.requests_min).max(1),
        error_rate_increase_max,
        p99_ratio_max: bounds.p99_ratio_max,
    }))
}

/// What is written, checked, over the defaults.
pub(super) fn lifecycle(
    versions: Option<RawVersions>,
    labels: BTreeMap<String, u64>,
    keep_previous: Option<&str>,
    allow_signature_change: Option<bool>,
    raw_watch: Option<RawWatch>,
) -> Result<Lifecycle, String> {
    let default = Lifecycle::default();
    let policy = match versions {
        None => default.policy,
        Some(RawVersions::Word(AllVersions::All)) => VersionPolicy::All,
        Some(RawVersions::List(list)) if list.is_empty() => {
            return Err("versions is an empty list: expected one version at least".into());
        }
        Some(RawVersions::List(list)) => VersionPolicy::Specific(list),
        Some(RawVersions::Latest { latest: count @ 1..=VERSIONS_MAX }) => VersionPolicy::Latest(count),
        Some(RawVersions::Latest { latest }) => {
            return Err(format!("versions.latest is {latest}: expected 1 to {VERSIONS_MAX}"));
        }
    };
    for label in labels.keys() {
        if label.is_empty() || label.contains('/') || label.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!(
                "labels: '{label}' is not a label: expected a name that is not a number, without '/'"
            ));
        }
    }
    let keep_previous = match keep_previous {
        Some(text) => duration("keep_previous", "5m", text)?,
        None => default.keep_previous,
    };
    let watch = watch(raw_watch)?;
    let allow_signature_change = allow_signature_change.unwrap_or(default.allow_signature_change);
    Ok(Lifecycle { policy, labels, keep_previous, allow_signature_change, watch })
}

pub(super) fn budget(raw: RawBudget) -> Result<Budget, String> {
    let mut run_p99_max = BTreeMap::new();
    for (rows, text) in raw.run_p99 {
        let count = rows.parse().ok().filter(|&rows: &usize| rows > 0).ok_or_else(|| {
            format!(
                "budget.run_p99: '{rows}' is not a number of rows: expected for example {{ 1 = \"2ms\" }}"
            )
        })?;
        run_p99_max.insert(count, duration("budget.run_p99", "5m", &text)?);
    }
    Ok(Budget { run_p99_max, resident_bytes_max: raw.resident_bytes })
}
