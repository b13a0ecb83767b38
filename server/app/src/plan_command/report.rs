//! The answer of `gristmill plan`, for people and as JSON.

use std::fmt;
use std::time::Duration;

use gristmill_engine::simulation::Outcome;
use gristmill_engine::simulation::comparison::Standing;
use serde::Serialize;

use super::search::{Plan, Question, Trial};

/// All that is shown. Shares are from 0 to 1.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whose run times were taken.
    run_times: String,
    batch_rows_max: usize,
    requests: u64,
    requests_per_s: f64,
    rows_per_s: f64,
    seeds: usize,
    slo_ms: f64,
    objective: f64,
    /// Cores that there are.
    cores: Option<usize>,
    /// Fewest with which the objective is kept; `None` where no number of them helps.
    least_cores: Option<usize>,
    trials: Vec<Row>,
    least_cores_by_slo: Vec<SloCost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<Policies>,
}

/// What so many cores come to.
#[derive(Debug, Serialize)]
struct Row {
    cores: usize,
    workers: usize,
    attainment: f64,
    /// Of the seed with the least.
    attainment_least: f64,
    goodput_per_s: f64,
    refused: f64,
    dropped: f64,
    late: f64,
    batch_rows: f64,
    utilization: f64,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Debug, Serialize)]
struct SloCost {
    slo_ms: f64,
    cores: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Policies {
    cores: usize,
    policies: Vec<PolicyRow>,
}

#[derive(Debug, Serialize)]
struct PolicyRow {
    policy: String,
    attainment: f64,
    goodput_per_s: f64,
    batch_rows: f64,
}

// === impl Report ===

impl Report {
    pub(super) fn new(
        question: &Question,
        plan: &Plan,
        standings: Option<(usize, Vec<Standing>)>,
        run_times: String,
    ) -> Report {
        let cores = |workers: usize| workers * question.threads;
        let requests: usize = question.arrivals.iter().map(|(_, arrivals)| arrivals.len()).sum();
        let rows: usize =
            question.arrivals.iter().flat_map(|(_, arrivals)| arrivals).map(|arrival| arrival.rows).sum();
        let ends = question.arrivals.iter().filter_map(|(_, arrivals)| arrivals.last());
        let span_s: f64 = ends.map(|last| last.at.as_secs_f64()).sum();
        let per_s = |count: usize| if span_s > 0.0 { count as f64 / span_s } else { 0.0 };
        let row = |(&workers, trial): (&usize, &Trial)| Row::new(cores(workers), workers, trial);
        Report {
            run_times,
            batch_rows_max: question.rows_max(),
            requests: requests as u64,
            requests_per_s: per_s(requests),
            rows_per_s: per_s(rows),
            seeds: question.arrivals.len(),
            slo_ms: ms(question.slo),
            objective: question.objective,
            cores: question.workers_there.map(cores),
            least_cores: plan.least.map(cores),
            trials: plan.trials.iter().map(row).collect(),
            least_cores_by_slo: plan
                .least_by_slo
                .iter()
                .map(|(slo, least)| SloCost { slo_ms: ms(*slo), cores: least.map(cores) })
                .collect(),
            policies: standings.map(|(workers, standings)| Policies {
                cores: cores(workers),
                policies: standings.iter().map(PolicyRow::new).collect(),
            }),
        }
    }

    /// The objective is kept with the cores there are, or with some number of them where nobody said.
    pub(super) fn is_enough(&self) -> bool {
        let there = self.cores.and_then(|cores| self.trials.iter().find(|row| row.cores == cores));
        match (self.cores, there) {
            (Some(_), Some(row)) => row.attainment >= self.objective,
            _ => self.least_cores.is_some(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| 100.0 * share;
        writeln!(
            f,
            "{:.0} requests a second ({:.0} rows), played {} times; run times of {}, in batches of at most {} rows\n",
            self.requests_per_s, self.rows_per_s, self.seeds, self.run_times, self.batch_rows_max
        )?;
        writeln!(
            f,
            "{:>7}{:>9}{:>12}{:>9}{:>11}{:>11}{:>9}{:>12}{:>8}{:>9}",
            "cores",
            "workers",
            "in time, %",
            "(least)",
            "in time/s",
            "refused, %",
            "late, %",
            "rows/batch",
            "busy, %",
            "p99, ms"
        )?;
        for row in &self.trials {
            writeln!(
                f,
                "{:>7}{:>9}{:>12.2}{:>9.2}{:>11.0}{:>11.2}{:>9.2}{:>12.1}{:>8.0}{:>9.2}",
                row.cores,
                row.workers,
                percent(row.attainment),
                percent(row.attainment_least),
                row.goodput_per_s,
                percent(row.refused + row.dropped),
                percent(row.late),
                row.batch_rows,
                percent(row.utilization),
                row.p99_ms
            )?;
        }
        writeln!(f, "\n{:>10}  cores for {} % in time", "SLO, ms", percent(self.objective))?;
        for SloCost { slo_ms, cores } in &self.least_cores_by_slo {
            let cores = cores.map_or_else(|| "no number of them".to_owned(), |cores| cores.to_string());
            writeln!(f, "{slo_ms:>10}  {cores}")?;
        }
        if let Some(Policies { cores, policies }) = &self.policies {
            writeln!(
                f,
                "\n{:<24}{:>12}{:>11}{:>12}",
                format!("on {cores} cores"),
                "in time, %",
                "in time/s",
                "rows/batch"
            )?;
            for row in policies {
                writeln!(
                    f,
                    "{:<24}{:>12.2}{:>11.0}{:>12.1}",
                    row.policy,
                    percent(row.attainment),
                    row.goodput_per_s,
                    row.batch_rows
                )?;
            }
        }
        let (slo, objective) = (self.slo_ms, percent(self.objective));
        match (self.cores, self.least_cores) {
            (Some(there), _) if self.is_enough() => {
                writeln!(f, "\n{there} cores are enough for {objective} % within {slo} ms")
            }
            (Some(there), Some(least)) => {
                writeln!(f, "\n{there} cores are not enough for {objective} % within {slo} ms: {least} are")
            }
            (None, Some(least)) => {
                writeln!(f, "\n{least} cores are enough for {objective} % within {slo} ms")
            }
            (_, None) => writeln!(f, "\nno number of cores is enough for {objective} % within {slo} ms"),
        }
    }
}

// === impl Row ===

impl Row {
    fn new(cores: usize, workers: usize, trial: &Trial) -> Row {
        let share =
            |of: fn(&Outcome) -> u64| trial.mean(|outcome| of(outcome) as f64 / outcome.requests as f64);
        Row {
            cores,
            workers,
            attainment: trial.attainment(),
            attainment_least: trial.least(Outcome::attainment),
            goodput_per_s: trial.mean(Outcome::goodput_per_s),
            refused: share(|outcome| outcome.refused),
            dropped: share(|outcome| outcome.dropped),
            late: share(|outcome| outcome.late),
            batch_rows: trial.mean(Outcome::batch_rows),
            utilization: trial.utilization(),
            p50_ms: trial.mean(|outcome| ms(outcome.p50)),
            p99_ms: trial.mean(|outcome| ms(outcome.p99)),
        }
    }
}

// === impl PolicyRow ===

impl PolicyRow {
    fn new(standing: &Standing) -> PolicyRow {
        PolicyRow {
            policy: standing.policy.to_string(),
            attainment: standing.attainment(),
            goodput_per_s: standing.goodput_per_s(),
            batch_rows: standing.batch_rows(),
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
