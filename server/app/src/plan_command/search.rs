//! Finds the least number of workers that keeps an objective, by playing the demand against more and fewer of them.

use std::collections::BTreeMap;
use std::time::Duration;

use gristmill_engine::simulation::{Arrival, Machine, Ours, Outcome, RunTimes, Scheduler, simulate};
use gristmill_engine::tuning::Tuning;

/// What is asked.
pub(super) struct Question {
    /// What arrives, with the seed that run times are drawn with.
    pub(super) arrivals: Vec<(u64, Vec<Arrival>)>,
    pub(super) slo: Duration,
    /// Share of the requests that are to be in time.
    pub(super) objective: f64,
    pub(super) run_times: RunTimes,
    pub(super) batch_rows_max: Option<usize>,
    /// Workers that there are cores for, where somebody said.
    pub(super) workers_there: Option<usize>,
    /// Cores of each worker.
    pub(super) threads: usize,
}

/// The answer.
pub(super) struct Plan {
    /// By workers: what was tried with the SLO that was asked about.
    pub(super) trials: BTreeMap<usize, Trial>,
    /// Fewest workers with which the objective is kept.
    pub(super) least: Option<usize>,
    /// The same for other SLOs, ascending.
    pub(super) least_by_slo: Vec<(Duration, Option<usize>)>,
}

/// What so many workers come to, by seed.
pub(super) struct Trial(pub(super) Vec<Outcome>);

/// More are not tried: another machine is not more of the same.
const WORKERS_MAX: usize = 256;
/// Workers that are idle for all but this share of their time would not do better if there were more.
const UTILIZATION_MIN: f64 = 0.01;
/// What other SLOs would cost, as multiples of the one that was asked about.
const SLO_FACTORS: [f64; 4] = [0.5, 1.0, 2.0, 5.0];

/// Answers.
pub(super) fn plan(question: &Question) -> Plan {
    let mut trials = BTreeMap::new();
    let least = least(question, question.slo, &mut trials);
    if let Some(workers) = question.workers_there {
        trials.entry(workers).or_insert_with(|| question.play(question.slo, workers));
    }
    let least_by_slo = SLO_FACTORS.map(|factor| {
        let slo = question.slo.mul_f64(factor);
        (slo, if factor == 1.0 { least } else { self::least(question, slo, &mut BTreeMap::new()) })
    });
    Plan { trials, least, least_by_slo: least_by_slo.into() }
}

/// Twice as many as long as that is not enough, then between the last two.
fn least(question: &Question, slo: Duration, trials: &mut BTreeMap<usize, Trial>) -> Option<usize> {
    let mut is_enough = |workers: usize| {
        let trial = trials.entry(workers).or_insert_with(|| question.play(slo, workers));
        (trial.attainment() >= question.objective, trial.utilization())
    };
    let (mut too_few, mut enough) = (0, 1);
    loop {
        let (is_kept, utilization) = is_enough(enough);
        if is_kept {
            break;
        }
        if enough >= WORKERS_MAX || utilization < UTILIZATION_MIN {
            return None;
        }
        (too_few, enough) = (enough, 2 * enough);
    }
    while enough - too_few > 1 {
        let middle = usize::midpoint(too_few, enough);
        match is_enough(middle).0 {
            true => enough = middle,
            false => too_few = middle,
        }
    }
    Some(enough)
}

// === impl Question ===

impl Question {
    pub(super) fn machine(&self, workers: usize) -> Machine {
        Machine::new(workers, self.run_times.clone())
    }

    /// Rows of the largest batch: as they are given, or as a version that is loaded would choose.
    pub(super) fn rows_max(&self) -> usize {
        Ours::new(&self.tuning(self.slo), &self.machine(1), 1).rows_max()
    }

    fn tuning(&self, slo: Duration) -> Tuning {
        Tuning { slo: Some(slo), batch_rows_max: self.batch_rows_max, ..Tuning::default() }
    }

    fn play(&self, slo: Duration, workers: usize) -> Trial {
        let (tuning, machine) = (self.tuning(slo), self.machine(workers));
        let play = |(seed, arrivals): &(u64, Vec<Arrival>)| {
            simulate(arrivals, Some(slo), &machine, &mut Ours::new(&tuning, &machine, *seed), *seed)
        };
        Trial(self.arrivals.iter().map(play).collect())
    }
}

// === impl Trial ===

impl Trial {
    /// Of all seeds together, as the others below.
    pub(super) fn attainment(&self) -> f64 {
        self.mean(Outcome::attainment)
    }

    pub(super) fn utilization(&self) -> f64 {
        self.mean(Outcome::utilization)
    }

    pub(super) fn mean(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        self.0.iter().map(of).sum::<f64>() / self.0.len() as f64
    }

    pub(super) fn least(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        self.0.iter().map(of).fold(f64::INFINITY, f64::min)
    }
}
