//! The command line: every flag, its environment variable, its default and its manual.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::experiments_command::ExperimentsCommand;
use crate::model_sources::Url;
use crate::models_command::ModelsCommand;
use crate::plan_command::PlanArgs;
use crate::routes_command::RoutesCommand;
use crate::routing_key::ForwardPattern;
use crate::telemetry::Aliases;

/// Serves ONNX models over gRPC and HTTP with dynamic micro-batching.
///
/// A model repository is a directory of <model>/<version>/model.onnx; nothing else is required.
/// Names, datatypes, shapes and the batch axis are read from the model, proved by running sample
/// rows, and shown by `gristmill check`.
///
/// Without a command, `serve` runs with its defaults.
#[derive(Debug, Parser)]
#[command(name = "gristmill", version, about, long_about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load, prove and serve every model of a repository.
    ///
    /// On SIGTERM or SIGINT the server reports not ready, serves on for the lame-duck period, stops
    /// accepting, finishes what it admitted and exits with 0. A second signal exits at once.
    Serve(Box<ServeArgs>),
    /// Load and prove every model without serving, and print what was derived for each and why.
    ///
    /// Exits with 1 when any model is at fault, with a message that says what is wrong.
    Check(CheckArgs),
    /// Ask a running server whether it is ready; exits with 0 if so and 1 if not.
    Health(HealthArgs),
    /// Say how many cores an SLO takes, and what other SLOs would, without a server.
    ///
    /// Plays recorded or made-up requests against the scheduler that serves, on a virtual clock, with run times as a
    /// server measured them.
    Plan(Box<PlanArgs>),
    /// Manage the models of a repository.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Show and change the routes of a running server: which arm gets which share of the requests.
    #[command(subcommand)]
    Routes(RoutesCommand),
    /// Show what a running server knows of the arms of its routes: latency, rewards, and which is the best.
    #[command(subcommand)]
    Experiments(ExperimentsCommand),
}

