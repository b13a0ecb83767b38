//! Logs and metrics of the process: how log lines look, which recorder collects, what `/metrics` says.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use gristmill_engine::engine::Engine;
use gristmill_engine::metrics::{Kind, METRICS};
use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tracing_subscriber::EnvFilter;

use crate::cli::{LogArgs, LogFormat};

/// How often histogram samples are folded into their buckets. Without it they pile up between scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

const BUILD_INFO: &str = "gristmill_build_info";

/// The installed metrics recorder.
#[derive(Clone)]
pub struct Telemetry {
    prometheus: PrometheusHandle,
    process: Collector,
}

/// Sends log lines to standard error.
///
/// # Errors
/// The filter cannot be parsed, or a subscriber is installed already.
pub fn start_logging(args: &LogArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| anyhow::anyhow!("--log \"{}\": {error}; expected for example info", args.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match args.log_format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

// === impl Telemetry ===

impl Telemetry {
    /// Installs the process-wide recorder. Called once, before any model is loaded.
    ///
    /// # Errors
    /// A recorder is installed already.
    pub fn install(runtime: &str) -> anyhow::Result<Telemetry> {
        let mut builder = PrometheusBuilder::new();
        for metric in METRICS {
            if let Kind::Histogram(buckets) = metric.kind {
                builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.into()), buckets)?;
            }
        }
        let prometheus = builder.install_recorder()?;
        gristmill_engine::metrics::describe();
        let process = Collector::default();
        process.describe();
        describe_build(runtime);
        Ok(Telemetry { prometheus, process })
    }

    /// Folds samples for ever; ends with the process.
    pub async fn keep_up(self) {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            self.prometheus.run_upkeep();
        }
    }

    /// Answers `GET /metrics` in Prometheus' text format.
    pub fn router(&self, engine: Arc<Engine>) -> Router {
        let telemetry = self.clone();
        let handler = move || {
            let text = telemetry.render(&engine);
            std::future::ready(
                ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
            )
        };
        Router::new().route("/metrics", get(handler))
    }

    fn render(&self, engine: &Engine) -> String {
        engine.refresh_gauges();
        self.process.collect();
        self.prometheus.render()
    }
}

#[expect(clippy::disallowed_macros, reason = "set once at start, never on the request path")]
fn describe_build(runtime: &str) {
    metrics::describe_gauge!(BUILD_INFO, Unit::Count, "Always 1; the labels say what runs");
    let labels = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("runtime", runtime.to_owned())];
    metrics::gauge!(BUILD_INFO, &labels).set(1.0);
}
