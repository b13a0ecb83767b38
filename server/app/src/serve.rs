//! `gristmill serve`: binds, loads, serves, and ends in order.

use std::fmt::Write as _;
use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use gristmill_engine::answer_limit::AnswerLimit;
use gristmill_engine::control::{Control, Following};
use gristmill_engine::engine::Engine;
use gristmill_engine::reconcile::{LoadReport, Options, WORKER_IDLE_MAX_BY_DEFAULT};
use gristmill_onnx::Runtime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::{LogFormat, ModelControl, ServeArgs};
use crate::config::SettingsReader;
use crate::feedback::{Feedback, Place};
use crate::gateway::{AnswerLimits, ForwardedHeaders, Gateway};
use crate::limits::Limits;
use crate::log_settings::{self, Log};
use crate::model_sources::ModelSources;
use crate::oip_grpc::{self, GrpcOptions};
use crate::oip_http::{self, HttpOptions};
use crate::relied_on::Memory;
use crate::repository_orders::OrderedRegistry;
use crate::shared_memory::{Driver, SharedMemory};
use crate::shutdown::Signals;
use crate::telemetry::Telemetry;
use crate::traces::Traces;
use crate::vertex_http::VertexAi;
use crate::watch;

/// Sockets are quick: more I/O threads than this only take cores from the models.
const IO_THREADS_MAX_BY_DEFAULT: usize = 4;

const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;

/// The bound addresses, known once the listeners exist.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    http: SocketAddr,
    grpc: SocketAddr,
    metrics: SocketAddr,
}

/// Runs the server until it is asked to end.
///
/// # Errors
/// An address cannot be bound, or the flags or the repository cannot be used.
pub fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let log = log_settings::start(&args.models.log)?;
    let io_threads = match args.io_threads {
        0 => gristmill_engine::cores::granted().min(IO_THREADS_MAX_BY_DEFAULT),
        threads => threads,
    };
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(io_threads)
        .thread_name("io")
        .enable_all()
        .build()
        .context("cannot start the I/O threads")?;
    let code = tokio.block_on(serve(args, log, start))?;
    // Whatever still runs was given its time by the drain. A load may still be inside a runtime.
    gristmill_onnx::end_process(code)
}

