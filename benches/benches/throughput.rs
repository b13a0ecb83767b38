//! How much of ONNX Runtime's own throughput a model of 1 ms or more a row keeps when it is served over gRPC.
//!
//! ONNX Runtime alone gets the best of all its settings; Gristmill its defaults. Both have the same cores. The
//! client has one of its own: what it takes is not the server's doing.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use gristmill_benches::alone::{self, Setting};
use gristmill_benches::load::Load;
use gristmill_benches::model::{self, CONVOLUTIONS};
use gristmill_benches::server::{self, Server};
use gristmill_benches::stolen::{self, StolenPercent};
use gristmill_benches::summary::{Bound, Target, median};
use gristmill_benches::{affinity, cpu_time};
use gristmill_proto::inference::ModelInferResponse;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compares the throughput of a served model with that of ONNX Runtime alone.
#[derive(Debug, Parser)]
struct Args {
    /// How often each side has its turn.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    #[arg(long, default_value_t = 4000)]
    turn_ms: u64,
    /// One short turn each: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Enough that a worker always finds a batch.
    #[arg(long, default_value_t = 128)]
    in_flight: usize,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Cores for ONNX Runtime and for the server, comma-separated; all but the client's where it is left out.
    #[arg(long, value_delimiter = ',')]
    cores: Option<Vec<usize>>,
    /// The last that this process may use where it is left out.
    #[arg(long)]
    client_core: Option<usize>,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Serialize)]
struct Round {
    alone_rows_per_s: f64,
    served_rows_per_s: f64,
    /// CPU time of the server's process, a row.
    served_cpu_us: f64,
    latency_ms: f64,
}

#[derive(Debug, Serialize)]
struct Results {
    cores: Vec<usize>,
    sweep: Vec<(Setting, f64)>,
    best: Setting,
    target: Target,
    stolen_percent: StolenPercent,
    rounds: Vec<Round>,
}

const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = server::run_if_asked()? {
        return Ok(code);
    }
    gristmill_onnx::disable_telemetry();
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench throughput`");
        return Ok(ExitCode::SUCCESS);
    }
    let watch = stolen::Watch::start()?;
    let library = model::onnx_runtime_library()?;
    let all = affinity::cores()?;
    let client_core = args.client_core.or(all.last().copied()).context("there is a core")?;
    let cores = args.cores.unwrap_or_else(|| all.into_iter().filter(|&core| core != client_core).collect());
    ensure!(
        !cores.is_empty() && !cores.contains(&client_core),
        "the client has core {client_core}: expected others for ONNX Runtime and the server, got {cores:?}"
    );
    affinity::pin(&[client_core])?;
    let turn = Duration::from_millis(if args.quick { 200 } else { args.turn_ms });

    let sweep = affinity::on(&cores, || sweep(&library, cores.len(), turn / 4))??;
    let best =
        *sweep.iter().max_by(|left, right| left.1.total_cmp(&right.1)).context("there are settings")?;
    let best = best.0;
    let server = Server::gristmill(&cores, &library, CONVOLUTIONS, &[])?;
    let log = server.log()?;
    let served_as = log.lines().find(|line| line.contains(CONVOLUTIONS.name)).context("a model is served")?;
    let check = |answer: &ModelInferResponse| {
        ensure!(
            answer.raw_output_contents.first().is_some_and(|y| y.len() == 10 * 4),
            "an answer of ten numbers"
        );
        Ok(())
    };
    let mut load = Load::open(server.address(), args.connections, &CONVOLUTIONS.request(), check)?;
    load.run(args.in_flight, turn / 4)?;

    let mut rounds = Vec::new();
    for round in 1..=if args.quick { 1 } else { args.rounds } {
        eprintln!("round {round}");
        let alone_rows_per_s =
            affinity::on(&cores, || alone::rows_per_s(&library, CONVOLUTIONS, best, turn))??;
        let before = cpu_time::total(server.pid())?;
        let served = load.run(args.in_flight, turn)?;
        let used = cpu_time::total(server.pid())? - before;
        rounds.push(Round {
            alone_rows_per_s,
            served_rows_per_s: served.calls as f64 / served.took.as_secs_f64(),
            served_cpu_us: used.as_secs_f64() * 1e6 / served.calls as f64,
            latency_ms: served.median.as_secs_f64() * 1e3,
        });
    }
    let ratio = median(rounds.iter().map(|round| round.served_rows_per_s / round.alone_rows_per_s));
    let target = Target::new("throughput, served / alone", ratio, Bound::AtLeast(0.97));
    let stolen_percent = watch.stop()?;
    let results = Results { cores, sweep, best, target, stolen_percent, rounds };
    println!("\nServed as (model, version, backend, batch rows, workers):\n\n{served_as}");
    print_table(&results);
    println!("{}\n\n{}", results.stolen_percent, serde_json::to_string(&results)?);
    Ok(ExitCode::SUCCESS)
}

/// One session with all cores, and a session for each; every batch size.
fn sweep(library: &Path, cores: usize, duration: Duration) -> anyhow::Result<Vec<(Setting, f64)>> {
    let mut shapes = vec![(cores, 1), (1, cores)];
    shapes.dedup();
    let mut measured = Vec::new();
    for (sessions, threads) in shapes {
        for rows in ROWS {
            let setting = Setting { sessions, threads, rows };
            eprintln!("ONNX Runtime alone: {sessions} x {threads} threads, {rows} rows");
            measured.push((setting, alone::rows_per_s(library, CONVOLUTIONS, setting, duration)?));
        }
    }
    Ok(measured)
}

fn print_table(results: &Results) {
    println!("\nONNX Runtime alone on cores {:?}, rows/s:\n", results.cores);
    for (Setting { sessions, threads, rows }, rate) in &results.sweep {
        println!("  {sessions} sessions x {threads} threads, {rows:>2} rows a run {rate:>12.1}");
    }
    let over = |value: fn(&Round) -> f64| median(results.rounds.iter().map(value));
    let Setting { sessions, threads, rows } = results.best;
    println!("\nMedians of {} rounds:\n", results.rounds.len());
    println!(
        "  alone, {sessions} x {threads} threads, {rows} rows {:>12.1} rows/s",
        over(|round| round.alone_rows_per_s)
    );
    println!(
        "  served over gRPC {:>12.1} rows/s, {:.1} us of CPU a row, median latency {:.1} ms\n",
        over(|round| round.served_rows_per_s),
        over(|round| round.served_cpu_us),
        over(|round| round.latency_ms)
    );
    println!("{}", results.target);
}
