//! What the loading of a large model costs the callers of another model that the same server serves.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use gristmill_benches::affinity;
use gristmill_benches::http::get;
use gristmill_benches::large::{LARGE, Versions};
use gristmill_benches::model::{self, MLP};
use gristmill_benches::paced::{Paced, percentile};
use gristmill_benches::server::{self, Server, pause};
use gristmill_benches::stolen::{self, StolenPercent};
use gristmill_benches::summary::{Bound, Target, median};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Calls a small model at a steady rate, in turns with and without a large one being replaced.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How often each side has its turn in a round. A turn takes as long as a load does.
    #[arg(long, default_value_t = 4)]
    turns: usize,
    /// One turn each: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Calls a second.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Of the server and of this program, comma-separated.
    #[arg(long, value_delimiter = ',')]
    cores: Option<Vec<usize>>,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Turns {
    calls: usize,
    median_us: f64,
    p99_us: f64,
    p999_us: f64,
}

#[derive(Debug, Serialize)]
struct Round {
    quiet: Turns,
    loading: Turns,
    /// From the rename until the new version serves.
    load_ms: f64,
}

#[derive(Debug, Serialize)]
struct Results {
    cores: Vec<usize>,
    target: Target,
    stolen_percent: StolenPercent,
    rounds: Vec<Round>,
}

/// Cores that the target is stated for.
const CORES: usize = 2;
const POLL_PAUSE: Duration = Duration::from_millis(20);
const LOAD_MAX: Duration = Duration::from_secs(60);
/// Until the version that was replaced is freed, which counts as part of the load.
const FREED_PAUSE: Duration = Duration::from_millis(300);

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = server::run_if_asked()? {
        return Ok(code);
    }
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench neighbour`");
        return Ok(ExitCode::SUCCESS);
    }
    let watch = stolen::Watch::start()?;
    let library = model::onnx_runtime_library()?;
    let cores = affinity::pin_to(args.cores.as_deref(), CORES)?;
    let (rounds, turns) = if args.quick { (1, 1) } else { (args.rounds, args.turns) };

    let directory = tempfile::tempdir()?;
    let repository = directory.path().join("models");
    MLP.copy_to(&repository)?;
    let settings = "versions = { latest = 1 }\nkeep_previous = \"0s\"\n";
    let mut versions = Versions::create(&repository, directory.path(), settings)?;
    let server = Server::on_repository(&cores, &library, &repository, &[], directory)?;
    let http = server.http_address()?;
    let mut paced = Paced::open(server.address(), args.connections, &MLP.request(), args.rate)?;
    run_for(&mut paced, Duration::from_secs(1))?;

    let mut measured = Vec::new();
    for round in 1..=rounds {
        eprintln!("round {round}");
        let (mut quiet, mut loading, mut load_time) = (Vec::new(), Vec::new(), Duration::ZERO);
        for _ in 0..turns {
            let (latencies, took) = run_beside_load(&mut paced, &mut versions, http)
                .with_context(|| server.log().unwrap_or_default())?;
            quiet.extend(run_for(&mut paced, took + FREED_PAUSE)?);
            loading.extend(latencies);
            load_time += took;
        }
        let load_ms = load_time.as_secs_f64() * 1e3 / turns as f64;
        measured.push(Round { quiet: Turns::new(quiet), loading: Turns::new(loading), load_ms });
    }
    let rounds = measured;
    let ratio = median(rounds.iter().map(|round| round.loading.p99_us / round.quiet.p99_us));
    let target = Target::new("p99 of a neighbour, while a model loads / else", ratio, Bound::AtMost(1.25));
    let stolen_percent = watch.stop()?;
    let results = Results { cores, target, stolen_percent, rounds };
    print_table(&results, args.rate);
    println!("{}\n\n{}", results.stolen_percent, serde_json::to_string(&results)?);
    Ok(ExitCode::SUCCESS)
}

fn run_for(paced: &mut Paced, duration: Duration) -> anyhow::Result<Vec<Duration>> {
    let end = Instant::now() + duration;
    paced.run(|| Instant::now() >= end)
}

/// Calls while the large model is replaced by a new version. Gives also the time until that served.
fn run_beside_load(
    paced: &mut Paced,
    versions: &mut Versions,
    http: SocketAddr,
) -> anyhow::Result<(Vec<Duration>, Duration)> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let took = load(versions, http);
            is_over.store(true, Ordering::Release);
            took
        });
        let latencies = paced.run(|| is_over.load(Ordering::Acquire));
        let took = load.join().expect("a wait does not panic; this is a bug");
        Ok((latencies?, took?))
    })
}

/// Replaces the large model by a new version.
fn load(versions: &mut Versions, http: SocketAddr) -> anyhow::Result<Duration> {
    let start = Instant::now();
    versions.add()?;
    let path = format!("/v2/models/{}/versions/{}/ready", LARGE.name, versions.newest());
    while get(http, &path)?.0 != 200 {
        ensure!(
            start.elapsed() < LOAD_MAX,
            "version {} does not serve after {LOAD_MAX:?}",
            versions.newest()
        );
        pause(POLL_PAUSE);
    }
    let took = start.elapsed();
    pause(FREED_PAUSE);
    versions.remove_older()?;
    Ok(took)
}

// === impl Turns ===

impl Turns {
    fn new(mut latencies: Vec<Duration>) -> Turns {
        latencies.sort_unstable();
        let us = |share| percentile(&latencies, share).as_secs_f64() * 1e6;
        Turns { calls: latencies.len(), median_us: us(0.5), p99_us: us(0.99), p999_us: us(0.999) }
    }
}

fn print_table(results: &Results, rate: f64) {
    println!(
        "\n{rate} calls a second of `{}`, server and client on cores {:?}, us:\n",
        MLP.name, results.cores
    );
    println!("  round     quiet: median   p99  p99.9     loading: median   p99  p99.9  p99 ratio  ms a load");
    for (index, Round { quiet, loading, load_ms }) in results.rounds.iter().enumerate() {
        println!(
            "  {:>5} {:>17.0} {:>5.0} {:>6.0} {:>19.0} {:>5.0} {:>6.0} {:>10.3} {load_ms:>10.0}",
            index + 1,
            quiet.median_us,
            quiet.p99_us,
            quiet.p999_us,
            loading.median_us,
            loading.p99_us,
            loading.p999_us,
            loading.p99_us / quiet.p99_us,
        );
    }
    println!("\n{}", results.target);
}
