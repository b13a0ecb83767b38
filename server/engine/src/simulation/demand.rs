//! Made-up arrivals: when requests come, and what they ask for. Seeded.

use std::time::Duration;

use super::Arrival;
use crate::random::Random;

/// Requests of several kinds that come by one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    pub process: Process,
    /// At least one.
    pub kinds: Vec<Kind>,
}

/// Requests that are alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kind {
    /// How many there are, beside the weights of the other kinds.
    pub weight: f64,
    pub rows: usize,
    pub patience: Option<Duration>,
    pub priority: u64,
}

/// When requests arrive. Rates are requests a second, above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Process {
    /// As from many independent callers.
    Poisson { per_s: f64 },
    /// Poisson at two rates that take turns, each for a time that is exponentially distributed around its mean
    /// (a Markov-modulated Poisson process).
    Bursts { calm_per_s: f64, burst_per_s: f64, calm: Duration, burst: Duration },
    /// Poisson at a rate that swings between two, as a sine does, once in a period; it begins at the least.
    Diurnal { least_per_s: f64, most_per_s: f64, period: Duration },
}

// === impl Demand ===

impl Demand {
    /// What arrives within `duration`. The same again for the same seed.
    pub fn arrivals(&self, duration: Duration, seed: u64) -> Vec<Arrival> {
        let mut random = Random::new(seed);
        let moments = self.process.moments(duration.as_secs_f64(), &mut random);
        let weight: f64 = self.kinds.iter().map(|kind| kind.weight).sum();
        let mut pick = || {
            let mut left = random.uniform() * weight;
            let chosen = self.kinds.iter().find(|kind| {
                left -= kind.weight;
                left < 0.0
            });
            chosen.or(self.kinds.last()).copied()
        };
        let arrival = |at_s| {
            let Kind { rows, patience, priority, .. } = pick()?;
            Some(Arrival { at: Duration::from_secs_f64(at_s), rows, patience, priority })
        };
        moments.into_iter().filter_map(arrival).collect()
    }
}

// === impl Process ===

impl Process {
    /// Requests a second, over a long time.
    pub fn mean_per_s(&self) -> f64 {
        match *self {
            Process::Poisson { per_s } => per_s,
            Process::Bursts { calm_per_s, burst_per_s, calm, burst } => {
                let [calm_s, burst_s] = [calm, burst].map(|time| time.as_secs_f64());
                (calm_per_s * calm_s + burst_per_s * burst_s) / (calm_s + burst_s)
            }
            Process::Diurnal { least_per_s, most_per_s, .. } => (least_per_s + most_per_s) / 2.0,
        }
    }

    fn moments(&self, until_s: f64, random: &mut Random) -> Vec<f64> {
        let mut moments = Vec::new();
        match *self {
            Process::Poisson { per_s } => poisson(0.0, until_s, per_s, random, &mut moments),
            Process::Bursts { calm_per_s, burst_per_s, calm, burst } => {
                let mut turns = [(calm_per_s, calm), (burst_per_s, burst)].into_iter().cycle();
                let mut from_s = 0.0;
                while let Some((per_s, mean)) = turns.next().filter(|_| from_s < until_s) {
                    let to_s = from_s + random.exponential(mean.as_secs_f64());
                    poisson(from_s, to_s.min(until_s), per_s, random, &mut moments);
                    from_s = to_s;
                }
            }
            Process::Diurnal { least_per_s, most_per_s, period } => {
                // Thinning (Lewis and Shedler, 1979): of arrivals at the highest rate, the share that the rate of
                // the moment is of it.
                poisson(0.0, until_s, most_per_s, random, &mut moments);
                let swing = (most_per_s - least_per_s) / 2.0;
                moments.retain(|at_s| {
                    let phase = at_s / period.as_secs_f64() * std::f64::consts::TAU;
                    random.uniform() * most_per_s < least_per_s + swing * (1.0 - phase.cos())
                });
            }
        }
        moments
    }
}

fn poisson(from_s: f64, to_s: f64, per_s: f64, random: &mut Random, moments: &mut Vec<f64>) {
    let mut at_s = from_s + random.exponential(1.0 / per_s);
    while at_s < to_s {
        moments.push(at_s);
        at_s += random.exponential(1.0 / per_s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(process: Process) -> Demand {
        let kind = |weight, rows| Kind { weight, rows, patience: None, priority: 0 };
        Demand { process, kinds: vec![kind(3.0, 1), kind(1.0, 8)] }
    }

    /// Arrivals in each of `count` equal parts of `duration_s`, as rates.
    fn rates(process: Process, duration_s: u64, count: usize) -> Vec<f64> {
        let arrivals = demand(process).arrivals(Duration::from_secs(duration_s), 3);
        let part_s = duration_s as f64 / count as f64;
        let mut rates = vec![0.0; count];
        for arrival in arrivals {
            rates[(arrival.at.as_secs_f64() / part_s) as usize] += 1.0 / part_s;
        }
        rates
    }

    const BURSTS: Process = Process::Bursts {
        calm_per_s: 100.0,
        burst_per_s: 1000.0,
        calm: Duration::from_millis(800),
        burst: Duration::from_millis(200),
    };

    #[test]
    fn a_process_has_its_mean_rate() {
        let diurnal =
            Process::Diurnal { least_per_s: 50.0, most_per_s: 450.0, period: Duration::from_secs(10) };
        for (process, tolerance) in
            [(Process::Poisson { per_s: 250.0 }, 0.02), (diurnal, 0.02), (BURSTS, 0.1)]
        {
            let rate = rates(process, 1000, 1)[0];
            assert!((rate / process.mean_per_s() - 1.0).abs() < tolerance, "{process:?}: {rate}");
        }
    }

    #[test]
    fn a_day_has_its_quiet_and_its_busy_hours() {
        let day = Process::Diurnal { least_per_s: 100.0, most_per_s: 900.0, period: Duration::from_secs(80) };
        let rates = rates(day, 80, 8);
        assert!(rates[0] < 200.0 && rates[7] < 200.0 && rates[3] > 750.0 && rates[4] > 750.0, "{rates:?}");
    }

    #[test]
    fn bursts_are_bursts() {
        let rates = rates(BURSTS, 500, 5000);
        let crowded = rates.iter().filter(|rate| **rate > 600.0).count();
        let calm = rates.iter().filter(|rate| **rate < 250.0).count();
        assert!((500..1200).contains(&crowded) && calm > 3000, "{crowded} and {calm} of 5000");
    }

    #[test]
    fn kinds_come_by_their_weights_and_seeds_repeat() {
        let demand = demand(Process::Poisson { per_s: 1000.0 });
        let arrivals = |seed| demand.arrivals(Duration::from_secs(20), seed);
        let some = arrivals(1);
        let large = some.iter().filter(|arrival| arrival.rows == 8).count();
        assert!((large as f64 / some.len() as f64 - 0.25).abs() < 0.01, "{large} of {}", some.len());
        assert!(some.is_sorted_by_key(|arrival| arrival.at));
        assert_eq!(some, arrivals(1));
        assert_ne!(some, arrivals(2));
    }
}
