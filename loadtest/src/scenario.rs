//! Decides what a scenario file may say, and turns it into loads with their stated goals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::body::Body;
use crate::error::{Error, Result};
use crate::goal::Goal;
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
    /// Names of the models that it asks; all where it does not say.
    models: Option<Vec<String>>,
    /// Requests in flight: a closed loop.
    concurrency: Option<usize>,
    /// Requests a second: an open loop.
    rate_per_s: Option<f64>,
    /// The same, in terms of an earlier phase.
    rate_of: Option<RelativeRate>,
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

/// A rate in terms of what an earlier phase has measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RelativeRate {
    phase: String,
    /// So many times its right answers a second, within its `slo` where it has one.
    times: f64,
}

/// One phase, ready to run.
#[derive(Debug)]
pub(crate) struct PlannedPhase {
    pub(crate) name: String,
    /// With the rate for one right answer a second in the phase that it is relative to.
    settings: Settings,
    relative: Option<RelativeRate>,
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
        let phases = self.phases.iter().enumerate().map(|(index, phase)| {
            let load = phase.load()?;
            let before = &self.phases[..index];
            let base = phase.rate_of.as_ref().map(|relative| &relative.phase);
            if let Some(name) = base
                .into_iter()
                .chain(phase.goal.base())
                .find(|name| before.iter().all(|before| before.name != **name))
            {
                return Err(Error::Settings(format!(
                    "phase `{}` refers to `{name}`, which is none of the phases before it",
                    phase.name
                )));
            }
            let settings = Settings {
                address: address.to_owned(),
                body,
                models: self.models_of(phase)?,
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
                keeps_sent: false,
            };
            settings.check()?;
            let (name, relative, goal) = (phase.name.clone(), phase.rate_of.clone(), phase.goal.clone());
            Ok(PlannedPhase { name, settings, relative, goal })
        });
        phases.collect()
    }

    fn models_of(&self, phase: &ScenarioPhase) -> Result<Vec<ModelSettings>> {
        let Some(names) = &phase.models else {
            return Ok(self.models.iter().map(ScenarioModel::settings).collect());
        };
        let models = names.iter().map(|name| match self.models.iter().find(|model| model.name == *name) {
            Some(model) => Ok(model.settings()),
            None => Err(Error::Settings(format!("phase `{}`: `{name}` is none of [[models]]", phase.name))),
        });
        models.collect()
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
        let rate_per_s = self.rate_per_s.xor(self.rate_of.as_ref().map(|relative| relative.times));
        match (self.concurrency, rate_per_s) {
            (Some(in_flight), None) if self.arrivals.is_none() && self.in_flight_max.is_none() => {
                Ok(Load::Closed { in_flight })
            }
            (None, Some(rate_per_s)) => Ok(Load::Open {
                rate_per_s,
                arrivals: self.arrivals.unwrap_or(Arrivals::Constant),
                in_flight_max: self.in_flight_max.unwrap_or(IN_FLIGHT_MAX),
            }),
            _ => Err(Error::Settings(format!(
                "phase `{}`: expected one of `concurrency` (closed loop), `rate_per_s` and `rate_of` (open loop, \
                 with `arrivals` and `in_flight_max` if wanted)",
                self.name
            ))),
        }
    }
}

// === impl PlannedPhase ===

impl PlannedPhase {
    /// What to run, now that the phases before it have been measured.
    pub(crate) fn settings(&self, before: &[Phase]) -> Settings {
        let mut settings = self.settings.clone();
        if let (Some(relative), Load::Open { rate_per_s, .. }) = (&self.relative, &mut settings.load) {
            let base = before.iter().find(|phase| phase.name == relative.phase);
            // A phase without an answer gives no rate; one a second shows that nothing is answered either.
            *rate_per_s = (base.map_or(0.0, Phase::right_per_s) * relative.times).round().max(1.0);
        }
        settings
    }

    /// Holds the goal against what was measured; `None` where no goal is stated.
    pub(crate) fn judge(&self, phase: &Phase, before: &[Phase]) -> Option<GoalReport> {
        self.goal.judge(phase, before)
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