/// Returns the exit code.
async fn serve(args: &ServeArgs, log: Log, start: Instant) -> anyhow::Result<u8> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let http = bind("--http", args.http).await?;
    let grpc = bind("--grpc", args.grpc).await?;
    let metrics = bind("--metrics", args.metrics).await?;
    let vertex = match VertexAi::from_environment()? {
        Some(vertex) => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, vertex.port));
            Some((bind("AIP_HTTP_PORT", address).await?, vertex))
        }
        None => None,
    };
    let http_also = bind_all("--http-also", &args.http_also).await?;
    let grpc_also = bind_all("--grpc-also", &args.grpc_also).await?;
    let metrics_also = bind_all("--metrics-also", &args.metrics_also).await?;
    let addresses =
        Addresses { http: http.local_addr()?, grpc: grpc.local_addr()?, metrics: metrics.local_addr()? };

    let runtime = Runtime::find(args.models.onnxruntime_library.as_deref())?;
    if !runtime.has_onnx_runtime() {
        tracing::warn!("{}", runtime.describe());
    }
    let telemetry = Telemetry::install(&runtime.describe())?.with_aliases(args.metric_aliases.clone());
    let limits = args.limits.as_deref().map(|path| Limits::read(path, start)).transpose();
    let limits = limits.map_err(|why| anyhow::anyhow!("--limits: {why}"))?;
    let mode = args.model_control;
    let options = Options {
        loads_max: args.loads_max.max(1),
        load_timeout: args.load_timeout,
        load_measure_time_max: args.load_measure_time_max,
        explicit: mode == ModelControl::Explicit,
        strict_readiness: args.strict_readiness,
        proves_at_load: false,
        worker_idle_max: WORKER_IDLE_MAX_BY_DEFAULT,
        long_run_niceness: args.long_run_niceness,
        run_slots: (!args.no_core_budget).then(gristmill_engine::cores::granted),
        release_memory: match args.keep_free_memory {
            true => || {},
            false => gristmill_onnx::release_free_memory,
        },
    };
    let (engine, mut reconciler) = Engine::new(args.allow_empty_repository, options);
    let place = Place::new(args.state_dir.as_deref(), &args.models.repository);
    let memory = Memory::new(place.directory());
    reconciler.remember(memory.read());
    let engine = Arc::new(engine.with_deadline_max(args.deadline_max));
    let reader = SettingsReader::new(&runtime, &args.models).map_err(anyhow::Error::msg)?;
    let registry = OrderedRegistry::new(args.models.repository.clone(), reader, args.settle_time);
    let following = Following {
        poll_interval: matches!(mode, ModelControl::Watch | ModelControl::Poll).then_some(args.poll_interval),
        settle: args.settle_time,
        takes_orders: mode != ModelControl::None,
    };
    let (control, reconciling, mut started) = Control::start(reconciler, Box::new(registry), following)
        .context("cannot start the thread that loads models")?;

    let stop = CancellationToken::new();
    let doors = TaskTracker::new();
    let metrics_router = telemetry.router(Arc::clone(&engine));
    let model_sources = ModelSources { store: args.model_store.clone(), urls: args.model_url_allow.clone() };
    let http_options = HttpOptions {
        body_bytes_max: args.http_body_bytes_max,
        default_model: args.default_model.clone(),
        model_sources: model_sources.clone(),
    };
    let gateway = Gateway::new(Arc::clone(&engine)).with_exemplars(telemetry.exemplars()).with_log(log);
    let gateway = match limits {
        Some(limits) => gateway.with_limits(limits),
        None => gateway,
    };
    let forwarded = ForwardedHeaders {
        http: args.http_header_forward_pattern.clone(),
        grpc: args.grpc_header_forward_pattern.clone(),
    };
    let gateway = gateway.with_forwarded_headers(forwarded);
    let gateway = gateway.with_answer_limits(AnswerLimits {
        http: Some(AnswerLimit { bytes_max: args.http_body_bytes_max, flag: "--http-body-bytes-max" }),
        grpc: Some(AnswerLimit { bytes_max: args.grpc_message_bytes_max, flag: "--grpc-message-bytes-max" }),
    });
    let driver = match args.allow_cuda_shared_memory {
        true => Some(Driver::load().map_err(|why| anyhow::anyhow!("--allow-cuda-shared-memory: {why}"))?),
        false => None,
    };
    let gateway = match (args.allow_system_shared_memory, driver) {
        (false, None) => gateway,
        (allows_files, driver) => gateway.with_shared_memory(SharedMemory::new(allows_files, driver)),
    };
    let log = args.experiment_log.as_deref();
    let (feedback, keeping) = Feedback::start(Arc::clone(&engine), place, args.predictions_max, log)?;
    let gateway = gateway.with_feedback(feedback.clone());
    let traces = start_traces(args)?;
    let gateway = Arc::new(match &traces {
        Some(traces) => gateway.with_traces(traces.clone()),
        None => gateway,
    });
    let http_router = oip_http::router(Arc::clone(&gateway), Some(control.clone()), http_options)
        .merge(metrics_router.clone());
    let grpc_options = GrpcOptions { message_bytes_max: args.grpc_message_bytes_max, model_sources };
    if let Some((listener, vertex)) = vertex {
        tracing::info!(address = %listener.local_addr()?, "listening for Vertex AI besides, as AIP_HTTP_PORT says");
        let router = vertex.extend(http_router.clone());
        open_door(&doors, "vertex", oip_http::serve(listener, router, stop.clone().cancelled_owned()));
    }
    for listener in http_also {
        let router = http_router.clone();
        open_door(&doors, "http", oip_http::serve(listener, router, stop.clone().cancelled_owned()));
    }
    for listener in metrics_also {
        let router = metrics_router.clone();
        open_door(&doors, "metrics", oip_http::serve(listener, router, stop.clone().cancelled_owned()));
    }
    open_door(&doors, "http", oip_http::serve(http, http_router, stop.clone().cancelled_owned()));
    open_door(&doors, "metrics", oip_http::serve(metrics, metrics_router, stop.clone().cancelled_owned()));
    for listener in grpc_also.into_iter().chain([grpc]) {
        let (gateway, control, options) = (Arc::clone(&gateway), control.clone(), grpc_options.clone());
        let shutdown = stop.clone().cancelled_owned();
        open_door(&doors, "grpc", oip_grpc::serve(listener, gateway, Some(control), options, shutdown));
    }
    doors.close();
    tokio::spawn(telemetry.keep_up());

    // Before the first loads end, so that no change in between waits for the next poll.
    let _watcher = (mode == ModelControl::Watch).then(|| watch::start(&args.models.repository, &control));
    let reports = tokio::select! {
        reports = &mut started => reports.context("the thread that loads models has panicked")??,
        signal = signals.next() => {
            tracing::info!(signal, "ended while models were being loaded");
            return Ok(SUCCESS);
        }
    };
    let failed = reports.iter().filter(|report| report.result.is_err()).count();
    if args.exit_on_error && failed > 0 {
        tracing::error!(failed, "ended, as --exit-on-error says: not every model could be loaded");
        control.shut_down(reconciling).await;
        return Ok(FAILURE);
    }
    memory.keep_up(Arc::clone(&engine)).context("cannot start the thread that writes down what serves")?;
    announce(args, &engine, &runtime, addresses, start, &reports);
    if let Some(path) = &args.ready_file {
        write_ready_file(path, addresses)?;
    }

    let signal = signals.next().await;
    let reconciler = control.shut_down(reconciling);
    let code = end_in_order(args, &mut signals, signal, &engine, reconciler, &stop, &doors).await;
    feedback.end(keeping);
    if let Some(traces) = traces {
        traces.flush();
    }
    code
}

