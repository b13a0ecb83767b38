//! Carries out the commands of the command line.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::signal::unix::{SignalKind, signal};

use crate::body::Body;
use crate::cli::{Cli, Command, OutputArgs, RunArgs, ScenarioArgs, target};
use crate::compare::compare;
use crate::drive::Shared;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::report::{Phase, Report};
use crate::run::{Measured, run, runtime};
use crate::scenario::{PlannedPhase, Scenario};
use crate::server::Server;
use crate::settings::Settings;
use crate::{table, trace};

/// Exit status when a scenario's goal does not hold.
const GOAL_MISSED: u8 = 2;
/// Exit status after a second interrupt, as shells report SIGINT.
const INTERRUPTED: i32 = 130;

/// Runs the command; the value is the exit status.
pub fn execute(cli: &Cli) -> Result<u8> {
    match &cli.command {
        Command::Run(arguments) => run_once(arguments),
        Command::Scenario(arguments) => run_scenario(arguments),
        Command::Compare { before, after } => {
            print(&compare(&Report::read(before)?, &Report::read(after)?))?;
            Ok(0)
        }
    }
}

fn run_once(arguments: &RunArgs) -> Result<u8> {
    let settings = arguments.settings()?;
    let shared = interruptible()?;
    let mut report = Report::new(None, SystemTime::now());
    let measured = measure(&settings, &shared, &arguments.output)?;
    if let Some(path) = &arguments.trace {
        trace::write(path, &settings, &measured.models)?;
    }
    let phase = Phase::new("run", &settings, &measured);
    print(&table::phase(&phase))?;
    report.phases.push(phase);
    save(&report, arguments.output.output.as_deref())?;
    Ok(0)
}

fn run_scenario(arguments: &ScenarioArgs) -> Result<u8> {
    let scenario = Scenario::read(&arguments.file)?;
    let shared = interruptible()?;
    let runtime = runtime()?;
    let given = target(arguments.grpc.as_deref(), arguments.http.as_deref(), scenario.target.body)?;
    let server = match (&given, &scenario.server) {
        (None, Some(command)) => Some(runtime.block_on(Server::start(command))?),
        _ => None,
    };
    let server_pid = server.as_ref().map(Server::id).or(arguments.server_pid);
    let (address, body) = match (given, &server) {
        (Some(given), _) => given,
        (None, Some(server)) => started(&scenario, server)?,
        (None, None) => {
            target(scenario.target.grpc.as_deref(), scenario.target.http.as_deref(), scenario.target.body)?
                .ok_or_else(|| {
                    Error::Settings("no server: give --grpc or --http, or write [target]".to_owned())
                })?
        }
    };
    let mut report = Report::new(Some(scenario.description.clone()), SystemTime::now());
    print(&format!("{}\n\n", scenario.description))?;
    let result = scenario.plan(&address, body, server_pid).and_then(|phases| {
        phases.iter().try_for_each(|planned| {
            if !shared.stopped.load(Ordering::Relaxed) {
                let phase = measure_planned(planned, &report.phases, &shared, &arguments.output)?;
                print(&(table::phase(&phase) + "\n"))?;
                report.phases.push(phase);
            }
            Ok(())
        })
    });
    if let Some(server) = server {
        runtime.block_on(server.stop());
    }
    result?;
    save(&report, arguments.output.output.as_deref())?;
    Ok(if report.goals_hold() { 0 } else { GOAL_MISSED })
}

/// The address at which a started server takes the scenario's kind of body; gRPC unless it says otherwise.
fn started(scenario: &Scenario, server: &Server) -> Result<(String, Body)> {
    let over_http = match scenario.target.body {
        Some(body) => !body.is_grpc(),
        None => scenario.target.http.is_some() && scenario.target.grpc.is_none(),
    };
    let (grpc, http) = match over_http {
        true => (None, server.addresses.http.as_deref()),
        false => (server.addresses.grpc.as_deref(), None),
    };
    target(grpc, http, scenario.target.body)?.ok_or_else(|| {
        let protocol = if over_http { "http" } else { "grpc" };
        Error::Settings(format!("the server's ready file gives no `{protocol}` address"))
    })
}

fn measure_planned(
    planned: &PlannedPhase,
    before: &[Phase],
    shared: &Arc<Shared>,
    output: &OutputArgs,
) -> Result<Phase> {
    let settings = planned.settings(before);
    let measured = measure(&settings, shared, output)?;
    let mut phase = Phase::new(&planned.name, &settings, &measured);
    phase.goal = planned.judge(&phase, before);
    Ok(phase)
}

fn measure(settings: &Settings, shared: &Arc<Shared>, output: &OutputArgs) -> Result<Measured> {
    shared.answered.store(0, Ordering::Relaxed);
    shared.failed.store(0, Ordering::Relaxed);
    let mut progress = Progress::new(settings, output.quiet);
    run(settings, shared, &mut progress)
}

/// The first interrupt ends the load early and still gives its result; the second ends the program.
fn interruptible() -> Result<Arc<Shared>> {
    let shared = Arc::new(Shared::default());
    let watched = Arc::clone(&shared);
    let runtime = runtime()?;
    let interrupts = {
        let _context = runtime.enter();
        signal(SignalKind::interrupt())
    };
    let mut interrupts =
        interrupts.map_err(|error| Error::Settings(format!("cannot watch for interrupts: {error}")))?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            interrupts.recv().await;
            watched.stopped.store(true, Ordering::Relaxed);
            interrupts.recv().await;
            std::process::exit(INTERRUPTED);
        });
    });
    Ok(shared)
}

fn print(text: &str) -> Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Error::File { path: "standard output".into(), why: error.to_string() })
}

fn save(report: &Report, path: Option<&Path>) -> Result<()> {
    path.map_or(Ok(()), |path| report.write(path))
}
