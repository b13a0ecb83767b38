//! Policies side by side: kinds of demand, and each policy at the best of its settings.

use std::fmt;
use std::time::Duration;

use super::baselines::{AdditiveIncrease, EagerFifo, FixedDelay, LinearFit};
use super::ours::Ours;
use super::{Arrival, Demand, Kind, Machine, Outcome, Process, RunTimes, Scheduler, simulate};
use crate::tuning::Tuning;

/// How requests are ordered and batched, with its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// First come, first served.
    EagerFifo {
        /// What is past its deadline is left out.
        expires: bool,
    },
    FixedDelay(Duration),
    /// With this objective for a run.
    AdditiveIncrease(Duration),
    LinearFit,
    Ours,
}

/// One kind of demand on one machine.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub demand: Demand,
    pub machine: Machine,
    /// Rows of the largest batch, for all policies.
    pub rows_max: usize,
    /// Ours is to be ahead of every other policy by so much of its goodput.
    pub lead: f64,
}

/// What a policy came to with its best settings.
#[derive(Clone, Debug)]
pub struct Standing {
    pub policy: Policy,
    /// By seed.
    pub outcomes: Vec<Outcome>,
}

/// Ours is nowhere behind by more than this part of the goodput.
pub const BEHIND_MAX: f64 = 0.01;
/// Ours is ahead by this part where requests come in bursts or differ in their deadlines.
pub const LEAD: f64 = 0.2;

/// All of the cases on one machine: two workers, and a model of which a row costs a fifth of what a batch costs
/// beside its rows, such as a transformer on a few cores. Their rates are shares of what the machine can do.
pub fn cases() -> Vec<Case> {
    let (fixed, row) = (Duration::from_millis(5), Duration::from_millis(1));
    let (workers, rows_max) = (2, 32);
    let machine = Machine::new(workers, RunTimes::linear(fixed, row));
    let batch = fixed + row * rows_max as u32 + machine.batch_overhead;
    let most_per_s = (workers * rows_max) as f64 / batch.as_secs_f64();
    let waits = |patience| Kind {
        weight: 1.0,
        rows: 1,
        patience: Some(Duration::from_millis(patience)),
        priority: 0,
    };
    let case = |name, process, kinds, lead| {
        let demand = Demand { process, kinds };
        Case { name, demand, machine: machine.clone(), rows_max, lead }
    };
    let poisson = |load: f64| Process::Poisson { per_s: load * most_per_s };
    let bursts = Process::Bursts {
        calm_per_s: 0.3 * most_per_s,
        burst_per_s: 2.0 * most_per_s,
        calm: Duration::from_millis(700),
        burst: Duration::from_millis(300),
    };
    let day = Process::Diurnal {
        least_per_s: 0.2 * most_per_s,
        most_per_s: 1.3 * most_per_s,
        period: Duration::from_secs(4),
    };
    vec![
        case("steady", poisson(0.8), vec![waits(60)], -BEHIND_MAX),
        case("overload", poisson(1.5), vec![waits(60)], -BEHIND_MAX),
        case("bursty", bursts, vec![waits(60)], LEAD),
        case("mixed SLO", poisson(1.0), vec![waits(30), waits(240)], LEAD),
        case("diurnal", day, vec![waits(60)], -BEHIND_MAX),
    ]
}

/// Every policy on the same arrivals, each with its seed, at those of its settings that gave the most goodput; ours
/// last, which has none.
pub fn stand(
    arrivals: &[(u64, Vec<Arrival>)],
    slo: Option<Duration>,
    machine: &Machine,
    rows_max: usize,
) -> Vec<Standing> {
    let best = |policies: Vec<Policy>| {
        let standings = policies.into_iter().map(|policy| {
            let play =
                |(seed, arrivals): &(u64, Vec<Arrival>)| policy.play(arrivals, slo, machine, rows_max, *seed);
            Standing { policy, outcomes: arrivals.iter().map(play).collect() }
        });
        standings.max_by(|one, other| one.goodput_per_s().total_cmp(&other.goodput_per_s()))
    };
    let patience = arrivals.iter().flat_map(|(_, arrivals)| arrivals).filter_map(|arrival| arrival.patience);
    let tightest = patience.chain(slo).min().unwrap_or(Duration::MAX);
    let families = [
        vec![Policy::EagerFifo { expires: false }],
        vec![Policy::EagerFifo { expires: true }],
        [1, 2, 5, 10].map(Duration::from_millis).map(Policy::FixedDelay).to_vec(),
        [4, 3, 2, 1].map(|part| Policy::AdditiveIncrease(tightest / part)).to_vec(),
        vec![Policy::LinearFit],
        vec![Policy::Ours],
    ];
    families.into_iter().filter_map(best).collect()
}

