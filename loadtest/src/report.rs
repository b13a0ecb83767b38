//! Decides what a result file holds: the settings, the machine, and what each phase measured.

use std::collections::BTreeMap;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::record::{Outcome, Recorder};
use crate::run::Measured;
use crate::settings::{Load, Settings};
use crate::usage::Usage;

/// Raised when a reader of older files would misread a newer one.
pub(crate) const SCHEMA: &str = "gristmill-loadtest/1";
/// A sender is behind when it sends one request in a hundred later than this after its moment.
const LAG_P99_MS_MAX: f64 = 1.0;
/// Quantiles written to the file, in percent.
const PERCENTS: [f64; 21] = [
    1.0, 5.0, 10.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 97.5, 99.0, 99.5,
    99.9, 99.99, 100.0,
];

/// One result file.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct Report {
    pub(crate) schema: String,
    pub(crate) tool_version: String,
    /// RFC 3339, UTC.
    pub(crate) started_at: String,
    pub(crate) host: Host,
    /// The scenario's description, if one was run.
    pub(crate) scenario: Option<String>,
    pub(crate) phases: Vec<Phase>,
}

/// The machine that sent the load.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct Host {
    /// Cores that this process may use.
    pub(crate) cores: usize,
    pub(crate) cpu: Option<String>,
    pub(crate) os: String,
    pub(crate) arch: String,
}

/// One load and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) settings: Settings,
    pub(crate) interrupted: bool,
    pub(crate) window_s: f64,
    pub(crate) total: Outcomes,
    /// By model, where there are several.
    pub(crate) models: BTreeMap<String, Outcomes>,
    /// From the intended moment to the moment of sending: the generator's own delay.
    pub(crate) lag_ms: Distribution,
    pub(crate) usage: UsageReport,
    pub(crate) goal: Option<GoalReport>,
    pub(crate) warnings: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct Outcomes {
    /// Meant inside the measured window, whatever came of them.
    pub(crate) requests: u64,
    /// Meant requests a second.
    pub(crate) offered_per_s: f64,
    /// Right answers a second.
    pub(crate) ok_per_s: f64,
    pub(crate) ok_rows_per_s: f64,
    /// Right answers within the objective a second, where there is one.
    pub(crate) good_per_s: Option<f64>,
    /// Latency from the intended moment of sending, by outcome; only outcomes that occurred.
    pub(crate) latency_ms: BTreeMap<String, Distribution>,
    /// The same of all that the server did not refuse: answered, or late.
    #[serde(default)]
    pub(crate) admitted_ms: Distribution,
    /// Of right answers, from the actual moment of sending.
    pub(crate) service_ms: Distribution,
    /// By outcome, the first message seen.
    pub(crate) messages: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub(crate) struct Distribution {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Pairs of percent and value.
    pub(crate) percentiles: Vec<(f64, f64)>,
}

/// CPU time and memory during the measured window.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub(crate) struct UsageReport {
    pub(crate) generator_cores: f64,
    pub(crate) generator_cpu_us_per_ok: f64,
    pub(crate) server_cores: Option<f64>,
    pub(crate) server_cpu_us_per_ok: Option<f64>,
    /// When the measured window began, and when it ended.
    #[serde(default)]
    pub(crate) server_resident_before_mb: Option<f64>,
    pub(crate) server_resident_mb: Option<f64>,
}

/// A phase's stated goal: each condition with whether it held.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct GoalReport {
    pub(crate) holds: bool,
    pub(crate) conditions: Vec<(String, bool)>,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(scenario: Option<String>, started_at: std::time::SystemTime) -> Report {
        Report {
            schema: SCHEMA.to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: humantime::format_rfc3339_seconds(started_at).to_string(),
            host: Host::this(),
            scenario,
            phases: Vec::new(),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Report> {
        let error = |why: String| Error::File { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|why| error(why.to_string()))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|why| error(format!("not JSON: {why}")))?;
        match value.get("schema").and_then(|schema| schema.as_str()) {
            Some(SCHEMA) => {}
            other => {
                let found = other.unwrap_or("no schema");
                return Err(error(format!("expected a result with schema `{SCHEMA}`, found {found}")));
            }
        }
        serde_json::from_value(value).map_err(|why| error(format!("not a result of this schema: {why}")))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("a report has only string keys; this is a bug");
        std::fs::write(path, text + "\n")
            .map_err(|why| Error::File { path: path.to_owned(), why: why.to_string() })
    }

    pub(crate) fn goals_hold(&self) -> bool {
        self.phases.iter().filter_map(|phase| phase.goal.as_ref()).all(|goal| goal.holds)
    }
}

