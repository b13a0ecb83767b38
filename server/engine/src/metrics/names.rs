//! Every metric's name, help text, unit and buckets.

use metrics::Unit;

/// What kind of series a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// One metric as `/metrics` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// 50 µs to 10 s, five to seven a decade: fine enough to read a p99 off a dashboard.
pub const SECONDS_BUCKETS: &[f64] = &[
    50e-6, 75e-6, 100e-6, 150e-6, 200e-6, 300e-6, 500e-6, 750e-6, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3, 7.5e-3,
    10e-3, 15e-3, 20e-3, 30e-3, 50e-3, 75e-3, 100e-3, 150e-3, 200e-3, 300e-3, 500e-3, 750e-3, 1.0, 1.5, 2.0,
    3.0, 5.0, 7.5, 10.0,
];

/// Powers of two: batch limits are usually one of them.
pub const ROWS_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Decades: what is far below a tolerance, about it, and far above.
pub const DIFFERENCE_BUCKETS: &[f64] =
    &[0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 1e6];

/// Of what lies between 0 and 1, and mostly near 0.
pub const DISTANCE_BUCKETS: &[f64] =
    &[0.0, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0];

const ARM_LABELS: &[&str] = &["route", "arm"];
const SHADOW_LABELS: &[&str] = &["route", "shadow"];
const VERSION_LABELS: &[&str] = &["model", "version"];

