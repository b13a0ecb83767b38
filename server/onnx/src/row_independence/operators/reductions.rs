//! Operators that look along one axis or several: sums, means, extremes, normalised exponentials, sorts, running sums.

use super::super::call::{Call, Outcome};
use super::super::size::{Size, Unknowns};
use super::super::value::{Element, Value, Verdict};

/// What an operator does along its axes, for people.
fn deed(operator: &str) -> &'static str {
    match operator {
        "ReduceMean" => "averages",
        "ReduceSum" | "ReduceSumSquare" | "ReduceLogSum" | "ReduceL1" | "ReduceL2" => "sums",
        "ReduceMax" | "ReduceMin" | "ArgMax" | "ArgMin" => "looks for the extreme",
        "ReduceProd" => "multiplies",
        "Softmax" | "LogSoftmax" | "ReduceLogSumExp" => "sums exponentials",
        "Hardmax" => "looks for the largest entry",
        "TopK" => "sorts",
        "CumSum" => "sums up",
        _ => "normalises",
    }
}

fn over_rows(call: &Call<'_, '_>, axis: usize) -> Verdict {
    call.mixes(&format!("{} over axis {axis}, which counts the rows", deed(&call.node.operator)))
}

/// # Errors
/// `axis` is that of the rows.
fn beside_rows(call: &Call<'_, '_>, value: &Value, axis: usize) -> Result<(), Verdict> {
    match value.row_axis() {
        Some(rows) if rows == axis => Err(over_rows(call, axis)),
        _ => Ok(()),
    }
}

/// The `Reduce…` operators.
pub(super) fn reduce(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let axes = call.integers_of("axes", 1)?.filter(|axes| !axes.is_empty());
    let keep = call.integer("keepdims") != Some(0);
    let Some(axes) = axes else {
        if call.flag("noop_with_empty_axes") {
            return Ok(vec![value.without_content()]);
        }
        if value.row_axis().is_some() {
            let deed = deed(&call.node.operator);
            return Err(call.mixes(&format!("{deed} over all axes, one of which counts the rows")));
        }
        let rank = if keep { value.rank() } else { Some(0) };
        return Ok(vec![reduced(call, value, rank.map(|rank| vec![Size::one(); rank]), unknowns)]);
    };
    let mut marked = Vec::with_capacity(axes.len());
    for axis in axes {
        let axis = call.axis(axis, value.rank())?;
        beside_rows(call, value, axis)?;
        marked.push(axis);
    }
    let shape = value.shape.as_ref().map(|shape| {
        let sizes = shape.iter().enumerate().filter_map(|(axis, size)| match marked.contains(&axis) {
            true => keep.then(Size::one),
            false => Some(size.clone()),
        });
        sizes.collect::<Vec<_>>()
    });
    let Some(rows) = value.row_axis() else { return Ok(vec![reduced(call, value, shape, unknowns)]) };
    let before = marked.iter().filter(|&&axis| axis < rows).count();
    let rows = if keep { rows } else { rows - before };
    let each = each(value);
    Ok(vec![Value::rows(rows, each, shape)])
}

/// Of a tensor without rows: a product, sum or extreme of sizes is one.
fn reduced(call: &Call<'_, '_>, value: &Value, shape: Option<Vec<Size>>, unknowns: &mut Unknowns) -> Value {
    let single = shape.as_ref().is_some_and(|shape| shape.iter().all(Size::is_one));
    if let (true, Some(content), Some(shape)) = (single, &value.content, &shape) {
        let sizes: Option<Vec<&Size>> = content.iter().map(Element::size).collect();
        let size = sizes.and_then(|sizes| match (call.node.operator.as_str(), sizes.as_slice()) {
            ("ReduceProd", sizes) => Size::product(sizes.iter().copied()),
            ("ReduceSum" | "ReduceMax" | "ReduceMin", [only]) => Some((*only).clone()),
            ("ReduceMax", sizes) => {
                let known: Option<Vec<i64>> = sizes.iter().map(|size| size.value()).collect();
                known?.into_iter().max().map(Size::known)
            }
            _ => None,
        });
        let counts = content.iter().any(Element::counts_rows);
        let element = match size {
            Some(size) => Element::Size(size),
            None if counts => Element::Count,
            None => Element::Size(unknowns.number()),
        };
        return Value::with_content(shape.clone(), vec![element]);
    }
    Value { dependence: value.dependence.clone(), shape, content: None }
}

fn each(value: &Value) -> Size {
    match &value.dependence {
        super::super::value::Dependence::Rows { each, .. } => each.clone(),
        _ => Size::one(),
    }
}

