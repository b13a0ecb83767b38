//! Bandits in a closed loop with arms that are known: regret and time to a decision, beside Thompson's in numpy.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    /// Write plots of the regrets and of the times to a decision to this SVG file.
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
    /// Means over time, of the seeds that the reference has too.
    regret: Vec<f64>,
    regret_error: f64,
    /// The share of all seeds that have decided, over time; `None` where none has at the end.
    decided: Option<Vec<f64>>,
    /// Of those that have decided, and of all.
    decided_right: Option<f64>,
    decided_wrong_of_all: f64,
    /// Medians of the seeds that decided, or detected.
    requests_to_decision: Option<f64>,
    requests_to_detection: Option<f64>,
    share_after_detection_most: Option<f64>,
}

/// Of a case, by algorithm and then seed.
type Courses = Vec<Vec<Course>>;

const REFERENCE: &str = include_str!("../fixtures/thompson.json");
const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::Thompson, Algorithm::EpsilonGreedy { epsilon: 0.1 }, Algorithm::Ucb1];
/// Enough to see that one in a hundred is decided wrongly. Regrets are compared over those of the reference.
const SEEDS: usize = 300;

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench bandit`");
        return Ok(ExitCode::SUCCESS);
    }
    let references: References = serde_json::from_str(REFERENCE)?;
    let compared = references.values().map(|reference| reference.regrets.len()).min().unwrap_or(0);
    let (seeds, compared) = if args.quick { (2, 2) } else { (SEEDS.max(compared), compared) };
    let cases = cases();
    let courses = play(&cases, seeds);
    let result = |(case, courses): (&Case, &Courses)| CaseResult {
        name: case.name,
        algorithms: ALGORITHMS
            .iter()
            .zip(courses)
            .map(|(algorithm, courses)| summary(*algorithm, courses, compared))
            .collect(),
        reference_regret: references
            .get(case.name)
            .map(|reference| mean(reference.regrets[..compared].iter().copied())),
    };
    let results: Vec<CaseResult> = cases.iter().zip(&courses).map(result).collect();
    print_table(&results, seeds, compared);
    let targets = targets(&results);
    for target in &targets {
        println!("{target}");
    }
    println!("\n{}", serde_json::to_string(&results)?);
    if let Some(path) = args.svg {
        let title = format!(
            "Regret (mean of {compared} seeds) and share of {seeds} seeds that have decided, over {REQUESTS} requests"
        );
        std::fs::write(&path, plot(&title, &results, &references))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let met = args.quick || targets.iter().all(|target| target.met);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every case with every algorithm and seed, on all cores: none depends on another, nor on the clock.
fn play(cases: &[Case], seeds: usize) -> Vec<Courses> {
    let of_case = ALGORITHMS.len() * seeds;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut played = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(place / of_case) else { return played };
            let algorithm = ALGORITHMS[place % of_case / seeds];
            played.push((place, case.play(algorithm, (place % seeds) as u64 + 1)));
        }
    };
    let mut played: Vec<(usize, Course)> = std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().expect("a simulation does not panic; this is a bug")
        };
        threads.into_iter().flat_map(join).collect()
    });
    played.sort_unstable_by_key(|(place, _)| *place);
    let mut courses = played.into_iter().map(|(_, course)| course);
    let mut of_algorithm = || courses.by_ref().take(seeds).collect();
    cases.iter().map(|_| ALGORITHMS.iter().map(|_| of_algorithm()).collect()).collect()
}

/// Regrets are those of the first seeds, which the reference has too.
fn summary(algorithm: Algorithm, courses: &[Course], compared: usize) -> AlgorithmResult {
    let count = courses.len() as f64;
    let first = &courses[..compared];
    let regret: Vec<f64> =
        (0..PARTS).map(|part| mean(first.iter().map(|course| course.regret[part]))).collect();
    let last = PARTS - 1;
    let variance = mean(first.iter().map(|course| (course.regret[last] - regret[last]).powi(2)));
    let decisions: Vec<(usize, bool)> = courses.iter().filter_map(|course| course.decision).collect();
    let wrong = decisions.iter().filter(|(_, is_right)| !is_right).count() as f64;
    let decided_by = |part: usize| {
        let end = (part + 1) * REQUESTS / PARTS;
        decisions.iter().filter(|(request, _)| *request < end).count() as f64 / count
    };
    let has_decided = !decisions.is_empty();
    let detections = || courses.iter().filter_map(|course| course.detection);
    AlgorithmResult {
        name: algorithm.name(),
        regret,
        regret_error: (variance / compared as f64).sqrt(),
        decided: has_decided.then(|| (0..PARTS).map(decided_by).collect()),
        decided_right: has_decided.then(|| 1.0 - wrong / decisions.len() as f64),
        decided_wrong_of_all: wrong / count,
        requests_to_decision: known(median(decisions.iter().map(|(request, _)| *request as f64))),
        requests_to_detection: known(median(detections().map(|(request, _)| request as f64))),
        share_after_detection_most: known(detections().map(|(_, share)| share).fold(f64::NAN, f64::max)),
    }
}

/// Of nothing there is no median.
fn known(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn targets(results: &[CaseResult]) -> Vec<Target> {
    let mut targets = Vec::new();
    for case in results {
        if let Some(reference) = case.reference_regret {
            let name = format!("{}: regret of Thompson, in regrets of the reference", case.name);
            let regret = case.algorithms[0].regret[PARTS - 1];
            targets.push(Target::new(name, regret / reference, Bound::AtMost(1.2)));
        }
        for algorithm in &case.algorithms {
            if let Some(share) = algorithm.share_after_detection_most {
                let name =
                    format!("{}: share of the broken arm after detection, {}", case.name, algorithm.name);
                targets.push(Target::new(name, share, Bound::AtMost(0.01)));
            }
        }
    }
    // Of all cases together: with a case's seeds alone one in a hundred may be two by chance.
    for (index, algorithm) in ALGORITHMS.iter().enumerate() {
        let wrong = results.iter().map(|case| case.algorithms[index].decided_wrong_of_all);
        let name = format!("share of experiments that are decided wrongly, {}", algorithm.name());
        targets.push(Target::new(name, mean(wrong), Bound::AtMost(0.01)));
    }
    targets
}

fn print_table(results: &[CaseResult], seeds: usize, compared: usize) {
    println!(
        "\n{REQUESTS} requests; regrets of {compared} seeds, decisions of {seeds}. Decided: an arm has won with \
         winner_probability 0.99;\nright: of those that have; wrong: of all; at which request (median)."
    );
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let number = |value: f64| format!("{value:.0}");
    let or_never = |text: Option<String>| text.unwrap_or_else(|| "never".into());
    for case in results {
        println!("\n{}", case.name);
        println!(
            "  {:<16}{:>18}{:>12}{:>10}{:>10}{:>12}",
            "algorithm", "regret", "decided, %", "right, %", "wrong, %", "at request"
        );
        for algorithm in &case.algorithms {
            let regret = format!("{:.1} +- {:.1}", algorithm.regret[PARTS - 1], algorithm.regret_error);
            let decided = algorithm.decided.as_ref().map(|decided| percent(decided[PARTS - 1]));
            println!(
                "  {:<16}{regret:>18}{:>12}{:>10}{:>10}{:>12}",
                algorithm.name,
                or_never(decided),
                algorithm.decided_right.map_or_else(|| "-".into(), percent),
                percent(algorithm.decided_wrong_of_all),
                algorithm.requests_to_decision.map_or_else(|| "-".into(), number),
            );
            if let (Some(request), Some(share)) =
                (algorithm.requests_to_detection, algorithm.share_after_detection_most)
            {
                println!(
                    "  {:<16}the broken arm is seen at request {request:.0} and then gets at most {:.2} %",
                    "",
                    100.0 * share
                );
            }
        }
        if let Some(reference) = case.reference_regret {
            println!("  {:<16}{reference:>18.1}", "numpy's Thompson");
        }
    }
    println!();
}

/// Of each case the regrets, and beside them the times to a decision.
fn plot(title: &str, results: &[CaseResult], references: &References) -> String {
    let panels = |case: &CaseResult| {
        let regrets = case.algorithms.iter().map(|algorithm| algorithm.regret.clone());
        let reference = references.get(case.name).map(|reference| reference.curve.clone());
        let decided = |algorithm: &AlgorithmResult| match &algorithm.decided {
            Some(decided) => decided.iter().map(|share| 100.0 * share).collect(),
            None => vec![0.0; PARTS],
        };
        [
            Panel { name: case.name.to_owned(), lines: regrets.chain(reference).collect() },
            Panel {
                name: format!("{}: decided, %", case.name),
                lines: case.algorithms.iter().map(decided).collect(),
            },
        ]
    };
    let series: Vec<&str> =
        ALGORITHMS.iter().map(|algorithm| algorithm.name()).chain(["numpy's Thompson"]).collect();
    svg(title, &series, &results.iter().flat_map(panels).collect::<Vec<_>>())
}
