//! The metrics' names, and the handles that the request path records with.

#![expect(clippy::disallowed_macros, reason = "this is the one place where handles are resolved by name")]

mod audits;
mod experiment;
mod names;
mod on_use;
mod shadow;

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, SharedString};

pub(crate) use self::audits::{AuditHandles, AuditMetrics, AuditOutcome};
pub use self::experiment::{ExperimentArmMetrics, ExperimentMetrics};
pub use self::names::*;
pub(crate) use self::on_use::OnUse;
pub(crate) use self::shadow::{Fate, ShadowMetrics};
use crate::attainment::{Attainment, WINDOWS};
use crate::backend::Device;
use crate::error::InferError;
use crate::former::CloseReason;
use crate::prediction::ArmName;
use crate::stopping::StopReason;

/// How a request ended: the values of the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    InvalidInput,
    TooLarge,
    Overloaded,
    DeadlineExceeded,
    Cancelled,
    Unavailable,
    BackendError,
}

/// Handles of one version, resolved when its first request comes.
pub(crate) type DeploymentMetrics = OnUse<(String, u64), DeploymentHandles>;

pub(crate) struct DeploymentHandles {
    outcomes: [Counter; Outcome::ALL.len()],
    pub(crate) degraded: Counter,
    pub(crate) request_seconds: Histogram,
    pub(crate) queue_seconds: Histogram,
    pub(crate) assembly_seconds: Histogram,
    pub(crate) run_seconds: Histogram,
    pub(crate) batch_rows: Histogram,
    closed: [Counter; CloseReason::ALL.len()],
    pub(crate) queue_rows: Gauge,
    pub(crate) queue_bytes: Gauge,
    pub(crate) instances: Gauge,
    pub(crate) instance_replacements: Counter,
    stopped: [Counter; StopReason::ALL.len()],
    pub(crate) workers_left_behind: Gauge,
    pub(crate) slot_wait_seconds: Histogram,
}

/// Handles of one model, whichever versions of it serve, resolved when its first request ends.
pub(crate) type ServiceLevelMetrics = OnUse<String, ServiceLevelHandles>;

pub(crate) struct ServiceLevelHandles {
    pub(crate) good: Counter,
    pub(crate) bad: Counter,
    pub(crate) slack_seconds: Histogram,
    pub(crate) overrun_seconds: Histogram,
    objective: Gauge,
    attainment: [Gauge; WINDOWS.len()],
    burn_rate: [Gauge; WINDOWS.len()],
}

/// Handles of one arm of a route, whichever version it points at.
pub(crate) struct ArmMetrics {
    outcomes: [Counter; Outcome::ALL.len()],
    request_seconds: Histogram,
    pub(crate) weight: Gauge,
}

/// Handles of one route's canary.
pub(crate) struct CanaryMetrics {
    pub(crate) step: Gauge,
    pub(crate) forward: Counter,
    pub(crate) back: Counter,
    pub(crate) done: Counter,
}

/// What became of feedback: the values of the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedbackResult {
    Accepted,
    Duplicate,
    Conflict,
    Unknown,
    Invalid,
}

/// Handles of whoever keeps predictions and feedback.
pub struct FeedbackMetrics {
    results: [Counter; FeedbackResult::ALL.len()],
    pub outstanding: Gauge,
    pub dropped: Counter,
}

/// Handles of one device.
pub(crate) struct SlotGauges {
    pub(crate) slots: Gauge,
    pub(crate) in_use: Gauge,
}

// === impl SlotGauges ===

impl SlotGauges {
    pub(crate) fn new(device: Device) -> SlotGauges {
        let labels = [("device", device.to_string())];
        SlotGauges {
            slots: metrics::gauge!(RUN_SLOTS.name, &labels),
            in_use: metrics::gauge!(RUN_SLOTS_IN_USE.name, &labels),
        }
    }
}

/// What is set when a version's state changes. A series lasts as long as its handles, and this one as long as
/// the version is held.
pub(crate) struct VersionGauges {
    pub(crate) ready: Gauge,
    pub(crate) load_seconds: Gauge,
    pub(crate) load_resident_bytes: Gauge,
    loads_ok: Counter,
    loads_failed: Counter,
}

impl VersionGauges {
    pub(crate) fn new(model: &str, version: u64) -> VersionGauges {
        let labels = version_labels(model, version);
        let loads = |outcome: &'static str| {
            let [model, version] = labels.clone();
            metrics::counter!(LOADS.name, &[model, version, ("outcome", outcome.into())])
        };
        VersionGauges {
            loads_ok: loads("ok"),
            loads_failed: loads("failed"),
            ready: model_ready(model, version),
            load_seconds: metrics::gauge!(LOAD_SECONDS.name, &labels),
            load_resident_bytes: metrics::gauge!(LOAD_RESIDENT_BYTES.name, &labels),
        }
    }
}

