//! What deadlines, admission, the core budget and the accounting of promises cost a request, over a plain queue.
//!
//! Both arms run on one thread, so that there is no waiting and no wake-up in the numbers: rows arrive, a worker takes
//! them and is done. The plain queue is what a server without promises has: first come, first served, with a bound.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use gristmill_benches::affinity;
use gristmill_benches::stolen::{self, StolenPercent};
use gristmill_benches::summary::{Bound, Target, median};
use gristmill_engine::testing::probe::{Batch, PromiseProbe};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compares the engine's scheduling with a plain queue.
#[derive(Debug, Parser)]
struct Args {
    /// Rows that arrive before the worker takes any.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
    batch_rows: Vec<usize>,
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Of each arm in a round.
    #[arg(long, default_value_t = 100_000)]
    rows: usize,
    /// Shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Of one number of rows.
#[derive(Debug, Serialize)]
struct Outcome {
    batch_rows: usize,
    plain_ns: f64,
    scheduled_ns: f64,
    /// Median of the rounds' differences.
    added_ns: f64,
}

#[derive(Debug, Serialize)]
struct Results {
    target: Target,
    stolen_percent: StolenPercent,
    outcomes: Vec<Outcome>,
}

/// First come, first served.
#[derive(Default)]
struct PlainQueue {
    waiting: Mutex<VecDeque<Instant>>,
    arrived: Condvar,
}

/// The engine's default.
const QUEUE_ROWS_MAX: usize = 4096;
const BATCH_ROWS_MAX: usize = 64;
const CORES: usize = 2;
/// Long enough for all that waits here, so that each row is considered and none refused.
const SLO: Duration = Duration::from_secs(10);
/// So that run times are known.
const WARM_UP_ROWS: usize = 4096;

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench scheduling`");
        return Ok(());
    }
    if args.quick {
        (args.rounds, args.rows) = (1, 1000);
    }
    let watch = stolen::Watch::start()?;
    if let [core, ..] = affinity::cores()?[..] {
        affinity::pin(&[core])?;
    }
    let outcomes: Vec<Outcome> = args.batch_rows.iter().map(|&rows| measure(&args, rows)).collect();
    println!("{:<12}{:>12}{:>14}{:>12}", "rows at once", "plain, ns", "scheduled, ns", "added, ns");
    for Outcome { batch_rows, plain_ns, scheduled_ns, added_ns } in &outcomes {
        println!("{batch_rows:<12}{plain_ns:>12.0}{scheduled_ns:>14.0}{added_ns:>12.0}");
    }
    let worst = outcomes.iter().map(|outcome| outcome.added_ns).fold(f64::NEG_INFINITY, f64::max);
    let name = "CPU time that scheduling by deadlines adds to a request, in ns";
    let target = Target::new(name, worst, Bound::AtMost(1000.0));
    let results = Results { target, stolen_percent: watch.stop()?, outcomes };
    println!("\n{}\n{}\n\n{}", results.target, results.stolen_percent, serde_json::to_string(&results)?);
    Ok(())
}

fn measure(args: &Args, batch_rows: usize) -> Outcome {
    let plain = PlainQueue::default();
    let mut scheduled = PromiseProbe::new(SLO, QUEUE_ROWS_MAX, CORES);
    let (mut instants, mut batch) = (Vec::new(), Batch::default());
    let mut run_scheduled = |rows| {
        time(rows, batch_rows, || {
            for _ in 0..batch_rows {
                assert!(scheduled.push(), "there is room, and time");
            }
            let mut taken = 0;
            while taken < batch_rows {
                taken += scheduled.run(&mut batch);
            }
        })
    };
    run_scheduled(WARM_UP_ROWS);
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        let plain_ns = time(args.rows, batch_rows, || {
            for _ in 0..batch_rows {
                assert!(plain.push(), "there is room");
            }
            plain.take(&mut instants);
        });
        rounds.push((plain_ns, run_scheduled(args.rows)));
    }
    Outcome {
        batch_rows,
        plain_ns: median(rounds.iter().map(|(plain, _)| *plain)),
        scheduled_ns: median(rounds.iter().map(|(_, scheduled)| *scheduled)),
        added_ns: median(rounds.iter().map(|(plain, scheduled)| scheduled - plain)),
    }
}

/// Nanoseconds a row, where each `step` has `batch_rows` of them.
fn time(rows: usize, batch_rows: usize, mut step: impl FnMut()) -> f64 {
    let steps = rows.div_ceil(batch_rows);
    let start = Instant::now();
    for _ in 0..steps {
        step();
    }
    start.elapsed().as_nanos() as f64 / (steps * batch_rows) as f64
}

// === impl PlainQueue ===

impl PlainQueue {
    fn push(&self) -> bool {
        let now = Instant::now();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == QUEUE_ROWS_MAX {
            return false;
        }
        waiting.push_back(now);
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    fn take(&self, batch: &mut Vec<Instant>) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = self
            .arrived
            .wait_while(waiting, |waiting| waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let rows = waiting.len().min(BATCH_ROWS_MAX);
        batch.clear();
        batch.extend(waiting.drain(..rows));
    }
}
