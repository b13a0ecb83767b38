//! What it costs to run a share of live batches again row by row, and how many batches it takes until a model that mixes
//! rows is caught.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use gristmill_benches::affinity;
use gristmill_benches::cpu_time;
use gristmill_benches::http::{gauge, get};
use gristmill_benches::load::Load;
use gristmill_benches::mixing::{self, MIXING};
use gristmill_benches::model;
use gristmill_benches::server::{self, Server, pause};
use gristmill_benches::stolen::{self, StolenPercent};
use gristmill_benches::summary::{Bound, Target, median};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Calls a server that audits batches and one that does not, in turns, and has servers that audit different shares
/// catch a model that mixes rows.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Length of a turn; each round has two.
    #[arg(long, default_value_t = 4000)]
    turn_ms: u64,
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Shares of the batches that are run again, comma-separated.
    #[arg(long, value_delimiter = ',', default_values_t = [0.001, 0.01, 0.1, 1.0])]
    shares: Vec<f64>,
    /// How often each share is to catch the model.
    #[arg(long, default_value_t = 7)]
    trials: usize,
    /// One short turn and one trial each: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Of the server and of this program, comma-separated.
    #[arg(long, value_delimiter = ',')]
    cores: Option<Vec<usize>>,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Round {
    plain: Turn,
    audited: Turn,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Turn {
    calls_per_s: f64,
    /// CPU time of the server, in microseconds.
    cpu_us_per_call: f64,
    /// The part of it that the thread of audits used.
    audits_percent: f64,
}

/// How one share caught the model.
#[derive(Clone, Debug, Serialize)]
struct Catches {
    share: f64,
    /// Batches of more than one row until then, in each trial.
    batches: Vec<f64>,
    /// Time until then, of calls.
    seconds: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Results {
    cores: Vec<usize>,
    target: Target,
    stolen_percent: StolenPercent,
    rounds: Vec<Round>,
    catches: Vec<Catches>,
}

/// Of the server that is measured: what is audited where nothing is set.
const SHARE: f64 = 0.001;
/// The thread that runs audits, and nothing else once samples have run.
const AUDITS_THREAD: &str = "examine";
const CORES: usize = 2;
const CONNECTIONS: usize = 4;
const POLL_PAUSE: Duration = Duration::from_millis(20);
/// Longest that samples may take.
const SAMPLES_MAX: Duration = Duration::from_secs(60);
/// Between two looks whether the model is caught.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest that a model may go uncaught.
const CATCH_MAX: Duration = Duration::from_secs(300);

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = server::run_if_asked()? {
        return Ok(code);
    }
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench batch_audit`");
        return Ok(ExitCode::SUCCESS);
    }
    let watch = stolen::Watch::start()?;
    let library = model::onnx_runtime_library()?;
    let cores = affinity::pin_to(args.cores.as_deref(), CORES)?;
    let rounds = measure(&args, &cores, &library)?;
    let trials = if args.quick { 1 } else { args.trials };
    let catches = |share: &f64| {
        eprintln!("a share of {share}");
        let caught =
            (0..trials).map(|_| catch(&cores, &library, *share)).collect::<anyhow::Result<Vec<_>>>()?;
        let (batches, seconds) = caught.into_iter().unzip();
        Ok(Catches { share: *share, batches, seconds })
    };
    let catches = args.shares.iter().map(catches).collect::<anyhow::Result<_>>()?;
    let percent = median(rounds.iter().map(|round| round.audited.audits_percent));
    let target = Target::new("CPU time of audits, % of the server's", percent, Bound::AtMost(0.5));
    let stolen_percent = watch.stop()?;
    let results = Results { cores, target, stolen_percent, rounds, catches };
    print_table(&results, args.in_flight);
    println!("{}\n\n{}", results.stolen_percent, serde_json::to_string(&results)?);
    Ok(ExitCode::SUCCESS)
}

/// Calls both servers, in turns, with rows that mix with nothing.
fn measure(args: &Args, cores: &[usize], library: &Path) -> anyhow::Result<Vec<Round>> {
    let (rounds, turn) = match args.quick {
        true => (1, Duration::from_millis(300)),
        false => (args.rounds, Duration::from_millis(args.turn_ms)),
    };
    let (plain, audited) = (start(cores, library, 0.0)?, start(cores, library, SHARE)?);
    let open = |server: &Server| Load::open(server.address(), CONNECTIONS, &MIXING.request(), |_| Ok(()));
    let (mut plain_load, mut audited_load) = (open(&plain)?, open(&audited)?);
    let mut measured = Vec::new();
    for number in 1..=rounds {
        eprintln!("round {number} of {rounds}");
        let mut round = Round::default();
        // Who goes first changes from round to round.
        for is_audited in [number % 2 == 0, number % 2 == 1] {
            let (load, pid, measured) = match is_audited {
                true => (&mut audited_load, audited.pid(), &mut round.audited),
                false => (&mut plain_load, plain.pid(), &mut round.plain),
            };
            *measured = take_turn(load, pid, args.in_flight, turn)?;
        }
        measured.push(round);
    }
    Ok(measured)
}

fn take_turn(load: &mut Load, pid: u32, in_flight: usize, length: Duration) -> anyhow::Result<Turn> {
    let before = cpu_time::by_thread(pid)?;
    let turn = load.run(in_flight, length)?;
    let after = cpu_time::by_thread(pid)?;
    let used = cpu_time::used_between(&before, &after);
    let all: Duration = used.values().sum();
    let audits = used.get(AUDITS_THREAD).copied().unwrap_or_default();
    Ok(Turn {
        calls_per_s: turn.calls as f64 / turn.took.as_secs_f64(),
        cpu_us_per_call: all.as_secs_f64() * 1e6 / turn.calls as f64,
        audits_percent: 100.0 * audits.as_secs_f64() / all.as_secs_f64(),
    })
}

/// Has callers of large rows meet others until the server has noticed. Gives the batches until then, and seconds.
fn catch(cores: &[usize], library: &Path, share: f64) -> anyhow::Result<(f64, f64)> {
    let server = start(cores, library, share)?;
    let http = server.http_address()?;
    let open = |request| Load::open(server.address(), CONNECTIONS, &request, |_| Ok(()));
    let mut loads = [open(MIXING.request())?, open(mixing::large_request())?];
    let begun = Instant::now();
    while !is_caught(http)? {
        ensure!(begun.elapsed() < CATCH_MAX, "a share of {share} caught nothing within {CATCH_MAX:?}");
        std::thread::scope(|scope| {
            let running: Vec<_> =
                loads.iter_mut().map(|load| scope.spawn(|| load.run(2 * CONNECTIONS, LOOK_EVERY))).collect();
            running
                .into_iter()
                .try_for_each(|load| load.join().expect("a load does not panic; this is a bug").map(|_| ()))
        })?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (_, metrics) = get(http, "/metrics")?;
    // From then on batches have one row, which is the first bucket.
    let count = |name: &str| {
        let count = gauge(&metrics, &format!("gristmill_batch_rows_{name}"), MIXING.name, 1);
        count.with_context(|| format!("no {name} of batches in /metrics"))
    };
    Ok((count("count")? - count("bucket")?, seconds))
}

fn is_caught(http: SocketAddr) -> anyhow::Result<bool> {
    let (_, body) = get(http, "/v2/health/ready")?;
    Ok(body.contains("each request runs alone"))
}

/// A server whose model is batched, because samples did not show that it mixes rows.
fn start(cores: &[usize], library: &Path, share: f64) -> anyhow::Result<Server> {
    let directory = tempfile::tempdir()?;
    let repository = directory.path().join("models");
    let layout = format!("instances = {}\nthreads = 1\n", cores.len());
    mixing::create(&repository, &format!("{layout}batching = {{ audit = {share} }}\n"))?;
    let server = Server::on_repository(cores, library, &repository, &[], directory)?;
    let (http, begun) = (server.http_address()?, Instant::now());
    let path = format!("/v2/models/{}/latency-model", MIXING.name);
    loop {
        let (_, body) = get(http, &path)?;
        let model: serde_json::Value = serde_json::from_str(&body)?;
        if model["batch_rows_max"].as_u64().is_some_and(|rows| rows > 1) {
            return Ok(server);
        }
        ensure!(begun.elapsed() < SAMPLES_MAX, "the model is not batched: {body} {}", server.log()?);
        pause(POLL_PAUSE);
    }
}

fn print_table(results: &Results, in_flight: usize) {
    println!(
        "\n`{}` with {in_flight} calls in flight, server and client on cores {:?}:\n",
        MIXING.name, results.cores
    );
    println!("        calls a second           CPU us a call            audits");
    println!("          not audited {SHARE} audited  not audited {SHARE} audited  % of CPU");
    for (index, Round { plain, audited }) in results.rounds.iter().enumerate() {
        println!(
            "  {:>4} {:>14.0} {:>13.0} {:>12.2} {:>13.2} {:>9.3}",
            index + 1,
            plain.calls_per_s,
            audited.calls_per_s,
            plain.cpu_us_per_call,
            audited.cpu_us_per_call,
            audited.audits_percent
        );
    }
    println!("\nuntil a model that mixes rows is caught, medians and most:\n");
    println!("   share   batches            seconds");
    for Catches { share, batches, seconds } in &results.catches {
        let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        println!(
            "  {share:>6} {:>9.0} {:>8.0} {:>9.2} {:>8.2}",
            median(batches.iter().copied()),
            most(batches),
            median(seconds.iter().copied()),
            most(seconds)
        );
    }
    println!("\n{}", results.target);
}
