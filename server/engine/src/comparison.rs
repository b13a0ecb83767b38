//! How far two answers to the same request are apart, tensor by tensor: pure.

mod elements;
mod scores;

use std::fmt;

pub(crate) use self::elements::{Elements, at, elements};
pub use self::scores::ScoreDifference;
use crate::tensor::{DType, ShapeText, Tensor};

/// How far an answer may be from the expected one.
///
/// For floats the rule is numpy's `allclose`: `|got - expected| <= absolute + relative * |expected|`,
/// NaN equals NaN, and an infinity equals itself alone. Whole numbers must be equal, unless `absolute`
/// is 1 or more, which can only be meant for them too: then `|got - expected| <= absolute`. `BOOL` and
/// `BYTES` must always be equal.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub absolute: f64,
    pub relative: f64,
}

/// How an answer differs from the expected one in one tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    pub elements: usize,
    /// Elements further apart than the tolerance allows.
    pub differing: usize,
    /// By how much the worst of them exceeds what the tolerance allows; 1 where elements are no numbers.
    pub excess: f64,
    /// `None` where elements are no numbers: `BOOL` and `BYTES`.
    pub numbers: Option<NumberDifference>,
    /// `None` where the last axis has no scores: floats, two or more.
    pub scores: Option<ScoreDifference>,
}

/// Over all elements, whatever the tolerance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NumberDifference {
    /// The largest `|got - expected|`; infinite where one alone is NaN or an infinity.
    pub absolute: f64,
    /// The largest `|got - expected| / max(|got|, |expected|)`, the measure of Python's `math.isclose` (PEP 485), from
    /// 0 to 2; infinite where the absolute one is for that reason.
    pub relative: f64,
}

/// Compares two tensors. Floats of different types are compared by value, and so are whole numbers.
///
/// # Errors
/// The shapes differ, or one has texts and the other numbers: what each is.
pub fn compare(expected: &Tensor, got: &Tensor, tolerance: Tolerance) -> Result<Difference, String> {
    let is_text = |tensor: &Tensor| tensor.dtype() == DType::Bytes;
    if expected.shape() != got.shape() || is_text(expected) != is_text(got) {
        return Err(format!(
            "{} {} against {} {}",
            got.dtype(),
            ShapeText(got.shape()),
            expected.dtype(),
            ShapeText(expected.shape())
        ));
    }
    let mut difference = Difference { elements: expected.element_count(), ..Difference::default() };
    match (elements(expected), elements(got)) {
        (Elements::Text(expected), Elements::Text(got)) => {
            difference.differing = expected.iter().zip(&got).filter(|(want, have)| want != have).count();
            difference.excess = if difference.differing > 0 { 1.0 } else { 0.0 };
        }
        (Elements::Whole(wanted), Elements::Whole(given)) => {
            let is_logical = [expected, got].iter().any(|tensor| tensor.dtype() == DType::Bool);
            let mut numbers = NumberDifference::default();
            for (want, have) in wanted.into_iter().zip(given) {
                if !tolerance.allows_whole(want, have, is_logical) {
                    let apart = (have - want).unsigned_abs() as f64;
                    let allowed =
                        if is_logical || tolerance.absolute < 1.0 { 0.0 } else { tolerance.absolute };
                    difference.add_excess(apart - allowed);
                }
                numbers.add_whole(want, have);
            }
            difference.numbers = (!is_logical).then_some(numbers);
        }
        (wanted, given) => {
            let (wanted, given) = (wanted.into_reals(), given.into_reals());
            let mut numbers = NumberDifference::default();
            for (&want, &have) in wanted.iter().zip(&given) {
                if !tolerance.allows(want, have) {
                    difference.add_excess(tolerance.excess(want, have));
                }
                numbers.add(want, have);
            }
            difference.numbers = Some(numbers);
            difference.scores = scores::compare(expected.shape(), &wanted, &given);
        }
    }
    Ok(difference)
}

// === impl Difference ===

impl Difference {
    fn add_excess(&mut self, excess: f64) {
        self.differing += 1;
        self.excess = self.excess.max(excess);
    }
}

// === impl Tolerance ===

impl Tolerance {
    /// Whether two floats are close enough.
    pub(crate) fn allows(self, expected: f64, got: f64) -> bool {
        if expected.is_nan() || got.is_nan() {
            return expected.is_nan() && got.is_nan();
        }
        // Of an infinity the rule would make a tolerance that everything is within.
        if expected.is_infinite() || got.is_infinite() {
            return expected == got;
        }
        (got - expected).abs() <= self.absolute + self.relative * expected.abs()
    }

    /// By how much two floats are too far apart, which they must be.
    fn excess(self, expected: f64, got: f64) -> f64 {
        match expected.is_finite() && got.is_finite() {
            true => (got - expected).abs() - (self.absolute + self.relative * expected.abs()),
            false => f64::INFINITY,
        }
    }

    /// Whether two whole numbers are close enough; logical ones must be equal.
    pub(crate) fn allows_whole(self, expected: i128, got: i128, is_logical: bool) -> bool {
        let is_meant = !is_logical && self.absolute >= 1.0;
        expected == got || (is_meant && (got - expected).unsigned_abs() as f64 <= self.absolute)
    }
}

impl Default for Tolerance {
    /// 1e-5 and 1e-5: some fifty times the rounding of FP32 (1.2e-7), room for kernels that sum in
    /// another order, and far below what moves a decision.
    fn default() -> Tolerance {
        Tolerance { absolute: 1e-5, relative: 1e-5 }
    }
}

/// By their bits, so that every tolerance is equal to itself.
impl PartialEq for Tolerance {
    fn eq(&self, other: &Tolerance) -> bool {
        let bits = |tolerance: &Tolerance| [tolerance.absolute, tolerance.relative].map(f64::to_bits);
        bits(self) == bits(other)
    }
}

impl Eq for Tolerance {}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "absolute {:?}, relative {:?}", self.absolute, self.relative)
    }
}

// === impl NumberDifference ===

impl NumberDifference {
    fn add(&mut self, expected: f64, got: f64) {
        if expected == got || (expected.is_nan() && got.is_nan()) {
            return;
        }
        let largest = expected.abs().max(got.abs());
        let (absolute, relative) = match expected.is_finite() && got.is_finite() {
            // Divided first: the difference of two finite numbers may be none.
            true => ((got - expected).abs(), (got / largest - expected / largest).abs()),
            false => (f64::INFINITY, f64::INFINITY),
        };
        self.absolute = self.absolute.max(absolute);
        self.relative = self.relative.max(relative);
    }

    fn add_whole(&mut self, expected: i128, got: i128) {
        if expected != got {
            let apart = (got - expected).unsigned_abs() as f64;
            let largest = expected.unsigned_abs().max(got.unsigned_abs()) as f64;
            self.absolute = self.absolute.max(apart);
            self.relative = self.relative.max(apart / largest);
        }
    }
}

#[cfg(test)]
mod tests;
