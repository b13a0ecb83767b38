//! Bandits in a closed loop with arms that are known: regret and time to a decision, beside Thompson's in numpy.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use gristmill_benches::arms::{Case, Course, PARTS, REQUESTS, cases};
use gristmill_benches::lines::{Panel, svg};
use gristmill_benches::summary::{Bound, Target, median};
use gristmill_engine::bandit::Algorithm;
use serde::{Deserialize, Serialize};

/// Plays the same requests and rewards for each algorithm. Time is virtual: the numbers are the same on every machine.
#[derive(Debug, Parser)]
struct Args {
    /// Write a plot of the regrets to this SVG file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Plays two seeds: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What `fixtures/thompson.py` wrote, by case.
type References = BTreeMap<String, Reference>;

#[derive(Debug, Deserialize)]
struct Reference {
    /// By seed.
    regrets: Vec<f64>,
    /// The mean of all seeds over time.
    curve: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct CaseResult {
    name: &'static str,
    algorithms: Vec<AlgorithmResult>,
    /// Mean of the seeds.
    reference_regret: Option<f64>,
}

#[derive(Debug, Serialize)]
struct AlgorithmResult {
    name: &'static str,
    /// Means of the seeds over time.
    curve: Vec<f64>,
    regret_error: f64,
    decided: f64,
    decided_right: f64,
    /// Medians of the seeds that decided, or detected.
    requests_to_decision: f64,
    requests_to_detection: f64,
    share_after_detection_most: f64,
}

const REFERENCE: &str = include_str!("../fixtures/thompson.json");
const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::Thompson, Algorithm::EpsilonGreedy { epsilon: 0.1 }, Algorithm::Ucb1];

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench bandit`");
        return Ok(ExitCode::SUCCESS);
    }
    let references: References = serde_json::from_str(REFERENCE)?;
    let cases = cases();
    let seeds = references.values().map(|reference| reference.regrets.len()).min().unwrap_or(0);
    let seeds = if args.quick { 2 } else { seeds };
    // Each case is a thread's: none depends on another, nor on the clock.
    let results: Vec<CaseResult> = std::thread::scope(|scope| {
        let references = &references;
        let play = |case| scope.spawn(move || result(case, references.get(case.name), seeds));
        let threads: Vec<_> = cases.iter().map(play).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().expect("a simulation does not panic; this is a bug")
        };
        threads.into_iter().map(join).collect()
    });
    print_table(&results, seeds);
    let targets = targets(&results);
    for target in &targets {
        println!("{target}");
    }
    println!("\n{}", serde_json::to_string(&results)?);
    if let Some(path) = args.svg {
        let title = format!("Regret over {REQUESTS} requests (mean of {seeds} seeds)");
        std::fs::write(&path, plot(&title, &results, &references))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let met = args.quick || targets.iter().all(|target| target.met);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn result(case: &Case, reference: Option<&Reference>, seeds: usize) -> CaseResult {
    let played = |algorithm: &Algorithm| {
        let courses: Vec<Course> = (1..=seeds as u64).map(|seed| case.play(*algorithm, seed)).collect();
        summary(algorithm.name(), &courses)
    };
    CaseResult {
        name: case.name,
        algorithms: ALGORITHMS.iter().map(played).collect(),
        reference_regret: reference.map(|reference| mean(reference.regrets[..seeds].iter().copied())),
    }
}

fn summary(name: &'static str, courses: &[Course]) -> AlgorithmResult {
    let count = courses.len() as f64;
    let curve: Vec<f64> =
        (0..PARTS).map(|part| mean(courses.iter().map(|course| course.regret[part]))).collect();
    let last = PARTS - 1;
    let variance = mean(courses.iter().map(|course| (course.regret[last] - curve[last]).powi(2)));
    let decisions: Vec<(usize, bool)> = courses.iter().filter_map(|course| course.decision).collect();
    let detections = || courses.iter().filter_map(|course| course.detection);
    AlgorithmResult {
        name,
        curve,
        regret_error: (variance / count).sqrt(),
        decided: decisions.len() as f64 / count,
        decided_right: mean(decisions.iter().map(|(_, right)| f64::from(u8::from(*right)))),
        requests_to_decision: median(decisions.iter().map(|(request, _)| *request as f64)),
        requests_to_detection: median(detections().map(|(request, _)| request as f64)),
        share_after_detection_most: detections().map(|(_, share)| share).fold(f64::NAN, f64::max),
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn targets(results: &[CaseResult]) -> Vec<Target> {
    let mut targets = Vec::new();
    for case in results {
        let thompson = &case.algorithms[0];
        if let Some(reference) = case.reference_regret {
            let name = format!("{}: regret of Thompson, in regrets of the reference", case.name);
            targets.push(Target::new(name, thompson.curve[PARTS - 1] / reference, Bound::AtMost(1.2)));
        }
        for algorithm in
            case.algorithms.iter().filter(|algorithm| algorithm.requests_to_detection.is_finite())
        {
            let name = format!("{}: share of the broken arm after detection, {}", case.name, algorithm.name);
            targets.push(Target::new(name, algorithm.share_after_detection_most, Bound::AtMost(0.01)));
        }
    }
    targets
}

fn print_table(results: &[CaseResult], seeds: usize) {
    println!(
        "\n{REQUESTS} requests, {seeds} seeds. Decided: one arm is the best with 99 %; at which request (median)."
    );
    for case in results {
        println!("\n{}", case.name);
        println!(
            "  {:<16}{:>18}{:>12}{:>10}{:>12}",
            "algorithm", "regret", "decided, %", "right, %", "at request"
        );
        for algorithm in &case.algorithms {
            let regret = format!("{:.1} +- {:.1}", algorithm.curve[PARTS - 1], algorithm.regret_error);
            println!(
                "  {:<16}{regret:>18}{:>12.0}{:>10.0}{:>12.0}",
                algorithm.name,
                100.0 * algorithm.decided,
                100.0 * algorithm.decided_right,
                algorithm.requests_to_decision
            );
            if algorithm.requests_to_detection.is_finite() {
                println!(
                    "  {:<16}the broken arm is seen at request {:.0} and then gets at most {:.2} %",
                    "",
                    algorithm.requests_to_detection,
                    100.0 * algorithm.share_after_detection_most
                );
            }
        }
        if let Some(reference) = case.reference_regret {
            println!("  {:<16}{reference:>18.1}", "numpy's Thompson");
        }
    }
    println!();
}

fn plot(title: &str, results: &[CaseResult], references: &References) -> String {
    let panel = |case: &CaseResult| {
        let ours = case.algorithms.iter().map(|algorithm| algorithm.curve.clone());
        let reference = references.get(case.name).map(|reference| reference.curve.clone());
        Panel { name: case.name.to_owned(), lines: ours.chain(reference).collect() }
    };
    let series: Vec<&str> =
        ALGORITHMS.iter().map(|algorithm| algorithm.name()).chain(["numpy's Thompson"]).collect();
    svg(title, &series, &results.iter().map(panel).collect::<Vec<_>>())
}
