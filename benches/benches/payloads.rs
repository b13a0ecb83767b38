//! What tensors of some kilobytes cost: CPU time per request of a bare tonic echo and of Gristmill with an identity
//! model, beyond the run of ONNX Runtime alone, in turns on one pinned core.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use gristmill_benches::alone::{self, Setting};
use gristmill_benches::load::Load;
use gristmill_benches::model::{self, IDENTITY};
use gristmill_benches::server::{self, Server};
use gristmill_benches::summary::{Bound, Target, median};
use gristmill_benches::{affinity, cpu_time, stolen};
use gristmill_proto::inference::ModelInferResponse;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures CPU time per request of servers that run on one core, loaded from another, with inputs and outputs of 1 KB
/// to 1 MB over gRPC (raw).
#[derive(Debug, Parser)]
struct Args {
    /// How often each server has its turn.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Length of one turn.
    #[arg(long, default_value_t = 500)]
    turn_ms: u64,
    /// One short turn each: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// The servers' core.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The client's core.
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One size: bytes of the input, and as many of the output.
#[derive(Clone, Copy, Debug)]
struct Size {
    bytes: usize,
    in_flight: usize,
}

/// Medians for one size, in microseconds of CPU time per request.
#[derive(Debug, Serialize)]
struct Row {
    bytes: usize,
    echo_us: f64,
    gristmill_us: f64,
    /// Of that, the I/O thread's.
    io_us: f64,
    /// ONNX Runtime alone.
    run_us: f64,
    /// Beyond the run, by the echo's.
    ratio: f64,
}

/// A server's CPU time per request, and that of its I/O thread.
#[derive(Clone, Copy, Debug)]
struct Cpu {
    all_us: f64,
    io_us: f64,
}

const SIZES: [Size; 5] = [
    Size { bytes: 1 << 10, in_flight: 64 },
    Size { bytes: 16 << 10, in_flight: 32 },
    Size { bytes: 64 << 10, in_flight: 16 },
    Size { bytes: 200 << 10, in_flight: 8 },
    Size { bytes: 1 << 20, in_flight: 8 },
];
const CONNECTIONS: usize = 8;
/// From this size on there is a target.
const LARGE_BYTES: usize = 16 << 10;

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = server::run_if_asked()? {
        return Ok(code);
    }
    gristmill_onnx::disable_telemetry();
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench payloads`");
        return Ok(ExitCode::SUCCESS);
    }
    let watch = stolen::Watch::start()?;
    let library = model::onnx_runtime_library()?;
    affinity::pin_client(args.client_core, args.server_core)?;
    let rows: Vec<Row> =
        SIZES.iter().map(|&size| measure(&args, &library, size)).collect::<anyhow::Result<_>>()?;
    println!(
        "{:>9}{:>12}{:>15}{:>10}{:>10}{:>24}",
        "bytes", "echo, us", "Gristmill, us", "I/O, us", "run, us", "beyond the run / echo"
    );
    for row in &rows {
        println!(
            "{:>9}{:>12.1}{:>15.1}{:>10.1}{:>10.1}{:>24.3}",
            row.bytes, row.echo_us, row.gristmill_us, row.io_us, row.run_us, row.ratio
        );
    }
    println!();
    let large = rows.iter().filter(|row| row.bytes >= LARGE_BYTES).map(|row| row.ratio);
    let worst = large.fold(0.0, f64::max);
    println!(
        "{}",
        Target::new("CPU time beyond the run / echo, the worst from 16 KB on", worst, Bound::AtMost(1.1))
    );
    println!("{}\n\n{}", watch.stop()?, serde_json::to_string(&rows)?);
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Args, library: &Path, size: Size) -> anyhow::Result<Row> {
    let rows = size.bytes.div_ceil(IDENTITY.row_elements() * size_of::<f32>());
    let on = [args.server_core];
    let echo_server = Server::echo(&on)?;
    let gristmill = one_run_server(&on, library, rows)?;
    let mut echo = open(&echo_server, rows)?;
    let mut ours = open(&gristmill, rows)?;
    let rounds = if args.quick { 1 } else { args.rounds };
    let turn = Duration::from_millis(if args.quick { 50 } else { args.turn_ms });
    echo.run(size.in_flight, turn)?;
    ours.run(size.in_flight, turn)?;
    let mut measured: Vec<(Cpu, Cpu, f64)> = Vec::new();
    for round in 1..=rounds {
        eprintln!("{} bytes, round {round} of {rounds}", size.bytes);
        let echo = turn_of(&mut echo, &echo_server, size, turn)?;
        let ours = turn_of(&mut ours, &gristmill, size, turn)?;
        let setting = Setting { sessions: 1, threads: 1, rows };
        let rows_per_s = affinity::on(&on, || alone::rows_per_s(library, IDENTITY, setting, turn / 5))??;
        measured.push((echo, ours, rows as f64 / rows_per_s * 1e6));
    }
    let over = |value: fn(&(Cpu, Cpu, f64)) -> f64| median(measured.iter().map(value));
    Ok(Row {
        bytes: size.bytes,
        echo_us: over(|(echo, _, _)| echo.all_us),
        gristmill_us: over(|(_, ours, _)| ours.all_us),
        io_us: over(|(_, ours, _)| ours.io_us),
        run_us: over(|(_, _, run)| *run),
        ratio: over(|(echo, ours, run)| (ours.all_us - run) / echo.all_us),
    })
}

/// The identity model with one I/O thread; a request is one run.
fn one_run_server(on: &[usize], library: &Path, rows: usize) -> anyhow::Result<Server> {
    let directory = tempfile::tempdir()?;
    let repository = directory.path().join("models");
    IDENTITY.copy_to(&repository)?;
    let settings =
        format!("batching = {{ rows_max = {} }}\nqueue = {{ rows_max = 1000000 }}\n", rows.max(64));
    std::fs::write(repository.join(IDENTITY.name).join("model.toml"), settings)?;
    Server::on_repository(on, library, &repository, &["--io-threads", "1"], directory)
}

fn open(server: &Server, rows: usize) -> anyhow::Result<Load> {
    let request = IDENTITY.request_of(rows);
    let expected = request.raw_input_contents[0].len();
    let check = |answer: &ModelInferResponse| {
        let bytes = answer.raw_output_contents.first().map_or(0, |output| output.len());
        ensure!(bytes == expected, "an answer has {bytes} bytes, expected {expected}");
        Ok(())
    };
    Load::open(server.address(), CONNECTIONS, &request, check)
}

fn turn_of(load: &mut Load, server: &Server, size: Size, turn: Duration) -> anyhow::Result<Cpu> {
    let before = cpu_time::by_thread(server.pid())?;
    let calls = load.run(size.in_flight, turn)?.calls as f64;
    let after = cpu_time::by_thread(server.pid())?;
    let used = cpu_time::used_between(&before, &after);
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / calls;
    let io = used.get("io").copied().unwrap_or_default();
    Ok(Cpu { all_us: micros(used.values().sum()), io_us: micros(io) })
}
