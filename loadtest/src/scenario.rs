//! Decides what a scenario file may say, and turns it into loads with their stated goals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::body::Body;
use crate::error::{Error, Result};
use crate::record::Outcome;
use crate::report::{GoalReport, Phase};
use crate::schedule::Arrivals;
use crate::settings::{ExtentSettings, Load, ModelSettings, Settings};

/// A scenario file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// What the scenario is for, in a sentence.
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) target: Target,
    /// How to start the server, for runs without a given address.
    pub(crate) server: Option<ServerCommand>,
    models: Vec<ScenarioModel>,
    phases: Vec<ScenarioPhase>,
}

/// Where to send, when no server is started: one of the two addresses.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) grpc: Option<String>,
    pub(crate) http: Option<String>,
    #[serde(default)]
    pub(crate) body: Option<Body>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerCommand {
    /// Program and arguments, from the caller's directory; `{ready_file}` becomes a path at which the server
    /// writes its addresses when it is ready: `{"http": "host:port", "grpc": "host:port"}`.
    pub(crate) command: Vec<String>,
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    #[serde(default = "ready_timeout", deserialize_with = "duration")]
    pub(crate) ready_timeout: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioModel {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default = "one")]
    weight: f64,
    rows: Option<usize>,
    /// From the directory of the scenario file.
    input: Option<PathBuf>,
    #[serde(default)]
    dimensions: BTreeMap<String, Vec<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioPhase {
    name: String,
    /// Requests in flight: a closed loop.
    concurrency: Option<usize>,
    /// Requests a second: an open loop.
    rate_per_s: Option<f64>,
    arrivals: Option<Arrivals>,
    in_flight_max: Option<u32>,
    #[serde(deserialize_with = "duration")]
    duration: Duration,
    #[serde(default, deserialize_with = "duration")]
    warmup: Duration,
    #[serde(default, deserialize_with = "optional_duration")]
    timeout: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    slo: Option<Duration>,
    connections: Option<usize>,
    #[serde(default = "one_thread")]
    threads: usize,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    goal: Goal,
}

/// Conditions on one phase; all that are given must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Goal {
    p50_ms_max: Option<f64>,
    p99_ms_max: Option<f64>,
    p999_ms_max: Option<f64>,
    ok_per_s_min: Option<f64>,
    /// Of the requests that fell due, in percent.
    ok_percent_of_offered_min: Option<f64>,
    /// Of all requests, in percent.
    failed_percent_max: Option<f64>,
    /// Requests within the phase's `slo`, a second.
    good_per_s_min: Option<f64>,
}

/// One phase, ready to run.
#[derive(Debug)]
pub(crate) struct PlannedPhase {
    pub(crate) name: String,
    pub(crate) settings: Settings,
    goal: Goal,
}

/// The default of the most requests in flight in an open loop.
pub(crate) const IN_FLIGHT_MAX: u32 = 10_000;
/// The default of the most HTTP connections in an open loop.
const HTTP_CONNECTIONS_OPEN_LOOP: usize = 256;

// === impl Scenario ===

impl Scenario {
    pub(crate) fn read(path: &Path) -> Result<Scenario> {
        let error = |why: String| Error::File { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|why| error(why.to_string()))?;
        let mut scenario: Scenario = toml::from_str(&text).map_err(|why| error(why.to_string()))?;
        let directory = path.parent().unwrap_or(Path::new("."));
        for input in scenario.models.iter_mut().filter_map(|model| model.input.as_mut()) {
            *input = directory.join(&*input);
        }
        if scenario.phases.is_empty() {
            return Err(error("a scenario needs at least one of [[phases]]".to_owned()));
        }
        Ok(scenario)
    }

    /// The loads to run against `address`, which speaks what `body` is for.
    pub(crate) fn plan(
        &self,
        address: &str,
        body: Body,
        server_pid: Option<u32>,
    ) -> Result<Vec<PlannedPhase>> {
        let models: Vec<_> = self.models.iter().map(ScenarioModel::settings).collect();
        let phases = self.phases.iter().map(|phase| {
            let load = phase.load()?;
            let settings = Settings {
                address: address.to_owned(),
                body,
                models: models.clone(),
                load,
                extent: ExtentSettings::DurationS(phase.duration.as_secs_f64()),
                warmup_s: phase.warmup.as_secs_f64(),
                timeout_ms: phase.timeout.map(|timeout| timeout.as_secs_f64() * 1e3),
                slo_ms: phase.slo.map(|slo| slo.as_secs_f64() * 1e3),
                connections: phase
                    .connections
                    .unwrap_or_else(|| default_connections(body, load, phase.threads)),
                threads: phase.threads,
                seed: phase.seed,
                server_pid,
            };
            settings.check()?;
            Ok(PlannedPhase { name: phase.name.clone(), settings, goal: phase.goal.clone() })
        });
        phases.collect()
    }
}

