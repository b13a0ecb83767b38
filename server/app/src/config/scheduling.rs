//! What `model.toml` says about batches and about waiting: sizes, delays, priorities, what a queue may hold and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use gristmill_engine::merging::Word;
use gristmill_engine::registry::VersionPolicy;
use gristmill_engine::tuning::{
    Fallback, PRIORITY_LEVELS_MAX, Priorities, QueuePolicy, TimeoutAction, Tuning,
};
use serde::Deserialize;

use super::{between, duration};

/// Most rows of a batch that a file may ask for.
const BATCH_ROWS_MAX: usize = 1 << 20;
/// Longest delay that a file may ask for.
const DELAY_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBatching {
    rows_max: Option<usize>,
    delay: Option<String>,
    #[serde(default)]
    preferred_rows: Vec<usize>,
    #[serde(default)]
    trusted: bool,
    audit: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQueue {
    order: Option<RawOrder>,
    rows_max: Option<usize>,
    bytes_max: Option<usize>,
    time_max: Option<String>,
    requests_max: Option<usize>,
    timeout: Option<String>,
    timeout_action: Option<RawTimeoutAction>,
    timeout_override: Option<bool>,
    /// By level, which is a key and therefore text.
    #[serde(default)]
    levels: BTreeMap<String, RawPolicy>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawOrder {
    Deadline,
    Arrival,
}

/// Of one priority level.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    requests_max: Option<usize>,
    timeout: Option<String>,
    timeout_action: Option<RawTimeoutAction>,
    timeout_override: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawTimeoutAction {
    Reject,
    Delay,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a version, a label, or the name of another model")]
pub(super) enum RawFallback {
    Version(u64),
    Name(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPriorities {
    levels: u64,
    default: Option<u64>,
}

/// The part of a model's tuning that is about batches and waiting.
pub(super) fn tuning(
    batching: RawBatching,
    queue: RawQueue,
    priorities: Option<RawPriorities>,
    slo: Option<&str>,
) -> Result<Tuning, String> {
    let batch_rows_max = between("batching.rows_max", batching.rows_max, BATCH_ROWS_MAX)?;
    let queue_rows_max = between("queue.rows_max", queue.rows_max, usize::MAX)?;
    if let (Some(batch), Some(queue)) = (batch_rows_max, queue_rows_max)
        && queue < batch
    {
        return Err(format!(
            "queue.rows_max is {queue} and batching.rows_max is {batch}: a batch would never fill; expected \
             a queue of at least one batch"
        ));
    }
    let queue_time_max = queue.time_max.as_deref().map(|text| positive("queue.time_max", text));
    let priorities = priorities.map(levels).transpose()?;
    let RawQueue { requests_max, timeout, timeout_action, timeout_override, .. } = queue;
    let own = RawPolicy { requests_max, timeout, timeout_action, timeout_override };
    let mut level_policies = BTreeMap::new();
    for (level, raw) in queue.levels {
        let levels = priorities.map_or(0, |priorities| priorities.levels);
        let number = level.parse().ok().filter(|number| (1..=levels).contains(number)).ok_or_else(|| {
            format!("queue.levels: '{level}' is no level: expected 1 to priorities.levels, which is {levels}")
        })?;
        level_policies.insert(number, policy(&format!("queue.levels.{level}"), raw)?);
    }
    Ok(Tuning {
        batch_rows_max,
        word: if batching.trusted { Word::Trusted } else { Word::None },
        audits_per_million: batching.audit.map(audits).transpose()?,
        batch_delay: batching.delay.as_deref().map(delay).transpose()?,
        preferred_rows: preferred(batching.preferred_rows, batch_rows_max)?,
        queue_rows_max,
        queue_bytes_max: between("queue.bytes_max", queue.bytes_max, usize::MAX)?,
        queue_time_max: queue_time_max.transpose()?,
        slo: slo.map(|text| positive("slo", text)).transpose()?,
        priorities,
        queue_policy: policy("queue", own)?,
        level_policies,
        is_eager: matches!(queue.order, Some(RawOrder::Arrival)),
        ..Tuning::default()
    })
}

/// The share of live batches that are run again, in millionths.
fn audits(share: f64) -> Result<u32, String> {
    match (0.0..=1.0).contains(&share) {
        true => Ok((share * 1e6).ceil() as u32),
        false => Err(format!(
            "batching.audit is {share}: expected a share of the batches, from 0 for none to 1 for all"
        )),
    }
}

/// Who is asked instead where a model would refuse.
pub(super) fn fallback(raw: Option<RawFallback>, policy: &VersionPolicy) -> Result<Option<Fallback>, String> {
    let expected = "expected a version from 1, a label, or the name of another model";
    let (version, name) = match raw {
        None => return Ok(None),
        Some(RawFallback::Version(version)) => (Some(version), String::new()),
        Some(RawFallback::Name(name)) => (name.parse().ok(), name),
    };
    match version {
        Some(0) => Err(format!("degrade_to is 0: {expected}")),
        Some(version) => match policy {
            VersionPolicy::Specific(list) if !list.contains(&version) => {
                Err(format!("degrade_to is {version}, which is none of the versions that serve: {policy}"))
            }
            _ => Ok(Some(Fallback::Version(version))),
        },
        None if name.is_empty() => Err(format!("degrade_to is \"\": {expected}")),
        None => Ok(Some(Fallback::Name(name))),
    }
}

/// How long one run may last.
pub(super) fn run_timeout(text: Option<&str>) -> Result<Option<Duration>, String> {
    text.map(|text| positive("run_timeout", text)).transpose()
}

fn preferred(mut rows: Vec<usize>, rows_max: Option<usize>) -> Result<Vec<usize>, String> {
    let most = rows_max.unwrap_or(BATCH_ROWS_MAX);
    if let Some(wrong) = rows.iter().find(|rows| !(1..=most).contains(*rows)) {
        return Err(format!("batching.preferred_rows has {wrong}: expected 1 to batching.rows_max, {most}"));
    }
    rows.sort_unstable();
    rows.dedup();
    Ok(rows)
}

fn levels(raw: RawPriorities) -> Result<Priorities, String> {
    let RawPriorities { levels, default } = raw;
    if !(1..=PRIORITY_LEVELS_MAX).contains(&levels) {
        return Err(format!("priorities.levels is {levels}: expected 1 to {PRIORITY_LEVELS_MAX}"));
    }
    // The middle: there is something more urgent and something less.
    let default_level = default.unwrap_or(levels.div_ceil(2));
    if !(1..=levels).contains(&default_level) {
        return Err(format!(
            "priorities.default is {default_level}: expected 1, the most urgent, to priorities.levels, {levels}"
        ));
    }
    Ok(Priorities { levels, default_level })
}

fn policy(field: &str, raw: RawPolicy) -> Result<QueuePolicy, String> {
    let timeout = raw.timeout.as_deref().map(|text| positive(&format!("{field}.timeout"), text));
    Ok(QueuePolicy {
        requests_max: between(&format!("{field}.requests_max"), raw.requests_max, usize::MAX)?,
        timeout: timeout.transpose()?,
        timeout_action: match raw.timeout_action {
            Some(RawTimeoutAction::Delay) => TimeoutAction::Delay,
            Some(RawTimeoutAction::Reject) | None => TimeoutAction::Reject,
        },
        timeout_can_be_shortened: raw.timeout_override.unwrap_or(false),
    })
}

fn delay(text: &str) -> Result<Duration, String> {
    let delay = duration("batching.delay", "2ms", text)?;
    if delay > DELAY_MAX {
        return Err(format!("batching.delay is \"{text}\": expected at most 60s"));
    }
    Ok(delay)
}

fn positive(field: &str, text: &str) -> Result<Duration, String> {
    let duration = duration(field, "50ms", text)?;
    if duration.is_zero() {
        return Err(format!("{field} is \"{text}\": expected more than nothing, such as \"50ms\""));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_fallback_is_a_version_or_a_name() {
        let read = |raw| fallback(Some(raw), &VersionPolicy::Specific(BTreeSet::from([1, 2])));
        let name = |name: &str| RawFallback::Name(name.into());
        assert_eq!(read(RawFallback::Version(2)), Ok(Some(Fallback::Version(2))));
        assert_eq!(read(name("2")), Ok(Some(Fallback::Version(2))));
        assert_eq!(read(name("small")), Ok(Some(Fallback::Name("small".into()))));
        let expected = "expected a version from 1, a label, or the name of another model";
        assert_eq!(read(RawFallback::Version(0)), Err(format!("degrade_to is 0: {expected}")));
        assert_eq!(read(name("")), Err(format!("degrade_to is \"\": {expected}")));
        assert_eq!(
            read(RawFallback::Version(3)),
            Err("degrade_to is 3, which is none of the versions that serve: only 1, 2".into())
        );
        assert_eq!(fallback(None, &VersionPolicy::All), Ok(None));
    }
}
