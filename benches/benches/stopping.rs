//! How soon a run of several seconds ends once the last of its callers has left, by how they leave.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use gristmill_benches::affinity;
use gristmill_benches::connection::Connection;
use gristmill_benches::deep;
use gristmill_benches::http::get;
use gristmill_benches::model::{self, Model};
use gristmill_benches::server::{self, Server, pause};
use gristmill_benches::stolen::{self, StolenPercent};
use gristmill_benches::summary::{Bound, Target, median};
use gristmill_proto::inference::infer_parameter::ParameterChoice;
use gristmill_proto::inference::{InferParameter, ModelInferRequest};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Begins runs of several seconds, leaves them, and times how soon the next caller is served.
#[derive(Debug, Parser)]
struct Args {
    /// How often each way of leaving is tried.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// One of each: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How callers leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Way {
    GrpcHangsUp,
    GrpcCancels,
    HttpHangsUp,
    DeadlinePasses,
    /// Of two callers whose rows run together, one after the other.
    TwoCancel,
}

#[derive(Debug, Serialize)]
struct Trials {
    way: Way,
    /// From the last caller's leaving until the next one in the queue has its answer, less the time that this
    /// one's own run takes.
    stopped_ms: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Results {
    /// A run that nobody leaves.
    whole_run_s: f64,
    /// A call of one row, which is what the next caller sends.
    one_row_ms: f64,
    target: Target,
    stolen_percent: StolenPercent,
    trials: Vec<Trials>,
}

/// Each product is an operator, before which a run can be stopped.
const DEEP: Model = deep::DEEP.model;
/// Most rows that run together.
const ROWS_MAX: usize = 512;

const WAYS: [Way; 5] =
    [Way::GrpcHangsUp, Way::GrpcCancels, Way::HttpHangsUp, Way::DeadlinePasses, Way::TwoCancel];

/// A run is left when it has lasted this long.
const BEFORE_LEAVING: Duration = Duration::from_millis(300);
/// Between the first caller's leaving and the second's.
const BETWEEN: Duration = Duration::from_millis(100);
/// Cores for the server. Another than those of this program, if there is one.
const SERVER_CORES: usize = 1;

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = server::run_if_asked()? {
        return Ok(code);
    }
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench stopping`");
        return Ok(ExitCode::SUCCESS);
    }
    let watch = stolen::Watch::start()?;
    let library = model::onnx_runtime_library()?;
    let cores = affinity::cores()?;
    let directory = tempfile::tempdir()?;
    let repository = directory.path().join("models");
    // First come, first served: else a deadline that passes within a run that is known to last longer is refused when it
    // arrives, and there is no run to stop.
    let settings = format!(
        "instances = 1\nthreads = 1\nbatching = {{ rows_max = {ROWS_MAX} }}\nqueue = {{ order = \"arrival\" }}\n"
    );
    deep::DEEP.create(&repository, &settings)?;
    let server = Server::on_repository(&cores[..SERVER_CORES], &library, &repository, &[], directory)?;
    if cores.len() > SERVER_CORES {
        affinity::pin(&cores[SERVER_CORES..])?;
    }

    let start = Instant::now();
    Connection::open(server.address(), &long(ROWS_MAX, None))?;
    let whole_run_s = start.elapsed().as_secs_f64();
    let (mut next, _) = Connection::open(server.address(), &DEEP.request())?;
    let alone = || -> anyhow::Result<f64> {
        let start = Instant::now();
        next.call()?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let one_row_ms = median(std::iter::repeat_with(alone).take(10).collect::<anyhow::Result<Vec<_>>>()?);

    let rounds = if args.quick { 1 } else { args.rounds };
    let mut trials = Vec::new();
    for way in WAYS {
        let mut stopped_ms = Vec::new();
        for round in 1..=rounds {
            eprintln!("{way:?} {round} of {rounds}");
            let took = leave(&server, way, &mut next)?;
            stopped_ms.push(took.as_secs_f64() * 1e3 - one_row_ms);
        }
        trials.push(Trials { way, stopped_ms });
    }
    let worst = trials.iter().flat_map(|trials| &trials.stopped_ms).copied().fold(0.0, f64::max);
    let target =
        Target::new("the latest stop after the last caller's leaving, ms", worst, Bound::AtMost(50.0));
    let stolen_percent = watch.stop()?;
    let results = Results { whole_run_s, one_row_ms, target, stolen_percent, trials };
    print_table(&results);
    println!("{}\n\n{}", results.stolen_percent, serde_json::to_string(&results)?);
    let metrics = get(server.http_address()?, "/metrics")?.1;
    let counter = "gristmill_runs_stopped_total{";
    let abandoned = |line: &&str| line.starts_with(counter) && line.contains("reason=\"abandoned\"");
    let line = metrics.lines().find(abandoned).context("runs that were stopped are counted")?;
    // With two callers there is one more run, which they wait behind.
    let left = rounds * (WAYS.len() + 1);
    ensure!(line.ends_with(&format!(" {left}")), "{left} runs were left, but the server says {line}");
    Ok(ExitCode::SUCCESS)
}

/// Begins a long run, has `next` wait behind it, leaves it, and gives the time from there to the answer of `next`.
fn leave(server: &Server, way: Way, next: &mut Connection) -> anyhow::Result<Duration> {
    let open = || Ok::<_, anyhow::Error>(Connection::open(server.address(), &DEEP.request())?.0);
    let left = match way {
        Way::GrpcHangsUp => {
            let mut caller = open()?;
            caller.send_other(&long(ROWS_MAX, None))?;
            wait_behind(next)?;
            let left = Instant::now();
            drop(caller);
            left
        }
        Way::GrpcCancels => {
            let mut caller = open()?;
            caller.send_other(&long(ROWS_MAX, None))?;
            wait_behind(next)?;
            let left = Instant::now();
            caller.cancel()?;
            next.wait()?;
            return Ok(left.elapsed());
        }
        Way::HttpHangsUp => {
            let caller = post(server.http_address()?)?;
            wait_behind(next)?;
            let left = Instant::now();
            drop(caller);
            left
        }
        Way::DeadlinePasses => {
            let mut caller = open()?;
            let deadline = Instant::now() + BEFORE_LEAVING;
            caller.send_other(&long(ROWS_MAX, Some(BEFORE_LEAVING)))?;
            pause(BEFORE_LEAVING / 2);
            next.send()?;
            next.wait()?;
            return Ok(Instant::now().saturating_duration_since(deadline));
        }
        Way::TwoCancel => {
            let (mut before, mut one, mut other) = (open()?, open()?, open()?);
            // Their requests wait behind a run until that is left, and then fill the next one.
            before.send_other(&long(ROWS_MAX, None))?;
            pause(BEFORE_LEAVING / 2);
            one.send_other(&long(ROWS_MAX / 2, None))?;
            other.send_other(&long(ROWS_MAX / 2, None))?;
            pause(BEFORE_LEAVING / 2);
            before.cancel()?;
            wait_behind(next)?;
            one.cancel()?;
            pause(BETWEEN);
            ensure!(next.is_waiting()?, "the run ended when the first of its two callers left");
            let left = Instant::now();
            other.cancel()?;
            next.wait()?;
            return Ok(left.elapsed());
        }
    };
    next.wait()?;
    Ok(left.elapsed())
}

fn wait_behind(next: &mut Connection) -> anyhow::Result<()> {
    pause(BEFORE_LEAVING / 2);
    next.send()?;
    pause(BEFORE_LEAVING / 2);
    Ok(())
}

/// A request whose run takes seconds.
fn long(rows: usize, timeout: Option<Duration>) -> ModelInferRequest {
    let timeout = timeout.map(|timeout| {
        let us = ParameterChoice::Int64Param(timeout.as_micros() as i64);
        ("timeout".to_owned(), InferParameter { parameter_choice: Some(us) })
    });
    ModelInferRequest { parameters: timeout.into_iter().collect(), ..DEEP.request_of(rows) }
}

/// The same over HTTP, of which nobody reads the answer.
fn post(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let row = DEEP.row[0];
    let data = vec!["1"; ROWS_MAX * row].join(",");
    let body = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{ROWS_MAX},{row}],"data":[{data}]}}]}}"#
    );
    let mut socket = TcpStream::connect(address)?;
    write!(
        socket,
        "POST /v2/models/{}/infer HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}",
        DEEP.name,
        body.len()
    )?;
    Ok(socket)
}

fn print_table(results: &Results) {
    println!(
        "\nA run of {:.1} s, left after {:.1} s. A call of one row, as the next caller's, takes {:.1} ms.\n",
        results.whole_run_s,
        BEFORE_LEAVING.as_secs_f64(),
        results.one_row_ms
    );
    println!("  {:<16}{:>8}{:>12}{:>10}", "ms until it ends", "trials", "median", "worst");
    for Trials { way, stopped_ms } in &results.trials {
        let worst = stopped_ms.iter().copied().fold(0.0, f64::max);
        let name = format!("{way:?}");
        println!(
            "  {name:<16}{:>8}{:>12.1}{worst:>10.1}",
            stopped_ms.len(),
            median(stopped_ms.iter().copied())
        );
    }
    println!("\n{}", results.target);
}
