//! How requests are put together and wait: `max_batch_size` and `dynamic_batching`.

use std::collections::BTreeMap;
use std::time::Duration;

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
}

/// What waiting requests of one priority may expect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueuePolicy {
    /// Requests, not rows, that may wait.
    pub(crate) requests_max: Option<usize>,
    /// How long a request may wait that does not say so itself.
    pub(crate) timeout: Option<Duration>,
    pub(crate) timeout_action: TimeoutAction,
    /// A request's own timeout counts where it is shorter than `timeout`.
    pub(crate) timeout_can_be_shortened: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TimeoutAction {
    /// The request is refused.
    #[default]
    Reject,
    /// The request runs when no other waits.
    Delay,
}

/// Levels of priority from 1, the most urgent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Priorities {
    pub(crate) levels: u64,
    /// Of requests that do not say.
    pub(crate) default_level: u64,
    /// Of the levels that have a policy of their own.
    pub(crate) policies: BTreeMap<u64, QueuePolicy>,
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
    if preferred_rows.iter().any(|rows| Batching::UpTo(*rows) != batching) {
        note(
            notes,
            field("preferred_batch_size"),
            "a batch has the rows that wait when an instance is free, up to max_batch_size",
        );
    }
    if *preserve_ordering {
        let instead =
            "requests of one stream are answered in their order, and others as soon as they are done";
        note(notes, field("preserve_ordering"), instead);
    }

    let default_policy = default_queue_policy.unwrap_or_default();
    let queue = queue_policy(&field("default_queue_policy"), &default_policy, notes);
    if let Some(rows) = queue.rows_max(batching) {
        let field = field("default_queue_policy.max_queue_size");
        notes.push(format!("{field}: {rows} rows may wait; Triton counts requests"));
    }
    let mut policies = BTreeMap::new();
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
        note(notes, &field, "all requests wait in one queue by the default policy");
        policies.insert(*level, queue_policy(&field, policy, &mut Vec::new()));
    }
    if *priority_levels > 0 && (*default_priority_level == 0 || default_priority_level > priority_levels) {
        let reason =
            format!("expected 1 to priority_levels, {priority_levels}, got {default_priority_level}");
        return Err(Fault::new(field("default_priority_level"), reason));
    }
    if *priority_levels > 1 {
        note(notes, field("priority_levels"), "requests run in the order in which they came");
    }
    let priorities = (*priority_levels > 0).then_some(Priorities {
        levels: *priority_levels,
        default_level: *default_priority_level,
        policies,
    });
    Ok(DynamicBatching { delay, preferred_rows, preserve_ordering: *preserve_ordering, queue, priorities })
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

fn queue_policy(field: &str, written: &pb::ModelQueuePolicy, notes: &mut Vec<String>) -> QueuePolicy {
    let pb::ModelQueuePolicy {
        timeout_action,
        default_timeout_microseconds,
        allow_timeout_override,
        max_queue_size,
    } = *written;
    let delays = timeout_action == pb::model_queue_policy::TimeoutAction::Delay as i32;
    if default_timeout_microseconds > 0 {
        let instead = "a request waits until the deadline or timeout that it brings";
        note(notes, format!("{field}.default_timeout_microseconds"), instead);
    }
    if delays {
        let instead = "a request whose time is over is refused";
        note(notes, format!("{field}.timeout_action"), instead);
    }
    QueuePolicy {
        requests_max: (max_queue_size > 0).then_some(max_queue_size as usize),
        timeout: (default_timeout_microseconds > 0)
            .then(|| Duration::from_micros(default_timeout_microseconds)),
        timeout_action: if delays { TimeoutAction::Delay } else { TimeoutAction::Reject },
        timeout_can_be_shortened: allow_timeout_override,
    }
}

// === impl QueuePolicy ===

impl QueuePolicy {
    /// The bound of a queue that counts rows: a request has at least one, and a queue that is shorter
    /// than a batch would never fill one.
    pub(super) fn rows_max(&self, batching: Batching) -> Option<usize> {
        let batch_rows_max = match batching {
            Batching::UpTo(rows) => rows,
            Batching::Derived | Batching::Never => 1,
        };
        self.requests_max.map(|requests| requests.max(batch_rows_max))
    }
}