pub const REQUESTS: Metric = Metric {
    name: "gristmill_requests_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["model", "version", "outcome"],
    help: "Requests by how they ended",
};
pub const DEGRADED: Metric = Metric {
    name: "gristmill_degraded_requests_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: VERSION_LABELS,
    help: "Requests that the version would have refused and that its degrade_to took",
};
pub const REQUEST_SECONDS: Metric = Metric {
    name: "gristmill_request_seconds",
    kind: Kind::Histogram(SECONDS_BUCKETS),
    unit: Unit::Seconds,
    labels: VERSION_LABELS,
    help: "Time from admission to the answer, of answered requests",
};
pub const QUEUE_SECONDS: Metric = Metric {
    name: "gristmill_queue_seconds",
    kind: Kind::Histogram(SECONDS_BUCKETS),
    unit: Unit::Seconds,
    labels: VERSION_LABELS,
    help: "Time from admission until a worker took the request",
};
pub const ASSEMBLY_SECONDS: Metric = Metric {
    name: "gristmill_batch_assembly_seconds",
    kind: Kind::Histogram(SECONDS_BUCKETS),
    unit: Unit::Seconds,
    labels: VERSION_LABELS,
    help: "Time to gather a batch's inputs",
};
pub const RUN_SECONDS: Metric = Metric {
    name: "gristmill_run_seconds",
    kind: Kind::Histogram(SECONDS_BUCKETS),
    unit: Unit::Seconds,
    labels: VERSION_LABELS,
    help: "Time of one run of the model, by batch",
};
pub const BATCH_ROWS: Metric = Metric {
    name: "gristmill_batch_rows",
    kind: Kind::Histogram(ROWS_BUCKETS),
    unit: Unit::Count,
    labels: VERSION_LABELS,
    help: "Rows that ran together",
};
pub const BATCHES: Metric = Metric {
    name: "gristmill_batches_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["model", "version", "reason"],
    help: "Batches by why they closed: full, preferred, enough, deadline, drained, shape, delay, closing",
};
pub const BATCH_AUDITS: Metric = Metric {
    name: "gristmill_batch_audits_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["model", "version", "outcome"],
    help: "Batches chosen to be run again row by row, by what that showed: equal, different, or skipped for want of time",
};
pub const QUEUE_ROWS: Metric = Metric {
    name: "gristmill_queue_rows",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: VERSION_LABELS,
    help: "Rows waiting at the time of the scrape",
};
pub const QUEUE_BYTES: Metric = Metric {
    name: "gristmill_queue_bytes",
    kind: Kind::Gauge,
    unit: Unit::Bytes,
    labels: VERSION_LABELS,
    help: "Bytes of input tensors waiting at the time of the scrape",
};
pub const INSTANCES: Metric = Metric {
    name: "gristmill_instances",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: VERSION_LABELS,
    help: "Workers that have a thread now: those of a version that nobody uses have none",
};
pub const INSTANCE_REPLACEMENTS: Metric = Metric {
    name: "gristmill_instance_replacements_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: VERSION_LABELS,
    help: "Sessions replaced, after a panic in a run or because one did not end",
};
pub const RUNS_STOPPED: Metric = Metric {
    name: "gristmill_runs_stopped_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["model", "version", "reason"],
    help: "Runs that were told to stop: abandoned by every caller, or timed_out",
};
pub const WORKERS_LEFT_BEHIND: Metric = Metric {
    name: "gristmill_workers_left_behind",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: VERSION_LABELS,
    help: "Threads whose run has not ended since it was stopped; others have taken their places",
};
pub const SLOT_WAIT_SECONDS: Metric = Metric {
    name: "gristmill_slot_wait_seconds",
    kind: Kind::Histogram(SECONDS_BUCKETS),
    unit: Unit::Seconds,
    labels: VERSION_LABELS,
    help: "Time that a worker with work waited for its run slots, where it had to",
};
pub const RUN_SLOTS: Metric = Metric {
    name: "gristmill_run_slots",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["device"],
    help: "Run slots of the device: cores that are granted, or runs of a GPU",
};
pub const RUN_SLOTS_IN_USE: Metric = Metric {
    name: "gristmill_run_slots_in_use",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["device"],
    help: "Run slots that runs hold at the time of the scrape, and one for each short run beside them",
};
pub const LOAD_SECONDS: Metric = Metric {
    name: "gristmill_model_load_seconds",
    kind: Kind::Gauge,
    unit: Unit::Seconds,
    labels: VERSION_LABELS,
    help: "Time to load, prove and warm the version",
};
pub const LOADS: Metric = Metric {
    name: "gristmill_model_loads_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["model", "version", "outcome"],
    help: "Loads of the version by how they ended: ok or failed",
};
pub const LOAD_RESIDENT_BYTES: Metric = Metric {
    name: "gristmill_model_load_resident_bytes",
    kind: Kind::Gauge,
    unit: Unit::Bytes,
    labels: VERSION_LABELS,
    help: "Growth of the process's resident memory while the version was loaded",
};
pub const MODEL_READY: Metric = Metric {
    name: "gristmill_model_ready",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: VERSION_LABELS,
    help: "1 when the version serves, 0 when it failed to load or has ended",
};
pub const MODEL_FAILING: Metric = Metric {
    name: "gristmill_model_failing",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["model"],
    help: "1 while something that ought to serve of the model cannot, 0 when that has passed; none before it fails",
};
pub const SERVER_READY: Metric = Metric {
    name: "gristmill_server_ready",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[],
    help: "1 while the server says that it is ready",
};
pub const SLO_REQUESTS: Metric = Metric {
    name: "gristmill_slo_requests_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["model", "result"],
    help: "Requests that were answered in time (good), and those refused, expired or failed (bad)",
};
pub const SLO_OBJECTIVE: Metric = Metric {
    name: "gristmill_slo_objective_ratio",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["model"],
    help: "Share of requests that ought to be good",
};
pub const SLO_ATTAINMENT: Metric = Metric {
    name: "gristmill_slo_attainment_ratio",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["model", "window"],
    help: "Share of requests that were good over the last 5m, 1h, 24h",
};
pub const SLO_BURN_RATE: Metric = Metric {
    name: "gristmill_slo_burn_rate",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["model", "window"],
    help: "How many times faster than the objective allows requests went bad over the last 5m, 1h, 24h",
};
pub const DEADLINE_SLACK_SECONDS: Metric = Metric {
    name: "gristmill_deadline_slack_seconds",
    kind: Kind::Histogram(SECONDS_BUCKETS),
    unit: Unit::Seconds,
    labels: &["model"],
    help: "Time that was left until the deadline when the answer was there, of answers in time",
};
pub const DEADLINE_OVERRUN_SECONDS: Metric = Metric {
    name: "gristmill_deadline_overrun_seconds",
    kind: Kind::Histogram(SECONDS_BUCKETS),
    unit: Unit::Seconds,
    labels: &["model"],
    help: "Time since the deadline when the answer was there, of answers too late",
};
pub const ROUTE_REQUESTS: Metric = Metric {
    name: "gristmill_route_requests_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["route", "arm", "outcome"],
    help: "Requests to a route by the arm that they went to and by how they ended",
};
pub const ROUTE_REQUEST_SECONDS: Metric = Metric {
    name: "gristmill_route_request_seconds",
    kind: Kind::Histogram(SECONDS_BUCKETS),
    unit: Unit::Seconds,
    labels: &["route", "arm"],
    help: "Time from arrival to the answer, of answered requests to a route",
};
pub const ROUTE_WEIGHT: Metric = Metric {
    name: "gristmill_route_weight_ratio",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["route", "arm"],
    help: "Share of the route's keys that the arm is to get; 0 for the arms of a fallback",
};
pub const CANARY_STEP: Metric = Metric {
    name: "gristmill_canary_step",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["route"],
    help: "Step of the route's canary, from 1; 0 when its candidate was taken back",
};
pub const CANARY_DECISIONS: Metric = Metric {
    name: "gristmill_canary_decisions_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["route", "decision"],
    help: "What was decided of the route's canary: forward, back or done",
};
pub const SHADOW_REQUESTS: Metric = Metric {
    name: "gristmill_shadow_requests_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["route", "shadow", "outcome"],
    help: "Requests to mirror: matched, mismatched, shadow_failed, primary_failed, both_failed, not_serving, unanswered; shed: no_room, no_core",
};
pub const SHADOW_ABSOLUTE_DIFFERENCE: Metric = Metric {
    name: "gristmill_shadow_absolute_difference",
    kind: Kind::Histogram(DIFFERENCE_BUCKETS),
    unit: Unit::Count,
    labels: SHADOW_LABELS,
    help: "Largest difference of an element from the primary's, by compared tensor of numbers",
};
pub const SHADOW_RELATIVE_DIFFERENCE: Metric = Metric {
    name: "gristmill_shadow_relative_difference",
    kind: Kind::Histogram(DIFFERENCE_BUCKETS),
    unit: Unit::Count,
    labels: SHADOW_LABELS,
    help: "Largest difference of an element divided by the larger of the two, by compared tensor of numbers",
};
pub const SHADOW_DISTANCE: Metric = Metric {
    name: "gristmill_shadow_total_variation_ratio",
    kind: Kind::Histogram(DISTANCE_BUCKETS),
    unit: Unit::Count,
    labels: SHADOW_LABELS,
    help: "Largest total variation distance of a row of scores, by compared tensor of scores",
};
pub const SHADOW_ROWS: Metric = Metric {
    name: "gristmill_shadow_rows_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["route", "shadow", "top1"],
    help: "Compared rows of scores by whether the best class is the same or an other one",
};
pub const SHADOW_RUN_SECONDS: Metric = Metric {
    name: "gristmill_shadow_run_seconds",
    kind: Kind::Histogram(SECONDS_BUCKETS),
    unit: Unit::Seconds,
    labels: &["route", "shadow", "side"],
    help: "Time of the run of compared requests: of the primary's batch, and of the shadow, which gives way to all others",
};