#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub models: ModelArgs,
    /// Address of the HTTP/JSON gateway. Port 0 takes any free port.
    #[arg(long, env = "GRISTMILL_HTTP", default_value = "127.0.0.1:8000", value_name = "ADDRESS")]
    pub http: SocketAddr,
    /// Address of the gRPC service.
    #[arg(long, env = "GRISTMILL_GRPC", default_value = "127.0.0.1:8001", value_name = "ADDRESS")]
    pub grpc: SocketAddr,
    /// Address of Prometheus' /metrics, which the HTTP address answers too.
    #[arg(long, env = "GRISTMILL_METRICS", default_value = "127.0.0.1:8002", value_name = "ADDRESS")]
    pub metrics: SocketAddr,
    /// Further addresses of the HTTP gateway, comma-separated, such as TorchServe's: 0.0.0.0:8080,0.0.0.0:8081.
    #[arg(long, env = "GRISTMILL_HTTP_ALSO", value_delimiter = ',', value_name = "ADDRESSES")]
    pub http_also: Vec<SocketAddr>,
    /// Further addresses of the gRPC service, comma-separated, such as TorchServe's: 0.0.0.0:7070,0.0.0.0:7071.
    #[arg(long, env = "GRISTMILL_GRPC_ALSO", value_delimiter = ',', value_name = "ADDRESSES")]
    pub grpc_also: Vec<SocketAddr>,
    /// Further addresses of /metrics, comma-separated, such as TorchServe's: 0.0.0.0:8082.
    #[arg(long, env = "GRISTMILL_METRICS_ALSO", value_delimiter = ',', value_name = "ADDRESSES")]
    pub metrics_also: Vec<SocketAddr>,
    /// Tell metrics of versions by these servers' names besides, comma-separated: `ts_*`, `nv_*`.
    #[arg(long, env = "GRISTMILL_METRIC_ALIASES", value_delimiter = ',', value_name = "SERVERS")]
    pub metric_aliases: Vec<Aliases>,
    /// Largest gRPC message in either direction, in bytes.
    #[arg(long, env = "GRISTMILL_GRPC_MESSAGE_BYTES_MAX", default_value_t = 64 << 20, value_name = "BYTES")]
    pub grpc_message_bytes_max: usize,
    /// Largest HTTP body in either direction, in bytes, of requests after decompression.
    #[arg(long, env = "GRISTMILL_HTTP_BODY_BYTES_MAX", default_value_t = 64 << 20, value_name = "BYTES")]
    pub http_body_bytes_max: usize,
    /// Regular expression of whole names of HTTP headers, in any case, that count as parameters of requests that have none
    /// of that name: a route whose key is `parameter:NAME` deals by them. None by default.
    #[arg(long, env = "GRISTMILL_HTTP_HEADER_FORWARD_PATTERN", value_name = "REGEX")]
    pub http_header_forward_pattern: Option<ForwardPattern>,
    /// The same of gRPC's metadata.
    #[arg(long, env = "GRISTMILL_GRPC_HEADER_FORWARD_PATTERN", value_name = "REGEX")]
    pub grpc_header_forward_pattern: Option<ForwardPattern>,
    /// The model that HTTP routes without a model's name ask, such as `/invocations`. Where only one serves, it is
    /// that one.
    #[arg(long, env = "GRISTMILL_DEFAULT_MODEL", value_name = "NAME")]
    pub default_model: Option<String>,
    /// Directory from which TorchServe's management API may register models, beside those of the repository. Without
    /// it there are only those.
    #[arg(long, env = "GRISTMILL_MODEL_STORE", value_name = "DIRECTORY")]
    pub model_store: Option<PathBuf>,
    /// URL that those begin with from which TorchServe's management API may register models, such as
    /// http://models.example/onnx/; may be given several times, or comma-separated. Without it there are none.
    #[arg(long, env = "GRISTMILL_MODEL_URL_ALLOW", value_delimiter = ',', value_name = "URL")]
    pub model_url_allow: Vec<Url>,
    /// Let clients of this machine register files in /dev/shm, and send tensors and get answers through them, as Triton's
    /// system shared memory extension has it. Whoever reaches the server can then have it read and write any of those
    /// files that its user may.
    #[arg(long, env = "GRISTMILL_ALLOW_SYSTEM_SHARED_MEMORY")]
    pub allow_system_shared_memory: bool,
    /// Let clients of this machine register memory that they have allocated on its NVIDIA GPUs, and send tensors and get
    /// answers through it, as Triton's CUDA shared memory extension has it. Needs NVIDIA's driver.
    #[arg(long, env = "GRISTMILL_ALLOW_CUDA_SHARED_MEMORY")]
    pub allow_cuda_shared_memory: bool,
    /// Threads that read and write sockets; 0 takes one for each granted core, four at most.
    /// Models run on threads of their own.
    #[arg(long, env = "GRISTMILL_IO_THREADS", default_value_t = 0, value_name = "COUNT")]
    pub io_threads: usize,
    /// Who decides what is loaded: `watch` and `poll` follow the repository (by the system's notifications with
    /// polling beside them, or by polling alone), `explicit` loads only what is asked for through the
    /// interfaces, `none` loads what is there at the start and changes nothing after that.
    #[arg(long, env = "GRISTMILL_MODEL_CONTROL", default_value = "watch", value_name = "MODE")]
    pub model_control: ModelControl,
    /// Longest that a request is waited for: a deadline for those that bring no earlier one. None by default.
    #[arg(long, env = "GRISTMILL_DEADLINE_MAX", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub deadline_max: Option<Duration>,
    /// How often the repository is read again.
    #[arg(long, env = "GRISTMILL_POLL_INTERVAL", default_value = "5s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub poll_interval: Duration,
    /// A version is loaded when none of its files was written to for this long, or when it has a file
    /// `.complete`.
    #[arg(long, env = "GRISTMILL_SETTLE_TIME", default_value = "500ms", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub settle_time: Duration,
    /// Versions that are loaded side by side while something serves.
    #[arg(long, env = "GRISTMILL_LOADS_MAX", default_value_t = 1, value_name = "COUNT")]
    pub loads_max: usize,
    /// A load spends no more time on measuring run times, or two runs where those take longer; what is not measured is
    /// learned from requests.
    #[arg(long, env = "GRISTMILL_LOAD_MEASURE_TIME_MAX", default_value = "1s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub load_measure_time_max: Duration,
    /// A load that takes longer is given up.
    #[arg(long, env = "GRISTMILL_LOAD_TIMEOUT", default_value = "10m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub load_timeout: Duration,
    /// Be ready though the repository has no model at the start.
    #[arg(long, env = "GRISTMILL_ALLOW_EMPTY_REPOSITORY")]
    pub allow_empty_repository: bool,
    /// Be ready only while every model in the repository serves, also one that has just come. By default a server that
    /// has become ready stays so while whatever has served still does.
    #[arg(
        long,
        env = "GRISTMILL_STRICT_READINESS",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        action = ArgAction::Set,
        value_name = "BOOLEAN"
    )]
    pub strict_readiness: bool,
    /// End with an error when a model cannot be loaded at the start.
    #[arg(
        long,
        env = "GRISTMILL_EXIT_ON_ERROR",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        action = ArgAction::Set,
        value_name = "BOOLEAN"
    )]
    pub exit_on_error: bool,
    /// How long to serve on, reporting not ready, after a signal asked the server to end. Load
    /// balancers need this time to stop sending.
    #[arg(long, env = "GRISTMILL_LAME_DUCK", default_value = "5s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub lame_duck: Duration,
    /// How long to wait at most for open requests after that.
    #[arg(long, env = "GRISTMILL_DRAIN_TIMEOUT", default_value = "30s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub drain_timeout: Duration,
    /// TOML file with what each tenant may ask: rates and open requests, by tenant and model. The README describes
    /// it; without it nobody is limited.
    #[arg(long, env = "GRISTMILL_LIMITS", value_name = "FILE")]
    pub limits: Option<PathBuf>,
    /// Directory for what the server itself must remember: which models have served, predictions that wait for
    /// feedback, and the feedback. By default the one beside the repository with its name and `.state`.
    #[arg(long, env = "GRISTMILL_STATE_DIR", value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
    /// Predictions of routes that wait for feedback at most, the newest.
    #[arg(long, env = "GRISTMILL_PREDICTIONS_MAX", default_value_t = 1_000_000, value_name = "COUNT")]
    pub predictions_max: u64,
    /// Append a line of JSON for the end of each routed request and for each feedback to this file; from 64 MiB on it
    /// is put aside, and the eight newest that were are kept.
    #[arg(long, env = "GRISTMILL_EXPERIMENT_LOG", value_name = "FILE")]
    pub experiment_log: Option<PathBuf>,
    /// Send traces to this OTLP receiver, by gRPC, for example http://127.0.0.1:4317. OpenTelemetry's own variable
    /// OTEL_EXPORTER_OTLP_ENDPOINT is read where this is not given; without both nothing is traced.
    #[arg(long, env = "GRISTMILL_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Share of requests to trace, from 0 to 1, among those whose caller does not say (W3C traceparent).
    #[arg(long, env = "GRISTMILL_TRACE_SAMPLE_RATIO", default_value_t = 0.01, value_parser = ratio, value_name = "RATIO")]
    pub trace_sample_ratio: f64,
    /// Write the bound addresses to this file, as JSON, once every model is loaded.
    #[arg(long, env = "GRISTMILL_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Nice value, added to the server's own, of threads whose runs take a millisecond or more: I/O and short runs then
    /// have their cores at once, and these what is left. 0 leaves them as all others.
    #[arg(long, env = "GRISTMILL_LONG_RUN_NICENESS", default_value_t = gristmill_engine::reconcile::LONG_RUN_NICENESS_BY_DEFAULT,
        value_parser = clap::value_parser!(u8).range(0..=19), value_name = "NICENESS")]
    pub long_run_niceness: u8,
    /// Let all models run as many threads as they want at the same time, for measurements of what sharing the
    /// cores is worth.
    #[arg(long, env = "GRISTMILL_NO_CORE_BUDGET", hide = true)]
    pub no_core_budget: bool,
    /// Leave memory that was freed with the allocators, for measurements of what giving it back is worth.
    #[arg(long, env = "GRISTMILL_KEEP_FREE_MEMORY", hide = true)]
    pub keep_free_memory: bool,
}

