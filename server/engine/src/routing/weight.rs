//! Shares of a route's requests, in hundredths of a percent, and how the others pay when one grows.

use std::fmt;

/// A share from 0 to 100 %, exact to 0.01 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u32);

// === impl Weight ===

impl Weight {
    pub const ALL: Weight = Weight(10_000);

    /// # Errors
    /// What is not from 0 to 100, or finer than 0.01.
    pub fn from_percent(percent: f64) -> Result<Weight, String> {
        let hundredths = percent * 100.0;
        if !(0.0..=100.0).contains(&percent) {
            return Err(format!("is {percent}: expected a percentage from 0 to 100"));
        }
        // 0.29 * 100 is 28.999999999999996.
        if (hundredths - hundredths.round()).abs() > 1e-6 {
            return Err(format!("is {percent}: expected whole hundredths of a percent"));
        }
        Ok(Weight(hundredths.round() as u32))
    }

    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// What is left of everything.
    #[must_use]
    pub fn rest(self) -> Weight {
        Weight(Weight::ALL.0.saturating_sub(self.0))
    }

    /// From 0 to 1.
    pub(super) fn share(self) -> f64 {
        f64::from(self.0) / f64::from(Weight::ALL.0)
    }
}

/// In percent, without the sign.
impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.percent())
    }
}

/// What they are together, which may be more than everything.
pub(super) fn sum(weights: impl Iterator<Item = Weight>) -> Weight {
    Weight(weights.fold(0, |sum, weight| sum.saturating_add(weight.0)))
}

/// The weights with one of them set. The others keep their proportions, as well as hundredths can say them: what is
/// left over after rounding down goes to those that lost most by it, the first of equals first. Others without any
/// weight share alike.
pub(super) fn with(before: &[Weight], index: usize, weight: Weight) -> Vec<Weight> {
    let is_other = |other: usize| other != index;
    let others: Vec<usize> = (0..before.len()).filter(|other| is_other(*other)).collect();
    let held: u64 = others.iter().map(|other| u64::from(before[*other].0)).sum();
    let claim = |other: usize| if held == 0 { 1 } else { u64::from(before[other].0) };
    let claims: u64 = others.iter().map(|other| claim(*other)).sum();
    let rest = u64::from(Weight::ALL.0 - weight.0);
    let mut after = before.to_vec();
    after[index] = if others.is_empty() { Weight::ALL } else { weight };
    let mut remainders = Vec::with_capacity(others.len());
    let mut left = rest;
    for other in others {
        let exact = rest * claim(other);
        let floor = exact / claims;
        left -= floor;
        after[other] = Weight(floor as u32);
        remainders.push((std::cmp::Reverse(exact % claims), other));
    }
    remainders.sort_unstable();
    for (_, other) in remainders.into_iter().take(left as usize) {
        after[other].0 += 1;
    }
    after
}
