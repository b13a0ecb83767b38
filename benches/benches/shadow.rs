//! What shadowing all requests to a model of equal cost does to the callers of the primary, at half load and at full.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use gristmill_benches::affinity;
use gristmill_benches::http::get;
use gristmill_benches::load::Load;
use gristmill_benches::model::{self, CONVOLUTIONS};
use gristmill_benches::paced::{Paced, percentile};
use gristmill_benches::server::{self, Server, pause};
use gristmill_benches::stolen::{self, StolenPercent};
use gristmill_benches::summary::{Bound, Target, median};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Calls a route without a shadow and one whose every request goes to a shadow too, in turns on one server.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Length of a turn; each round has two at half load and two at full.
    #[arg(long, default_value_t = 4000)]
    turn_ms: u64,
    /// One short turn each: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Share of the calls a second that the server can answer, at half load.
    #[arg(long, default_value_t = 0.5)]
    load: f64,
    /// Calls at full load.
    #[arg(long, default_value_t = 32)]
    in_flight: usize,
    /// Of the server and of this program, comma-separated.
    #[arg(long, value_delimiter = ',')]
    cores: Option<Vec<usize>>,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the two routes' callers saw in one round.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Round {
    plain: Turns,
    shadowed: Turns,
    half_load: Mirrors,
    full_load: Mirrors,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Turns {
    median_ms: f64,
    p99_ms: f64,
    /// At full load.
    calls_per_s: f64,
}

/// Of the requests that were to be mirrored.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Mirrors {
    compared: u64,
    shed: u64,
}

#[derive(Debug, Serialize)]
struct Results {
    cores: Vec<usize>,
    rate_per_s: f64,
    targets: [Target; 2],
    stolen_percent: StolenPercent,
    rounds: Vec<Round>,
}

