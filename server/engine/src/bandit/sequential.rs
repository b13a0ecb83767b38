//! Tests that may be looked at any time: whether two arms differ, and whether requests were dealt as they ought to be.

use super::posterior::Evidence;
use super::special::chi_square_above;

/// Rewards that both arms need: below that their variances say little.
const REWARDS_MIN: f64 = 30.0;
/// Effects that the test is tuned for, in standard deviations of a reward. Others are found too, a little later.
const EFFECT: f64 = 0.1;

/// An always-valid p-value of two arms having the same mean reward: one over the mixture likelihood ratio
/// (Johari, Koomen, Pekelis and Walsh, Always Valid Inference, Operations Research 2022, equation 12), with a normal
/// mixture and the variances as they were seen. The smallest of all looks is valid at any time, if each arm got its
/// requests whatever the rewards were; 1 while there is too little to tell.
pub fn difference_p(one: &Evidence, other: &Evidence) -> f64 {
    if one.count.min(other.count) < REWARDS_MIN {
        return 1.0;
    }
    let variance = Evidence::pooled(&[*one, *other]).variance();
    // Of the difference of the means.
    let noise = one.variance() / one.count + other.variance() / other.count;
    if noise <= 0.0 {
        return 1.0;
    }
    let mixed = EFFECT * EFFECT * variance;
    let difference = one.mean - other.mean;
    let exponent = mixed * difference * difference / (2.0 * noise * (noise + mixed));
    let log_ratio = 0.5 * (noise / (noise + mixed)).ln() + exponent;
    (-log_ratio).exp().min(1.0)
}

/// The p-value of Pearson's chi-square that requests were dealt by these shares: a small one says that something
/// else decided, and that arms cannot be compared (a sample ratio mismatch). `None` where there are too few requests.
pub fn sample_ratio_p(requests: &[u64], shares: &[f64]) -> Option<f64> {
    let all = requests.iter().sum::<u64>() as f64;
    let dealt = || requests.iter().zip(shares).filter(|(_, share)| **share > 0.0);
    if dealt().count() < 2 || dealt().any(|(_, share)| all * share < 5.0) {
        return None;
    }
    let terms = dealt().map(|(requests, share)| (*requests as f64 - all * share).powi(2) / (all * share));
    Some(chi_square_above(terms.sum(), dealt().count() as f64 - 1.0))
}
