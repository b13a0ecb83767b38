//! Decides the command line: its flags, their defaults, and the settings that they make.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::body::Body;
use crate::error::{Error, Result};
use crate::model::Dimensions;
use crate::scenario::{IN_FLIGHT_MAX, default_connections};
use crate::schedule::Arrivals;
use crate::settings::{ExtentSettings, Load, ModelSettings, Settings};

const GRPC_ADDRESS: &str = "127.0.0.1:8001";

/// Sends load to an Open Inference Protocol server over gRPC or HTTP and measures what comes back.
///
/// Latency is counted from the moment at which each request was meant to be sent, so that a server that
/// stalls is charged for every request that it kept waiting.
#[derive(Debug, Parser)]
#[command(name = "gristmill-loadtest", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one load.
    Run(Box<RunArgs>),
    /// Run the phases of a scenario file and say whether its goals hold (exit status 2 if not).
    Scenario(ScenarioArgs),
    /// Set two result files side by side.
    Compare {
        /// Result of the run before.
        before: PathBuf,
        /// Result of the run after.
        after: PathBuf,
    },
}

#[derive(Args, Debug)]
pub struct RunArgs {
    /// Send over gRPC to this host:port [default: 127.0.0.1:8001]
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<String>,
    /// Send over HTTP to this host:port
    #[arg(long, value_name = "ADDRESS", conflicts_with = "grpc")]
    http: Option<String>,
    /// How requests carry tensors: raw or typed with gRPC, json, binary or predict with HTTP [default: raw, json]
    #[arg(long, value_enum)]
    body: Option<Body>,

    /// A model to ask, with a version and a share of the load if wanted; repeat for a mix
    #[arg(long = "model", short = 'm', value_name = "NAME[:VERSION][=WEIGHT]", required = true)]
    models: Vec<String>,
    /// Rows in each request [default: 1, or all rows of --input]
    #[arg(long)]
    rows: Option<usize>,
    /// Size of the free dimensions of an input other than the rows, in order; others are 1
    #[arg(long = "dim", value_name = "INPUT=N[xN...]")]
    dimensions: Vec<String>,
    /// Take inputs from a JSON file: the body of an infer request, or {"inputs": {"name": nested list}}
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Closed loop: keep this many requests in flight [default: 1]
    #[arg(long, short = 'c', conflicts_with = "rate")]
    concurrency: Option<usize>,
    /// Open loop: send this many requests a second, whatever the answers do
    #[arg(long, short = 'r', value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Open loop: how arrivals are spread
    #[arg(long, value_enum, default_value = "constant", requires = "rate")]
    arrivals: Arrivals,
    /// Open loop: more requests than this wait to be sent, while their latency runs
    #[arg(long, value_name = "REQUESTS", default_value_t = IN_FLIGHT_MAX)]
    in_flight_max: u32,

    /// Length of the measured part
    #[arg(long, short = 'd', value_parser = humantime::parse_duration, default_value = "10s")]
    duration: Duration,
    /// End after this many measured requests, instead of a duration
    #[arg(long, short = 'n', conflicts_with = "duration")]
    requests: Option<u64>,
    /// Load before the measured part, at the same rate
    #[arg(long, short = 'w', value_parser = humantime::parse_duration, default_value = "2s")]
    warmup: Duration,