/// Cores that the target is stated for.
const CORES: usize = 2;
const CONNECTIONS: usize = 4;
const PLAIN: &str = "plain";
const SHADOWED: &str = "shadowed";
/// The same contents as the primary's.
const TWIN: &str = "twin";
const POLL_PAUSE: Duration = Duration::from_millis(20);
const READY_MAX: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = server::run_if_asked()? {
        return Ok(code);
    }
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench shadow`");
        return Ok(ExitCode::SUCCESS);
    }
    let watch = stolen::Watch::start()?;
    let library = model::onnx_runtime_library()?;
    let cores = affinity::pin_to(args.cores.as_deref(), CORES)?;
    let server = start(&cores, &library)?;
    let http = server.http_address()?;
    let rounds = if args.quick { 1 } else { args.rounds };
    let turn = Duration::from_millis(if args.quick { 300 } else { args.turn_ms });

    let loads = || {
        let open = |route| Load::open(server.address(), CONNECTIONS, &request(route), |_| Ok(()));
        anyhow::Ok([open(PLAIN)?, open(SHADOWED)?])
    };
    let [mut plain_load, mut shadowed_load] = loads()?;
    let full = plain_load.run(args.in_flight, turn)?;
    let rate_per_s = args.load * full.calls as f64 / full.took.as_secs_f64();
    let open = |route| Paced::open(server.address(), CONNECTIONS, &request(route), rate_per_s);
    let (mut plain_paced, mut shadowed_paced) = (open(PLAIN)?, open(SHADOWED)?);
    let mut measured = Vec::new();
    for number in 1..=rounds {
        eprintln!("round {number} of {rounds}");
        let mut round = Round::default();
        // Who goes first changes from round to round.
        for is_shadowed in [number % 2 == 0, number % 2 == 1] {
            settle(http)?;
            let (paced, load, turns) = match is_shadowed {
                true => (&mut shadowed_paced, &mut shadowed_load, &mut round.shadowed),
                false => (&mut plain_paced, &mut plain_load, &mut round.plain),
            };
            let before = Mirrors::read(http)?;
            let end = Instant::now() + turn;
            let mut latencies = paced.run(|| Instant::now() >= end)?;
            latencies.sort_unstable();
            let half = Mirrors::read(http)?;
            let full = load.run(args.in_flight, turn)?;
            let ms = |share| percentile(&latencies, share).as_secs_f64() * 1e3;
            let calls_per_s = full.calls as f64 / full.took.as_secs_f64();
            *turns = Turns { median_ms: ms(0.5), p99_ms: ms(0.99), calls_per_s };
            if is_shadowed {
                round.half_load = half.since(before);
                round.full_load = Mirrors::read(http)?.since(half);
            }
        }
        ensure!(round.half_load.compared > 0 || args.quick, "nothing was mirrored at half load");
        measured.push(round);
    }
    let rounds = measured;
    let ratio =
        |of: fn(&Turns) -> f64| median(rounds.iter().map(|round| of(&round.shadowed) / of(&round.plain)));
    let targets = [
        Target::new("p99 at half load, shadowed / not", ratio(|turns| turns.p99_ms), Bound::AtMost(1.05)),
        Target::new(
            "calls a second at full load, shadowed / not",
            ratio(|turns| turns.calls_per_s),
            Bound::AtLeast(0.97),
        ),
    ];
    let stolen_percent = watch.stop()?;
    let results = Results { cores, rate_per_s, targets, stolen_percent, rounds };
    print_table(&results, args.in_flight);
    println!("{}\n\n{}", results.stolen_percent, serde_json::to_string(&results)?);
    Ok(ExitCode::SUCCESS)
}

/// A server with both models and both routes in force.
fn start(cores: &[usize], library: &Path) -> anyhow::Result<Server> {
    let directory = tempfile::tempdir()?;
    let repository = directory.path().join("models");
    CONVOLUTIONS.copy_to(&repository)?;
    let name = CONVOLUTIONS.name;
    let twin = repository.join(TWIN).join("1");
    fs::create_dir_all(&twin)?;
    fs::copy(CONVOLUTIONS.path(), twin.join("model.onnx"))?;
    fs::write(twin.join(".complete"), "")?;
    for model in [name, TWIN] {
        fs::write(
            repository.join(model).join("model.toml"),
            format!("instances = {}\nthreads = 1\n", cores.len()),
        )?;
    }
    let arms = format!("arms = [{{ model = \"{name}\", weight = 100 }}]\n");
    let shadows = format!("shadows = [{{ model = \"{TWIN}\" }}]\n");
    let routes = format!("[routes.{PLAIN}]\n{arms}\n[routes.{SHADOWED}]\n{arms}{shadows}");
    fs::write(repository.join("routes.toml"), routes)?;
    let server = Server::on_repository(cores, library, &repository, &[], directory)?;
    let (http, start) = (server.http_address()?, Instant::now());
    while get(http, &format!("/v1/admin/routes/{SHADOWED}"))?.0 != 200 {
        ensure!(start.elapsed() < READY_MAX, "the routes are not in force: {}", server.log()?);
        pause(POLL_PAUSE);
    }
    Ok(server)
}

fn request(route: &str) -> gristmill_proto::inference::ModelInferRequest {
    gristmill_proto::inference::ModelInferRequest { model_name: route.into(), ..CONVOLUTIONS.request() }
}

/// Waits until no mirror of the turn before is at work.
fn settle(http: SocketAddr) -> anyhow::Result<()> {
    let mut before = Mirrors::read(http)?;
    loop {
        pause(POLL_PAUSE * 5);
        let now = Mirrors::read(http)?;
        if now.since(before).compared + now.since(before).shed == 0 {
            return Ok(());
        }
        before = now;
    }
}

// === impl Mirrors ===

impl Mirrors {
    /// Of the shadowed route, since the server began.
    fn read(http: SocketAddr) -> anyhow::Result<Mirrors> {
        let (_, body) = get(http, &format!("/v1/admin/routes/{SHADOWED}"))?;
        let route: serde_json::Value = serde_json::from_str(&body)?;
        let count = |name: &str| {
            let count = route["shadows"][0]["counts"][name].as_u64();
            count.with_context(|| format!("the server does not count {name}: {body}"))
        };
        ensure!(count("mismatched")? + count("shadow_failed")? == 0, "the twin answers differently: {body}");
        Ok(Mirrors { compared: count("matched")?, shed: count("no_room")? + count("no_core")? })
    }

    fn since(self, before: Mirrors) -> Mirrors {
        Mirrors { compared: self.compared - before.compared, shed: self.shed - before.shed }
    }

    fn shed_percent(self) -> f64 {
        100.0 * self.shed as f64 / (self.compared + self.shed).max(1) as f64
    }
}

fn print_table(results: &Results, in_flight: usize) {
    println!(
        "\n`{}`, shadowed by a copy of itself; half load is {:.0} calls a second, full is {in_flight} in flight; \
         server and client on cores {:?}, ms:\n",
        CONVOLUTIONS.name, results.rate_per_s, results.cores
    );
    println!("            half load: median    p99   mirrors shed   full load: calls/s   mirrors shed");
    for (index, round) in results.rounds.iter().enumerate() {
        let rows = [("plain", round.plain, None), ("shadowed", round.shadowed, Some(round))];
        for (name, turns, mirrors) in rows {
            let shed = |of: fn(&Round) -> Mirrors| {
                mirrors.map_or("-".to_owned(), |round| format!("{:.1} %", of(round).shed_percent()))
            };
            println!(
                "  {:>2} {name:<8} {:>16.2} {:>6.2} {:>14} {:>20.0} {:>14}",
                index + 1,
                turns.median_ms,
                turns.p99_ms,
                shed(|round| round.half_load),
                turns.calls_per_s,
                shed(|round| round.full_load),
            );
        }
    }
    println!();
    for target in &results.targets {
        println!("{target}");
    }
}
