//! The scheduler beside those of other servers, in the engine's simulation: goodput and attainment by kind of demand.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use gristmill_benches::bars::{Bar, Group, svg};
use gristmill_benches::summary::{Bound, Target};
use gristmill_engine::simulation::comparison::{self, Case, Standing};
use serde::Serialize;

/// Plays the same arrivals against every policy. Time is virtual: the numbers are the same on every machine.
#[derive(Debug, Parser)]
struct Args {
    /// How much time is played, for each case and seed.
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How often, with other arrivals and run times each time.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Write a plot of the attainment to this SVG file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Plays a second of each: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Serialize)]
struct Results {
    duration_s: f64,
    cases: Vec<CaseResult>,
    targets: Vec<Target>,
}

#[derive(Debug, Serialize)]
struct CaseResult {
    name: &'static str,
    offered_per_s: f64,
    policies: Vec<PolicyResult>,
    /// By how much of its goodput ours is ahead of the best other.
    lead: f64,
}

#[derive(Debug, Serialize)]
struct PolicyResult {
    policy: String,
    #[serde(skip)]
    family: &'static str,
    goodput_per_s: f64,
    attainment: f64,
    attainment_least: f64,
    attainment_most: f64,
    batch_rows: f64,
    /// By seed.
    goodputs_per_s: Vec<f64>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench policies`");
        return Ok(ExitCode::SUCCESS);
    }
    let duration = if args.quick { Duration::from_secs(1) } else { args.duration };
    let seeds: Vec<u64> = (1..=args.seeds).collect();
    let cases = comparison::cases();
    // Each case is a thread's: none depends on another, nor on the clock.
    let played: Vec<Vec<Standing>> = std::thread::scope(|scope| {
        let threads: Vec<_> = cases.iter().map(|case| scope.spawn(|| case.play(duration, &seeds))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().expect("a simulation does not panic; this is a bug")
        };
        threads.into_iter().map(join).collect()
    });
    let results = Results {
        duration_s: duration.as_secs_f64(),
        targets: cases.iter().zip(&played).map(|(case, standings)| target(case, standings)).collect(),
        cases: cases.iter().zip(&played).map(|(case, standings)| result(case, standings)).collect(),
    };
    print_table(&results, seeds.len());
    println!("\n{}", serde_json::to_string(&results)?);
    if let Some(path) = args.svg {
        let title = format!("Requests answered in time ({} seeds, {duration:?} each)", seeds.len());
        std::fs::write(&path, plot(&title, &results))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let met = results.targets.iter().all(|target| target.met);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn target(case: &Case, standings: &[Standing]) -> Target {
    let name = format!("{}: lead of ours over the best other, as a share", case.name);
    Target::new(name, Case::lead(standings), Bound::AtLeast(case.lead))
}

fn result(case: &Case, standings: &[Standing]) -> CaseResult {
    let policy = |standing: &Standing| {
        let (attainment_least, attainment_most) = standing.attainment_range();
        PolicyResult {
            policy: standing.policy.to_string(),
            family: standing.policy.family(),
            goodput_per_s: standing.goodput_per_s(),
            attainment: standing.attainment(),
            attainment_least,
            attainment_most,
            batch_rows: standing.batch_rows(),
            goodputs_per_s: standing.outcomes.iter().map(|outcome| outcome.goodput_per_s()).collect(),
        }
    };
    CaseResult {
        name: case.name,
        offered_per_s: case.demand.process.mean_per_s(),
        policies: standings.iter().map(policy).collect(),
        lead: Case::lead(standings),
    }
}

fn print_table(results: &Results, seeds: usize) {
    println!(
        "\n{} s of virtual time, {seeds} seeds. In time: of all requests, mean (least to most of the seeds).",
        results.duration_s
    );
    for case in &results.cases {
        println!("\n{}, {:.0} requests a second", case.name, case.offered_per_s);
        println!("  {:<22}{:>10}{:>26}{:>12}", "policy", "in time/s", "in time, %", "rows/batch");
        for policy in &case.policies {
            let range = format!(
                "{:.1} ({:.1} to {:.1})",
                100.0 * policy.attainment,
                100.0 * policy.attainment_least,
                100.0 * policy.attainment_most
            );
            println!(
                "  {:<22}{:>10.0}{range:>26}{:>12.1}",
                policy.policy, policy.goodput_per_s, policy.batch_rows
            );
        }
    }
    println!();
    for target in &results.targets {
        println!("{target}");
    }
}

fn plot(title: &str, results: &Results) -> String {
    let series: Vec<&str> = results
        .cases
        .first()
        .map_or_else(Vec::new, |case| case.policies.iter().map(|policy| policy.family).collect());
    let bar = |policy: &PolicyResult| Bar {
        mean: policy.attainment,
        least: policy.attainment_least,
        most: policy.attainment_most,
    };
    let group = |case: &CaseResult| Group {
        name: case.name.to_owned(),
        bars: case.policies.iter().map(bar).collect(),
    };
    svg(title, &series, &results.cases.iter().map(group).collect::<Vec<_>>())
}