    /// Give each request this long: sent as grpc-timeout or X-Request-Timeout
    #[arg(long, value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Count the answers within this latency from the intended moment (goodput)
    #[arg(long, value_name = "MILLISECONDS")]
    slo_ms: Option<f64>,
    /// Connections [default: gRPC 1 a thread; HTTP the concurrency, 256 at most with --rate]
    #[arg(long)]
    connections: Option<usize>,
    /// Threads that send
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Makes random inputs and Poisson arrivals come out the same again
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also measure CPU time and memory of this process, the server on the same machine
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Write down when what was sent, as CSV: `gristmill plan --trace` reads it
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct ScenarioArgs {
    /// The scenario's TOML file
    pub file: PathBuf,
    /// Send over gRPC to this running server, instead of starting the scenario's own
    #[arg(long, value_name = "ADDRESS")]
    pub grpc: Option<String>,
    /// Send over HTTP to this running server, instead of starting the scenario's own
    #[arg(long, value_name = "ADDRESS", conflicts_with = "grpc")]
    pub http: Option<String>,
    /// Also measure CPU time and memory of this process, the server on the same machine
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct OutputArgs {
    /// Write the result as JSON
    #[arg(long, short = 'o', value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Show no progress bar
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

// === impl RunArgs ===

impl RunArgs {
    pub(crate) fn settings(&self) -> Result<Settings> {
        let (address, body) = target(self.grpc.as_deref(), self.http.as_deref(), self.body)?
            .unwrap_or((GRPC_ADDRESS.to_owned(), self.body.unwrap_or(Body::Raw)));
        let load = match self.rate {
            None => Load::Closed { in_flight: self.concurrency.unwrap_or(1) },
            Some(rate_per_s) => {
                Load::Open { rate_per_s, arrivals: self.arrivals, in_flight_max: self.in_flight_max }
            }
        };
        let models = self.models.iter().map(|text| self.model(text));
        let settings = Settings {
            address,
            body,
            models: models.collect::<Result<_>>()?,
            load,
            extent: match self.requests {
                Some(requests) => ExtentSettings::Requests(requests),
                None => ExtentSettings::DurationS(self.duration.as_secs_f64()),
            },
            warmup_s: self.warmup.as_secs_f64(),
            timeout_ms: self.timeout.map(|timeout| timeout.as_secs_f64() * 1e3),
            slo_ms: self.slo_ms,
            connections: self.connections.unwrap_or_else(|| default_connections(body, load, self.threads)),
            threads: self.threads,
            seed: self.seed,
            server_pid: self.server_pid,
            keeps_sent: self.trace.is_some(),
        };
        settings.check()?;
        Ok(settings)
    }

    fn model(&self, text: &str) -> Result<ModelSettings> {
        let (name, weight) = match text.split_once('=') {
            None => (text, 1.0),
            Some((name, weight)) => {
                let why =
                    |error| Error::Settings(format!("--model {text}: `{weight}` is no weight: {error}"));
                (name, weight.parse().map_err(why)?)
            }
        };
        let (name, version) = name.split_once(':').unwrap_or((name, ""));
        Ok(ModelSettings {
            name: name.to_owned(),
            version: version.to_owned(),
            weight,
            rows: self.rows,
            input: self.input.clone(),
            dimensions: dimensions(&self.dimensions)?,
        })
    }
}

/// The address and body that the flags or a scenario's `[target]` ask for; `None` where neither address is given.
pub(crate) fn target(
    grpc: Option<&str>,
    http: Option<&str>,
    body: Option<Body>,
) -> Result<Option<(String, Body)>> {
    let (address, default, protocol) = match (grpc, http) {
        (Some(address), _) => (address, Body::Raw, "gRPC"),
        (None, Some(address)) => (address, Body::Json, "HTTP"),
        (None, None) => return Ok(None),
    };
    let body = body.unwrap_or(default);
    if body.is_grpc() != default.is_grpc() {
        return Err(Error::Settings(format!(
            "this body does not go over {protocol}: expected raw or typed for gRPC, json, binary or predict \
             for HTTP"
        )));
    }
    if address.starts_with("https://") {
        return Err(Error::Settings("TLS is not supported: give a plain-text port as host:port".to_owned()));
    }
    let plain = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    Ok(Some((plain.to_owned(), body)))
}

fn dimensions(texts: &[String]) -> Result<Dimensions> {
    let parse = |text: &String| {
        let (name, sizes) = text.split_once('=')?;
        let sizes = sizes.split('x').map(|size| size.parse::<i64>().ok().filter(|size| *size >= 0));
        Some((name.to_owned(), sizes.collect::<Option<Vec<_>>>()?))
    };
    let fault =
        |text| Error::Settings(format!("--dim {text}: expected INPUT=N or INPUT=NxN, as in tokens=128"));
    texts.iter().map(|text| parse(text).ok_or_else(|| fault(text))).collect()
}
