//! Operators that make tensors out of sizes: constants, ranges, one-hot vectors, random numbers.

use super::super::call::{Call, Outcome};
use super::super::size::{Size, Unknowns};
use super::super::value::{CONTENT_MAX, Dependence, Element, Value};
use super::layout::expanded;

pub(super) fn constant(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    if let Some(tensor) = call.tensor("value") {
        return Ok(vec![Value::weights(tensor)]);
    }
    if let Some(value) = call.integer("value_int") {
        return Ok(vec![Value::with_content(Vec::new(), vec![Element::Size(Size::known(value))])]);
    }
    if let Some(values) = call.integers("value_ints") {
        return Ok(vec![Value::sizes(values.iter().map(|&value| Size::known(value)).collect())]);
    }
    let shape = match () {
        () if call.has("value_float") || call.has("value_string") => Some(Vec::new()),
        () => None,
    };
    Ok(vec![Value::shared(shape)])
}

pub(super) fn constant_of_shape(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let one = call.tensor("value").map(Value::weights);
    let scalar = Value::shared(Some(Vec::new()));
    let result = expanded(call, &scalar, call.operand(0)?, unknowns)?;
    // Without a value it is of zeros.
    let element = match one {
        Some(value) => value.content.and_then(|content| content.first().cloned()),
        None => Some(Element::Float(0.0)),
    };
    let count = result.shape.as_ref().and_then(Size::product).and_then(|size| size.value());
    if let (true, Some(element), Some(count)) = (result.is_shared(), element, count)
        && let Ok(count) = usize::try_from(count)
        && count <= CONTENT_MAX
    {
        return Ok(vec![Value { content: Some(vec![element; count]), ..result }]);
    }
    Ok(vec![result])
}

pub(super) fn range(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    for value in call.operands.iter().flatten() {
        match value.dependence {
            Dependence::Shared => {}
            Dependence::Count => return Err(call.undecided("numbers the rows")),
            _ => return Err(call.mixes("takes its bounds from the values of the rows")),
        }
    }
    let bound = |index: usize| call.optional(index)?.integers()?.first().copied();
    if let (Some(start), Some(end), Some(1)) = (bound(0), bound(1), bound(2))
        && (0..=64).contains(&end.saturating_sub(start))
    {
        return Ok(vec![Value::sizes((start..end).map(Size::known).collect())]);
    }
    // From zero to a size there are as many.
    let size = match call.optional(1).and_then(|end| end.content.as_ref()?.first()?.size().cloned()) {
        Some(size) if bound(0) == Some(0) && bound(2) == Some(1) && size.is_size() => size,
        _ => unknowns.size(),
    };
    Ok(vec![Value::shared(Some(vec![size]))])
}

pub(super) fn one_hot(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let indices = call.operand(0)?;
    let depth = call.setting(1, "depth")?.and_then(Value::integers);
    call.setting(2, "values")?;
    let rank = indices.rank().map(|rank| rank + 1);
    let axis = call.axis(call.integer("axis").unwrap_or(-1), rank)?;
    let depth = match depth.as_deref() {
        Some([depth]) => Size::known(*depth),
        _ => unknowns.size(),
    };
    let shape = indices.shape.clone().map(|mut shape| {
        shape.insert(axis, depth);
        shape
    });
    Ok(vec![match &indices.dependence {
        Dependence::Rows { axis: rows, each } => {
            let rows = if axis <= *rows { rows + 1 } else { *rows };
            Value::rows(rows, each.clone(), shape)
        }
        other => Value { dependence: other.clone(), shape, content: None },
    }])
}

/// `EyeLike` puts a one where the number of the row is that of the column.
pub(super) fn eye(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    match value.row_axis() {
        Some(_) => Err(call.mixes("numbers the rows")),
        None => Ok(vec![value.without_content()]),
    }
}

/// `Trilu` and `Det`: the last two axes are a matrix.
pub(super) fn matrices(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    call.setting(1, "diagonal")?;
    let keeps = call.node.operator == "Trilu";
    let Some(rank) = value.rank() else { return Err(call.unranked()) };
    match value.row_axis() {
        Some(rows) if rows + 2 >= rank => Err(call.mixes("takes the axis of the rows for one of a matrix")),
        _ => {
            let mut result = value.without_content();
            if let (Some(shape), false) = (&mut result.shape, keeps) {
                shape.truncate(rank.saturating_sub(2));
            }
            Ok(vec![result])
        }
    }
}

pub(super) fn random(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    Err(call.random("gives random numbers"))
}

/// The sizes of the output depend on the values.
pub(super) fn shaped_by_values(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    Err(call.mixes("gives as many entries as the values of all rows say"))
}

pub(super) fn padded(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    Err(call.mixes("pads every row to the longest of its batch"))
}
