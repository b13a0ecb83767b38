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

/// The ends and the middles of intervals, which lie close together where most of any posterior is.
struct Grid {
    nodes: Vec<f64>,
}

/// One arm's posterior at each node.
struct Curve {
    density: Vec<f64>,
    /// The probability that its mean reward is at most the node.
    below: Vec<f64>,
}

/// Ends that each arm adds.
const POINTS_MAX: usize = 48;
const POINTS_MIN: usize = 24;
/// Of all arms together: the work grows with its product with the number of arms.
const POINTS_TOGETHER: usize = 1024;

/// How the arms stand beside each other.
///
/// With f and F the arms' densities and distributions: the probability of being the best is the integral of f times
/// the product of the others' F, and the expected loss that of F (1 - product of the others' F), which is the mean of
/// the positive part of the difference to the best other. F is itself integrated from f, which costs one exponential
/// a node where the incomplete beta function has a continued fraction to evaluate.
pub fn standings(posteriors: &[Posterior]) -> Vec<Standing> {
    let grid = Grid::over(posteriors);
    let curves: Vec<Curve> = posteriors.iter().map(|posterior| Curve::of(posterior, &grid)).collect();
    let others = products_of_others(&curves, grid.nodes.len());
    let mut standings: Vec<Standing> = Vec::with_capacity(posteriors.len());
    for ((posterior, Curve { density, below }), others) in posteriors.iter().zip(&curves).zip(&others) {
        standings.push(Standing {
            posterior: *posterior,
            probability_best: grid.integral(|node| density[node] * others[node]),
            expected_loss: grid.integral(|node| below[node] * (1.0 - others[node])).max(0.0),
        });
    }
    let sum: f64 = standings.iter().map(|standing| standing.probability_best).sum();
    for standing in &mut standings {
        // What little the grid does not reach is everybody's.
        standing.probability_best =
            if sum > 0.0 { standing.probability_best / sum } else { 1.0 / posteriors.len() as f64 };
    }
    standings
}

/// For each arm and node, the probability that all others are below.
fn products_of_others(curves: &[Curve], nodes: usize) -> Vec<Vec<f64>> {
    let mut products = vec![vec![1.0; nodes]; curves.len()];
    let multiply = |into: &mut [f64], by: &[f64]| into.iter_mut().zip(by).for_each(|(into, by)| *into *= by);
    let mut so_far = vec![1.0; nodes];
    for (product, curve) in products.iter_mut().zip(curves) {
        multiply(product, &so_far);
        multiply(&mut so_far, &curve.below);
    }
    let mut so_far = vec![1.0; nodes];
    for (product, curve) in products.iter_mut().zip(curves).rev() {
        multiply(product, &so_far);
        multiply(&mut so_far, &curve.below);
    }
    products
}

// === impl Grid ===

impl Grid {
    fn over(posteriors: &[Posterior]) -> Grid {
        let points = (POINTS_TOGETHER / posteriors.len().max(1)).clamp(POINTS_MIN, POINTS_MAX);
        let mut ends = Vec::with_capacity(points * posteriors.len());
        for posterior in posteriors {
            // How far, in the logarithm of spreads: beyond that lies so little that no other arm's long interval
            // there makes anything of it. A skewed Beta falls like an exponential.
            let reach = match posterior {
                Posterior::Beta { .. } => 4.5,
                Posterior::StudentT { .. } => 8.0,
            };
            for point in 0..points {
                let place = 2.0 * point as f64 / (points - 1) as f64 - 1.0;
                let x = posterior.mean() + posterior.spread() * (reach * place).sinh();
                ends.push(match posterior {
                    Posterior::Beta { .. } => x.clamp(0.0, 1.0),
                    Posterior::StudentT { .. } => x,
                });
            }
        }
        ends.sort_unstable_by(f64::total_cmp);
        ends.dedup();
        let mut nodes = Vec::with_capacity(2 * ends.len());
        for (index, end) in ends.iter().enumerate() {
            if index > 0 {
                nodes.push(f64::midpoint(ends[index - 1], *end));
            }
            nodes.push(*end);
        }
        Grid { nodes }
    }

    /// Where each interval begins in `nodes`, and how long it is.
    fn intervals(&self) -> impl Iterator<Item = (usize, f64)> {
        self.nodes.windows(3).enumerate().step_by(2).map(|(start, nodes)| (start, nodes[2] - nodes[0]))
    }

    /// By Simpson's rule.
    fn integral(&self, value: impl Fn(usize) -> f64) -> f64 {
        let of = |(start, length)| length / 6.0 * (value(start) + 4.0 * value(start + 1) + value(start + 2));
        self.intervals().map(of).sum()
    }
}

// === impl Curve ===

impl Curve {
    fn of(posterior: &Posterior, grid: &Grid) -> Curve {
        // Beside that at the mean, so that nothing overflows; the area brings it to scale.
        let at_mean = posterior.log_density(posterior.mean());
        let density = |x: &f64| (posterior.log_density(*x) - at_mean).exp();
        let mut density: Vec<f64> = grid.nodes.iter().map(density).collect();
        let mut below = Vec::with_capacity(density.len());
        let mut area = 0.0;
        below.push(area);
        for (start, length) in grid.intervals() {
            let [left, middle, right] = [density[start], density[start + 1], density[start + 2]];
            // The integrals of the parabola through the three: to the middle, and to the end (Simpson).
            below.push(area + length / 24.0 * (5.0 * left + 8.0 * middle - right));
            area += length / 6.0 * (left + 4.0 * middle + right);
            below.push(area);
        }
        density.iter_mut().chain(&mut below).for_each(|value| *value /= area);
        Curve { density, below }
    }
}
