//! What rewards say of an arm's mean reward: a conjugate posterior, from sums that fade.

use std::time::Duration;

use super::special;

/// The rewards of one arm, each with its weight. Sums of deviations, not of squares: they do not cancel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Sum of the weights: the number of rewards where none fades.
    pub count: f64,
    pub mean: f64,
    /// Weighted sum of squared deviations from the mean (West 1979).
    pub deviations: f64,
    /// The time at which the weights are these.
    pub as_of_s: f64,
}

/// A distribution of an arm's mean reward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Posterior {
    /// Of a probability: Beta(successes + 1, failures + 1), from a uniform prior.
    Beta { alpha: f64, beta: f64 },
    /// Of a mean of normal rewards whose variance is unknown too: the marginal of a normal-inverse-gamma posterior
    /// (Murphy, Conjugate Bayesian analysis of the Gaussian distribution, 2007, section 6). Two degrees of freedom at
    /// least.
    StudentT { location: f64, scale: f64, degrees: f64 },
}

/// About the logarithm of the smallest positive number.
const LOG_LEAST: f64 = -708.0;
/// Halvings of a few spreads: what is left is a hundred-millionth of one.
const QUANTILE_STEPS: u32 = 30;

// === impl Evidence ===

impl Evidence {
    /// A reward of something that happened at `at_s`, which may be before what is known already.
    pub fn add(&mut self, reward: f64, at_s: f64, half_life: Option<Duration>) {
        let mut weight = 1.0;
        if self.count == 0.0 || at_s > self.as_of_s {
            *self = self.at(at_s, half_life);
        } else {
            weight = fading(self.as_of_s - at_s, half_life);
        }
        self.take(weight, reward);
    }

    /// The same as it counts at another time, later than all of it.
    #[must_use]
    pub fn at(&self, now_s: f64, half_life: Option<Duration>) -> Evidence {
        let kept = if self.count == 0.0 { 1.0 } else { fading(now_s - self.as_of_s, half_life) };
        Evidence { count: self.count * kept, deviations: self.deviations * kept, as_of_s: now_s, ..*self }
    }

    /// That of all arms together, of the same time.
    #[must_use]
    pub fn pooled(evidence: &[Evidence]) -> Evidence {
        evidence.iter().fold(Evidence::default(), |mut pooled, arm| {
            pooled.as_of_s = arm.as_of_s;
            let before = pooled.deviations;
            pooled.deviations = 0.0;
            pooled.take(arm.count, arm.mean);
            pooled.deviations += before + arm.deviations;
            pooled
        })
    }

    pub fn variance(&self) -> f64 {
        if self.count > 1.0 { self.deviations / (self.count - 1.0) } else { 0.0 }
    }

    fn take(&mut self, weight: f64, reward: f64) {
        if weight > 0.0 {
            self.count += weight;
            let off = reward - self.mean;
            self.mean += off * weight / self.count;
            self.deviations += weight * off * (reward - self.mean);
        }
    }
}

fn fading(age_s: f64, half_life: Option<Duration>) -> f64 {
    half_life.map_or(1.0, |half_life| (-age_s / half_life.as_secs_f64()).exp2())
}

// === impl Posterior ===

impl Posterior {
    pub fn binary(evidence: &Evidence) -> Posterior {
        let successes = (evidence.count * evidence.mean).clamp(0.0, evidence.count);
        Posterior::Beta { alpha: 1.0 + successes, beta: 1.0 + evidence.count - successes }
    }

    /// The prior is worth one reward: the mean and the variance of the rewards of all arms, so that it has their scale
    /// and favours none. Until they differ, the scale is 1.
    pub fn real(evidence: &Evidence, pooled: &Evidence) -> Posterior {
        let (strength, shape) = (1.0, 1.0);
        let variance = pooled.variance();
        let variance = if variance > 0.0 { variance } else { 1.0 };
        let known = strength + evidence.count;
        let off = evidence.mean - pooled.mean;
        let shape_after = shape + evidence.count / 2.0;
        let rate = shape * variance
            + evidence.deviations / 2.0
            + strength * evidence.count * off * off / (2.0 * known);
        Posterior::StudentT {
            location: (strength * pooled.mean + evidence.count * evidence.mean) / known,
            scale: (rate / (shape_after * known)).sqrt(),
            degrees: 2.0 * shape_after,
        }
    }

    pub fn mean(&self) -> f64 {
        match *self {
            Posterior::Beta { alpha, beta } => alpha / (alpha + beta),
            Posterior::StudentT { location, .. } => location,
        }
    }

    /// Its standard deviation, or the scale where it is too wide to have one.
    pub fn spread(&self) -> f64 {
        match *self {
            Posterior::Beta { alpha, beta } => {
                let sum = alpha + beta;
                (alpha * beta / (sum * sum * (sum + 1.0))).sqrt()
            }
            Posterior::StudentT { scale, .. } => scale,
        }
    }

    /// The logarithm of the density at `x`, up to a constant.
    pub fn log_density(&self, x: f64) -> f64 {
        match *self {
            // Finite at the ends too, where one of the factors may be zero.
            Posterior::Beta { alpha, beta } => {
                (alpha - 1.0) * x.ln().max(LOG_LEAST) + (beta - 1.0) * (-x).ln_1p().max(LOG_LEAST)
            }
            Posterior::StudentT { location, scale, degrees } => {
                let t = (x - location) / scale;
                -0.5 * (degrees + 1.0) * (t * t / degrees).ln_1p()
            }
        }
    }

    /// The probability that the mean reward is at most `x`.
    pub fn below(&self, x: f64) -> f64 {
        match *self {
            Posterior::Beta { alpha, beta } => special::incomplete_beta(alpha, beta, x),
            Posterior::StudentT { location, scale, degrees } => {
                special::student_t_below((x - location) / scale, degrees)
            }
        }
    }

    /// Between which this share of it lies, with as much on either side; by bisection.
    pub fn interval(&self, share: f64) -> (f64, f64) {
        (self.quantile((1.0 - share) / 2.0), self.quantile((1.0 + share) / 2.0))
    }

    fn quantile(&self, probability: f64) -> f64 {
        let (is, is_not) = (probability, 1.0 - probability);
        // In spreads from the mean, what it cannot be beyond: by Cantelli's inequality, and where two degrees of
        // freedom, which are the fewest, would have it.
        let (down, up) = match self {
            Posterior::Beta { .. } => ((is_not / is).sqrt(), (is / is_not).sqrt()),
            Posterior::StudentT { .. } => {
                let reach = (is - is_not).abs() / (2.0 * is * is_not).sqrt();
                (reach, reach)
            }
        };
        let (mut low, mut high) = (self.mean() - down * self.spread(), self.mean() + up * self.spread());
        for _ in 0..QUANTILE_STEPS {
            let middle = f64::midpoint(low, high);
            if self.below(middle) < probability { low = middle } else { high = middle }
        }
        f64::midpoint(low, high)
    }
}
