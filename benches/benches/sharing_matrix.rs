//! Whether the core budget ever costs more than it gives: a light model beside a saturated heavy one, with the budget and
//! without, over what decides how they share cores.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use gristmill_benches::affinity;
use gristmill_benches::deep::{self, Deep};
use gristmill_benches::load::Load;
use gristmill_benches::model::{self, CONVOLUTIONS, MLP, Model};
use gristmill_benches::paced::{Paced, percentile};
use gristmill_benches::server::{self, Server};
use gristmill_benches::stolen;
use gristmill_benches::summary::median;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Calls a light model at a steady rate, alone and beside a heavy one that has more to do than it can, in each cell of a
/// matrix.
#[derive(Debug, Parser)]
struct Args {
    /// Of both servers; a cell's numbers are their medians.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Length of a turn beside the heavy model; one alone is half as long.
    #[arg(long, default_value_t = 4000)]
    turn_ms: u64,
    /// Only cells whose description contains this.
    #[arg(long)]
    cell: Option<String>,
    /// Flags of the server without a budget, to compare with something else.
    #[arg(long, default_value = "--no-core-budget", allow_hyphen_values = true)]
    without: String,
    /// One short turn each: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What decides how the models share cores.
#[derive(Clone, Copy, Debug, Serialize)]
struct Cell {
    cores: usize,
    heavy: Heavy,
    /// Most rows of the heavy model in one run.
    heavy_rows: usize,
    /// Each run of the heavy model has all cores, instead of one.
    heavy_has_all_threads: bool,
    light: Light,
    /// Calls of the light model a second.
    rate: f64,
    /// Both models have an SLO that they can keep.
    has_deadlines: bool,
}

/// By the time of one row.
#[derive(Clone, Copy, Debug, Serialize)]
enum Heavy {
    Short,
    Middle,
    Long,
}

#[derive(Clone, Copy, Debug, Serialize)]
enum Light {
    Mlp,
    Convolutions,
}

/// Of one server in one turn.
#[derive(Clone, Copy, Debug, Serialize)]
struct Turn {
    alone_p99_ms: f64,
    beside_median_ms: f64,
    beside_p99_ms: f64,
    heavy_rows_per_s: f64,
}

/// A cell, and the medians of its turns.
#[derive(Debug, Serialize)]
struct Row {
    cell: Cell,
    budget: Turn,
    without: Turn,
}

/// A server with connections for both models.
struct Subject {
    /// Ends when this is dropped.
    _server: Server,
    light: Paced,
    heavy: Load,
}

const CENTRE: Cell = Cell {
    cores: 1,
    heavy: Heavy::Middle,
    heavy_rows: 8,
    heavy_has_all_threads: false,
    light: Light::Mlp,
    rate: 200.0,
    has_deadlines: false,
};
const CONNECTIONS: usize = 4;
const HEAVY_IN_FLIGHT: usize = 32;
/// Calls of the light model in one turn, at least.
const CALLS_MIN: f64 = 150.0;
/// How much worse the budget may be, relative to none ...
const WORSE_MAX: f64 = 1.05;
/// ... or by how much its p99 may be later.
const LATER_MAX_MS: f64 = 0.3;

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = server::run_if_asked()? {
        return Ok(code);
    }
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench sharing_matrix`");
        return Ok(ExitCode::SUCCESS);
    }
    let watch = stolen::Watch::start()?;
    let library = model::onnx_runtime_library()?;
    let wanted = |cell: &Cell| args.cell.as_ref().is_none_or(|text| cell.describe().contains(text));
    let mut rows = Vec::new();
    println!("{HEADER}");
    for cell in matrix().into_iter().filter(wanted) {
        let row = measure(&args, cell, &library)?;
        println!("{}", row.line());
        rows.push(row);
    }
    let missed = rows.iter().filter(|row| !row.is_met()).count();
    println!("\n{missed} of {} cells are worse with the budget than their bound", rows.len());
    println!("{}\n\n{}", watch.stop()?, serde_json::to_string(&rows)?);
    Ok(ExitCode::SUCCESS)
}

/// A centre, one factor at a time, and the corners that hurt.
fn matrix() -> Vec<Cell> {
    let centre = CENTRE;
    let two = Cell { cores: 2, ..centre };
    vec![
        centre,
        two,
        Cell { heavy: Heavy::Short, ..centre },
        Cell { heavy: Heavy::Long, ..centre },
        Cell { heavy_rows: 1, ..centre },
        Cell { heavy_rows: 64, ..centre },
        Cell { light: Light::Convolutions, ..centre },
        Cell { rate: 10.0, ..centre },
        Cell { rate: 2000.0, ..centre },
        Cell { has_deadlines: true, ..centre },
        Cell { heavy: Heavy::Short, ..two },
        Cell { heavy: Heavy::Long, ..two },
        Cell { heavy_rows: 1, ..two },
        Cell { heavy_rows: 64, ..two },
        Cell { heavy_has_all_threads: true, ..two },
        Cell { light: Light::Convolutions, ..two },
        Cell { rate: 10.0, ..two },
        Cell { rate: 2000.0, ..two },
        Cell { has_deadlines: true, ..two },
        // Long runs that nothing divides, and callers who come often.
        Cell { heavy: Heavy::Long, heavy_rows: 1, light: Light::Convolutions, ..centre },
        Cell { heavy: Heavy::Long, rate: 2000.0, ..two },
        Cell { heavy: Heavy::Long, heavy_has_all_threads: true, ..two },
        Cell { heavy: Heavy::Short, heavy_rows: 1, rate: 2000.0, ..centre },
        Cell { heavy_rows: 64, heavy_has_all_threads: true, has_deadlines: true, ..two },
    ]
}

fn measure(args: &Args, cell: Cell, library: &Path) -> anyhow::Result<Row> {
    eprintln!("{}", cell.describe());
    let all = affinity::cores()?;
    let on = &all[..cell.cores.min(all.len())];
    // Where a core is left the client has it.
    let client = if on.len() < all.len() { &all[on.len()..] } else { on };
    affinity::on(client, || {
        let mut budget = Subject::start(cell, on, library, &[])?;
        let mut without = Subject::start(cell, on, library, &args.without.split(' ').collect::<Vec<_>>())?;
        let (turns, length) = match args.quick {
            true => (1, Duration::from_millis(400)),
            // A p99 of few calls is that of none.
            false => {
                let enough = Duration::from_secs_f64(CALLS_MIN / cell.rate);
                (args.turns, Duration::from_millis(args.turn_ms).max(enough))
            }
        };
        let (mut with, mut none) = (Vec::new(), Vec::new());
        for turn in 0..turns {
            // Who goes first changes from turn to turn.
            for is_budget in [turn % 2 == 0, turn % 2 == 1] {
                match is_budget {
                    true => with.push(budget.turn(length)?),
                    false => none.push(without.turn(length)?),
                }
            }
        }
        Ok(Row { cell, budget: Turn::median(&with), without: Turn::median(&none) })
    })?
}

// === impl Cell ===

impl Cell {
    fn describe(self) -> String {
        let Cell { cores, heavy_rows, rate, .. } = self;
        let heavy = match self.heavy {
            Heavy::Short => "0.4 ms",
            Heavy::Middle => "4 ms",
            Heavy::Long => "40 ms",
        };
        let light = match self.light {
            Light::Mlp => "10 us",
            Light::Convolutions => "1 ms",
        };
        let threads = if self.heavy_has_all_threads { "all" } else { "1" };
        let deadlines = if self.has_deadlines { "yes" } else { "no" };
        format!("| {cores} | {heavy} | {heavy_rows} | {threads} | {light} | {rate:.0} | {deadlines} |")
    }

    fn heavy_model(self) -> Deep {
        deep::tall(match self.heavy {
            Heavy::Short => 2,
            Heavy::Middle => 16,
            Heavy::Long => 160,
        })
    }

    fn light_model(self) -> Model {
        match self.light {
            Light::Mlp => MLP,
            Light::Convolutions => CONVOLUTIONS,
        }
    }
}

const HEADER: &str = "\
| cores | heavy run, a row | rows_max | threads | light run | calls/s | deadlines | p99 alone, ms | p99 with budget | without | heavy rows/s with | without | |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

// === impl Row ===

impl Row {
    fn line(&self) -> String {
        let Row { cell, budget, without } = self;
        format!(
            "{} {:.2} | {:.2} | {:.2} | {:.1} | {:.1} | {} |",
            cell.describe(),
            without.alone_p99_ms,
            budget.beside_p99_ms,
            without.beside_p99_ms,
            budget.heavy_rows_per_s,
            without.heavy_rows_per_s,
            if self.is_met() { "met" } else { "missed" },
        )
    }

    fn is_met(&self) -> bool {
        let Row { budget, without, .. } = self;
        let late_max = (without.beside_p99_ms * WORSE_MAX).max(without.beside_p99_ms + LATER_MAX_MS);
        budget.beside_p99_ms <= late_max && budget.heavy_rows_per_s * WORSE_MAX >= without.heavy_rows_per_s
    }
}

// === impl Turn ===

impl Turn {
    fn median(turns: &[Turn]) -> Turn {
        let of = |value: fn(&Turn) -> f64| median(turns.iter().map(value));
        Turn {
            alone_p99_ms: of(|turn| turn.alone_p99_ms),
            beside_median_ms: of(|turn| turn.beside_median_ms),
            beside_p99_ms: of(|turn| turn.beside_p99_ms),
            heavy_rows_per_s: of(|turn| turn.heavy_rows_per_s),
        }
    }
}

// === impl Subject ===

impl Subject {
    fn start(cell: Cell, cores: &[usize], library: &Path, flags: &[&str]) -> anyhow::Result<Subject> {
        let directory = tempfile::tempdir()?;
        let repository = directory.path().join("models");
        let (heavy, light) = (cell.heavy_model(), cell.light_model());
        // The same for both servers, which might choose differently.
        let layout = |has_all: bool, slo: &str| {
            let (instances, threads) = if has_all { (1, cores.len()) } else { (cores.len(), 1) };
            let slo = if cell.has_deadlines { format!("slo = \"{slo}\"\n") } else { String::new() };
            format!("instances = {instances}\nthreads = {threads}\n{slo}")
        };
        light.copy_to(&repository)?;
        fs::write(repository.join(light.name).join("model.toml"), layout(false, "500ms"))?;
        let batching = format!("batching = {{ rows_max = {} }}\n", cell.heavy_rows);
        heavy.create(&repository, &(layout(cell.heavy_has_all_threads, "30s") + &batching))?;
        let server = Server::on_repository(cores, library, &repository, flags, directory)?;
        let light = Paced::open(server.address(), CONNECTIONS, &light.request(), cell.rate)?;
        let heavy = Load::open(server.address(), CONNECTIONS, &heavy.model.request(), |_| Ok(()))?;
        Ok(Subject { _server: server, light, heavy })
    }

    fn turn(&mut self, length: Duration) -> anyhow::Result<Turn> {
        let Subject { light, heavy, .. } = self;
        let alone = light.run_for(length / 2)?;
        let (beside, rows) = std::thread::scope(|scope| {
            let load = scope.spawn(|| heavy.run(HEAVY_IN_FLIGHT, length));
            let beside = light.run_for(length);
            let load = load.join().expect("a load does not panic; this is a bug")?;
            anyhow::Ok((beside?, load.calls as f64 / load.took.as_secs_f64()))
        })?;
        let ms = |latencies: &[Duration], share| percentile(latencies, share).as_secs_f64() * 1e3;
        Ok(Turn {
            alone_p99_ms: ms(&alone, 0.99),
            beside_median_ms: ms(&beside, 0.5),
            beside_p99_ms: ms(&beside, 0.99),
            heavy_rows_per_s: rows,
        })
    }
}
