//! How far a row's outputs in a batch are from those alone, beside the scale of the output: pure.

use std::fmt;

use crate::comparison::{Elements, elements};
use crate::tensor::{DType, ShapeText, Signature, Tensor};

/// What part of an output's scale its elements may differ by. The scale is the largest finite magnitude of that output
/// over the rows alone that it is compared with. Whole numbers, logical values and texts must be equal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RowTolerance {
    part: f64,
    /// Whole numbers and texts may be others, as where rounding has decided which: only their shapes are compared.
    may_decide: bool,
}

/// The first way in which a row's output differs. It has no values, which are callers' own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Apart {
    pub(crate) output: String,
    pub(crate) how: How,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum How {
    /// Another shape, or none.
    Shape(String),
    /// Elements that are no floats are not equal.
    Unequal { element: usize },
    /// Part of the output's scale; infinite where one alone is NaN or an infinity.
    By { element: usize, part: f64 },
}

/// Kernels may sum in another order for another batch size.
const SINGLE: f64 = 1e-3;
/// The same with half precision, which has three digits.
const HALF: f64 = 1e-2;
/// Where an owner says that rows may be stacked, and only rounding is to differ.
const ROUNDING: f64 = 5e-2;

// === impl RowTolerance ===

impl RowTolerance {
    /// By the precision of a model's inputs and outputs.
    pub(crate) fn of(signature: &Signature) -> RowTolerance {
        let is_half = signature
            .inputs
            .iter()
            .chain(&signature.outputs)
            .any(|spec| matches!(spec.dtype, DType::Fp16 | DType::Bf16));
        RowTolerance { part: if is_half { HALF } else { SINGLE }, may_decide: false }
    }

    /// Of models that round by what else is in the batch, such as those that are quantised as they run.
    pub(crate) fn of_rounding() -> RowTolerance {
        RowTolerance { part: ROUNDING, may_decide: false }
    }

    /// Of the same models with callers' rows, which may be of two minds between two labels.
    pub(crate) fn of_rounding_live() -> RowTolerance {
        RowTolerance { part: ROUNDING, may_decide: true }
    }
}

impl fmt::Display for RowTolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.part * 100.0)
    }
}

// === impl Apart ===

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::Shape(how) => f.write_str(how),
            How::Unequal { element } => write!(f, "element {element} is another"),
            How::By { element, part } if *part > 10.0 && part.is_finite() => {
                write!(f, "element {element} differs by more than ten times the output's scale")
            }
            How::By { element, part } if part.is_finite() => {
                write!(f, "element {element} differs by {:.3} % of the output's scale", part * 100.0)
            }
            How::By { element, .. } => write!(f, "element {element} is finite in one of them alone"),
        }
    }
}

/// What an output without a scale has, because it is zero or no number.
pub(crate) const SCALE_MIN: f64 = f32::MIN_POSITIVE as f64;

/// The scale of an output: the largest finite magnitude in `tensors`, at least the smallest that there is.
pub(crate) fn scale<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> f64 {
    let largest = |tensor: &Tensor| match elements(tensor) {
        Elements::Real(values) => {
            values.iter().map(|value| value.abs()).filter(|value| value.is_finite()).fold(0.0, f64::max)
        }
        Elements::Whole(_) | Elements::Text(_) => 0.0,
    };
    tensors.map(largest).fold(SCALE_MIN, f64::max)
}

/// Compares one output of some rows alone with the same rows of a batch. Gives the largest difference as a part of
/// `scale`.
///
/// # Errors
/// The first element that is further apart than `tolerance` allows, or what else differs.
pub(crate) fn compare(
    output: &str,
    alone: &Tensor,
    together: &Tensor,
    scale: f64,
    tolerance: RowTolerance,
) -> Result<f64, Apart> {
    let apart = |how| Err(Apart { output: output.to_owned(), how });
    if alone.shape() != together.shape() || alone.dtype() != together.dtype() {
        let shapes =
            format!("shape {} alone, {} together", ShapeText(alone.shape()), ShapeText(together.shape()));
        return apart(How::Shape(shapes));
    }
    let (Elements::Real(alone_values), Elements::Real(together_values)) =
        (elements(alone), elements(together))
    else {
        return match first_unequal(alone, together) {
            Some(_) if tolerance.may_decide => Ok(0.0),
            Some(element) => apart(How::Unequal { element }),
            None => Ok(0.0),
        };
    };
    let mut largest: f64 = 0.0;
    for (element, (a, b)) in alone_values.into_iter().zip(together_values).enumerate() {
        if a == b || (a.is_nan() && b.is_nan()) {
            continue;
        }
        let part = if a.is_finite() && b.is_finite() { (a - b).abs() / scale } else { f64::INFINITY };
        if part > tolerance.part {
            return apart(How::By { element, part });
        }
        largest = largest.max(part);
    }
    Ok(largest)
}