// === impl Host ===

impl Host {
    fn this() -> Host {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo.lines().find(|line| line.starts_with("model name"));
        Host {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: cpu.and_then(|line| line.split_once(": ")).map(|(_, name)| name.to_owned()),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
        }
    }
}

// === impl Phase ===

impl Phase {
    pub(crate) fn new(name: &str, settings: &Settings, measured: &Measured) -> Phase {
        let mut total = measured.models[0].clone();
        measured.models[1..].iter().for_each(|recorder| total.merge(recorder));
        let named = settings.models.iter().zip(&measured.models);
        let models = match measured.models.len() {
            1 => BTreeMap::new(),
            _ => named.map(|(model, recorder)| (model.label(), Outcomes::new(recorder))).collect(),
        };
        let mut phase = Phase {
            name: name.to_owned(),
            settings: settings.clone(),
            interrupted: measured.interrupted,
            window_s: total.window_s(),
            total: Outcomes::new(&total),
            models,
            lag_ms: Distribution::new(total.lag_ns()),
            usage: UsageReport::new(&measured.usage, total.ok_in_window()),
            goal: None,
            warnings: Vec::new(),
        };
        phase.warnings = phase.warn();
        phase
    }

    /// Right answers a second, within the objective where there is one.
    pub(crate) fn right_per_s(&self) -> f64 {
        self.total.good_per_s.unwrap_or(self.total.ok_per_s)
    }

    fn warn(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let lag_p99_ms = self.lag_ms.percentile(99.0);
        if matches!(self.settings.load, Load::Open { .. }) && lag_p99_ms > LAG_P99_MS_MAX {
            warnings.push(format!(
                "the generator fell behind its own schedule: 1 % of the requests were sent {lag_p99_ms:.1} ms \
                 or more after their moment, and their latency includes that; give it more --threads or \
                 another machine, or raise --in-flight-max"
            ));
        }
        if self.usage.generator_cores > 0.9 * self.settings.threads as f64 {
            warnings.push(format!(
                "the generator used {:.2} cores with {} thread(s): it may be what limits the rate",
                self.usage.generator_cores, self.settings.threads
            ));
        }
        if self.interrupted {
            warnings.push("interrupted: the numbers are of the part until then".to_owned());
        }
        if self.total.requests == 0 {
            warnings.push("no request fell into the measured part: ask for more time".to_owned());
        }
        warnings
    }
}

// === impl Outcomes ===

impl Outcomes {
    fn new(recorder: &Recorder) -> Outcomes {
        let window_s = recorder.window_s().max(1e-9);
        let occurred =
            || Outcome::ALL.into_iter().filter(|outcome| !recorder.latency_ns(*outcome).is_empty());
        Outcomes {
            requests: recorder.requests(),
            offered_per_s: recorder.requests() as f64 / window_s,
            ok_per_s: recorder.ok_in_window() as f64 / window_s,
            ok_rows_per_s: recorder.rows_in_window() as f64 / window_s,
            good_per_s: recorder.good_in_window().map(|good| good as f64 / window_s),
            latency_ms: occurred()
                .map(|outcome| (outcome.name().to_owned(), Distribution::new(recorder.latency_ns(outcome))))
                .collect(),
            admitted_ms: Distribution::new(&recorder.admitted_ns()),
            service_ms: Distribution::new(recorder.service_ns()),
            messages: occurred()
                .filter_map(|outcome| {
                    Some((outcome.name().to_owned(), recorder.message(outcome)?.to_owned()))
                })
                .collect(),
        }
    }

    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.latency_ms.get(outcome.name()).map_or(0, |distribution| distribution.count)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.requests - self.count(Outcome::Ok)
    }
}

// === impl Distribution ===

impl Distribution {
    /// From nanoseconds to milliseconds.
    fn new(histogram: &Histogram<u64>) -> Distribution {
        if histogram.is_empty() {
            return Distribution::default();
        }
        // Three digits were kept; more would only pretend.
        let ms = |ns: f64| (ns / 1e3).round() / 1e3;
        Distribution {
            count: histogram.len(),
            mean: ms(histogram.mean()),
            min: ms(histogram.min() as f64),
            max: ms(histogram.max() as f64),
            percentiles: PERCENTS
                .iter()
                .map(|percent| (*percent, ms(histogram.value_at_percentile(*percent) as f64)))
                .collect(),
        }
    }

    /// One of the percentiles that the file holds; 0 where there are no values.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let pair = self.percentiles.iter().find(|(known, _)| (known - percent).abs() < 1e-9);
        pair.map_or(0.0, |(_, value)| *value)
    }
}

