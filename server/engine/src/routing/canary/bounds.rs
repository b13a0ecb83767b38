//! What can be said of a share or a quantile for sure, up to a stated chance of being wrong, from so many requests.
//!
//! All of it is the bound of Chernoff and Hoeffding on the tails of the binomial distribution, in its form with the
//! relative entropy (Hoeffding 1963, theorem 1): of `n` draws with probability `q`, a share of `p >= q` or more
//! succeeds with probability `exp(-n D(p, q))` at most, and so for `p <= q` or less. It holds for every `n`, where
//! Wilson's interval promises a chance of one in a million that it does not keep when few requests fail. The theorem is
//! one on means of independent numbers from 0 to 1, of which successes are those that are either: so are rewards.

/// The least success probability that is not ruled out, at a chance of `alpha` of being wrong.
pub(super) fn share_min(successes: u64, trials: u64, alpha: f64) -> f64 {
    if successes == 0 {
        return 0.0;
    }
    mean_min(successes as f64 / trials as f64, trials, alpha)
}

/// The greatest success probability that is not ruled out.
pub(super) fn share_max(successes: u64, trials: u64, alpha: f64) -> f64 {
    if successes == trials {
        return 1.0;
    }
    mean_max(successes as f64 / trials as f64, trials, alpha)
}

/// The least expectation that is not ruled out of numbers from 0 to 1, `count` of which have this mean.
pub(super) fn mean_min(mean: f64, count: u64, alpha: f64) -> f64 {
    if mean <= 0.0 { 0.0 } else { farthest(mean, 0.0, count, alpha) }
}

/// The greatest expectation that is not ruled out.
pub(super) fn mean_max(mean: f64, count: u64, alpha: f64) -> f64 {
    if mean >= 1.0 { 1.0 } else { farthest(mean, 1.0, count, alpha) }
}

/// The rank, from 1, of the draw that the quantile is surely not below: the order statistics of a sample bound the
/// quantiles of any continuous distribution (David and Nagaraja, Order Statistics, 2003, section 7.1).
pub(super) fn rank_below(quantile: f64, trials: u64, alpha: f64) -> Option<u64> {
    // At most so many draws up to the quantile would be a surprise.
    let surprises =
        |count: u64| count as f64 <= quantile * trials as f64 && surprises(count, quantile, trials, alpha);
    surprises(0).then(|| 1 + last(0, trials, surprises))
}

/// The rank, from 1, of the draw that the quantile is surely not above.
pub(super) fn rank_above(quantile: f64, trials: u64, alpha: f64) -> Option<u64> {
    let surprises =
        |count: u64| count as f64 >= quantile * trials as f64 && surprises(count, quantile, trials, alpha);
    // Counted from the end.
    surprises(trials).then(|| trials - last(0, trials, |missing| surprises(trials - missing)))
}

fn surprises(successes: u64, probability: f64, trials: u64, alpha: f64) -> bool {
    trials > 0 && trials as f64 * divergence(successes as f64 / trials as f64, probability) >= -alpha.ln()
}

/// From `share` towards `end`, the last probability with which so many successes would be no surprise.
fn farthest(share: f64, end: f64, trials: u64, alpha: f64) -> f64 {
    let (mut inside, mut outside) = (share, end);
    // As many halvings as a double has digits.
    for _ in 0..f64::MANTISSA_DIGITS {
        let middle = f64::midpoint(inside, outside);
        match trials as f64 * divergence(share, middle) < -alpha.ln() {
            true => inside = middle,
            false => outside = middle,
        }
    }
    outside
}

/// The last of `from..to` for which `holds`, which holds for the first and nowhere after it has stopped to.
fn last(from: u64, to: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut yes, mut no) = (from, to + 1);
    while no - yes > 1 {
        let middle = u64::midpoint(yes, no);
        match holds(middle) {
            true => yes = middle,
            false => no = middle,
        }
    }
    yes
}

/// Relative entropy of two coins, in nats.
fn divergence(p: f64, q: f64) -> f64 {
    let term = |p: f64, q: f64| if p == 0.0 { 0.0 } else { p * (p / q).ln() };
    term(p, q) + term(1.0 - p, 1.0 - q)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the sums of chances are off by at most, relative to them.
    const ROUNDING: f64 = 1e-9;

    /// Chance of exactly each count of successes.
    fn binomial(trials: u64, probability: f64) -> Vec<f64> {
        let odds = probability / (1.0 - probability);
        let mut chances = vec![(1.0 - probability).powi(trials as i32)];
        for count in 0..trials {
            let next = chances[count as usize] * odds * (trials - count) as f64 / (count + 1) as f64;
            chances.push(next);
        }
        chances
    }

    proptest! {
        #[test]
        fn bounds_on_shares_are_wrong_as_rarely_as_they_say(
            trials in 1..400u64, probability in 0.0005..0.9995f64, digits in 1..7i32,
        ) {
            let alpha = 0.1f64.powi(digits);
            let (mut above, mut below) = (0.0, 0.0);
            for (count, chance) in binomial(trials, probability).into_iter().enumerate() {
                let (low, high) =
                    (share_min(count as u64, trials, alpha), share_max(count as u64, trials, alpha));
                prop_assert!(low <= count as f64 / trials as f64 && count as f64 / trials as f64 <= high);
                if low > probability { above += chance; }
                if high < probability { below += chance; }
            }
            let most = alpha * (1.0 + ROUNDING);
            prop_assert!(above <= most && below <= most, "{above} and {below}, expected {alpha}");
        }

        #[test]
        fn bounds_on_quantiles_are_wrong_as_rarely_as_they_say(
            trials in 1..400u64, percent in 1..100u32, digits in 1..7i32,
        ) {
            let (quantile, alpha) = (f64::from(percent) / 100.0, 0.1f64.powi(digits));
            // The count of draws up to the quantile is binomial; the draw of a rank is above it if fewer are below.
            let chances = binomial(trials, quantile);
            let most = alpha * (1.0 + ROUNDING);
            if let Some(rank) = rank_below(quantile, trials, alpha) {
                let wrong: f64 = chances[..rank as usize].iter().sum();
                prop_assert!(wrong <= most, "rank {rank}: {wrong}, expected {alpha}");
            }
            if let Some(rank) = rank_above(quantile, trials, alpha) {
                prop_assert!((1..=trials).contains(&rank));
                let wrong: f64 = chances[rank as usize..].iter().sum();
                prop_assert!(wrong <= most, "rank {rank}: {wrong}, expected {alpha}");
            }
        }
    }

    #[test]
    fn few_requests_tell_little() {
        assert_eq!(rank_below(0.5, 0, 0.01), None);
        assert_eq!(rank_below(0.5, 6, 0.01), None, "all six above the median: once in 64");
        assert_eq!(rank_below(0.5, 7, 0.01), Some(1));
        assert_eq!(rank_above(0.99, 458, 0.01), None);
        assert_eq!(rank_above(0.99, 459, 0.01), Some(459));
        assert_eq!(rank_below(0.5, 10_000, 0.01), Some(4849));
        assert_eq!(rank_above(0.5, 10_000, 0.01), Some(5152));
        assert_eq!(share_min(0, 10, 0.01), 0.0);
        assert_eq!(share_max(10, 10, 0.01), 1.0);
    }
}