pub(super) fn extreme_index(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let axis = call.axis(call.integer("axis").unwrap_or(0), value.rank())?;
    beside_rows(call, value, axis)?;
    let keep = call.integer("keepdims") != Some(0);
    let shape = value.shape.clone().map(|mut shape| {
        match keep {
            true => shape[axis] = Size::one(),
            false => drop(shape.remove(axis)),
        }
        shape
    });
    Ok(vec![match value.row_axis() {
        Some(rows) => Value::rows(rows - usize::from(!keep && axis < rows), each(value), shape),
        None => Value { dependence: value.dependence.clone(), shape, content: None },
    }])
}

/// `Softmax` and its kin: before version 13 over all axes from one on.
pub(super) fn softmax(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let flattens = call.version < 13;
    let axis = call.axis(call.integer("axis").unwrap_or(if flattens { 1 } else { -1 }), value.rank())?;
    match value.row_axis() {
        Some(rows) if rows == axis || (flattens && rows > axis) => Err(over_rows(call, rows)),
        _ => Ok(vec![value.without_content()]),
    }
}

/// Along one axis that an attribute names, and the shape stays.
pub(super) fn along(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let axis = call.axis(call.integer("axis").unwrap_or(-1), value.rank())?;
    beside_rows(call, value, axis)?;
    Ok(vec![value.without_content()])
}

/// Along one axis that an operand names, and the shape stays.
pub(super) fn running(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let axis = call.setting(1, "axis")?.and_then(Value::integers);
    let Some([axis]) = axis.as_deref() else {
        return Err(call.undecided("takes its axis from a tensor whose values are not known"));
    };
    beside_rows(call, value, call.axis(*axis, value.rank())?)?;
    Ok(vec![value.without_content()])
}

pub(super) fn top(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let axis = call.axis(call.integer("axis").unwrap_or(-1), value.rank())?;
    beside_rows(call, value, axis)?;
    let known = match call.integer("k") {
        Some(count) => Some(count),
        None => match call.setting(1, "number of entries")?.and_then(Value::integers).as_deref() {
            Some([count]) => Some(*count),
            _ => None,
        },
    };
    let count = known.map_or_else(|| unknowns.size(), Size::known);
    let mut result = value.without_content();
    if let Some(shape) = &mut result.shape {
        shape[axis] = count;
    }
    Ok(vec![result.clone(), result])
}

/// Over all axes from one on: what `LayerNormalization` and `RMSNormalization` do.
pub(super) fn layer(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let axis = call.axis(call.integer("axis").unwrap_or(-1), value.rank())?;
    scales(call, &[1, 2], value.rank().map(|rank| rank - axis))?;
    match value.row_axis() {
        Some(rows) if rows >= axis => Err(over_rows(call, rows)),
        Some(_) => {
            // Means and deviations have one entry where those axes were.
            let mut statistics = value.without_content();
            if let Some(shape) = &mut statistics.shape {
                shape[axis..].fill(Size::one());
            }
            Ok(vec![value.without_content(), statistics.clone(), statistics])
        }
        None => Ok(vec![value.without_content()]),
    }
}

/// Over the axes behind the first two, or behind the first, each row by itself.
pub(super) fn by_row(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    match value.row_axis() {
        Some(0) => {
            scales(call, &[1, 2], Some(1))?;
            Ok(vec![value.without_content()])
        }
        Some(axis) => Err(over_rows(call, axis)),
        None => Ok(vec![value.without_content()]),
    }
}

pub(super) fn batch_normalization(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let outputs = call.node.outputs.iter().filter(|output| !output.is_empty()).count();
    if call.flag("training_mode") || (call.version < 14 && outputs > 1) {
        return Err(call.mixes("normalises by the mean and variance of the batch"));
    }
    scales(call, &[3, 4], Some(1))?;
    by_row(call, unknowns)
}

pub(super) fn mean_variance(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    for &axis in call.integers("axes").unwrap_or(&[0, 2, 3]) {
        beside_rows(call, value, call.axis(axis, value.rank())?)?;
    }
    Ok(vec![value.without_content()])
}

/// # Errors
/// An operand that scales is not the same for all rows, or has more than `rank_max` dimensions.
fn scales(call: &Call<'_, '_>, operands: &[usize], rank_max: Option<usize>) -> Result<(), Verdict> {
    for &index in operands {
        let Some(scale) = call.setting(index, "scale")? else { continue };
        let fits = scale.is_single()
            || matches!((scale.rank(), rank_max), (Some(rank), Some(rank_max)) if rank <= rank_max);
        if !fits {
            return Err(call.undecided("has a scale that may differ between rows"));
        }
    }
    Ok(())
}
