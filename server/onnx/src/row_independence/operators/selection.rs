//! Operators that pick, join, cut and pad: which entries of which rows end up where.

use super::super::call::{Call, Outcome};
use super::super::size::{Size, TO_THE_END, Unknowns};
use super::super::value::{Dependence, Element, Value, Verdict, length};

pub(super) fn concat(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let operands: Vec<&Value> = call.operands.iter().flatten().collect();
    let Some(axis) = call.integer("axis").or((call.version < 4).then_some(1)) else {
        return Err(call.undecided("does not state its axis"));
    };
    let rank = operands.iter().find_map(|value| value.rank());
    let axis = call.axis(axis, rank)?;
    let Some(rows) = operands.iter().find_map(|value| value.row_axis()) else {
        return Ok(vec![joined(&operands, axis, rank, unknowns)]);
    };
    if rows == axis {
        return Err(call.mixes(&format!("joins along axis {axis}, which counts the rows")));
    }
    let mut shape: Option<Vec<Size>> = None;
    let mut along = Some(Size::known(0));
    for value in &operands {
        let size = value.shape.as_ref().and_then(|shape| shape.get(rows));
        match (&value.dependence, size) {
            (Dependence::Rows { axis, .. }, _) if *axis != rows => {
                return Err(call.mixes("joins rows with what has them on another axis"));
            }
            (Dependence::Rows { each, .. }, _) => {
                let known = operands.iter().find_map(|value| each_of(value));
                if known.as_ref() != Some(each) {
                    return Err(call.undecided("joins tensors with different numbers of entries a row"));
                }
            }
            (_, Some(size)) if size.value().is_some() => {
                return Err(call.mixes("joins rows with a tensor that is the same for any number of them"));
            }
            _ => return Err(call.undecided("joins rows with a tensor that may have any number of them")),
        }
        let here = value.shape.as_ref().and_then(|shape| shape.get(axis));
        along = along
            .zip(here)
            .and_then(|(sum, size)| Some(Size::known(sum.value()?.checked_add(size.value()?)?)));
        match (&mut shape, &value.shape) {
            (None, Some(sizes)) => shape = Some(sizes.clone()),
            // They agree; one may be known where others are not.
            (Some(known), Some(sizes)) if known.len() == sizes.len() => {
                for (known, size) in known.iter_mut().zip(sizes) {
                    if known.value().is_none() && size.value().is_some() && !known.counts_rows() {
                        *known = size.clone();
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(shape) = &mut shape {
        shape[axis] = along.unwrap_or_else(|| unknowns.size());
    }
    let each = operands.iter().find_map(|value| each_of(value)).unwrap_or_else(Size::one);
    Ok(vec![Value::rows(rows, each, shape)])
}

fn each_of(value: &Value) -> Option<Size> {
    match &value.dependence {
        Dependence::Rows { each, .. } => Some(each.clone()),
        _ => None,
    }
}

/// Of tensors without rows: their elements one after another where they are vectors.
fn joined(operands: &[&Value], axis: usize, rank: Option<usize>, unknowns: &mut Unknowns) -> Value {
    let counts = operands.iter().any(|value| value.is_count());
    if rank == Some(1) {
        let elements: Option<Vec<Vec<Element>>> =
            operands.iter().map(|value| value.elements(unknowns)).collect();
        if let Some(elements) = elements {
            let elements = elements.concat();
            return Value::with_content(vec![length(elements.len())], elements);
        }
    }
    if counts {
        return Value { dependence: Dependence::Count, shape: None, content: None };
    }
    let mut shape = operands.iter().find_map(|value| value.shape.clone());
    if let Some(size) = shape.as_mut().and_then(|shape| shape.get_mut(axis)) {
        let along = operands.iter().map(|value| value.shape.as_ref()?.get(axis)?.value());
        let sum = along.sum::<Option<i64>>();
        *size = sum.map_or_else(|| unknowns.size(), Size::known);
    }
    Value::shared(shape)
}

pub(super) fn split(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let axis = call.axis(call.integer("axis").unwrap_or(0), value.rank())?;
    if value.row_axis() == Some(axis) {
        return Err(call.mixes(&format!("splits axis {axis}, which counts the rows")));
    }
    let count = call.node.outputs.len();
    let sizes = match call.integers("split") {
        Some(sizes) => Some(sizes.to_vec()),
        None => call.setting(1, "parts")?.map(|parts| parts.integers().unwrap_or_default()),
    };
    let whole = value.shape.as_ref().and_then(|shape| shape[axis].value());
    let equal = whole.zip(i64::try_from(count).ok()).filter(|(whole, count)| whole % count == 0);
    let content = value.content.as_ref().filter(|_| value.rank() == Some(1));
    let mut from = 0;
    let parts = (0..count).map(|index| {
        let size = match &sizes {
            Some(sizes) => sizes.get(index).copied(),
            None => equal.map(|(whole, count)| whole / count),
        };
        let mut part = value.without_content();
        if let Some(shape) = &mut part.shape {
            shape[axis] = size.map_or_else(|| unknowns.size(), Size::known);
        }
        if let (Some(content), Some(size)) = (content, size.and_then(|size| usize::try_from(size).ok())) {
            if let Some(taken) = content.get(from..from + size) {
                part = Value::with_content(vec![length(size)], taken.to_vec());
            }
            from += size;
        }
        part
    });
    Ok(parts.collect())
}

pub(super) fn slice(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let rank = value.rank();
    let bounds = |name: &str, index: usize, unknowns: &mut Unknowns| match call.integers(name) {
        Some(bounds) => Ok(Some(bounds.iter().map(|&bound| Element::Size(Size::known(bound))).collect())),
        None => match call.optional(index) {
            Some(bounds) if bounds.row_axis().is_some() => {
                Err(call.mixes(&format!("takes its {name} from the values of the rows")))
            }
            Some(bounds) => Ok(bounds.elements(unknowns)),
            None => Ok(None),
        },
    };
    let starts: Option<Vec<Element>> = bounds("starts", 1, unknowns)?;
    let ends: Option<Vec<Element>> = bounds("ends", 2, unknowns)?;
    let steps = call.setting(4, "steps")?.map(|steps| steps.integers().unwrap_or_default());
    let count = starts.as_ref().or(ends.as_ref()).map(Vec::len);
    let axes = match (call.integers_of("axes", 3)?, count) {
        (Some(axes), _) => axes,
        (None, Some(count)) => (0..count).filter_map(|axis| i64::try_from(axis).ok()).collect(),
        (None, None) => return Err(call.undecided("cuts along axes that are not known")),
    };
    let mut result = value.without_content();
    for (index, axis) in axes.into_iter().enumerate() {
        let axis = call.axis(axis, rank)?;
        let bound =
            |bounds: &Option<Vec<Element>>| bounds.as_ref().and_then(|bounds| bounds.get(index).cloned());
        let (start, end) = (bound(&starts), bound(&ends));
        let step = match &steps {
            None => Some(1),
            Some(steps) => steps.get(index).copied(),
        };
        if value.row_axis() == Some(axis) {
            let size = value.shape.as_ref().map(|shape| Element::Size(shape[axis].clone()));
            let whole = start.as_ref().and_then(Element::integer) == Some(0)
                && (end.as_ref().and_then(Element::integer).is_some_and(|end| end >= TO_THE_END)
                    || (size.is_some() && end == size))
                && step == Some(1);
            if !whole {
                return Err(call.mixes(&format!("cuts axis {axis}, which counts the rows")));
            }
            continue;
        }
        if [&start, &end].into_iter().flatten().any(Element::counts_rows) && !value.is_count() {
            return Err(call.mixes("takes its bounds from the number of rows"));
        }
        if let Some(content) = value.content.as_ref().filter(|_| rank == Some(1)) {
            return Ok(vec![cut(content, value, start, end, step, unknowns)]);
        }
        if let Some(shape) = &mut result.shape {
            let size = shape[axis].value();
            let (start, end) = (start.and_then(|it| it.integer()), end.and_then(|it| it.integer()));
            shape[axis] = match (size, start, end, step) {
                (_, Some(0), Some(end), Some(1)) if end >= TO_THE_END => shape[axis].clone(),
                (Some(size), Some(start), Some(end), Some(step)) if step > 0 => {
                    let (start, end) = (within(start, size), within(end, size));
                    Size::known((end - start).max(0).saturating_add(step - 1) / step)
                }
                _ => unknowns.size(),
            };
        }
    }
    if result.is_count() {
        result.shape = None;
    }
    if value.content.is_some() && value.rank().is_some_and(|rank| rank > 1) && value.is_shared() {
        return Ok(vec![cut_rows(call, value, result)]);
    }
    Ok(vec![result])
}

/// `bound` counted from the front, within an axis of `size` entries.
fn within(bound: i64, size: i64) -> i64 {
    let bound = if bound < 0 { bound.saturating_add(size) } else { bound };
    bound.clamp(0, size)
}

/// A vector's elements from `start` to `end`.
fn cut(
    content: &[Element],
    value: &Value,
    start: Option<Element>,
    end: Option<Element>,
    step: Option<i64>,
    unknowns: &mut Unknowns,
) -> Value {
    let bounds = start.and_then(|it| it.integer()).zip(end.and_then(|it| it.integer()));
    let (Some((start, end)), Some(step)) = (bounds, step) else {
        let shape = value.is_shared().then(|| vec![unknowns.size()]);
        return Value { dependence: value.dependence.clone(), shape, content: None };
    };
    let size = i64::try_from(content.len()).unwrap_or(i64::MAX);
    let places: Vec<i64> = match step {
        1.. => {
            let step = usize::try_from(step).unwrap_or(usize::MAX);
            (within(start, size)..within(end, size)).step_by(step).collect()
        }
        _ => {
            let count = |bound: i64| if bound < 0 { bound.saturating_add(size) } else { bound };
            let (first, last) = (count(start).min(size - 1), count(end).clamp(-1, size));
            let step = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX).max(1);
            (last + 1..=first).rev().step_by(step).collect()
        }
    };
    let taken = places.into_iter().filter_map(|place| content.get(usize::try_from(place).ok()?).cloned());
    let taken: Vec<Element> = taken.collect();
    Value::with_content(vec![length(taken.len())], taken)
}

/// A small table turned over, as exporters write it to reverse paddings; of other cuts the elements are not kept.
fn cut_rows(call: &Call<'_, '_>, value: &Value, result: Value) -> Value {
    let one = |index: usize| call.optional(index).and_then(Value::integers);
    let turned = one(1) == Some(vec![-1])
        && one(2).is_some_and(|end| end.len() == 1 && end[0] <= i64::from(i32::MIN))
        && one(3) == Some(vec![0])
        && one(4) == Some(vec![-1]);
    let (Some(shape), Some(content)) = (&value.shape, &value.content) else { return result };
    let width =
        Size::product(&shape[1..]).and_then(|size| size.value()).and_then(|size| usize::try_from(size).ok());
    match width.filter(|&width| turned && width > 0) {
        Some(width) => {
            let content = content.chunks(width).rev().flatten().cloned().collect();
            Value::with_content(shape.clone(), content)
        }
        None => result,
    }
}

pub(super) fn pad(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let paddings = match call.integers("pads").or(call.integers("paddings")) {
        Some(paddings) => paddings.iter().map(|&padding| Element::Size(Size::known(padding))).collect(),
        None => match call.setting(1, "paddings")?.and_then(|paddings| paddings.elements(unknowns)) {
            Some(paddings) => paddings,
            None => return Err(call.undecided("takes its paddings from a tensor whose values are not known")),
        },
    };
    call.setting(2, "filling")?;
    let axes = match (call.integers_of("axes", 3)?, value.rank()) {
        (Some(axes), rank) => {
            axes.iter().map(|&axis| call.axis(axis, rank)).collect::<Result<Vec<_>, _>>()?
        }
        (None, Some(rank)) => (0..rank).collect(),
        (None, None) => (0..paddings.len() / 2).collect(),
    };
    let count = axes.len();
    let mut result = value.without_content();
    for (index, axis) in axes.into_iter().enumerate() {
        let integer = |index: usize| paddings.get(index).and_then(Element::integer);
        let added =
            integer(index).zip(integer(index + count)).map(|(before, behind)| before.saturating_add(behind));
        let zero = integer(index) == Some(0) && integer(index + count) == Some(0);
        if value.row_axis() == Some(axis) && !zero {
            return Err(match added {
                Some(_) => call.mixes(&format!("pads axis {axis}, which counts the rows")),
                None => call.undecided("takes its paddings from a tensor whose values are not known"),
            });
        }
        if let Some(size) = result.shape.as_mut().and_then(|shape| shape.get_mut(axis)).filter(|_| !zero) {
            let padded = size.value().zip(added).map(|(size, added)| Size::known(size.saturating_add(added)));
            *size = padded.unwrap_or_else(|| unknowns.size());
        }
    }
    Ok(vec![result])
}

pub(super) fn gather(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let (value, indices) = (call.operand(0)?, call.operand(1)?);
    let axis = call.axis(call.integer("axis").unwrap_or(0), value.rank())?;
    let picked = || -> Option<Vec<Size>> {
        let (shape, indices) = (value.shape.as_ref()?, indices.shape.as_ref()?);
        Some([&shape[..axis], indices, &shape[axis + 1..]].concat())
    };
    match (&value.dependence, &indices.dependence) {
        (Dependence::Rows { .. }, Dependence::Rows { .. }) => {
            Err(call.mixes("picks entries of all rows for each row"))
        }
        (_, Dependence::Rows { axis: rows, each }) if value.is_shared() => {
            Ok(vec![Value::rows(axis + rows, each.clone(), picked())])
        }
        (Dependence::Rows { .. }, Dependence::Count) | (Dependence::Count, Dependence::Rows { .. }) => {
            Err(call.mixes("uses the number of rows as a value"))
        }
        (Dependence::Rows { axis: rows, .. }, _) if *rows == axis => {
            Err(call.mixes(&format!("picks from axis {axis}, which counts the rows")))
        }
        (Dependence::Rows { axis: rows, each }, _) => {
            let rows = match indices.rank() {
                _ if *rows < axis => *rows,
                Some(rank) => rows + rank - 1,
                None => return Err(call.unranked()),
            };
            Ok(vec![Value::rows(rows, each.clone(), picked())])
        }
        _ => Ok(vec![picked_content(value, indices, picked(), unknowns)]),
    }
}

fn picked_content(
    value: &Value,
    indices: &Value,
    shape: Option<Vec<Size>>,
    unknowns: &mut Unknowns,
) -> Value {
    let content = value.content.as_ref().filter(|_| value.rank() == Some(1));
    if let (Some(content), Some(indices), Some(shape)) = (content, indices.integers(), &shape) {
        let size = i64::try_from(content.len()).unwrap_or(i64::MAX);
        let at = |index: i64| {
            let place = if index < 0 { index + size } else { index };
            content.get(usize::try_from(place).ok()?).cloned()
        };
        if let Some(content) = indices.into_iter().map(at).collect::<Option<Vec<Element>>>() {
            return Value::with_content(shape.clone(), content);
        }
    }
    let shared = value.is_shared() && indices.is_shared();
    match (shared, shape) {
        (true, shape) => Value::shared(shape),
        (false, Some(shape)) if shape.iter().all(Size::is_one) => {
            Value::with_content(shape, vec![Element::Count])
        }
        (false, _) => {
            let length = unknowns.size();
            let shape = (value.rank() == Some(1) && indices.rank() == Some(1)).then(|| vec![length]);
            Value { dependence: Dependence::Count, shape, content: None }
        }
    }
}

pub(super) fn gather_elements(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let (value, indices) = (call.operand(0)?, call.operand(1)?);
    let axis = call.axis(call.integer("axis").unwrap_or(0), value.rank().or(indices.rank()))?;
    match (&value.dependence, &indices.dependence) {
        (Dependence::Rows { axis: rows, .. }, _) | (_, Dependence::Rows { axis: rows, .. })
            if *rows == axis && !value.is_shared() =>
        {
            Err(call.mixes(&format!("picks from axis {axis}, which counts the rows")))
        }
        (Dependence::Rows { .. }, Dependence::Rows { .. }) if value.dependence == indices.dependence => {
            Ok(vec![indices.without_content()])
        }
        (Dependence::Shared, Dependence::Rows { axis: rows, .. }) if *rows == axis => {
            Ok(vec![indices.without_content()])
        }
        (Dependence::Shared, Dependence::Shared) => Ok(vec![indices.without_content()]),
        _ => Err(call.mixes("picks entries by the rows' places in the batch")),
    }
}

pub(super) fn gather_nd(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let (value, indices) = (call.operand(0)?, call.operand(1)?);
    let batch = usize::try_from(call.integer("batch_dims").unwrap_or(0)).unwrap_or(0);
    let shape = call.shape(indices)?;
    let Some((depth, outer)) = shape.split_last() else {
        return Err(call.undecided("has indices without dimensions"));
    };
    let depth = depth.value().and_then(|depth| usize::try_from(depth).ok());
    let rest = depth.and_then(|depth| Some(value.shape.as_ref()?.get(batch + depth..)?.to_vec()));
    let picked = rest.map(|rest| [outer.to_vec(), rest].concat());
    let last = shape.len() - 1;
    match (&value.dependence, &indices.dependence) {
        (_, Dependence::Rows { axis, .. }) if *axis == last => {
            Err(call.mixes("takes the parts of an index from several rows"))
        }
        (Dependence::Shared, Dependence::Rows { axis, each }) if *axis >= batch => {
            Ok(vec![Value::rows(*axis, each.clone(), picked)])
        }
        (Dependence::Rows { axis, each }, Dependence::Rows { .. })
            if *axis < batch && value.dependence == indices.dependence =>
        {
            Ok(vec![Value::rows(*axis, each.clone(), picked)])
        }
        (Dependence::Rows { axis, each }, Dependence::Shared) if *axis >= batch => match depth {
            Some(depth) if *axis >= batch + depth => {
                Ok(vec![Value::rows(last + axis - batch - depth, each.clone(), picked)])
            }
            Some(_) => Err(call.mixes("picks rows by their places in the batch")),
            None => Err(call.undecided("has indices of unknown depth")),
        },
        (Dependence::Shared, Dependence::Shared) => Ok(vec![Value::shared(picked)]),
        _ => Err(call.mixes("picks entries by the rows' places in the batch")),
    }
}

/// `ScatterElements` and the older `Scatter`.
pub(super) fn scatter_elements(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let axis = call.axis(call.integer("axis").unwrap_or(0), value.rank())?;
    same_rows(call, value, &[1, 2])?;
    match value.row_axis() {
        Some(rows) if rows == axis => {
            Err(call.mixes(&format!("writes along axis {axis}, which counts the rows")))
        }
        _ => Ok(vec![value.without_content()]),
    }
}

pub(super) fn scatter_nd(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let operands = [value, call.operand(1)?, call.operand(2)?];
    match operands.iter().all(|value| value.is_shared()) {
        true => Ok(vec![value.without_content()]),
        false => Err(call.undecided("writes to places that its indices name")),
    }
}

/// # Errors
/// The operands do not all have the rows where `value` has them.
fn same_rows(call: &Call<'_, '_>, value: &Value, operands: &[usize]) -> Result<(), Verdict> {
    for &index in operands {
        if call.operand(index)?.dependence != value.dependence {
            return Err(call.undecided("combines rows with what has none, or has them on another axis"));
        }
    }
    Ok(())
}

/// `Compress`: whole rows go where the axis is not theirs and the condition is not.
pub(super) fn compress(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    call.setting(1, "condition")?;
    let Some(axis) = call.integer("axis") else {
        return Err(call.mixes("flattens the rows and keeps some of their entries"));
    };
    let axis = call.axis(axis, value.rank())?;
    if value.row_axis() == Some(axis) {
        return Err(call.mixes(&format!("drops entries of axis {axis}, which counts the rows")));
    }
    let mut result = value.without_content();
    if let Some(shape) = &mut result.shape {
        shape[axis] = unknowns.size();
    }
    Ok(vec![result])
}

pub(super) fn tile(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let repeats = call.operand(1)?;
    if repeats.row_axis().is_some() {
        return Err(call.mixes("takes its repeats from the values of the rows"));
    }
    let unclear = || call.undecided("takes its repeats from a tensor whose values are not known");
    let Some(repeats) = repeats.elements(unknowns) else { return Err(unclear()) };
    let shape = call.shape(value)?;
    if shape.len() != repeats.len() {
        return Err(call.undecided("has repeats that do not fit its input"));
    }
    let mut sizes = Vec::with_capacity(shape.len());
    let mut row_axis = value.row_axis();
    for (axis, (size, repeat)) in shape.iter().zip(&repeats).enumerate() {
        let Some(repeat) = repeat.size() else { return Err(unclear()) };
        if value.row_axis() == Some(axis) && !repeat.is_one() {
            return Err(match repeat.value() {
                Some(_) => call.mixes(&format!("repeats axis {axis}, which counts the rows")),
                None => unclear(),
            });
        }
        if repeat.counts_rows() {
            // The whole axis again for every row.
            if row_axis.is_some() || !value.is_shared() {
                return Err(call.mixes("repeats rows as often as there are rows"));
            }
            row_axis = Some(axis);
        }
        sizes.push(size.times(repeat).unwrap_or_else(|| unknowns.size()));
    }
    match row_axis {
        Some(axis) => Ok(vec![call.rows_at(axis, sizes)?]),
        None => Ok(vec![Value { dependence: value.dependence.clone(), shape: Some(sizes), content: None }]),
    }
}
