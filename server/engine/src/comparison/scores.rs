//! What two rows of scores say about classes: whether the same one is best, and how far the distributions are apart.

/// How an answer's scores along the last axis differ from the expected ones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScoreDifference {
    /// Rows along the last axis.
    pub rows: usize,
    /// Of them, those whose largest score is at the same place. Of equal scores the first counts, and NaN is the
    /// largest, as in numpy's `argmax`.
    pub agreeing: usize,
    /// The largest total variation distance of a row, `sum |p - q| / 2`, from 0 to 1: the most by which the two
    /// distributions differ in the probability of any event (Levin and Peres, Markov Chains and Mixing Times, 4.1).
    pub distance: f64,
}

/// Numbers that add up to 1 within this are probabilities: those of FP16 and of quantised models add up roughly.
const SUM_TOLERANCE: f64 = 0.01;

/// `None` where the last axis has fewer than two places, and nothing can be said of classes.
pub(super) fn compare(shape: &[usize], expected: &[f64], got: &[f64]) -> Option<ScoreDifference> {
    let classes = *shape.last().filter(|&&classes| classes >= 2)?;
    let mut difference = ScoreDifference::default();
    for (expected, got) in expected.chunks_exact(classes).zip(got.chunks_exact(classes)) {
        difference.rows += 1;
        difference.agreeing += usize::from(best(expected) == best(got));
        difference.distance = difference.distance.max(distance(expected, got));
    }
    Some(difference)
}

fn best(scores: &[f64]) -> usize {
    let mut best = 0;
    for (place, score) in scores.iter().enumerate() {
        if scores[best].is_nan() {
            break;
        }
        if score.is_nan() || *score > scores[best] {
            best = place;
        }
    }
    best
}

/// The total variation distance of two rows: of probabilities, or else of what softmax makes of them.
fn distance(expected: &[f64], got: &[f64]) -> f64 {
    if !expected.iter().chain(got).all(|score| score.is_finite()) {
        let same = |(one, other): (&f64, &f64)| one == other || (one.is_nan() && other.is_nan());
        return if expected.iter().zip(got).all(same) { 0.0 } else { 1.0 };
    }
    let (expected, got) = match (probabilities(expected), probabilities(got)) {
        (Some(expected), Some(got)) => (expected, got),
        _ => (softmax(expected), softmax(got)),
    };
    let sum: f64 = expected.iter().zip(&got).map(|(one, other)| (one - other).abs()).sum();
    (sum / 2.0).min(1.0)
}

fn probabilities(scores: &[f64]) -> Option<Vec<f64>> {
    let sum: f64 = scores.iter().sum();
    let is_one = (sum - 1.0).abs() <= SUM_TOLERANCE && scores.iter().all(|score| *score >= 0.0);
    is_one.then(|| scores.iter().map(|score| score / sum).collect())
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
