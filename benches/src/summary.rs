//! Medians of rounds, and verdicts on targets.

use std::fmt;

use serde::Serialize;

/// A measured number beside the one that it must not exceed (or, for `AtLeast`, fall below).
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    pub name: String,
    pub measured: f64,
    pub bound: Bound,
    pub met: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// The middle of `values`, or the mean of the two in the middle; NaN for none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

// === impl Target ===

impl Target {
    pub fn new(name: impl Into<String>, measured: f64, bound: Bound) -> Target {
        let met = match bound {
            Bound::AtMost(bound) => measured <= bound,
            Bound::AtLeast(bound) => measured >= bound,
        };
        Target { name: name.into(), measured, bound, met }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.met { "met" } else { "MISSED" };
        let (word, bound) = match self.bound {
            Bound::AtMost(bound) => ("at most", bound),
            Bound::AtLeast(bound) => ("at least", bound),
        };
        write!(f, "{verdict:>6}  {}: {:.3}, {word} {bound:.3}", self.name, self.measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_values() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}
