//! How much of the best throughput that any setting gives a server without settings reaches, at the same p99.
//!
//! A grid of settings is searched in short turns; the best of them and the server without settings then take turns
//! in several rounds, of which each has servers of its own. Of each setting the throughput and the p99 are measured at several numbers of calls in flight,
//! and read between these at the p99 that the server without settings has at the middle one.
//!
//! The client has a core of its own: where it shares those of the server, whatever leaves it more of them wins, and
//! which setting serves best is not what is measured.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use gristmill_benches::affinity;
use gristmill_benches::curve::{Curve, Point};
use gristmill_benches::example::{EXAMPLES, Example};
use gristmill_benches::load::Load;
use gristmill_benches::model;
use gristmill_benches::server::{self, Server};
use gristmill_benches::stolen::{self, StolenPercent};
use gristmill_benches::summary::{Bound, Target, median};
use gristmill_benches::transformer::{MINI_LM, Transformer};
use gristmill_proto::inference::ModelInferRequest;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compares a server without settings with the best of a grid of them.
#[derive(Debug, Parser)]
struct Args {
    /// Of the grid: largest batches.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64")]
    rows_max: Vec<usize>,
    /// Of the grid: how long a batch waits for more rows, in microseconds.
    #[arg(long, value_delimiter = ',', default_value = "0,2000")]
    delay_us: Vec<u64>,
    /// Of the grid: instances x threads; if left out one instance a core, one with all cores, half of either, and
    /// twice as many of either as there are cores.
    #[arg(long, value_delimiter = ',', value_parser = shape)]
    shapes: Option<Vec<(usize, usize)>>,
    /// Calls in flight, ascending.
    #[arg(long, value_delimiter = ',', default_value = "4,16,64")]
    in_flight: Vec<usize>,
    /// Length of a turn in the search, at one number of calls in flight.
    #[arg(long, default_value_t = 250)]
    search_turn_ms: u64,
    /// A turn is longer where it would have fewer calls.
    #[arg(long, default_value_t = 100)]
    calls_min: usize,
    /// So many of the best settings are measured again.
    #[arg(long, default_value_t = 3)]
    finalists: usize,
    /// How often each of them has its turns.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    #[arg(long, default_value_t = 800)]
    turn_ms: u64,
    /// A small grid and short turns: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Of those measured, comma-separated; all if left out.
    #[arg(long, value_delimiter = ',')]
    models: Option<Vec<String>>,
    /// Of the servers, comma-separated; all but the client's if left out.
    #[arg(long, value_delimiter = ',')]
    cores: Option<Vec<usize>>,
    /// Of this program, comma-separated; the last one if left out.
    #[arg(long, value_delimiter = ',')]
    client_cores: Option<Vec<usize>>,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is called.
struct Case {
    name: &'static str,
    source: Source,
    request: ModelInferRequest,
}

enum Source {
    Example(Example),
    Made(Transformer),
}

/// A point of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Setting {
    rows_max: usize,
    delay_us: u64,
    instances: usize,
    threads: usize,
}

/// Where and how everything is measured.
struct Bench {
    args: Args,
    cores: Vec<usize>,
    library: std::path::PathBuf,
}

/// A server, and connections to it for each case that it serves.
struct Subject {
    server: Server,
    loads: Vec<Load>,
}

#[derive(Debug, Serialize)]
struct Finalist {
    setting: Setting,
    /// Of the rounds' ratios.
    default_share: f64,
    calls_per_s: f64,
}

/// Of one case.
#[derive(Debug, Serialize)]
struct Outcome {
    model: &'static str,
    served_as: String,
    p99_ms: f64,
    default_calls_per_s: f64,
    /// The one beside which the server without settings does worst comes first.
    finalists: Vec<Finalist>,
    search: Vec<(Setting, f64)>,
}

#[derive(Debug, Serialize)]
struct Results {
    cores: Vec<usize>,
    target: Target,
    stolen_percent: StolenPercent,
    outcomes: Vec<Outcome>,
}

