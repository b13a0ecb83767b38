//! Decides when an open loop means to send each request: a pure series of offsets from the start.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// How the gaps between arrivals are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// Equal gaps.
    Constant,
    /// Exponential gaps, as from many independent clients.
    Poisson,
}

/// Offsets from the start at which one of `shares` equal senders means to send; together the senders
/// offer `rate_per_s`. Endless: the caller stops taking.
#[derive(Debug)]
pub(crate) struct Schedule {
    gaps: Gaps,
}

#[derive(Debug)]
enum Gaps {
    /// The n-th offset is computed from n and not summed up, so that rounding does not drift.
    Constant {
        next: u64,
        step: u64,
        rate_per_s: f64,
    },
    Poisson {
        now_s: f64,
        mean_s: f64,
        rng: SmallRng,
    },
}

// === impl Schedule ===

impl Schedule {
    /// `rate_per_s` must be positive and `share < shares`.
    pub(crate) fn new(
        arrivals: Arrivals,
        rate_per_s: f64,
        share: usize,
        shares: usize,
        seed: u64,
    ) -> Schedule {
        let gaps = match arrivals {
            Arrivals::Constant => Gaps::Constant { next: share as u64, step: shares as u64, rate_per_s },
            Arrivals::Poisson => Gaps::Poisson {
                now_s: 0.0,
                mean_s: shares as f64 / rate_per_s,
                // Independent Poisson series add up to one, whatever the number of senders.
                rng: SmallRng::seed_from_u64(seed.wrapping_add(share as u64)),
            },
        };
        Schedule { gaps }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let seconds = match &mut self.gaps {
            Gaps::Constant { next, step, rate_per_s } => {
                let index = *next;
                *next += *step;
                index as f64 / *rate_per_s
            }
            Gaps::Poisson { now_s, mean_s, rng } => {
                // 53 random bits make a number in (0, 1], whose logarithm is finite.
                let uniform = ((rng.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
                *now_s -= uniform.ln() * *mean_s;
                *now_s
            }
        };
        Some(Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_arrivals_are_equidistant_and_do_not_drift() {
        let schedule = Schedule::new(Arrivals::Constant, 3.0, 0, 1, 0);
        let offsets: Vec<_> = schedule.take(3_000_001).collect();
        assert_eq!(offsets[0], Duration::ZERO);
        assert_eq!(offsets[3], Duration::from_secs(1));
        assert_eq!(offsets[3_000_000], Duration::from_secs(1_000_000));
    }

    #[test]
    fn the_shares_of_constant_arrivals_interleave_into_the_whole() {
        let share = |share, shares| Schedule::new(Arrivals::Constant, 1000.0, share, shares, 0);
        let mut merged: Vec<_> = (0..3).flat_map(|k| share(k, 3).take(100)).collect();
        merged.sort();
        assert_eq!(merged, share(0, 1).take(300).collect::<Vec<_>>());
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_variance_of_an_exponential() {
        let rate_per_s = 500.0;
        let offsets: Vec<f64> = Schedule::new(Arrivals::Poisson, rate_per_s, 0, 1, 7)
            .take(200_000)
            .map(|offset| offset.as_secs_f64())
            .collect();
        let gaps: Vec<f64> = offsets.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Five standard errors: 1/sqrt(n) of the mean, sqrt(8/n) of the variance.
        assert!((mean * rate_per_s - 1.0).abs() < 5.0 / (gaps.len() as f64).sqrt(), "mean gap {mean}");
        let relative = variance * rate_per_s * rate_per_s;
        assert!((relative - 1.0).abs() < 5.0 * (8.0 / gaps.len() as f64).sqrt(), "variance {variance}");
        // Counts per window of an exponential series are Poisson: their variance equals their mean.
        let mut counts = vec![0_u32; (offsets.last().unwrap() * 10.0) as usize];
        for offset in &offsets {
            if let Some(count) = counts.get_mut((offset * 10.0) as usize) {
                *count += 1;
            }
        }
        let mean = counts.iter().sum::<u32>() as f64 / counts.len() as f64;
        let variance =
            counts.iter().map(|count| (*count as f64 - mean).powi(2)).sum::<f64>() / counts.len() as f64;
        assert!((variance / mean - 1.0).abs() < 0.15, "variance {variance} of counts with mean {mean}");
    }

    #[test]
    fn a_seed_gives_the_same_arrivals_again_and_another_seed_gives_others() {
        let offsets = |seed| Schedule::new(Arrivals::Poisson, 10.0, 0, 1, seed).take(50).collect::<Vec<_>>();
        assert_eq!(offsets(1), offsets(1));
        assert_ne!(offsets(1), offsets(2));
    }
}
