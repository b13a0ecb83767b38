//! Quantisation: whether all entries have a scale that is known beforehand, or one that is taken from them.

use super::super::call::{Call, Outcome};
use super::super::size::Unknowns;

/// By a given scale: one for all entries, or one for each entry of an axis.
pub(super) fn quantize(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let Some(rows) = value.row_axis() else { return Ok(vec![value.without_content()]) };
    let axis = call.axis(call.integer("axis").unwrap_or(1), value.rank());
    for index in [1, 2] {
        let Some(scale) = call.setting(index, "scale")? else { continue };
        if scale.is_single() && scale.rank() <= Some(1) {
            continue;
        }
        match (scale.rank(), &axis) {
            (Some(1), Ok(axis)) if *axis != rows => {}
            _ => return Err(call.undecided("has scales that may differ between rows")),
        }
    }
    Ok(vec![value.without_content()])
}

/// By the largest and smallest of the entries.
pub(super) fn dynamic_quantize(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    Err(call.undecided("takes one scale from all rows of a batch, so that rows differ by rounding"))
}
