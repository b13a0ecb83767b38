//! What a saturated heavy model costs the callers of a light one on the same cores, with the core budget and without.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use gristmill_benches::affinity;
use gristmill_benches::deep::HEAVY;
use gristmill_benches::http::get;
use gristmill_benches::load::Load;
use gristmill_benches::model::{self, CONVOLUTIONS};
use gristmill_benches::paced::{Paced, percentile};
use gristmill_benches::server::{self, Server};
use gristmill_benches::stolen::{self, StolenPercent};
use gristmill_benches::summary::{Bound, Target, median};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Calls a light model at a steady rate, alone and while a heavy one has more to do than it can.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Length of a turn; each round has four.
    #[arg(long, default_value_t = 4000)]
    turn_ms: u64,
    /// One short turn each: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Calls of the light model a second.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Most rows of the heavy model that run together.
    #[arg(long, default_value_t = 16)]
    heavy_rows: usize,
    /// Sessions of the heavy model; one for each core if left out.
    #[arg(long)]
    heavy_instances: Option<usize>,
    /// Of each session of the heavy model.
    #[arg(long, default_value_t = 1)]
    heavy_threads: usize,
    /// Calls of the heavy model, of one row each.
    #[arg(long, default_value_t = 64)]
    heavy_in_flight: usize,
    /// Of the servers and of this program, comma-separated.
    #[arg(long, value_delimiter = ',')]
    cores: Option<Vec<usize>>,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A server with connections for both models.
struct Subject {
    server: Server,
    light: Paced,
    heavy: Load,
}

/// Of one server in one round.
#[derive(Clone, Copy, Debug, Serialize)]
struct Turns {
    alone_median_ms: f64,
    alone_p99_ms: f64,
    beside_median_ms: f64,
    beside_p99_ms: f64,
    /// The mean of the heavy model's runs meanwhile.
    heavy_run_ms: f64,
    heavy_rows_per_s: f64,
}