pub const EXPERIMENT_REWARDS: Metric = Metric {
    name: "gristmill_experiment_rewards_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: ARM_LABELS,
    help: "Rewards ever told of the arm's predictions, also before the server started",
};
pub const EXPERIMENT_REWARD_MEAN: Metric = Metric {
    name: "gristmill_experiment_reward_mean",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: ARM_LABELS,
    help: "Mean of all rewards ever told of the arm's predictions; 0 while there are none",
};
pub const EXPERIMENT_POSTERIOR_MEAN: Metric = Metric {
    name: "gristmill_experiment_posterior_mean",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: ARM_LABELS,
    help: "Mean of what is believed of the arm's mean reward",
};
pub const EXPERIMENT_POSTERIOR_LOW: Metric = Metric {
    name: "gristmill_experiment_posterior_low",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: ARM_LABELS,
    help: "Lower end of the 95 % interval of what is believed of the arm's mean reward",
};
pub const EXPERIMENT_POSTERIOR_HIGH: Metric = Metric {
    name: "gristmill_experiment_posterior_high",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: ARM_LABELS,
    help: "Upper end of the 95 % interval of what is believed of the arm's mean reward",
};
pub const EXPERIMENT_PROBABILITY_BEST: Metric = Metric {
    name: "gristmill_experiment_probability_best",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: ARM_LABELS,
    help: "Probability that the arm's mean reward is the highest of the route's arms",
};
pub const EXPERIMENT_EXPECTED_LOSS: Metric = Metric {
    name: "gristmill_experiment_expected_loss",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: ARM_LABELS,
    help: "By how much the best mean reward is expected to be above the arm's",
};
pub const EXPERIMENT_P_VALUE: Metric = Metric {
    name: "gristmill_experiment_p_value",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: ARM_LABELS,
    help: "Always-valid p-value of the arm's mean reward being that of the first arm, which has none",
};
pub const EXPERIMENT_SAMPLE_RATIO_P: Metric = Metric {
    name: "gristmill_experiment_sample_ratio_p",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["route"],
    help: "p-value of the requests of a split or canary having been dealt by the weights; NaN while there are too few",
};