/// Whether the server may be sent traffic.
pub(crate) fn server_ready() -> Gauge {
    metrics::gauge!(SERVER_READY.name)
}

/// Whether something that ought to serve of a model cannot.
pub(crate) fn model_failing(model: &str) -> Gauge {
    metrics::gauge!(MODEL_FAILING.name, "model" => model.to_owned())
}

/// Whether a version serves; version 0 is the model as a whole.
pub(crate) fn model_ready(model: &str, version: u64) -> Gauge {
    metrics::gauge!(MODEL_READY.name, &version_labels(model, version))
}

impl VersionGauges {
    pub(crate) fn count_load(&self, is_ok: bool) {
        if is_ok { &self.loads_ok } else { &self.loads_failed }.increment(1);
    }
}

// === impl Outcome ===

impl Outcome {
    const ALL: [Outcome; 8] = [
        Outcome::Ok,
        Outcome::InvalidInput,
        Outcome::TooLarge,
        Outcome::Overloaded,
        Outcome::DeadlineExceeded,
        Outcome::Cancelled,
        Outcome::Unavailable,
        Outcome::BackendError,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::InvalidInput => "invalid_input",
            Outcome::TooLarge => "too_large",
            Outcome::Overloaded => "overloaded",
            Outcome::DeadlineExceeded => "deadline_exceeded",
            Outcome::Cancelled => "cancelled",
            Outcome::Unavailable => "unavailable",
            Outcome::BackendError => "backend_error",
        }
    }

    /// Whether the caller got what was promised; `None` where it was not the server's to keep.
    pub(crate) fn verdict(self) -> Option<bool> {
        match self {
            Outcome::Ok => Some(true),
            Outcome::Overloaded
            | Outcome::DeadlineExceeded
            | Outcome::Unavailable
            | Outcome::BackendError => Some(false),
            Outcome::InvalidInput | Outcome::TooLarge | Outcome::Cancelled => None,
        }
    }

    pub(crate) fn of(error: &InferError) -> Outcome {
        match error {
            InferError::NotFound(_) | InferError::InvalidInput(_) => Outcome::InvalidInput,
            InferError::TooLarge(_) => Outcome::TooLarge,
            InferError::Overloaded { .. } => Outcome::Overloaded,
            InferError::DeadlineExceeded { .. } => Outcome::DeadlineExceeded,
            InferError::Unavailable(_) => Outcome::Unavailable,
            InferError::Backend(_) => Outcome::BackendError,
        }
    }
}

// === impl DeploymentHandles ===

impl DeploymentHandles {
    pub(crate) fn resolve((model, version): &(String, u64)) -> DeploymentHandles {
        let labels = version_labels(model, *version);
        let labels_and = |key: &'static str, value: &'static str| {
            let [model, version] = labels.clone();
            [model, version, (key, SharedString::const_str(value))]
        };
        DeploymentHandles {
            outcomes: Outcome::ALL
                .map(|outcome| metrics::counter!(REQUESTS.name, &labels_and("outcome", outcome.label()))),
            degraded: metrics::counter!(DEGRADED.name, &labels),
            request_seconds: metrics::histogram!(REQUEST_SECONDS.name, &labels),
            queue_seconds: metrics::histogram!(QUEUE_SECONDS.name, &labels),
            assembly_seconds: metrics::histogram!(ASSEMBLY_SECONDS.name, &labels),
            run_seconds: metrics::histogram!(RUN_SECONDS.name, &labels),
            batch_rows: metrics::histogram!(BATCH_ROWS.name, &labels),
            closed: CloseReason::ALL
                .map(|reason| metrics::counter!(BATCHES.name, &labels_and("reason", reason.label()))),
            queue_rows: metrics::gauge!(QUEUE_ROWS.name, &labels),
            queue_bytes: metrics::gauge!(QUEUE_BYTES.name, &labels),
            instances: metrics::gauge!(INSTANCES.name, &labels),
            instance_replacements: metrics::counter!(INSTANCE_REPLACEMENTS.name, &labels),
            stopped: StopReason::ALL
                .map(|reason| metrics::counter!(RUNS_STOPPED.name, &labels_and("reason", reason.label()))),
            workers_left_behind: metrics::gauge!(WORKERS_LEFT_BEHIND.name, &labels),
            slot_wait_seconds: metrics::histogram!(SLOT_WAIT_SECONDS.name, &labels),
        }
    }

    pub(crate) fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
    }

    pub(crate) fn count_closed(&self, reason: CloseReason) {
        self.closed[reason as usize].increment(1);
    }

    /// Nothing waits and nobody works any more.
    pub(crate) fn clear_gauges(&self) {
        for gauge in [&self.queue_rows, &self.queue_bytes, &self.instances] {
            gauge.set(0.0);
        }
    }

    pub(crate) fn count_stopped(&self, reason: StopReason) {
        self.stopped[reason as usize].increment(1);
    }

    pub(crate) fn record_answer(&self, queue: Duration, total: Duration) {
        self.count(Outcome::Ok);
        self.queue_seconds.record(queue);
        self.request_seconds.record(total);
    }
}

