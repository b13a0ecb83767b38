//! When one arm has won: it is surely enough the best, and enough is known to say so.

use super::best::Standing;
use super::posterior::Evidence;

/// The part of the chance of being wrong that one look may spend. The probability of being the best is looked at ten
/// times a second, and is at some time higher by chance than at a time that was agreed on. No part holds for ever and
/// for every gap (the law of the iterated logarithm); this one does for 20,000 requests to arms with rewards of 0.10
/// and 0.11 (`cargo bench --bench bandit`), of which else up to twice as many would end wrongly as stated.
const SPENT_AT_ONCE: f64 = 0.5;

/// The arm that has won, so that it is the best with this probability.
///
/// It and its closest rival, the next by the mean reward that is believed of it, must have had so many rewards: two
/// arms of which little is known differ by luck. No others: how little is known of an arm is in its posterior, and one
/// that is far behind is not worth the requests that more would cost; Thompson never gives it a hundred.
pub fn winner(
    standings: &[Standing],
    evidence: &[Evidence],
    probability: f64,
    rewards_min: u32,
) -> Option<usize> {
    let doubt_max = SPENT_AT_ONCE * (1.0 - probability);
    let best = standings.iter().position(|standing| 1.0 - standing.probability_best <= doubt_max)?;
    let mean = |arm: &usize| standings[*arm].posterior.mean();
    let others = (0..standings.len()).filter(|arm| *arm != best);
    // One alone is the best of nothing.
    let rival = others.max_by(|one, other| mean(one).total_cmp(&mean(other)))?;
    let is_known = |arm: usize| evidence[arm].count >= f64::from(rewards_min);
    (is_known(best) && is_known(rival)).then_some(best)
}
