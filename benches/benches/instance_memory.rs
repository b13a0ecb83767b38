//! What a server holds of a model of 400 MB with one instance of it and with several.
#![expect(clippy::print_stdout, reason = "a measuring program prints its results")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use gristmill_benches::affinity;
use gristmill_benches::large::{self, LARGE};
use gristmill_benches::load::Load;
use gristmill_benches::memory::resident_mb;
use gristmill_benches::model;
use gristmill_benches::server::{self, Server, pause};
use gristmill_benches::summary::{Bound, Target};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves a large model with 1, 2, 4 and 8 instances of one thread, each of which has run, and reads the server's memory.
#[derive(Debug, Parser)]
struct Args {
    /// Layers of 20 MB each.
    #[arg(long, default_value_t = 20)]
    layers: usize,
    /// A model of 40 MB: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench` and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Memory in units of 1000 kB.
#[derive(Debug, Serialize)]
struct Reading {
    instances: usize,
    resident_mb: f64,
}

#[derive(Debug, Serialize)]
struct Results {
    target: Target,
    readings: Vec<Reading>,
}

const INSTANCES: [usize; 4] = [1, 2, 4, 8];
/// Requests for every instance, and time for all of them to have run.
const IN_FLIGHT_EACH: usize = 4;
const TURN: Duration = Duration::from_secs(2);
/// What was freed after the load and after the requests has been given back by then.
const REST: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = server::run_if_asked()? {
        return Ok(code);
    }
    let args = Args::parse();
    if !args.bench {
        println!("a measurement: run it with `cargo bench --bench instance_memory`");
        return Ok(ExitCode::SUCCESS);
    }
    let library = model::onnx_runtime_library()?;
    let layers = if args.quick { 2 } else { args.layers };
    let mut readings = Vec::new();
    for instances in INSTANCES {
        let directory = tempfile::tempdir()?;
        let repository = directory.path().join("models");
        large::create(&repository, layers, &format!("instances = {instances}\nthreads = 1\n"))?;
        let server = Server::on_repository(&affinity::cores()?, &library, &repository, &[], directory)?;
        let mut load = Load::open(server.address(), 1, &LARGE.request(), |_| Ok(()))?;
        load.run(instances * IN_FLIGHT_EACH, TURN)?;
        pause(REST);
        readings.push(Reading { instances, resident_mb: resident_mb(server.pid())? });
    }
    let (first, last) = (&readings[0], &readings[readings.len() - 1]);
    let target = Target::new(
        "resident memory with 8 instances / with one",
        last.resident_mb / first.resident_mb,
        Bound::AtMost(1.1),
    );
    println!("\n  instances  resident, MB");
    for reading in &readings {
        println!("  {:>9} {:>13.1}", reading.instances, reading.resident_mb);
    }
    println!("\n{target}\n");
    println!("{}", serde_json::to_string(&Results { target, readings })?);
    Ok(ExitCode::SUCCESS)
}