/// The flag goes before OpenTelemetry's variables; of those, that of traces before that of everything.
fn start_traces(args: &ServeArgs) -> anyhow::Result<Option<Traces>> {
    let variables = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let from_variables = || variables.into_iter().find_map(set);
    let of_flag = args.otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty());
    let endpoint = of_flag.or_else(from_variables);
    endpoint.map(|endpoint| Traces::start(&endpoint, args.trace_sample_ratio)).transpose()
}

/// Not ready, lame duck, stop accepting, finish what was admitted. A second signal cuts it short.
async fn end_in_order(
    args: &ServeArgs,
    signals: &mut Signals,
    signal: &'static str,
    engine: &Engine,
    reconciler: impl Future<Output = ()>,
    stop: &CancellationToken,
    doors: &TaskTracker,
) -> anyhow::Result<u8> {
    let orderly = async {
        engine.begin_shutdown();
        let lame_duck = humantime::format_duration(args.lame_duck);
        tracing::info!(signal, %lame_duck, "not ready any more; serving on for the lame-duck period");
        tokio::time::sleep(args.lame_duck).await;
        tracing::info!("accepting no more; finishing open requests");
        stop.cancel();
        if tokio::time::timeout(args.drain_timeout, doors.wait()).await.is_err() {
            tracing::warn!("open connections outlasted --drain-timeout and are cut");
        }
        reconciler.await;
    };
    tokio::select! {
        () = orderly => {
            tracing::info!("every admitted request is answered");
            Ok(SUCCESS)
        }
        signal = signals.next() => {
            tracing::warn!(signal, "ended at once by a second signal");
            Ok(FAILURE)
        }
    }
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{flag}: cannot listen on {address}"))
}

/// Beside the one address that each has.
async fn bind_all(flag: &str, addresses: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let listener = bind(flag, address).await?;
        tracing::info!(address = %listener.local_addr()?, "listening besides, as {flag} says");
        listeners.push(listener);
    }
    Ok(listeners)
}

fn open_door<E>(
    doors: &TaskTracker,
    name: &'static str,
    server: impl Future<Output = Result<(), E>> + Send + 'static,
) where
    E: std::fmt::Display,
{
    doors.spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(door = name, %error, "a listener ended");
        }
    });
}

/// The start-up summary: a table for people, one log line a model otherwise.
fn announce(
    args: &ServeArgs,
    engine: &Engine,
    runtime: &Runtime,
    addresses: Addresses,
    start: Instant,
    reports: &[LoadReport],
) {
    let readiness = engine.ready();
    let took_ms = start.elapsed().as_millis();
    if args.models.log.log_format == LogFormat::Json {
        for model in engine.models() {
            tracing::info!(model = model.name, version = model.version, platform = model.platform, "serving");
        }
        let Addresses { http, grpc, metrics } = addresses;
        let runtime = runtime.describe();
        tracing::info!(%http, %grpc, %metrics, runtime, ready = readiness.ready, took_ms, "started");
    } else {
        eprint!("{}", summary(engine, runtime, addresses, start.elapsed(), reports));
    }
    if !readiness.ready {
        tracing::warn!(reasons = readiness.reasons.join("; "), "not ready");
    }
}

fn summary(
    engine: &Engine,
    runtime: &Runtime,
    addresses: Addresses,
    took: Duration,
    reports: &[LoadReport],
) -> String {
    let mut text = format!("\ngristmill {} on {}\n\n", env!("CARGO_PKG_VERSION"), runtime.describe());
    let models = engine.models();
    let width = models.iter().map(|model| model.name.len()).max().unwrap_or(0).max("model".len());
    let mut line = |cells: [&str; 5]| {
        let [name, version, platform, batch, workers] = cells;
        let written = writeln!(text, "  {name:width$}  {version:>7}  {platform:<17}  {batch:>10}  {workers}");
        written.expect("writing to a string does not fail; this is a bug");
    };
    line(["model", "version", "backend", "batch rows", "workers"]);
    for model in &models {
        line([
            &model.name,
            &model.version.to_string(),
            &model.platform,
            &model.batch_rows_max.to_string(),
            &format!("{} x {} threads", model.instances, model.threads),
        ]);
    }
    let failed = reports.iter().filter(|report| report.result.is_err()).count();
    if failed > 0 {
        text += &format!("  {failed} not served, see above\n");
    }
    let Addresses { http, grpc, metrics } = addresses;
    let state = if engine.ready().ready { "ready" } else { "not ready" };
    text += &format!(
        "\n  gRPC     {grpc}\n  HTTP     http://{http}\n  metrics  http://{metrics}/metrics\n\n{state} in {} ms\n\n",
        took.as_millis()
    );
    text
}

/// Written beside its place and renamed, so that whoever waits for the file reads all of it.
fn write_ready_file(path: &Path, addresses: Addresses) -> anyhow::Result<()> {
    let Addresses { http, grpc, metrics } = addresses;
    let text = serde_json::json!({
        "http": http.to_string(),
        "grpc": grpc.to_string(),
        "metrics": metrics.to_string(),
    });
    let draft = path.with_extension("draft");
    fs::write(&draft, text.to_string())
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("--ready-file: cannot write {}", path.display()))
}
