//! What a server keeps of a model of 100 MB that is replaced by a new version again and again.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use gristmill_benches::affinity;
use gristmill_benches::http::{gauge, get};
use gristmill_benches::large::{LARGE, Versions};
use gristmill_benches::load::Load;
use gristmill_benches::memory::{peak_mb, resident_mb};
use gristmill_benches::model;
use gristmill_benches::server::{self, Server, pause};
use gristmill_benches::summary::{Bound, Target};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Replaces a large model many times, and reads the server's memory after each time.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value_t = 100)]
    reloads: usize,
    /// How long requests are sent after each.
    #[arg(long, default_value_t = 200)]
    turn_ms: u64,
    /// Twelve reloads: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Memory in units of 1000 kB, times in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Reading {
    /// From the rename until the new version serves and the old one is gone.
    took_ms: f64,
    resident_mb: f64,
    /// The most that was ever resident.
    peak_mb: f64,
}

#[derive(Debug, Serialize)]
struct Results {
    target: Target,
    /// The first of each is from before the first reload.
    trimmed: Vec<Reading>,
    not_trimmed: Vec<Reading>,
}

/// Reloads until memory is as it will be: the first ones fill caches and pools.
const FIRST_RELOADS: usize = 5;
const IN_FLIGHT: usize = 8;
const POLL_PAUSE: Duration = Duration::from_millis(10);
/// How long memory must stay as it is until it counts as what is kept: the old version's is given back after its
/// workers have ended.
const STEADY: Duration = Duration::from_millis(200);
/// Changes of this size do not count.
const STEADY_MB: f64 = 1.0;
const STEADY_MAX: Duration = Duration::from_secs(5);
const RELOAD_MAX: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = server::run_if_asked()? {
        return Ok(code);
    }
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench reload_memory`");
        return Ok(ExitCode::SUCCESS);
    }
    let reloads = if args.quick { 12 } else { args.reloads };
    ensure!(
        reloads > FIRST_RELOADS,
        "--reloads is {reloads}: expected more than the first {FIRST_RELOADS}, with which the last is compared"
    );
    let library = model::onnx_runtime_library()?;
    let turn = Duration::from_millis(args.turn_ms);
    let trimmed = measure(&library, &[], reloads, turn)?;
    let not_trimmed = measure(&library, &["--keep-free-memory"], reloads, turn)?;
    let target = Target::new(
        "resident memory, after the last reload / after the first five",
        growth(&trimmed),
        Bound::AtMost(1.05),
    );
    println!("\nResident memory, MB:\n\n  reloads     trimmed  not trimmed");
    for index in (0..=reloads).filter(|index| index % 10 == 0 || [1, FIRST_RELOADS, reloads].contains(index))
    {
        let (trimmed, not_trimmed) = (trimmed[index], not_trimmed[index]);
        println!("  {index:>7} {:>11.1} {:>12.1}", trimmed.resident_mb, not_trimmed.resident_mb);
    }
    println!("     peak {:>11.1} {:>12.1}", trimmed[reloads].peak_mb, not_trimmed[reloads].peak_mb);
    println!("   growth {:>11.3} {:>12.3}", growth(&trimmed), growth(&not_trimmed));
    println!("  ms each {:>11.0} {:>12.0}\n", mean_ms(&trimmed), mean_ms(&not_trimmed));
    println!("{target}\n");
    println!("{}", serde_json::to_string(&Results { target, trimmed, not_trimmed })?);
    Ok(ExitCode::SUCCESS)
}

fn growth(readings: &[Reading]) -> f64 {
    readings[readings.len() - 1].resident_mb / readings[FIRST_RELOADS].resident_mb
}

fn mean_ms(readings: &[Reading]) -> f64 {
    let reloads = &readings[1..];
    reloads.iter().map(|reading| reading.took_ms).sum::<f64>() / reloads.len() as f64
}

fn measure(library: &Path, flags: &[&str], reloads: usize, turn: Duration) -> anyhow::Result<Vec<Reading>> {
    let directory = tempfile::tempdir()?;
    let repository = directory.path().join("models");
    let mut versions = Versions::create(&repository, directory.path(), "")?;
    let server = Server::on_repository(&affinity::cores()?, library, &repository, flags, directory)?;
    let mut load = Load::open(server.address(), 1, &LARGE.request(), |_| Ok(()))?;
    load.run(IN_FLIGHT, turn)?;
    let mut readings = vec![read_when_steady(&server, Duration::ZERO)?];
    for reload in 1..=reloads {
        let start = Instant::now();
        versions.add()?;
        wait_for_newest(&server, versions.newest()).with_context(|| server.log().unwrap_or_default())?;
        let took = start.elapsed();
        versions.remove_older()?;
        load.run(IN_FLIGHT, turn)?;
        let reading = read_when_steady(&server, took)?;
        if reload % 10 == 0 {
            eprintln!("{flags:?} {reload}: {:.1} MB", reading.resident_mb);
        }
        readings.push(reading);
    }
    Ok(readings)
}

/// Waits until the newest version serves and all but the one before it, which is kept for a way back, are gone.
fn wait_for_newest(server: &Server, newest: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let (_, metrics) = get(server.http_address()?, "/metrics")?;
        let ready = |version| gauge(&metrics, "gristmill_model_ready", LARGE.name, version);
        if ready(newest) == Some(1.0) && ready(newest - 2).is_none_or(|ready| ready == 0.0) {
            return Ok(());
        }
        ensure!(
            start.elapsed() < RELOAD_MAX,
            "version {newest} has not replaced the last after {RELOAD_MAX:?}"
        );
        pause(POLL_PAUSE);
    }
}

/// The last reading, if memory goes on changing.
fn read_when_steady(server: &Server, took: Duration) -> anyhow::Result<Reading> {
    let start = Instant::now();
    let mut since = Instant::now();
    let mut reading = read(server, took)?;
    while since.elapsed() < STEADY && start.elapsed() < STEADY_MAX {
        pause(POLL_PAUSE);
        let next = read(server, took)?;
        if (next.resident_mb - reading.resident_mb).abs() > STEADY_MB {
            since = Instant::now();
            reading = next;
        }
    }
    Ok(reading)
}

fn read(server: &Server, took: Duration) -> anyhow::Result<Reading> {
    let (resident_mb, peak_mb) = (resident_mb(server.pid())?, peak_mb(server.pid())?);
    Ok(Reading { took_ms: took.as_secs_f64() * 1e3, resident_mb, peak_mb })
}
