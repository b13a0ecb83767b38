//! Products of matrices: which axes they sum over, and which of one operand meet which of the other.

use super::super::call::{Call, Extent, Outcome};
use super::super::size::{Size, Unknowns};
use super::super::value::{Dependence, Value, Verdict};

pub(super) fn matmul(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    Ok(vec![product(call, call.operand(0)?.clone(), call.operand(1)?.clone(), unknowns)?])
}

/// `FusedMatMul` of ONNX Runtime: a product of matrices that may be transposed first.
pub(super) fn fused_matmul(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    if call.flag("transBatchA") || call.flag("transBatchB") {
        return Err(call.undecided("moves the axes of its batch"));
    }
    let left = transposed(call, call.operand(0)?, call.flag("transA"))?;
    let right = transposed(call, call.operand(1)?, call.flag("transB"))?;
    Ok(vec![product(call, left, right, unknowns)?])
}

/// `MatMulInteger`, whose zero points must be one number each.
pub(super) fn matmul_integer(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let points = [call.optional(2), call.optional(3)];
    if points.into_iter().flatten().any(|point| !point.is_shared() || point.rank() > Some(1)) {
        return Err(call.undecided("has zero points that may differ between rows"));
    }
    // One for each row of the left operand, or a single one.
    if points[0].is_some_and(|point| !point.is_single()) {
        return Err(call.undecided("has zero points that may differ between rows"));
    }
    matmul(call, unknowns)
}

pub(super) fn qlinear_matmul(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let settings = [1, 2, 4, 5, 6, 7].map(|index| call.optional(index));
    if settings.into_iter().flatten().any(|value| !value.is_shared()) {
        return Err(call.undecided("takes a scale from the rows"));
    }
    if [1, 2, 6, 7].map(|index| call.optional(index)).into_iter().flatten().any(|value| !value.is_single()) {
        return Err(call.undecided("has scales that may differ between rows"));
    }
    Ok(vec![product(call, call.operand(0)?.clone(), call.operand(3)?.clone(), unknowns)?])
}

pub(super) fn gemm(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let left = transposed(call, call.operand(0)?, call.flag("transA"))?;
    let right = transposed(call, call.operand(1)?, call.flag("transB"))?;
    let product = product(call, left, right, unknowns)?;
    match call.optional(2) {
        Some(added) => Ok(vec![call.broadcast(&[&product, added], unknowns)?]),
        None => Ok(vec![product]),
    }
}

/// With the last two axes exchanged.
fn transposed(call: &Call<'_, '_>, value: &Value, really: bool) -> Result<Value, Verdict> {
    let mut value = value.without_content();
    if !really {
        return Ok(value);
    }
    let Some(rank) = value.rank().filter(|&rank| rank >= 2) else {
        return if value.is_shared() { Ok(value) } else { Err(call.unranked()) };
    };
    if let Some(shape) = &mut value.shape {
        shape.swap(rank - 2, rank - 1);
    }
    if let Dependence::Rows { axis, .. } = &mut value.dependence {
        *axis = match *axis {
            last if last == rank - 1 => rank - 2,
            second if second == rank - 2 => rank - 1,
            other => other,
        };
    }
    Ok(value)
}

fn product(
    call: &Call<'_, '_>,
    left: Value,
    right: Value,
    unknowns: &mut Unknowns,
) -> Result<Value, Verdict> {
    if left.is_shared() && right.is_shared() && (left.shape.is_none() || right.shape.is_none()) {
        return Ok(Value::shared(None));
    }
    let (left, left_is_vector) = matrix(call, left, true)?;
    let (right, right_is_vector) = matrix(call, right, false)?;
    let (left_shape, right_shape) = (call.shape(&left)?, call.shape(&right)?);
    let (left_rank, right_rank) = (left_shape.len(), right_shape.len());
    let summed = "sums over the axis of the rows";
    if left.row_axis() == Some(left_rank - 1) || right.row_axis() == Some(right_rank - 2) {
        return Err(call.mixes(summed));
    }
    let left_outer = left.row_axis() == Some(left_rank - 2);
    let right_outer = right.row_axis() == Some(right_rank - 1);
    if (left_outer && right.row_axis().is_some()) || (right_outer && left.row_axis().is_some()) {
        return Err(call.mixes("multiplies every row with every other"));
    }
    let extents = [
        Extent { sizes: &left_shape[..left_rank - 2], row_axis: left.row_axis().filter(|_| !left_outer) },
        Extent { sizes: &right_shape[..right_rank - 2], row_axis: right.row_axis().filter(|_| !right_outer) },
    ];
    let (mut row_axis, mut shape) = call.align(&extents, unknowns)?;
    let outer = shape.len();
    shape.push(left_shape[left_rank - 2].clone());
    shape.push(right_shape[right_rank - 1].clone());
    if left_outer {
        row_axis = Some(outer);
    } else if right_outer {
        row_axis = Some(outer + 1);
    }
    // The last first, so that the other keeps its place.
    for (axis, vector) in [(outer + 1, right_is_vector), (outer, left_is_vector)] {
        if vector {
            shape.remove(axis);
            if row_axis == Some(axis + 1) {
                row_axis = Some(axis);
            }
        }
    }
    match row_axis {
        Some(axis) => call.rows_at(axis, shape),
        None => Ok(Value::shared(Some(shape))),
    }
}

