//! How long a server takes from its start until thousands of models serve, and what it holds then; and how many runs a slow model takes until it serves.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use gristmill_benches::connection::Connection;
use gristmill_benches::deep::SLOW;
use gristmill_benches::http::get;
use gristmill_benches::memory::{resident_mb, threads};
use gristmill_benches::model::{self, MLP};
use gristmill_benches::server::{Server, pause, release_build};
use gristmill_benches::summary::{Bound, Target, median};
use serde::Serialize;

/// Starts `gristmill serve` on a repository of many small models, and on one of a model whose runs take seconds.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value_t = 2000)]
    models: usize,
    /// How long the server is left alone before its memory is read.
    #[arg(long, default_value_t = 5)]
    idle_s: u64,
    /// The program; by default the release build of this checkout. Give another build to compare.
    #[arg(long)]
    program: Option<PathBuf>,
    /// A hundred models: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Memory in units of 1000 kB.
#[derive(Debug, Serialize)]
struct Many {
    ready_s: f64,
    resident_mb: f64,
    threads: usize,
    metrics_mb: f64,
}

#[derive(Debug, Serialize)]
struct Slow {
    ready_s: f64,
    /// One run of one row, as a caller sees it.
    run_s: f64,
}

#[derive(Debug, Serialize)]
struct Results {
    targets: Vec<Target>,
    many: Many,
    slow: Slow,
}

/// How long a server may take until it is ready.
const START_MAX: Duration = Duration::from_secs(900);
const SLOW_RUNS: usize = 3;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench cold_start`");
        return Ok(());
    }
    ensure!(args.models > 0, "--models is 0: expected one or more");
    let program = args.program.clone().map_or_else(release_build, Ok)?;
    let library = model::onnx_runtime_library()?;
    let models = if args.quick { 100 } else { args.models };
    let many = many(&program, &library, models, Duration::from_secs(args.idle_s))?;
    let slow = slow(&program, &library)?;
    let targets = vec![
        Target::new("start to ready, s", many.ready_s, Bound::AtMost(30.0)),
        Target::new("resident memory, MB", many.resident_mb, Bound::AtMost(400.0)),
        Target::new("threads", many.threads as f64, Bound::AtMost(100.0)),
        Target::new("/metrics, MB", many.metrics_mb, Bound::AtMost(4.0)),
        Target::new("start to ready of the slow model, runs", slow.ready_s / slow.run_s, Bound::AtMost(3.0)),
    ];
    println!("\n{models} models, {}:\n", program.display());
    println!("  start to ready       {:>8.1} s", many.ready_s);
    println!("  resident             {:>8.1} MB", many.resident_mb);
    println!("  threads              {:>8}", many.threads);
    println!("  /metrics             {:>8.2} MB\n", many.metrics_mb);
    println!("A model of {:.1} s a run:\n\n  start to ready       {:>8.1} s\n", slow.run_s, slow.ready_s);
    for target in &targets {
        println!("{target}");
    }
    println!("\n{}", serde_json::to_string(&Results { targets, many, slow })?);
    Ok(())
}

fn many(program: &Path, library: &Path, models: usize, idle: Duration) -> anyhow::Result<Many> {
    let directory = tempfile::tempdir()?;
    let repository = directory.path().join("models");
    for number in 0..models {
        MLP.copy_as(&format!("mlp{number:05}"), &repository)?;
    }
    let server = Server::of_program(program, library, &repository, directory, START_MAX)?;
    pause(idle);
    let read = || {
        let (_, metrics) = get(server.http_address()?, "/metrics")?;
        anyhow::Ok(Many {
            ready_s: server.ready_after().as_secs_f64(),
            resident_mb: resident_mb(server.pid())?,
            threads: threads(server.pid())?,
            metrics_mb: metrics.len() as f64 / 1e6,
        })
    };
    read().with_context(|| server.log().unwrap_or_default())
}

fn slow(program: &Path, library: &Path) -> anyhow::Result<Slow> {
    let directory = tempfile::tempdir()?;
    let repository = directory.path().join("models");
    SLOW.create(&repository, "")?;
    let server = Server::of_program(program, library, &repository, directory, START_MAX)?;
    let mut connection = Connection::open(server.address(), &SLOW.model.request())?.0;
    let mut runs = Vec::new();
    for _ in 0..SLOW_RUNS {
        let start = Instant::now();
        connection.call()?;
        runs.push(start.elapsed().as_secs_f64());
    }
    Ok(Slow { ready_s: server.ready_after().as_secs_f64(), run_s: median(runs) })
}
