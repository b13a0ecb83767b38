//! What serving costs beside what it cannot avoid: CPU time per request, and latency, of a bare tonic echo, of
//! Gristmill with an identity model and with a small MLP, and of ONNX Runtime alone, in turns on one pinned core. With
//! `--against PROGRAM` another build of Gristmill has its turns too.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use gristmill_benches::alone::{self, Setting};
use gristmill_benches::load::Load;
use gristmill_benches::model::{self, IDENTITY, MLP, Model};
use gristmill_benches::server::{self, START_MAX, Server};
use gristmill_benches::stolen::{self, StolenPercent};
use gristmill_benches::summary::{Bound, Target, median};
use gristmill_benches::{affinity, cpu_time};
use gristmill_proto::inference::ModelInferResponse;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures CPU time per request and latency of servers that run on one core, loaded from another.
#[derive(Debug, Parser)]
struct Args {
    /// How often each server has its turn.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Length of one turn at many calls in flight; a turn at one in flight is half as long.
    #[arg(long, default_value_t = 1000)]
    turn_ms: u64,
    /// One short turn each: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Connections that share the calls in flight.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// The servers' core.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The client's core.
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// A `gristmill` of another build, to be compared with the one in `target/release`.
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A server with open connections.
struct Subject {
    name: &'static str,
    server: Server,
    load: Load,
}

/// One turn of a subject.
#[derive(Clone, Debug, Serialize)]
struct Turn {
    /// Of the server's process, in user and kernel mode.
    cpu_us: f64,
    cpu_us_by_thread: BTreeMap<String, f64>,
    requests_per_s: f64,
    latency_us: f64,
    latency_one_in_flight_us: f64,
}

#[derive(Debug, Serialize)]
struct Round {
    echo: Turn,
    identity: Turn,
    mlp: Turn,
    /// Of the other build.
    against: Option<Against>,
    /// Run time a row of ONNX Runtime alone, by rows in a run.
    alone_us_by_rows: BTreeMap<usize, f64>,
}

#[derive(Debug, Serialize)]
struct Against {
    identity: Turn,
    mlp: Turn,
}

#[derive(Debug, Serialize)]
struct Results {
    in_flight: usize,
    connections: usize,
    targets: Vec<Target>,
    stolen_percent: StolenPercent,
    rounds: Vec<Round>,
}

type PickTurn = fn(&Round) -> &Turn;

const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = server::run_if_asked()? {
        return Ok(code);
    }
    gristmill_onnx::disable_telemetry();
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench overhead`");
        return Ok(ExitCode::SUCCESS);
    }
    let watch = stolen::Watch::start()?;
    let library = model::onnx_runtime_library()?;
    affinity::pin_client(args.client_core, args.server_core)?;

    let on = [args.server_core];
    let mut echo = subject("echo", Server::echo(&on)?, MLP, args.connections)?;
    // Two builds are compared as programs of the same kind.
    let own = args.against.as_ref().map(|_| server::release_build()).transpose()?;
    let gristmill = |program: Option<&Path>, model| -> anyhow::Result<Subject> {
        let server = serve(&on, program, &library, model)?;
        subject(model.name, server, model, args.connections)
    };
    let mut identity = gristmill(own.as_deref(), IDENTITY)?;
    let mut mlp = gristmill(own.as_deref(), MLP)?;
    let mut against = match args.against.as_deref() {
        Some(program) => Some((gristmill(Some(program), IDENTITY)?, gristmill(Some(program), MLP)?)),
        None => None,
    };

    let rounds = if args.quick { 1 } else { args.rounds };
    let turn = Duration::from_millis(if args.quick { 100 } else { args.turn_ms });
    let others = against.iter_mut().flat_map(|(identity, mlp)| [identity, mlp]);
    for subject in [&mut echo, &mut identity, &mut mlp].into_iter().chain(others) {
        subject.load.run(args.in_flight, turn)?;
    }
    let mut measured = Vec::new();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let mut of_other = || -> anyhow::Result<Option<Against>> {
            let Some((identity, mlp)) = &mut against else { return Ok(None) };
            let identity = identity.turn(args.in_flight, turn)?;
            Ok(Some(Against { identity, mlp: mlp.turn(args.in_flight, turn)? }))
        };
        // Whoever is first in one round is last in the next.
        let first = if round % 2 == 0 { of_other()? } else { None };
        let echo = echo.turn(args.in_flight, turn)?;
        let identity = identity.turn(args.in_flight, turn)?;
        let mlp = mlp.turn(args.in_flight, turn)?;
        let against = if first.is_none() { of_other()? } else { first };
        measured.push(Round {
            echo,
            identity,
            mlp,
            against,
            alone_us_by_rows: affinity::on(&on, || alone_us_by_rows(&library, turn / 10))??,
        });
    }
    let targets = targets(&measured);
    let stolen_percent = watch.stop()?;
    let results = Results {
        in_flight: args.in_flight,
        connections: args.connections,
        targets,
        stolen_percent,
        rounds: measured,
    };
    print_table(&results);
    println!("{}\n\n{}", results.stolen_percent, serde_json::to_string(&results)?);
    Ok(ExitCode::SUCCESS)
}

/// `model` alone with one I/O thread, served by this program or by `program`.
fn serve(on: &[usize], program: Option<&Path>, library: &Path, model: Model) -> anyhow::Result<Server> {
    let flags = ["--io-threads", "1"];
    let Some(program) = program else { return Server::gristmill(on, library, model, &flags) };
    let directory = tempfile::tempdir()?;
    let repository = directory.path().join("models");
    model.copy_to(&repository)?;
    Server::of_program_on(on, program, library, &repository, &flags, directory, START_MAX)
}

fn subject(name: &'static str, server: Server, model: Model, connections: usize) -> anyhow::Result<Subject> {
    let request = model.request();
    let expected = if name == MLP.name { 2 * 4 } else { request.raw_input_contents[0].len() };
    let check = |answer: &ModelInferResponse| {
        let bytes = answer.raw_output_contents.first().map_or(0, |output| output.len());
        ensure!(bytes == expected, "{name} answers with {bytes} bytes, expected {expected}");
        Ok(())
    };
    let load = Load::open(server.address(), connections, &request, check).context(name)?;
    Ok(Subject { name, server, load })
}

fn alone_us_by_rows(library: &Path, duration: Duration) -> anyhow::Result<BTreeMap<usize, f64>> {
    let measure = |rows| {
        let setting = Setting { sessions: 1, threads: 1, rows };
        Ok((rows, 1e6 / alone::rows_per_s(library, MLP, setting, duration)?))
    };
    ROWS.into_iter().map(measure).collect()
}

// === impl Subject ===

impl Subject {
    fn turn(&mut self, in_flight: usize, duration: Duration) -> anyhow::Result<Turn> {
        let one = self.load.run(1, duration / 2).context(self.name)?;
        let before = cpu_time::by_thread(self.server.pid())?;
        let many = self.load.run(in_flight, duration).context(self.name)?;
        let after = cpu_time::by_thread(self.server.pid())?;
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let used = cpu_time::used_between(&before, &after).into_iter();
        let cpu_us_by_thread: BTreeMap<String, f64> =
            used.map(|(name, time)| (name, micros(time) / many.calls as f64)).collect();
        Ok(Turn {
            cpu_us: cpu_us_by_thread.values().sum(),
            cpu_us_by_thread,
            requests_per_s: many.calls as f64 / many.took.as_secs_f64(),
            latency_us: micros(many.median),
            latency_one_in_flight_us: micros(one.median),
        })
    }
}

// === impl Round ===

impl Round {
    fn alone_us(&self) -> f64 {
        self.alone_us_by_rows.values().copied().fold(f64::INFINITY, f64::min)
    }

    fn alone_rows(&self) -> usize {
        let best = self.alone_us_by_rows.iter().min_by(|left, right| left.1.total_cmp(right.1));
        *best.expect("several were measured; this is a bug").0
    }
}

/// Each ratio and difference is taken inside a round, between turns that follow each other; then the median.
fn targets(rounds: &[Round]) -> Vec<Target> {
    let over = |value: fn(&Round) -> f64| median(rounds.iter().map(value));
    let beside = |name, value: fn(&Round, &Against) -> f64| {
        let ratios: Option<Vec<f64>> =
            rounds.iter().map(|round| round.against.as_ref().map(|against| value(round, against))).collect();
        ratios.map(|ratios| Target::new(name, median(ratios), Bound::AtMost(1.02)))
    };
    let besides = [
        beside("CPU time, identity / identity of the other build", |round, against| {
            round.identity.cpu_us / against.identity.cpu_us
        }),
        beside("CPU time, MLP / MLP of the other build", |round, against| {
            round.mlp.cpu_us / against.mlp.cpu_us
        }),
        beside("one in flight, median latency, MLP / MLP of the other build", |round, against| {
            round.mlp.latency_one_in_flight_us / against.mlp.latency_one_in_flight_us
        }),
    ];
    let targets = vec![
        Target::new(
            "CPU time, identity / echo",
            over(|round| round.identity.cpu_us / round.echo.cpu_us),
            Bound::AtMost(1.4),
        ),
        Target::new(
            "CPU time, MLP / (echo + run time a row of ONNX Runtime alone)",
            over(|round| round.mlp.cpu_us / (round.echo.cpu_us + round.alone_us())),
            Bound::AtMost(1.25),
        ),
        Target::new(
            "one in flight, median latency, identity - echo, us",
            over(|round| round.identity.latency_one_in_flight_us - round.echo.latency_one_in_flight_us),
            Bound::AtMost(40.0),
        ),
    ];
    targets.into_iter().chain(besides.into_iter().flatten()).collect()
}

fn print_table(results: &Results) {
    let rounds = &results.rounds;
    println!(
        "\nMedians of {} rounds; {} calls in flight on {} connections, or one.\n",
        rounds.len(),
        results.in_flight,
        results.connections
    );
    println!(
        "{:<12}{:>14}{:>14}{:>16}{:>16}   CPU us by thread",
        "", "CPU us/call", "calls/s", "latency us", "latency of 1 us"
    );
    let subjects: [(&str, PickTurn); 3] =
        [("echo", |round| &round.echo), ("identity", |round| &round.identity), ("mlp", |round| &round.mlp)];
    for (name, turn) in subjects {
        let over = |value: fn(&Turn) -> f64| median(rounds.iter().map(|round| value(turn(round))));
        let threads = &turn(&rounds[0]).cpu_us_by_thread;
        let by_thread = threads.keys().map(|thread| {
            let used = rounds.iter().filter_map(|round| turn(round).cpu_us_by_thread.get(thread).copied());
            (thread, median(used))
        });
        let by_thread = by_thread.filter(|(_, used)| *used >= 0.05);
        let by_thread: Vec<String> = by_thread.map(|(thread, used)| format!("{thread} {used:.1}")).collect();
        println!(
            "{name:<12}{:>14.2}{:>14.0}{:>16.1}{:>16.1}   {}",
            over(|turn| turn.cpu_us),
            over(|turn| turn.requests_per_s),
            over(|turn| turn.latency_us),
            over(|turn| turn.latency_one_in_flight_us),
            by_thread.join(", ")
        );
    }
    println!(
        "{:<12}{:>14.2}   a row, the best of 1 to {} rows in a run: {}\n",
        "alone",
        median(rounds.iter().map(Round::alone_us)),
        ROWS[ROWS.len() - 1],
        median(rounds.iter().map(|round| round.alone_rows() as f64))
    );
    for target in &results.targets {
        println!("{target}");
    }
}
