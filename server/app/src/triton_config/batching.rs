//! How requests are put together and wait: `max_batch_size` and `dynamic_batching`.

use std::collections::BTreeMap;
use std::time::Duration;

use gristmill_engine::tuning::{PRIORITY_LEVELS_MAX, Priorities, QueuePolicy, TimeoutAction};
use gristmill_proto::inference as pb;

use super::document::Fault;
use super::note;

/// Most rows of a batch that a configuration may ask for, as in model.toml.
const BATCH_ROWS_MAX: usize = 1 << 20;
/// Longest delay that a configuration may ask for, as in model.toml.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// What `max_batch_size` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batching {
    /// Nothing: it is 0 or left out, and not all tensors are declared; Triton then looks at the file.
    Derived,
    /// It is 0 or left out beside declared inputs and outputs: dims are complete, and requests must not
    /// be put together, nor split, even where the file would allow it.
    Never,
    /// Axis 0 counts rows, which dims leave out, and a batch has at most so many.
    UpTo(usize),
}

/// What `dynamic_batching` says, which may be present and empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DynamicBatching {
    /// How long a request may wait for others.
    pub(crate) delay: Duration,
    /// Rows at which a batch does not wait for more. Ascending, each once.
    pub(crate) preferred_rows: Vec<usize>,
    /// Answers come in the order of the requests.
    pub(crate) preserve_ordering: bool,
    pub(crate) queue: QueuePolicy,
    pub(crate) priorities: Option<Priorities>,
    /// Of the levels that have a policy of their own.
    pub(crate) level_policies: BTreeMap<u64, QueuePolicy>,
}

/// What `max_batch_size` means for a configuration that declares its tensors or does not.
pub(super) fn batching(max_batch_size: i32, tensors_are_declared: bool) -> Result<Batching, Fault> {
    match usize::try_from(max_batch_size) {
        Ok(0) if tensors_are_declared => Ok(Batching::Never),
        Ok(0) => Ok(Batching::Derived),
        Ok(rows) if rows <= BATCH_ROWS_MAX => Ok(Batching::UpTo(rows)),
        _ => {
            let reason =
                format!("expected 1 to {BATCH_ROWS_MAX}, or 0 for no batch axis, got {max_batch_size}");
            Err(Fault::new("max_batch_size", reason))
        }
    }
}

/// Checks `dynamic_batching`. What the engine does not do yet is noted here, and nowhere else.
pub(super) fn dynamic_batching(
    written: &pb::ModelDynamicBatching,
    batching: Batching,
    notes: &mut Vec<String>,
) -> Result<DynamicBatching, Fault> {
    let pb::ModelDynamicBatching {
        preferred_batch_size,
        max_queue_delay_microseconds,
        preserve_ordering,
        priority_levels,
        default_priority_level,
        default_queue_policy,
        priority_queue_policy,
    } = written;
    let field = |name: &str| format!("dynamic_batching.{name}");
    if batching == Batching::Never {
        note(notes, "dynamic_batching", "max_batch_size is 0, so requests run one at a time");
    }

    let delay = Duration::from_micros(*max_queue_delay_microseconds);
    if delay > DELAY_MAX {
        let reason = format!("expected at most 60000000, a minute, got {max_queue_delay_microseconds}");
        return Err(Fault::new(field("max_queue_delay_microseconds"), reason));
    }
    let preferred_rows = preferred(preferred_batch_size, batching)?;
    if *preserve_ordering {
        let instead =
            "requests of one stream are answered in their order, and others as soon as they are done";
        note(notes, field("preserve_ordering"), instead);
    }

    let queue = queue_policy(&default_queue_policy.unwrap_or_default());
    let mut level_policies = BTreeMap::new();
    let written_policies: BTreeMap<_, _> = priority_queue_policy.iter().collect();
    for (level, policy) in written_policies {
        let field = format!("{}[{level}]", field("priority_queue_policy"));
        if *priority_levels == 0 {
            note(notes, &field, "priority_levels is 0, so no request has a priority");
            continue;
        }
        if *level == 0 || level > priority_levels {
            let reason = format!("expected a level from 1 to priority_levels, {priority_levels}");
            return Err(Fault::new(field, reason));
        }
        level_policies.insert(*level, queue_policy(policy));
    }
    if *priority_levels > 0 && (*default_priority_level == 0 || default_priority_level > priority_levels) {
        let reason =
            format!("expected 1 to priority_levels, {priority_levels}, got {default_priority_level}");
        return Err(Fault::new(field("default_priority_level"), reason));
    }
    if *priority_levels > PRIORITY_LEVELS_MAX {
        let field = field("priority_levels");
        notes.push(format!("{field}: levels from {PRIORITY_LEVELS_MAX} on count as that one"));
    }
    let (levels, default_level) = (*priority_levels, *default_priority_level);
    Ok(DynamicBatching {
        delay,
        preferred_rows,
        preserve_ordering: *preserve_ordering,
        queue,
        priorities: (levels > 0).then_some(Priorities { levels, default_level }),
        level_policies,
    })
}

fn preferred(sizes: &[i32], batching: Batching) -> Result<Vec<usize>, Fault> {
    let rows_max = match batching {
        Batching::UpTo(rows) => rows,
        Batching::Derived => BATCH_ROWS_MAX,
        Batching::Never => 0,
    };
    let mut preferred = Vec::with_capacity(sizes.len());
    for (index, size) in sizes.iter().enumerate() {
        match usize::try_from(*size) {
            Ok(rows) if (1..=rows_max).contains(&rows) => preferred.push(rows),
            _ => {
                let field = format!("dynamic_batching.preferred_batch_size[{index}]");
                let reason = format!("expected 1 to max_batch_size, {rows_max}, got {size}");
                return Err(Fault::new(field, reason));
            }
        }
    }
    preferred.sort_unstable();
    preferred.dedup();
    Ok(preferred)
}

fn queue_policy(written: &pb::ModelQueuePolicy) -> QueuePolicy {
    let pb::ModelQueuePolicy {
        timeout_action,
        default_timeout_microseconds,
        allow_timeout_override,
        max_queue_size,
    } = *written;
    let delays = timeout_action == pb::model_queue_policy::TimeoutAction::Delay as i32;
    QueuePolicy {
        requests_max: (max_queue_size > 0).then_some(max_queue_size as usize),
        timeout: (default_timeout_microseconds > 0)
            .then(|| Duration::from_micros(default_timeout_microseconds)),
        timeout_action: if delays { TimeoutAction::Delay } else { TimeoutAction::Reject },
        timeout_can_be_shortened: allow_timeout_override,
    }
}