/// A vector as a matrix of one row or one column; said whether it was one.
fn matrix(call: &Call<'_, '_>, mut value: Value, is_left: bool) -> Result<(Value, bool), Verdict> {
    match value.rank() {
        None => Err(call.unranked()),
        Some(0) => Err(call.undecided("multiplies a scalar")),
        Some(1) => {
            let place = if is_left { 0 } else { 1 };
            if let Some(shape) = &mut value.shape {
                shape.insert(place, Size::one());
            }
            if let Dependence::Rows { axis, .. } = &mut value.dependence {
                *axis = if is_left { 1 } else { 0 };
            }
            Ok((value, true))
        }
        Some(_) => Ok((value, false)),
    }
}

/// `Einsum`: an axis keeps rows apart where its letter is in the result, and in every operand that has rows.
pub(super) fn einsum(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let equation: String =
        call.text("equation").unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect();
    if equation.contains('.') {
        return Err(call.undecided("has an ellipsis in its equation"));
    }
    let Some((operands, result)) = equation.split_once("->") else {
        return Err(call.undecided("does not state its result"));
    };
    let terms: Vec<Vec<char>> = operands.split(',').map(|term| term.chars().collect()).collect();
    let result: Vec<char> = result.chars().collect();
    let mut rows: Option<(char, Size)> = None;
    let mut sizes: Vec<(char, Size)> = Vec::new();
    for (index, term) in terms.iter().enumerate() {
        let value = call.operand(index)?;
        let shape = call.shape(value)?;
        if shape.len() != term.len() {
            return Err(call.undecided("has an equation that does not fit its inputs"));
        }
        for (letter, size) in term.iter().zip(shape) {
            match sizes.iter_mut().find(|(known, _)| known == letter) {
                Some((_, known)) => *known = unknowns.broadcast(known, size),
                None => sizes.push((*letter, size.clone())),
            }
        }
        let Some(axis) = value.row_axis() else { continue };
        let (letter, size) = (term[axis], shape[axis].clone());
        match &rows {
            Some((known, _)) if *known != letter => {
                return Err(call.mixes("multiplies every row with every other"));
            }
            Some((_, known)) if *known != size => {
                return Err(call.undecided("combines tensors with different numbers of entries a row"));
            }
            _ => rows = Some((letter, size)),
        }
    }
    let size_of =
        |letter: &char| sizes.iter().find(|(known, _)| known == letter).map(|(_, size)| size.clone());
    let shape: Option<Vec<Size>> = result.iter().map(size_of).collect();
    let Some((letter, _)) = rows else { return Ok(vec![Value::shared(shape)]) };
    for (index, term) in terms.iter().enumerate() {
        let places = term.iter().filter(|&&other| other == letter).count();
        let has_rows = call.operand(index)?.row_axis().is_some();
        if places > 1 || (places == 1 && !has_rows) {
            return Err(call.undecided("combines the rows with another axis"));
        }
    }
    match (result.iter().position(|&other| other == letter), shape) {
        (None, _) => Err(call.mixes("sums over the axis of the rows")),
        (Some(axis), Some(shape)) => Ok(vec![call.rows_at(axis, shape)?]),
        (Some(_), None) => Err(call.undecided("has an equation that does not fit its inputs")),
    }
}