// === impl Case ===

impl Case {
    /// Every policy on the same arrivals of `duration`, for each seed: see [`stand`].
    pub fn play(&self, duration: Duration, seeds: &[u64]) -> Vec<Standing> {
        let arrivals = |seed: &u64| (*seed, self.demand.arrivals(duration, *seed));
        let played: Vec<(u64, Vec<Arrival>)> = seeds.iter().map(arrivals).collect();
        stand(&played, None, &self.machine, self.rows_max)
    }

    /// By how much of its goodput ours is ahead of the best other policy; below 0 where it is behind.
    pub fn lead(standings: &[Standing]) -> f64 {
        let best = |ours: bool| {
            let those = standings.iter().filter(|standing| (standing.policy == Policy::Ours) == ours);
            those.map(Standing::goodput_per_s).fold(0.0, f64::max)
        };
        best(true) / best(false) - 1.0
    }
}

// === impl Standing ===

impl Standing {
    /// Over all seeds.
    pub fn goodput_per_s(&self) -> f64 {
        mean(self.outcomes.iter().map(Outcome::goodput_per_s))
    }

    /// Over all seeds.
    pub fn attainment(&self) -> f64 {
        mean(self.outcomes.iter().map(Outcome::attainment))
    }

    /// Of the seeds with the least and with the most.
    pub fn attainment_range(&self) -> (f64, f64) {
        let all = || self.outcomes.iter().map(Outcome::attainment);
        (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max))
    }

    /// Over all seeds.
    pub fn batch_rows(&self) -> f64 {
        mean(self.outcomes.iter().map(Outcome::batch_rows))
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

// === impl Policy ===

impl Policy {
    /// What it does with `arrivals` in batches of at most `rows_max` rows.
    pub fn play(
        self,
        arrivals: &[Arrival],
        slo: Option<Duration>,
        machine: &Machine,
        rows_max: usize,
        seed: u64,
    ) -> Outcome {
        let mut scheduler: Box<dyn Scheduler> = match self {
            Policy::EagerFifo { expires } => Box::new(EagerFifo::new(rows_max, expires)),
            Policy::FixedDelay(delay) => Box::new(FixedDelay::new(rows_max, delay)),
            Policy::AdditiveIncrease(objective) => Box::new(AdditiveIncrease::new(rows_max, objective)),
            Policy::LinearFit => Box::new(LinearFit::new(rows_max)),
            Policy::Ours => {
                let tuning = Tuning { slo, batch_rows_max: Some(rows_max), ..Tuning::default() };
                Box::new(Ours::new(&tuning, machine, seed))
            }
        };
        simulate(arrivals, slo, machine, &mut *scheduler, seed)
    }

    /// Without its settings.
    pub fn family(self) -> &'static str {
        match self {
            Policy::EagerFifo { expires: false } => "eager FIFO",
            Policy::EagerFifo { expires: true } => "eager FIFO, expiring",
            Policy::FixedDelay(_) => "fixed delay",
            Policy::AdditiveIncrease(_) => "AIMD",
            Policy::LinearFit => "linear fit",
            Policy::Ours => "ours",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::FixedDelay(setting) | Policy::AdditiveIncrease(setting) => {
                write!(f, "{} {setting:?}", self.family())
            }
            _ => f.write_str(self.family()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Virtual time and seeds: the same on every machine, so these are tests and no measurements.
    #[test]
    fn ours_is_ahead_in_bursts_and_with_mixed_slos_and_never_behind() {
        for case in cases() {
            let standings = case.play(Duration::from_secs(3), &[1, 2, 3, 4, 5]);
            let lead = Case::lead(&standings);
            let line = |standing: &Standing| {
                let Standing { policy, .. } = standing;
                format!(
                    "{policy}: {:.0}/s in batches of {:.1}",
                    standing.goodput_per_s(),
                    standing.batch_rows()
                )
            };
            let lines: Vec<String> = standings.iter().map(line).collect();
            assert!(
                lead >= case.lead,
                "{}: {lead:.3}, wanted {}\n{}",
                case.name,
                case.lead,
                lines.join("\n")
            );
        }
    }

    #[test]
    fn the_same_seed_plays_the_same_again() {
        let case = &cases()[2];
        let goodput = |seed| {
            let standings = case.play(Duration::from_secs(1), &[seed]);
            standings.iter().map(Standing::goodput_per_s).collect::<Vec<_>>()
        };
        assert_eq!(goodput(1), goodput(1));
        assert_ne!(goodput(1), goodput(2));
    }
}