// === impl UsageReport ===

impl UsageReport {
    fn new(usage: &Usage, ok: u64) -> UsageReport {
        let wall_s = usage.wall.as_secs_f64().max(1e-9);
        let us_per_ok = |cpu: std::time::Duration| cpu.as_secs_f64() * 1e6 / ok.max(1) as f64;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        UsageReport {
            generator_cores: usage.generator_cpu.as_secs_f64() / wall_s,
            generator_cpu_us_per_ok: us_per_ok(usage.generator_cpu),
            server_cores: usage.server_cpu.map(|cpu| cpu.as_secs_f64() / wall_s),
            server_cpu_us_per_ok: usage.server_cpu.map(us_per_ok),
            server_resident_before_mb: usage.server_resident_before_bytes.map(megabytes),
            server_resident_mb: usage.server_resident_bytes.map(megabytes),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::body::Body;
    use crate::record::{Answer, Moments, Window};
    use crate::schedule::Arrivals;
    use crate::settings::{ExtentSettings, ModelSettings};

    /// An open loop of one request a millisecond for one second; `slowdown` stretches every latency.
    pub(crate) fn sample(name: &str, slowdown: f64) -> Phase {
        let settings = Settings {
            address: "127.0.0.1:8001".to_owned(),
            body: Body::Raw,
            models: vec![ModelSettings {
                name: "digits".to_owned(),
                version: String::new(),
                weight: 1.0,
                rows: Some(4),
                input: None,
                dimensions: BTreeMap::new(),
            }],
            load: Load::Open { rate_per_s: 1000.0, arrivals: Arrivals::Poisson, in_flight_max: 10 },
            extent: ExtentSettings::DurationS(1.0),
            warmup_s: 0.0,
            timeout_ms: None,
            slo_ms: Some(5.0),
            connections: 1,
            threads: 1,
            seed: 0,
            server_pid: None,
            keeps_sent: false,
        };
        let window = Window { start: Duration::ZERO, end: Some(Duration::from_secs(1)) };
        let mut recorder = Recorder::new(window, settings.slo());
        for index in 0..1000_u64 {
            let intended = Duration::from_millis(index);
            let sent = intended + Duration::from_micros(index % 20);
            let done = sent + Duration::from_micros(1000 + index % 100 * 50).mul_f64(slowdown);
            let answer = match index % 100 {
                98 => Answer::failed(Outcome::Overloaded, "queue full"),
                99 => Answer::failed(Outcome::Deadline, "too late"),
                _ => Answer::OK,
            };
            recorder.record(Moments { intended, sent, done }, 4, answer);
        }
        let usage = Usage {
            wall: Duration::from_secs(1),
            generator_cpu: Duration::from_millis(20),
            server_cpu: Some(Duration::from_millis(50)),
            server_resident_before_bytes: Some(60_000_000),
            server_resident_bytes: Some(70_000_000),
        };
        Phase::new(name, &settings, &Measured { models: vec![recorder], usage, interrupted: false })
    }

    pub(crate) fn report(phases: Vec<Phase>) -> Report {
        Report {
            schema: SCHEMA.to_owned(),
            tool_version: "0.1.0".to_owned(),
            started_at: "2026-01-02T03:04:05Z".to_owned(),
            host: Host {
                cores: 2,
                cpu: Some("Some CPU".to_owned()),
                os: "linux".to_owned(),
                arch: "x86_64".to_owned(),
            },
            scenario: None,
            phases,
        }
    }

    #[test]
    fn a_file_reads_back_as_what_was_written() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("result.json");
        let written = report(vec![sample("run", 1.0)]);
        written.write(&path).unwrap();
        assert_eq!(Report::read(&path).unwrap(), written);
    }

    #[test]
    fn another_schema_is_refused_by_name() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("result.json");
        std::fs::write(&path, r#"{"schema": "gristmill-loadtest/99"}"#).unwrap();
        let message = Report::read(&path).unwrap_err().to_string();
        assert!(message.contains("expected a result with schema `gristmill-loadtest/1`"), "{message}");
        assert!(message.contains("gristmill-loadtest/99"), "{message}");
    }

    #[test]
    fn a_generator_behind_its_schedule_is_warned_about() {
        let mut phase = sample("run", 1.0);
        assert_eq!(phase.warn(), Vec::<String>::new());
        phase.lag_ms.percentiles = vec![(99.0, 2.5)];
        assert!(phase.warn()[0].contains("sent 2.5 ms or more after their moment"), "{:?}", phase.warn());
    }
}
