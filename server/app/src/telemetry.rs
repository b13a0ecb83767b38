//! Metrics of the process: which recorder collects, what `/metrics` says.

mod aliases;
mod cell;
mod exposition;
mod recorder;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::response::IntoResponse;
use axum::routing::get;
use gristmill_engine::engine::Engine;
use gristmill_engine::metrics::{self as engine_metrics, Kind, Metric, REQUEST_SECONDS};
use gristmill_engine::request::Response;
use metrics::{Gauge, Unit};
use metrics_exporter_prometheus::formatting::sanitize_label_value;
use metrics_process::Collector;

pub use self::aliases::Aliases;
use self::cell::Exemplar;
use self::exposition::Format;
use self::recorder::Recorder;
use crate::limits::TENANT_REQUESTS;
use crate::trace_context::TraceId;

/// How often series of what is gone are looked for where nobody scrapes.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The metrics of this crate, beside those of the engine.
pub const METRICS: &[Metric] = &[BUILD_INFO, TENANT_REQUESTS];

const BUILD_INFO: Metric = Metric {
    name: "gristmill_build_info",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["version", "runtime"],
    help: "Always 1; the labels say what runs",
};

/// The installed metrics recorder.
#[derive(Clone)]
pub struct Telemetry {
    recorder: Recorder,
    process: Collector,
    aliases: Vec<Aliases>,
    /// Held, because a series lasts as long as its handles.
    _build: Gauge,
}

/// Takes answers whose traces somebody can look at as examples of how long requests take.
#[derive(Clone)]
pub struct Exemplars(Recorder);

// === impl Telemetry ===

impl Telemetry {
    /// Installs the process-wide recorder. Called once, before any model is loaded.
    ///
    /// # Errors
    /// A recorder is installed already.
    pub fn install(runtime: &str) -> anyhow::Result<Telemetry> {
        let recorder = Recorder::default();
        engine_metrics::METRICS.iter().chain(METRICS).for_each(|metric| recorder.declare(metric));
        metrics::set_global_recorder(recorder.clone())
            .map_err(|error| anyhow::anyhow!("cannot install the metrics recorder: {error}"))?;
        let process = Collector::default();
        process.describe();
        Ok(Telemetry { recorder, process, aliases: Vec::new(), _build: build(runtime) })
    }

    /// With other servers' names for what versions count.
    #[must_use]
    pub fn with_aliases(self, aliases: Vec<Aliases>) -> Telemetry {
        Telemetry { aliases, ..self }
    }

    /// Lets go of series of what is gone, for ever; ends with the process.
    pub async fn keep_up(self) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            self.recorder.sweep(interval.tick().await.into_std());
        }
    }

    /// Answers `GET /metrics` in Prometheus' text format, or in OpenMetrics for scrapers that prefer it.
    pub fn router(&self, engine: Arc<Engine>) -> Router {
        let telemetry = self.clone();
        let handler = move |headers: HeaderMap| {
            let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
            let format = Format::accepted(accept.unwrap_or_default());
            let text = telemetry.write(&engine, format, Instant::now());
            let headers = [(CONTENT_TYPE, format.content_type()), (VARY, "accept")];
            std::future::ready((headers, text).into_response())
        };
        Router::new().route("/metrics", get(handler))
    }

    /// What `/metrics` says at `now` in Prometheus' text format.
    pub fn text(&self, engine: &Engine, now: Instant) -> String {
        self.write(engine, Format::Prometheus, now)
    }

    fn write(&self, engine: &Engine, format: Format, now: Instant) -> String {
        engine.refresh_gauges();
        self.process.collect();
        self.recorder.sweep(now);
        let mut aliases = String::new();
        self.aliases.iter().for_each(|names| names.write(engine, format, &mut aliases));
        exposition::write(&self.recorder.lock(), &aliases, format)
    }

    pub fn exemplars(&self) -> Exemplars {
        Exemplars(self.recorder.clone())
    }
}

// === impl Exemplars ===

impl Exemplars {
    /// An answer that has just come from the engine, which has counted it.
    pub(crate) fn keep(&self, trace_id: TraceId, response: &Response) {
        let labels = format!(
            "model=\"{}\",version=\"{}\"",
            sanitize_label_value(&response.model.name),
            response.model.version
        );
        let value = response.timing.total.as_secs_f64();
        self.0.keep(&REQUEST_SECONDS, &labels, Exemplar { trace_id, value, at: SystemTime::now() });
    }
}

#[expect(clippy::disallowed_macros, reason = "set once at start, never on the request path")]
fn build(runtime: &str) -> Gauge {
    let labels = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("runtime", runtime.to_owned())];
    let build = metrics::gauge!(BUILD_INFO.name, &labels);
    build.set(1.0);
    build
}