#[derive(Debug, Serialize)]
struct Round {
    budget: Turns,
    no_budget: Turns,
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
const CONNECTIONS: usize = 4;
const HEAVY_CONNECTIONS: usize = 4;

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = server::run_if_asked()? {
        return Ok(code);
    }
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench sharing`");
        return Ok(ExitCode::SUCCESS);
    }
    let watch = stolen::Watch::start()?;
    let library = model::onnx_runtime_library()?;
    let cores = affinity::pin_to(args.cores.as_deref(), CORES)?;
    let mut budget = Subject::start(&args, &cores, &library, &[])?;
    let mut no_budget = Subject::start(&args, &cores, &library, &["--no-core-budget"])?;
    let rounds = if args.quick { 1 } else { args.rounds };
    let turn = Duration::from_millis(if args.quick { 300 } else { args.turn_ms });
    let mut measured = Vec::new();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        measured.push(Round { budget: budget.turns(&args, turn)?, no_budget: no_budget.turns(&args, turn)? });
    }
    let rounds = measured;
    let target = Target::new(
        "p99 beside a saturated model / (3 x p99 alone + one of its runs)",
        median(rounds.iter().map(|round| round.ratio(&round.budget))),
        Bound::AtMost(1.0),
    );
    let stolen_percent = watch.stop()?;
    let results = Results { cores, target, stolen_percent, rounds };
    print_table(&results, &args);
    println!("{}\n\n{}", results.stolen_percent, serde_json::to_string(&results)?);
    Ok(ExitCode::SUCCESS)
}

// === impl Round ===

impl Round {
    /// To what is allowed. A run of the heavy model is as long as it is where it has a core to itself.
    fn ratio(&self, turns: &Turns) -> f64 {
        turns.beside_p99_ms / (3.0 * turns.alone_p99_ms + self.budget.heavy_run_ms)
    }
}

// === impl Subject ===

impl Subject {
    fn start(args: &Args, cores: &[usize], library: &Path, flags: &[&str]) -> anyhow::Result<Subject> {
        let directory = tempfile::tempdir()?;
        let repository = directory.path().join("models");
        CONVOLUTIONS.copy_to(&repository)?;
        // The same for both servers, which might choose differently.
        let layout =
            |instances: usize, threads: usize| format!("instances = {instances}\nthreads = {threads}\n");
        fs::write(repository.join(CONVOLUTIONS.name).join("model.toml"), layout(cores.len(), 1))?;
        let heavy = layout(args.heavy_instances.unwrap_or(cores.len()), args.heavy_threads);
        HEAVY.create(&repository, &format!("{heavy}batching = {{ rows_max = {} }}\n", args.heavy_rows))?;
        let server = Server::on_repository(cores, library, &repository, flags, directory)?;
        let light = Paced::open(server.address(), CONNECTIONS, &CONVOLUTIONS.request(), args.rate)?;
        let heavy = Load::open(server.address(), HEAVY_CONNECTIONS, &HEAVY.model.request(), |_| Ok(()))?;
        Ok(Subject { server, light, heavy })
    }

    fn turns(&mut self, args: &Args, turn: Duration) -> anyhow::Result<Turns> {
        let Subject { server, light, heavy } = self;
        let alone = light.run_for(turn)?;
        let before = Runs::of_heavy(server)?;
        let (beside, calls_per_s) = std::thread::scope(|scope| {
            let load = scope.spawn(|| heavy.run(args.heavy_in_flight, turn));
            let beside = light.run_for(turn);
            let load = load.join().expect("a load does not panic; this is a bug")?;
            Ok::<_, anyhow::Error>((beside?, load.calls as f64 / load.took.as_secs_f64()))
        })?;
        let after = Runs::of_heavy(server)?;
        ensure!(after.count > before.count, "the heavy model did not run");
        let ms = |latencies: &[Duration], share| percentile(latencies, share).as_secs_f64() * 1e3;
        Ok(Turns {
            alone_median_ms: ms(&alone, 0.5),
            alone_p99_ms: ms(&alone, 0.99),
            beside_median_ms: ms(&beside, 0.5),
            beside_p99_ms: ms(&beside, 0.99),
            heavy_run_ms: (after.seconds - before.seconds) / (after.count - before.count) * 1e3,
            heavy_rows_per_s: calls_per_s,
        })
    }
}

/// Runs of a model since its server began.
struct Runs {
    count: f64,
    seconds: f64,
}

impl Runs {
    fn of_heavy(server: &Server) -> anyhow::Result<Runs> {
        let metrics = get(server.http_address()?, "/metrics")?.1;
        let value = |suffix: &str| {
            let start = format!("gristmill_run_seconds_{suffix}{{");
            let model = format!("model=\"{}\"", HEAVY.model.name);
            let mut lines = metrics.lines().filter(|line| line.starts_with(&start) && line.contains(&model));
            let value = lines.next().and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
            value.with_context(|| format!("the server counts no {start}"))
        };
        Ok(Runs { count: value("count")?, seconds: value("sum")? })
    }
}

fn print_table(results: &Results, args: &Args) {
    println!(
        "\n{} calls a second of `{}`, beside {} calls in flight of `{}`; servers and client on cores {:?}, ms:\n",
        args.rate, CONVOLUTIONS.name, args.heavy_in_flight, HEAVY.model.name, results.cores
    );
    println!("             alone: median    p99   beside: median    p99   a heavy run   heavy rows/s");
    for (index, round) in results.rounds.iter().enumerate() {
        for (name, turns) in [("budget", round.budget), ("none", round.no_budget)] {
            println!(
                "  {:>2} {name:<7} {:>12.2} {:>6.2} {:>16.2} {:>6.2} {:>13.1} {:>14.0}",
                index + 1,
                turns.alone_median_ms,
                turns.alone_p99_ms,
                turns.beside_median_ms,
                turns.beside_p99_ms,
                turns.heavy_run_ms,
                turns.heavy_rows_per_s,
            );
        }
    }
    let over = |value: fn(&Round) -> f64| median(results.rounds.iter().map(value));
    println!(
        "\n  medians: p99 beside {:.2} ms with the budget, {:.2} without; heavy rows/s {:.0} and {:.0}",
        over(|round| round.budget.beside_p99_ms),
        over(|round| round.no_budget.beside_p99_ms),
        over(|round| round.budget.heavy_rows_per_s),
        over(|round| round.no_budget.heavy_rows_per_s),
    );
    let without = median(results.rounds.iter().map(|round| round.ratio(&round.no_budget)));
    println!("\n{}\n        without the budget: {without:.3}", results.target);
}