fn first_unequal(alone: &Tensor, together: &Tensor) -> Option<usize> {
    match (elements(alone), elements(together)) {
        (Elements::Whole(alone), Elements::Whole(together)) => {
            alone.iter().zip(&together).position(|(a, b)| a != b)
        }
        (Elements::Text(alone), Elements::Text(together)) => {
            alone.iter().zip(&together).position(|(a, b)| a != b)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fp32(values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DType::Fp32, [1, values.len()].as_slice(), data.into()).unwrap()
    }

    fn check(alone: &[f32], together: &[f32], scale: f64) -> Result<f64, String> {
        let tolerance = RowTolerance { part: SINGLE, may_decide: false };
        compare("y", &fp32(alone), &fp32(together), scale, tolerance).map_err(|apart| apart.to_string())
    }

    #[test]
    fn rounding_is_measured_by_the_scale_of_the_output() {
        assert!(check(&[100.0, 0.0], &[100.0, 0.05], 100.0).is_ok(), "near nothing, beside a hundred");
        assert_eq!(
            check(&[1.0, 0.0], &[1.0, 0.05], 1.0).unwrap_err(),
            "element 1 differs by 5.000 % of the output's scale"
        );
        assert_eq!(
            check(&[1e-9], &[2e-9], 1e-9).unwrap_err(),
            "element 0 differs by 100.000 % of the output's scale"
        );
        let nothing = scale([fp32(&[0.0])].iter());
        assert_eq!(
            check(&[0.0], &[1.0], nothing).unwrap_err(),
            "element 0 differs by more than ten times the output's scale"
        );
    }

    #[test]
    fn what_is_no_number_is_equal_to_its_like_alone() {
        let (nan, infinity) = (f32::NAN, f32::INFINITY);
        assert_eq!(check(&[nan, infinity], &[nan, infinity], 1.0), Ok(0.0));
        assert!(check(&[nan], &[1.0], 1.0).unwrap_err().contains("finite in one of them alone"));
        assert!(check(&[infinity], &[-infinity], 1.0).is_err());
    }

    #[test]
    fn what_cannot_round_must_be_equal() {
        let whole = |value: i64| {
            Tensor::new(DType::Int64, [1].as_slice(), value.to_le_bytes().to_vec().into()).unwrap()
        };
        let loose = RowTolerance::of_rounding();
        assert!(compare("y", &whole(5), &whole(5), 1.0, loose).is_ok());
        let apart = compare("y", &whole(5), &whole(6), 1.0, loose).unwrap_err();
        assert_eq!(apart.to_string(), "element 0 is another");
        let text = |text: &str| Tensor::from_elements([1usize].as_slice(), [text]).unwrap();
        assert!(compare("y", &text("a"), &text("b"), 1.0, loose).is_err());
        let live = RowTolerance::of_rounding_live();
        assert!(compare("y", &text("a"), &text("b"), 1.0, live).is_ok(), "the second of two that are near");
    }

    #[test]
    fn other_shapes_are_said() {
        let apart = check(&[1.0], &[1.0, 2.0], 1.0).unwrap_err();
        assert_eq!(apart, "shape [1, 1] alone, [1, 2] together");
    }

    #[test]
    fn the_scale_is_that_of_what_is_finite() {
        let scale = |values: &[f32]| scale([fp32(values)].iter());
        assert_eq!(scale(&[-3.0, f32::NAN, f32::INFINITY, 2.0]), 3.0);
        assert!(scale(&[0.0]) > 0.0);
    }
}