#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub models: ModelArgs,
}

/// Where models are and what runs them.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// Directory of <model>/<version>/model.onnx.
    #[arg(long, env = "GRISTMILL_REPOSITORY", default_value = "models", value_name = "DIRECTORY")]
    pub repository: PathBuf,
    /// What runs the models whose model.toml does not say. `auto` is ONNX Runtime where it is found,
    /// and tract (embedded, pure Rust) elsewhere.
    #[arg(long, env = "GRISTMILL_BACKEND", default_value = "auto", value_name = "BACKEND")]
    pub backend: BackendArg,
    /// Execution providers of ONNX Runtime in order of preference, comma-separated: cpu, cuda, tensorrt,
    /// openvino, rocm, migraphx. Each is in use or refused with its reason; without cpu at the end a
    /// model does not fall back to it.
    #[arg(
        long,
        env = "GRISTMILL_PROVIDERS",
        default_value = "cpu",
        value_delimiter = ',',
        value_name = "PROVIDERS"
    )]
    pub providers: Vec<String>,
    /// ONNX Runtime's shared library. By default ORT_DYLIB_PATH, the directory of this program, the
    /// cache of `make run` and the system's libraries are searched.
    #[arg(long, env = "GRISTMILL_ONNXRUNTIME_LIBRARY", value_name = "FILE")]
    pub onnxruntime_library: Option<PathBuf>,
    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// How log lines are written to standard error.
    #[arg(long, env = "GRISTMILL_LOG_FORMAT", default_value = "human", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,gristmill_engine=debug`.
    #[arg(long, env = "GRISTMILL_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