/// gRPC: one connection a thread. HTTP: as many as there can be requests in flight, within reason.
pub(crate) fn default_connections(body: Body, load: Load, threads: usize) -> usize {
    match load {
        _ if body.is_grpc() => threads,
        Load::Closed { in_flight } => in_flight,
        Load::Open { .. } => HTTP_CONNECTIONS_OPEN_LOOP,
    }
}

// === impl ScenarioModel ===

impl ScenarioModel {
    fn settings(&self) -> ModelSettings {
        ModelSettings {
            name: self.name.clone(),
            version: self.version.clone(),
            weight: self.weight,
            rows: self.rows,
            input: self.input.clone(),
            dimensions: self.dimensions.clone(),
        }
    }
}

// === impl ScenarioPhase ===

impl ScenarioPhase {
    fn load(&self) -> Result<Load> {
        match (self.concurrency, self.rate_per_s) {
            (Some(in_flight), None) if self.arrivals.is_none() && self.in_flight_max.is_none() => {
                Ok(Load::Closed { in_flight })
            }
            (None, Some(rate_per_s)) => Ok(Load::Open {
                rate_per_s,
                arrivals: self.arrivals.unwrap_or(Arrivals::Constant),
                in_flight_max: self.in_flight_max.unwrap_or(IN_FLIGHT_MAX),
            }),
            _ => Err(Error::Settings(format!(
                "phase `{}`: expected either `concurrency` (closed loop) or `rate_per_s` (open loop, with \
                 `arrivals` and `in_flight_max` if wanted)",
                self.name
            ))),
        }
    }
}

// === impl PlannedPhase ===

impl PlannedPhase {
    /// Holds the goal against what was measured; `None` where no goal is stated.
    pub(crate) fn judge(&self, phase: &Phase) -> Option<GoalReport> {
        let total = &phase.total;
        let latency_ms = total.latency_ms.get(Outcome::Ok.name()).cloned().unwrap_or_default();
        let failed_percent = 100.0 * total.failed() as f64 / total.requests.max(1) as f64;
        let answered = latency_ms.count > 0;
        let mut conditions = Vec::new();
        let mut at_most = |name: &str, value: f64, limit: Option<f64>, counts: bool| {
            if let Some(limit) = limit {
                conditions.push((format!("{name}: {value:.3}, at most {limit}"), counts && value <= limit));
            }
        };
        at_most("p50 ms", latency_ms.percentile(50.0), self.goal.p50_ms_max, answered);
        at_most("p99 ms", latency_ms.percentile(99.0), self.goal.p99_ms_max, answered);
        at_most("p99.9 ms", latency_ms.percentile(99.9), self.goal.p999_ms_max, answered);
        at_most("failed %", failed_percent, self.goal.failed_percent_max, total.requests > 0);
        let mut at_least = |name: &str, value: f64, limit: Option<f64>| {
            if let Some(limit) = limit {
                conditions.push((format!("{name}: {value:.1}, at least {limit}"), value >= limit));
            }
        };
        let ok_percent = 100.0 * total.ok_per_s / total.offered_per_s.max(1e-9);
        at_least("answers/s", total.ok_per_s, self.goal.ok_per_s_min);
        at_least("answers in % of offered", ok_percent, self.goal.ok_percent_of_offered_min);
        at_least("answers/s in time", total.good_per_s.unwrap_or(0.0), self.goal.good_per_s_min);
        (!conditions.is_empty())
            .then(|| GoalReport { holds: conditions.iter().all(|(_, holds)| *holds), conditions })
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format!("`{text}` is no duration such as \"10s\" or \"250ms\": {error}"))
    })
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn ready_timeout() -> Duration {
    Duration::from_secs(60)
}

fn one() -> f64 {
    1.0
}

fn one_thread() -> usize {
    1
}
