//! Metrics by the names that other servers give them, for dashboards that were made for those.

use std::fmt::{self, Write as _};
use std::time::Duration;

use clap::ValueEnum;
use gristmill_engine::engine::Engine;
use gristmill_engine::request::{ModelInfo, VersionSelector};
use gristmill_engine::statistics::Statistics;
use metrics_exporter_prometheus::formatting::sanitize_label_value;

use super::exposition::Format;

/// Whose names are told besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Aliases {
    Torchserve,
    Triton,
}

/// A counter of a version by another name.
struct Alias {
    name: &'static str,
    help: &'static str,
    value: fn(&Statistics) -> u64,
}

/// TorchServe's, of its `metrics.yaml`.
const TORCHSERVE: [Alias; 3] = [
    Alias {
        name: "ts_inference_requests_total",
        help: "Requests that were answered or failed",
        value: |version| version.success.count + version.fail.count,
    },
    Alias {
        name: "ts_inference_latency_microseconds",
        help: "Time of all answered requests together",
        value: |version| microseconds(version.success.total),
    },
    Alias {
        name: "ts_queue_latency_microseconds",
        help: "Time of all answered requests together in the queue",
        value: |version| microseconds(version.queue.total),
    },
];

/// Triton's, of its `metrics.cc`.
const TRITON: [Alias; 9] = [
    Alias {
        name: "nv_inference_request_success",
        help: "Requests that were answered",
        value: |version| version.success.count,
    },
    Alias {
        name: "nv_inference_request_failure",
        help: "Requests that failed",
        value: |version| version.fail.count,
    },
    Alias {
        name: "nv_inference_count",
        help: "Rows that were answered",
        value: |version| version.inference_count,
    },
    Alias { name: "nv_inference_exec_count", help: "Runs", value: |version| version.execution_count },
    Alias {
        name: "nv_inference_request_duration_us",
        help: "Time of all answered requests together",
        value: |version| microseconds(version.success.total),
    },
    Alias {
        name: "nv_inference_queue_duration_us",
        help: "Time of all answered requests together in the queue",
        value: |version| microseconds(version.queue.total),
    },
    Alias {
        name: "nv_inference_compute_input_duration_us",
        help: "Time of all answered requests together while inputs were gathered",
        value: |version| microseconds(version.compute_input.total),
    },
    Alias {
        name: "nv_inference_compute_infer_duration_us",
        help: "Time of all answered requests together in runs",
        value: |version| microseconds(version.compute_infer.total),
    },
    Alias {
        name: "nv_inference_compute_output_duration_us",
        help: "Time of all answered requests together while outputs were split",
        value: |version| microseconds(version.compute_output.total),
    },
];

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

// === impl Aliases ===

impl Aliases {
    /// Appends the series of the versions that serve.
    pub(super) fn write(self, engine: &Engine, format: Format, text: &mut String) {
        let versions = engine.statistics(None, &VersionSelector::Default).unwrap_or_default();
        let hostname = hostname();
        let labels = |model: &ModelInfo| {
            let (name, version) = (sanitize_label_value(&model.name), model.version);
            match self {
                Aliases::Triton => format!("model=\"{name}\",version=\"{version}\""),
                Aliases::Torchserve => {
                    let hostname = sanitize_label_value(&hostname);
                    format!("model_name=\"{name}\",model_version=\"{version}\",hostname=\"{hostname}\"")
                }
            }
        };
        let aliases = match self {
            Aliases::Torchserve => TORCHSERVE.as_slice(),
            Aliases::Triton => TRITON.as_slice(),
        };
        for alias in aliases {
            let written = alias.write(&versions, labels, format, text);
            written.expect("writing to a string does not fail; this is a bug");
        }
    }
}

// === impl Alias ===

impl Alias {
    fn write<M: AsRef<ModelInfo>>(
        &self,
        versions: &[(M, Statistics)],
        labels: impl Fn(&ModelInfo) -> String,
        format: Format,
        text: &mut String,
    ) -> fmt::Result {
        // In OpenMetrics the samples of a counter end with `_total`, which would be another name.
        let kind = match format {
            Format::Prometheus => "counter",
            Format::OpenMetrics => "unknown",
        };
        writeln!(text, "# HELP {} {}\n# TYPE {} {kind}", self.name, self.help, self.name)?;
        for (model, statistics) in versions {
            let value = (self.value)(statistics);
            writeln!(text, "{}{{{}}} {value}", self.name, labels(model.as_ref()))?;
        }
        Ok(())
    }
}

/// The machine's, or the container's.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| std::env::var("HOSTNAME").unwrap_or_default(), |name| name.trim().to_owned())
}