// === impl ServiceLevelHandles ===

impl ServiceLevelHandles {
    #[expect(clippy::ptr_arg, reason = "`OnUse` gives what it holds")]
    pub(crate) fn resolve(model: &String) -> ServiceLevelHandles {
        let model: [(&'static str, SharedString); 1] = [("model", model.clone().into())];
        let labels_and = |key: &'static str, value: &'static str| {
            let [model] = model.clone();
            [model, (key, SharedString::const_str(value))]
        };
        let by_window = |metric: &Metric| {
            WINDOWS.map(|window| metrics::gauge!(metric.name, &labels_and("window", window.name)))
        };
        ServiceLevelHandles {
            good: metrics::counter!(SLO_REQUESTS.name, &labels_and("result", "good")),
            bad: metrics::counter!(SLO_REQUESTS.name, &labels_and("result", "bad")),
            slack_seconds: metrics::histogram!(DEADLINE_SLACK_SECONDS.name, &model),
            overrun_seconds: metrics::histogram!(DEADLINE_OVERRUN_SECONDS.name, &model),
            objective: metrics::gauge!(SLO_OBJECTIVE.name, &model),
            attainment: by_window(&SLO_ATTAINMENT),
            burn_rate: by_window(&SLO_BURN_RATE),
        }
    }

    pub(crate) fn set(&self, attainment: &Attainment) {
        self.objective.set(attainment.objective);
        for (index, window) in attainment.windows.iter().enumerate() {
            self.attainment[index].set(window.attainment);
            self.burn_rate[index].set(window.burn_rate);
        }
    }
}

// === impl ArmMetrics ===

impl ArmMetrics {
    pub(crate) fn new(name: &ArmName) -> ArmMetrics {
        let labels: [(&'static str, SharedString); 2] =
            [("route", name.route.clone().into()), ("arm", name.arm.clone().into())];
        let outcome = |outcome: Outcome| {
            let [route, arm] = labels.clone();
            let outcome = ("outcome", SharedString::const_str(outcome.label()));
            metrics::counter!(ROUTE_REQUESTS.name, &[route, arm, outcome])
        };
        ArmMetrics {
            outcomes: Outcome::ALL.map(outcome),
            request_seconds: metrics::histogram!(ROUTE_REQUEST_SECONDS.name, &labels),
            weight: metrics::gauge!(ROUTE_WEIGHT.name, &labels),
        }
    }

    pub(crate) fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
    }

    pub(crate) fn record_answer(&self, total: Duration) {
        self.count(Outcome::Ok);
        self.request_seconds.record(total);
    }
}

// === impl CanaryMetrics ===

impl CanaryMetrics {
    pub(crate) fn new(route: &str) -> CanaryMetrics {
        let route: [(&'static str, SharedString); 1] = [("route", route.to_owned().into())];
        let decision = |decision: &'static str| {
            let [route] = route.clone();
            let decision = ("decision", SharedString::const_str(decision));
            metrics::counter!(CANARY_DECISIONS.name, &[route, decision])
        };
        CanaryMetrics {
            forward: decision("forward"),
            back: decision("back"),
            done: decision("done"),
            step: metrics::gauge!(CANARY_STEP.name, &route),
        }
    }
}

// === impl FeedbackResult ===

impl FeedbackResult {
    const ALL: [FeedbackResult; 5] = [
        FeedbackResult::Accepted,
        FeedbackResult::Duplicate,
        FeedbackResult::Conflict,
        FeedbackResult::Unknown,
        FeedbackResult::Invalid,
    ];

    fn label(self) -> &'static str {
        match self {
            FeedbackResult::Accepted => "accepted",
            FeedbackResult::Duplicate => "duplicate",
            FeedbackResult::Conflict => "conflict",
            FeedbackResult::Unknown => "unknown",
            FeedbackResult::Invalid => "invalid",
        }
    }
}

// === impl FeedbackMetrics ===

impl FeedbackMetrics {
    pub fn resolve() -> FeedbackMetrics {
        FeedbackMetrics {
            results: FeedbackResult::ALL
                .map(|result| metrics::counter!(FEEDBACK.name, &[("result", result.label())])),
            outstanding: metrics::gauge!(PREDICTIONS_OUTSTANDING.name),
            dropped: metrics::counter!(PREDICTIONS_DROPPED.name),
        }
    }

    pub fn count(&self, result: FeedbackResult) {
        self.results[result as usize].increment(1);
    }
}

fn version_labels(model: &str, version: u64) -> [(&'static str, SharedString); 2] {
    [("model", model.to_owned().into()), ("version", version.to_string().into())]
}