pub const FEEDBACK: Metric = Metric {
    name: "gristmill_feedback_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["result"],
    help: "Feedback to predictions: accepted, duplicate, conflict, unknown, invalid",
};
pub const PREDICTIONS_OUTSTANDING: Metric = Metric {
    name: "gristmill_predictions_outstanding",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[],
    help: "Predictions of routes that feedback may still come to",
};
pub const PREDICTIONS_DROPPED: Metric = Metric {
    name: "gristmill_predictions_dropped_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[],
    help: "Ends of routed requests that were not kept, because the thread that keeps them did not keep up",
};

/// The metrics of this crate, in the order of `/metrics`' documentation.
pub const METRICS: &[Metric] = &[
    REQUESTS,
    DEGRADED,
    REQUEST_SECONDS,
    QUEUE_SECONDS,
    ASSEMBLY_SECONDS,
    RUN_SECONDS,
    BATCH_ROWS,
    BATCHES,
    BATCH_AUDITS,
    QUEUE_ROWS,
    QUEUE_BYTES,
    INSTANCES,
    INSTANCE_REPLACEMENTS,
    RUNS_STOPPED,
    WORKERS_LEFT_BEHIND,
    SLOT_WAIT_SECONDS,
    RUN_SLOTS,
    RUN_SLOTS_IN_USE,
    LOAD_SECONDS,
    LOADS,
    LOAD_RESIDENT_BYTES,
    MODEL_READY,
    MODEL_FAILING,
    SERVER_READY,
    SLO_REQUESTS,
    SLO_OBJECTIVE,
    SLO_ATTAINMENT,
    SLO_BURN_RATE,
    DEADLINE_SLACK_SECONDS,
    DEADLINE_OVERRUN_SECONDS,
    ROUTE_REQUESTS,
    ROUTE_REQUEST_SECONDS,
    ROUTE_WEIGHT,
    CANARY_STEP,
    CANARY_DECISIONS,
    SHADOW_REQUESTS,
    SHADOW_ABSOLUTE_DIFFERENCE,
    SHADOW_RELATIVE_DIFFERENCE,
    SHADOW_DISTANCE,
    SHADOW_ROWS,
    SHADOW_RUN_SECONDS,
    EXPERIMENT_REWARDS,
    EXPERIMENT_REWARD_MEAN,
    EXPERIMENT_POSTERIOR_MEAN,
    EXPERIMENT_POSTERIOR_LOW,
    EXPERIMENT_POSTERIOR_HIGH,
    EXPERIMENT_PROBABILITY_BEST,
    EXPERIMENT_EXPECTED_LOSS,
    EXPERIMENT_P_VALUE,
    EXPERIMENT_SAMPLE_RATIO_P,
    FEEDBACK,
    PREDICTIONS_OUTSTANDING,
    PREDICTIONS_DROPPED,
];
