//! How long the program takes from its start until it serves the example models, and the memory that it then holds.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use gristmill_benches::model;
use gristmill_benches::server::{Server, pause, release_build};
use gristmill_benches::summary::{Bound, Target, median};
use serde::Serialize;

/// Starts `gristmill serve` on the example models several times.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value_t = 11)]
    runs: usize,
    /// How long the server is left alone before its memory is read.
    #[arg(long, default_value_t = 1000)]
    idle_ms: u64,
    /// One run: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// The program; by default the release build of this checkout.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Memory in units of 1000 kB, times in milliseconds.
#[derive(Debug, Serialize)]
struct Run {
    ready_ms: f64,
    resident_mb: f64,
    /// Of that: heaps and stacks; the rest are pages of files, the libraries above all.
    anonymous_mb: f64,
    /// Resident, with pages that processes share divided among them.
    proportional_mb: f64,
    threads: usize,
}

#[derive(Debug, Serialize)]
struct Results {
    targets: Vec<Target>,
    runs: Vec<Run>,
}

/// How long the server may take until it is ready.
const START_MAX: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench footprint`");
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let program = args.program.clone().map_or_else(release_build, Ok)?;
    let library = model::onnx_runtime_library()?;
    let mut runs = Vec::new();
    for _ in 0..if args.quick { 1 } else { args.runs } {
        runs.push(measure(&program, &library, &root.join("models"), Duration::from_millis(args.idle_ms))?);
    }
    let over = |value: fn(&Run) -> f64| median(runs.iter().map(value));
    let targets = vec![
        Target::new("resident memory, MB", over(|run| run.resident_mb), Bound::AtMost(80.0)),
        Target::new("start to ready, ms", over(|run| run.ready_ms), Bound::AtMost(500.0)),
    ];
    println!("\nMedians of {} runs of {}:\n", runs.len(), program.display());
    println!("  start to ready       {:>8.1} ms", over(|run| run.ready_ms));
    println!("  resident             {:>8.1} MB", over(|run| run.resident_mb));
    println!("    heaps and stacks   {:>8.1} MB", over(|run| run.anonymous_mb));
    println!("  proportional share   {:>8.1} MB", over(|run| run.proportional_mb));
    println!("  threads              {:>8.0}\n", over(|run| run.threads as f64));
    for target in &targets {
        println!("{target}");
    }
    println!("\n{}", serde_json::to_string(&Results { targets, runs })?);
    Ok(())
}

fn measure(program: &Path, library: &Path, repository: &Path, idle: Duration) -> anyhow::Result<Run> {
    let server = Server::of_program(program, library, repository, tempfile::tempdir()?, START_MAX)?;
    pause(idle);
    read(&server).with_context(|| server.log().unwrap_or_default())
}

fn read(server: &Server) -> anyhow::Result<Run> {
    let proc = PathBuf::from(format!("/proc/{}", server.pid()));
    let status = fs::read_to_string(proc.join("status"))?;
    let rollup = fs::read_to_string(proc.join("smaps_rollup"))?;
    // The kernel says kB and means 1024 bytes.
    let mb = |text: &str, field: &str| number(text, field).map(|kilobytes| kilobytes as f64 * 1024.0 / 1e6);
    Ok(Run {
        ready_ms: server.ready_after().as_secs_f64() * 1e3,
        resident_mb: mb(&status, "VmRSS:")?,
        anonymous_mb: mb(&status, "RssAnon:")?,
        proportional_mb: mb(&rollup, "Pss:")?,
        threads: number(&status, "Threads:")?,
    })
}

fn number(text: &str, field: &str) -> anyhow::Result<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("the kernel says nothing about {field}"))
}
