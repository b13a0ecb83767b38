//! `gristmill plan`: how many cores an SLO takes, and what it would cost, by simulation of the scheduler that serves.

pub mod demand;
mod report;
pub mod run_time;
mod search;
pub mod trace;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{ArgGroup, Args};
use gristmill_engine::simulation::{Demand, Kind, Process, comparison};

use self::run_time::{Known, Line};
use self::search::Question;

#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("demand").required(true), group = ArgGroup::new("cost").required(true))]
pub struct PlanArgs {
    /// How soon after its arrival a request is to be answered. An earlier deadline in the trace counts too.
    #[arg(long, env = "GRISTMILL_PLAN_SLO", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub slo: Duration,
    /// Requests of all in percent that are to be in time.
    #[arg(long, env = "GRISTMILL_PLAN_OBJECTIVE", default_value_t = 99.0, value_parser = percent, value_name = "PERCENT")]
    pub objective: f64,
    /// Recorded requests: a CSV file with the columns at_us, model, rows, deadline_us, and priority if wanted, such as
    /// `gristmill-loadtest run --trace` writes.
    #[arg(long, env = "GRISTMILL_PLAN_TRACE", group = "demand", value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Made-up requests: poisson:RATE, bursts:CALM_RATE,BURST_RATE,CALM_TIME,BURST_TIME or
    /// diurnal:LEAST_RATE,MOST_RATE,PERIOD. Rates are requests a second, and times are means.
    #[arg(long, env = "GRISTMILL_PLAN_ARRIVALS", group = "demand", value_parser = demand::process, value_name = "PROCESS")]
    pub arrivals: Option<Process>,
    /// Which of a trace's models is asked about.
    #[arg(long, env = "GRISTMILL_PLAN_MODEL", value_name = "NAME")]
    pub model: Option<String>,
    /// Rows of each made-up request.
    #[arg(long, env = "GRISTMILL_PLAN_ROWS", default_value_t = 1, value_name = "COUNT")]
    pub rows: usize,
    /// For how long requests are made up.
    #[arg(long, env = "GRISTMILL_PLAN_DURATION", default_value = "30s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub duration: Duration,
    /// Run times: the answer of a server's /v2/models/MODEL/latency-model, as a file or its http:// address.
    #[arg(long, env = "GRISTMILL_PLAN_LATENCY_MODEL", group = "cost", value_name = "FILE|URL")]
    pub latency_model: Option<String>,
    /// Run times without a measurement: a fixed part and one for each row, as in 5ms+1ms.
    #[arg(long, env = "GRISTMILL_PLAN_RUN_TIME", group = "cost", value_parser = run_time::line, value_name = "FIXED+ROW")]
    pub run_time: Option<Line>,
    /// Rows of the largest batch [default: the latency model's, or what a sweep would choose].
    #[arg(long, env = "GRISTMILL_PLAN_BATCH_ROWS_MAX", value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    pub batch_rows_max: Option<u32>,
    /// Cores that there are: says whether they are enough, with exit code 1 if not.
    #[arg(long, env = "GRISTMILL_PLAN_CORES", value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    pub cores: Option<u32>,
    /// Cores that each worker takes: the threads of a session, as they were when the run times were measured.
    #[arg(long, env = "GRISTMILL_PLAN_THREADS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    pub threads: u32,
    /// How often everything is played, with other run times, and with other arrivals unless they were recorded.
    #[arg(long, env = "GRISTMILL_PLAN_SEEDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..), value_name = "COUNT")]
    pub seeds: u64,
    /// Also show what other policies would come to with as many cores.
    #[arg(long, env = "GRISTMILL_PLAN_POLICIES")]
    pub policies: bool,
    /// Print one line of JSON instead of tables.
    #[arg(long, env = "GRISTMILL_PLAN_JSON")]
    pub json: bool,
}

/// Answers, and prints the answer. Where the objective is out of reach, with the cores there are or with any, the exit
/// code is 1.
///
/// # Errors
/// What was asked cannot be read, or the answer cannot be written.
pub fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let (question, source) = question(args)?;
    let plan = search::plan(&question);
    let standings = args.policies.then(|| {
        let workers = question.workers_there.or(plan.least).unwrap_or(1);
        let machine = question.machine(workers);
        (workers, comparison::stand(&question.arrivals, Some(question.slo), &machine, question.rows_max()))
    });
    let report = report::Report::new(&question, &plan, standings, source);
    let text = if args.json { serde_json::to_string(&report)? } else { report.to_string() };
    writeln!(std::io::stdout(), "{}", text.trim_end()).context("cannot write to standard output")?;
    Ok(if report.is_enough() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn question(args: &PlanArgs) -> anyhow::Result<(Question, String)> {
    ensure!(args.slo > Duration::ZERO, "--slo is 0: expected a time such as 20ms");
    let Known { run_times, batch_rows_max, source } = match (&args.latency_model, args.run_time) {
        (Some(latency_model), _) => run_time::read(latency_model)?,
        (None, line) => line.context("--latency-model or --run-time is needed")?.into(),
    };
    let seeds = 1..=args.seeds;
    let arrivals = match (&args.trace, args.arrivals) {
        (Some(path), _) => {
            let arrivals = trace::read(path, args.model.as_deref())?;
            seeds.map(|seed| (seed, arrivals.clone())).collect()
        }
        (None, process) => {
            let process = process.context("--trace or --arrivals is needed")?;
            ensure!(args.rows > 0, "--rows is 0: expected 1 or more");
            let kinds = vec![Kind { weight: 1.0, rows: args.rows, patience: None, priority: 0 }];
            let demand = Demand { process, kinds };
            let made_up: Vec<_> = seeds.map(|seed| (seed, demand.arrivals(args.duration, seed))).collect();
            ensure!(
                made_up.iter().all(|(_, arrivals)| !arrivals.is_empty()),
                "nothing arrives within {:?}: give a longer --duration",
                args.duration
            );
            made_up
        }
    };
    let question = Question {
        arrivals,
        slo: args.slo,
        objective: args.objective / 100.0,
        run_times,
        batch_rows_max: args.batch_rows_max.map(|rows| rows as usize).or(batch_rows_max),
        workers_there: args.cores.map(|cores| (cores / args.threads).max(1) as usize),
        threads: args.threads as usize,
    };
    Ok((question, source))
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("expected a number above 0 and up to 100".to_owned()),
    }
}

#[cfg(test)]
mod tests;
