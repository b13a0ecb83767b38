//! Which arm is the best, how surely, and what is lost if it is not: by quadrature, so without any chance.

use super::posterior::Posterior;

/// An arm beside the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    pub posterior: Posterior,
    /// That its mean reward is the highest of all.
    pub probability_best: f64,
    /// By how much the best mean reward is expected to be above its own.
    pub expected_loss: f64,
}

/// Points of each arm's own grid; they lie close together where most of its posterior is.
const POINTS_MAX: usize = 128;
const POINTS_MIN: usize = 32;
/// Of all arms together: the work grows with its product with the number of arms.
const POINTS_TOGETHER: usize = 1024;

/// How the arms stand beside each other.
///
/// With F the arms' distributions, on the union of their grids: the probability of being the best is the integral of
/// the product of the others' F over the arm's own, and the expected loss that of F (1 - product of the others' F),
/// which is the mean of the positive part of the difference to the best other.
pub fn standings(posteriors: &[Posterior]) -> Vec<Standing> {
    let grid = grid(posteriors);
    let below: Vec<Vec<f64>> =
        posteriors.iter().map(|posterior| grid.iter().map(|x| posterior.below(*x)).collect()).collect();
    let others = |arm: usize, point: usize| -> f64 {
        let others = below.iter().enumerate().filter(|(other, _)| *other != arm);
        others.map(|(_, below)| below[point]).product()
    };
    let mut standings = Vec::with_capacity(posteriors.len());
    for (arm, posterior) in posteriors.iter().enumerate() {
        let (mut probability_best, mut expected_loss) = (0.0, 0.0);
        let mut before = others(arm, 0);
        for point in 1..grid.len() {
            let after = others(arm, point);
            let (low, high) = (below[arm][point - 1], below[arm][point]);
            probability_best += (high - low) * f64::midpoint(before, after);
            let step = grid[point] - grid[point - 1];
            expected_loss += step * f64::midpoint(low * (1.0 - before), high * (1.0 - after));
            before = after;
        }
        standings.push(Standing { posterior: *posterior, probability_best, expected_loss });
    }
    let sum: f64 = standings.iter().map(|standing| standing.probability_best).sum();
    for standing in &mut standings {
        // What little the grid does not reach is everybody's.
        standing.probability_best =
            if sum > 0.0 { standing.probability_best / sum } else { 1.0 / posteriors.len() as f64 };
    }
    standings
}

fn grid(posteriors: &[Posterior]) -> Vec<f64> {
    let points = (POINTS_TOGETHER / posteriors.len().max(1)).clamp(POINTS_MIN, POINTS_MAX);
    let mut grid = Vec::with_capacity(points * posteriors.len());
    for posterior in posteriors {
        // How far, in the logarithm of spreads: beyond that lies less than a millionth.
        let reach = match posterior {
            Posterior::Beta { .. } => 3.0,
            Posterior::StudentT { .. } => 8.0,
        };
        for point in 0..points {
            let place = 2.0 * point as f64 / (points - 1) as f64 - 1.0;
            let x = posterior.mean() + posterior.spread() * (reach * place).sinh();
            grid.push(match posterior {
                Posterior::Beta { .. } => x.clamp(0.0, 1.0),
                Posterior::StudentT { .. } => x,
            });
        }
    }
    grid.sort_unstable_by(f64::total_cmp);
    grid.dedup();
    grid
}