#[derive(Clone, Debug, Args)]
pub struct HealthArgs {
    /// HTTP address of the server.
    #[arg(long, env = "GRISTMILL_HTTP", default_value = "127.0.0.1:8000", value_name = "ADDRESS")]
    pub server: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    Auto,
    Onnxruntime,
    Tract,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModelControl {
    Watch,
    Poll,
    Explicit,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

// === impl Cli ===

impl Cli {
    /// What the process was started with.
    pub fn read() -> Cli {
        Cli::of(std::env::args_os())
    }

    /// Environment variables that are set and empty, as templates leave them, count as unset.
    fn of(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Cli {
        let mut command = without_empty_variables(Cli::command());
        let read = |matches: &mut _| Cli::from_arg_matches_mut(matches);
        let parsed = command.try_get_matches_from_mut(words).and_then(|mut matches| read(&mut matches));
        parsed.unwrap_or_else(|error| error.format(&mut command).exit())
    }
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|argument| match argument.get_env().is_some_and(is_empty) {
            true => argument.env(None::<&'static str>),
            false => argument,
        })
        .mut_subcommands(without_empty_variables)
}

// === impl ServeArgs ===

impl ServeArgs {
    /// What `gristmill serve` without flags would run with.
    pub fn from_environment() -> ServeArgs {
        match Cli::of(["gristmill", "serve"]).command {
            Some(Command::Serve(args)) => *args,
            _ => unreachable!("serve was asked for; this is a bug"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        let command = Cli::command();
        for subcommand in command.get_subcommands() {
            for argument in subcommand.get_arguments().filter(|argument| argument.get_id() != "help") {
                let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
                let variable = variable.unwrap_or_default();
                assert!(variable.starts_with("GRISTMILL_"), "{} has none", argument.get_id());
            }
        }
    }

    #[test]
    fn a_share_is_from_0_to_1() {
        assert_eq!(["0", "0.5", "1"].map(ratio), [Ok(0.0), Ok(0.5), Ok(1.0)]);
        assert!(["-0.1", "1.1", "NaN", "all"].into_iter().all(|text| ratio(text).is_err()));
    }

    #[test]
    fn defaults_are_the_documented_ports() {
        let cli = Cli::parse_from(["gristmill", "serve"]);
        let Some(Command::Serve(args)) = cli.command else { panic!("serve was asked for") };
        assert_eq!(args.http.to_string(), "127.0.0.1:8000");
        assert_eq!(args.grpc.to_string(), "127.0.0.1:8001");
        assert_eq!(args.metrics.to_string(), "127.0.0.1:8002");
        assert_eq!(args.models.repository.to_str(), Some("models"));
    }
}