const CONNECTIONS: usize = 4;

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = server::run_if_asked()? {
        return Ok(code);
    }
    let mut args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench defaults`");
        return Ok(ExitCode::SUCCESS);
    }
    let watch = stolen::Watch::start()?;
    if args.quick {
        (args.rows_max, args.delay_us) = (vec![1, 16], vec![0]);
        (args.search_turn_ms, args.calls_min, args.turn_ms) = (50, 20, 100);
        (args.finalists, args.rounds) = (1, 1);
    }
    let library = model::onnx_runtime_library()?;
    let all = affinity::cores()?;
    let client_cores = args.client_cores.clone().unwrap_or_else(|| all[all.len() - 1..].to_vec());
    let others = || all.iter().copied().filter(|core| !client_cores.contains(core)).collect();
    let cores = args.cores.clone().unwrap_or_else(others);
    anyhow::ensure!(!cores.is_empty(), "expected a core beside the client's {client_cores:?}: see --cores");
    affinity::pin(&client_cores)?;
    let mut cases = Case::all()?;
    cases
        .retain(|case| args.models.as_ref().is_none_or(|models| models.iter().any(|name| name == case.name)));
    let bench = Bench { args, cores, library };
    let searched = bench.search(&cases)?;
    let mut outcomes = Vec::new();
    for (case, search) in cases.iter().zip(searched) {
        let outcome = bench.decide(case, search)?;
        println!("\n{outcome}");
        outcomes.push(outcome);
    }
    let worst = outcomes.iter().map(Outcome::share).fold(f64::INFINITY, f64::min);
    let name = "throughput without settings / with the best, at the same p99, of the worst model";
    let target = Target::new(name, worst, Bound::AtLeast(0.95));
    let stolen_percent = watch.stop()?;
    let results = Results { cores: bench.cores, target, stolen_percent, outcomes };
    println!("\n{}\n{}\n\n{}", results.target, results.stolen_percent, serde_json::to_string(&results)?);
    Ok(ExitCode::SUCCESS)
}

/// `INSTANCESxTHREADS`.
fn shape(text: &str) -> Result<(usize, usize), String> {
    let parsed =
        text.split_once('x').and_then(|(left, right)| Some((left.parse().ok()?, right.parse().ok()?)));
    parsed.ok_or_else(|| format!("expected instances x threads, for example 2x1, got '{text}'"))
}

// === impl Case ===

impl Case {
    fn all() -> anyhow::Result<Vec<Case>> {
        let example = |example: Example| {
            let request = example.request()?;
            Ok(Case { name: example.name, source: Source::Example(example), request })
        };
        let mut cases = EXAMPLES.into_iter().map(example).collect::<anyhow::Result<Vec<_>>>()?;
        cases.push(Case { name: MINI_LM.name, source: Source::Made(MINI_LM), request: MINI_LM.request() });
        Ok(cases)
    }

    fn copy_to(&self, repository: &Path) -> anyhow::Result<()> {
        match self.source {
            Source::Example(example) => example.copy_to(repository),
            Source::Made(transformer) => transformer.create(repository),
        }
    }
}

// === impl Bench ===

impl Bench {
    fn grid(&self) -> Vec<Setting> {
        let cores = self.cores.len();
        let shapes = self.args.shapes.clone().unwrap_or_else(|| {
            let half = cores.div_ceil(2);
            let mut shapes = [cores, half, 2 * cores].map(|count| [(count, 1), (1, count)]).concat();
            shapes.sort_unstable();
            shapes.dedup();
            shapes
        });
        let mut grid = Vec::new();
        for &rows_max in &self.args.rows_max {
            // Nothing is waited for where a row runs alone.
            let delays = if rows_max == 1 { &[0][..] } else { &self.args.delay_us };
            for &delay_us in delays {
                grid.extend(shapes.iter().map(|&(instances, threads)| Setting {
                    rows_max,
                    delay_us,
                    instances,
                    threads,
                }));
            }
        }
        grid
    }

    /// What each setting gives each of the cases, in short turns; the best first.
    fn search(&self, cases: &[Case]) -> anyhow::Result<Vec<Vec<(Setting, f64)>>> {
        let turn = Duration::from_millis(self.args.search_turn_ms);
        let curves = |setting: Option<Setting>| -> anyhow::Result<Vec<Curve>> {
            let all: Vec<&Case> = cases.iter().collect();
            let mut subject = self.start(&all, setting)?;
            subject.loads.iter_mut().map(|load| self.curve(load, turn)).collect()
        };
        let bounds: Vec<f64> = curves(None)?.iter().map(Curve::middle_p99_ms).collect();
        let mut searched: Vec<Vec<(Setting, f64)>> = cases.iter().map(|_| Vec::new()).collect();
        let grid = self.grid();
        for (number, &setting) in grid.iter().enumerate() {
            eprintln!("search {} of {}: {setting}", number + 1, grid.len());
            for ((curve, bound), found) in curves(Some(setting))?.iter().zip(&bounds).zip(&mut searched) {
                found.push((setting, curve.calls_per_s_at(*bound)));
            }
        }
        for found in &mut searched {
            found.sort_by(|left, right| right.1.total_cmp(&left.1));
        }
        Ok(searched)
    }

    /// The best settings and none, in turns.
    fn decide(&self, case: &Case, search: Vec<(Setting, f64)>) -> anyhow::Result<Outcome> {
        let turn = Duration::from_millis(self.args.turn_ms);
        let settings: Vec<Setting> =
            search.iter().take(self.args.finalists).map(|(setting, _)| *setting).collect();
        let competitors: Vec<Option<Setting>> =
            std::iter::once(None).chain(settings.iter().copied().map(Some)).collect();
        let mut served_as = None;
        let mut rounds: Vec<Vec<Curve>> = Vec::new();
        for round in 0..self.args.rounds {
            eprintln!("{}: round {} of {}", case.name, round + 1, self.args.rounds);
            // Nobody always comes first, or behind the same one. Each round has servers of its own: two of the same
            // setting differ by a tenth for as long as they live, by where their memory happens to be.
            let count = competitors.len();
            let order = (0..count).map(|step| (step + round) % count);
            let mut curves = order
                .map(|place| {
                    let mut subject = self.start(&[case], competitors[place])?;
                    if place == 0 {
                        served_as = subject
                            .server
                            .log()?
                            .lines()
                            .rfind(|line| line.contains(case.name))
                            .map(str::to_owned);
                    }
                    Ok((place, self.curve(&mut subject.loads[0], turn)?))
                })
                .collect::<anyhow::Result<Vec<(usize, Curve)>>>()?;
            curves.sort_by_key(|(place, _)| *place);
            rounds.push(curves.into_iter().map(|(_, curve)| curve).collect());
        }
        let served_as = served_as.context("the model is served")?;
        let p99_ms = median(rounds.iter().map(|round| round[0].middle_p99_ms()));
        let of = |round: &[Curve], place: usize| round[place].calls_per_s_at(p99_ms);
        let mut finalists: Vec<Finalist> = settings
            .iter()
            .zip(1..)
            .map(|(&setting, place)| Finalist {
                setting,
                default_share: median(rounds.iter().map(|round| of(round, 0) / of(round, place))),
                calls_per_s: median(rounds.iter().map(|round| of(round, place))),
            })
            .collect();
        finalists.sort_by(|left, right| left.default_share.total_cmp(&right.default_share));
        Ok(Outcome {
            model: case.name,
            served_as: served_as.trim().to_owned(),
            p99_ms,
            default_calls_per_s: median(rounds.iter().map(|round| of(round, 0))),
            finalists,
            search,
        })
    }

    fn start(&self, cases: &[&Case], setting: Option<Setting>) -> anyhow::Result<Subject> {
        let directory = tempfile::tempdir()?;
        let repository = directory.path().join("models");
        for case in cases {
            case.copy_to(&repository)?;
            if let Some(setting) = setting {
                fs::write(repository.join(case.name).join("model.toml"), setting.model_toml())?;
            }
        }
        let server = Server::on_repository(&self.cores, &self.library, &repository, &[], directory)?;
        let open = |case: &&Case| Load::open(server.address(), CONNECTIONS, &case.request, |_| Ok(()));
        let loads = cases.iter().map(open).collect::<anyhow::Result<_>>()?;
        Ok(Subject { server, loads })
    }

    fn curve(&self, load: &mut Load, turn: Duration) -> anyhow::Result<Curve> {
        let most = self.args.in_flight.iter().copied().max().context("a number of calls in flight")?;
        let warm = load.run(most, turn / 4)?;
        let enough = warm.took.mul_f64(self.args.calls_min as f64 / warm.calls as f64);
        let points = self.args.in_flight.iter().map(|&in_flight| {
            let measured = load.run(in_flight, turn.max(enough))?;
            Ok(Point {
                calls_per_s: measured.calls as f64 / measured.took.as_secs_f64(),
                p99_ms: measured.p99.as_secs_f64() * 1e3,
            })
        });
        points.collect::<anyhow::Result<_>>().map(Curve)
    }
}

// === impl Setting ===

impl Setting {
    fn model_toml(self) -> String {
        let Setting { rows_max, delay_us, instances, threads } = self;
        format!(
            "instances = {instances}\nthreads = {threads}\n\
             batching = {{ rows_max = {rows_max}, delay = \"{delay_us}us\" }}\n"
        )
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting { rows_max, delay_us, instances, threads } = self;
        write!(f, "{instances} x {threads} threads, at most {rows_max} rows, delay {delay_us} us")
    }
}

// === impl Outcome ===

impl Outcome {
    /// Of the best throughput.
    fn share(&self) -> f64 {
        self.finalists.first().map_or(f64::NAN, |finalist| finalist.default_share)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, calls a second at a p99 of {:.2} ms:", self.model, self.p99_ms)?;
        writeln!(f, "  without settings     {:>9.0}   {}", self.default_calls_per_s, self.served_as)?;
        for Finalist { setting, default_share, calls_per_s } in &self.finalists {
            writeln!(f, "  {default_share:>5.3} of             {calls_per_s:>9.0}   {setting}")?;
        }
        write!(f, "  {} settings were searched", self.search.len())
    }
}
