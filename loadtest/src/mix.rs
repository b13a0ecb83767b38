//! Decides which model and which of its payloads the next request takes.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Picks models at random by weight, and each model's payloads in turn.
#[derive(Debug)]
pub(crate) struct Mix {
    /// Sums of the weights up to and including each model.
    thresholds: Vec<f64>,
    payloads: Vec<usize>,
    next_payload: Vec<usize>,
    rng: SmallRng,
}

// === impl Mix ===

impl Mix {
    /// `models` are (weight, number of payloads), neither zero.
    pub(crate) fn new(models: impl IntoIterator<Item = (f64, usize)>, seed: u64) -> Mix {
        let (weights, payloads): (Vec<f64>, Vec<usize>) = models.into_iter().unzip();
        let thresholds = weights.iter().scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Mix {
            thresholds: thresholds.collect(),
            next_payload: vec![0; payloads.len()],
            payloads,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// The indices of a model and of one of its payloads.
    pub(crate) fn pick(&mut self) -> (usize, usize) {
        let last = self.thresholds.len() - 1;
        let model = match last {
            0 => 0,
            _ => {
                let point = self.rng.random::<f64>() * self.thresholds[last];
                self.thresholds.partition_point(|threshold| *threshold <= point).min(last)
            }
        };
        let payload = self.next_payload[model];
        self.next_payload[model] = (payload + 1) % self.payloads[model];
        (model, payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_come_by_weight_and_payloads_in_turn() {
        let mut mix = Mix::new([(1.0, 2), (3.0, 5)], 1);
        let mut counts = [0_u32; 2];
        let mut expected = [0, 0];
        for _ in 0..40_000 {
            let (model, payload) = mix.pick();
            counts[model] += 1;
            assert_eq!(payload, expected[model]);
            expected[model] = (expected[model] + 1) % [2, 5][model];
        }
        // Five standard deviations of a binomial count.
        assert!((f64::from(counts[0]) - 10_000.0).abs() < 5.0 * 86.6, "{counts:?}");
    }
}
