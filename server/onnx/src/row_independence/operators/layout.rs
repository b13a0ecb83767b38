//! Operators that arrange entries anew: where the axis of the rows is afterwards, and whether it is still one.

use super::super::call::{Call, Outcome};
use super::super::size::{Size, Unknowns};
use super::super::value::{Dependence, Element, Value, Verdict};

pub(super) fn shape(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let Some(shape) = &value.shape else {
        let length = unknowns.size();
        return match value.row_axis() {
            None if value.is_shared() => Ok(vec![Value::shared(Some(vec![length]))]),
            _ => Ok(vec![Value { dependence: Dependence::Count, shape: Some(vec![length]), content: None }]),
        };
    };
    let rank = shape.len();
    let bound = |name: &str, default: usize| match call.integer(name) {
        None => default,
        Some(value @ 0..) => usize::try_from(value).unwrap_or(rank).min(rank),
        Some(value) => rank.saturating_sub(usize::try_from(value.unsigned_abs()).unwrap_or(rank)),
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    Ok(vec![Value::sizes(shape.get(start..end).unwrap_or_default().to_vec())])
}

pub(super) fn size(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let size = value.shape.as_ref().and_then(Size::product);
    let element = match size {
        Some(size) => Element::Size(size),
        None if value.is_shared() => Element::Size(unknowns.size()),
        None => Element::Count,
    };
    Ok(vec![Value::with_content(Vec::new(), vec![element])])
}

pub(super) fn transpose(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let order: Vec<usize> = match (call.integers("perm"), value.rank()) {
        (Some(order), _) => {
            order.iter().map(|&axis| call.axis(axis, Some(order.len()))).collect::<Result<_, _>>()?
        }
        (None, Some(rank)) => (0..rank).rev().collect(),
        (None, None) if value.row_axis().is_none() => return Ok(vec![value.without_content()]),
        (None, None) => return Err(call.unranked()),
    };
    if value.rank().is_some_and(|rank| rank != order.len()) {
        return Err(call.undecided("has a permutation that does not fit its input"));
    }
    let moved = value
        .shape
        .as_ref()
        .map(|shape| order.iter().map(|&axis| shape[axis].clone()).collect::<Vec<Size>>());
    let content = match (&value.content, value.shape.as_deref(), order.as_slice()) {
        (Some(content), Some([rows, columns]), [1, 0]) => turned(content, rows, columns),
        (Some(content), Some([_]), _) => Some(content.clone()),
        _ => None,
    };
    let dependence = match &value.dependence {
        Dependence::Rows { axis, each } => match order.iter().position(|from| from == axis) {
            Some(axis) => Dependence::Rows { axis, each: each.clone() },
            None => return Err(call.undecided("has a permutation that does not fit its input")),
        },
        other => other.clone(),
    };
    Ok(vec![Value { dependence, shape: moved, content }])
}

fn turned(content: &[Element], rows: &Size, columns: &Size) -> Option<Vec<Element>> {
    let (rows, columns) = (usize::try_from(rows.value()?).ok()?, usize::try_from(columns.value()?).ok()?);
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    places.map(|place| content.get(place).cloned()).collect()
}

pub(super) fn flatten(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let rank = value.rank();
    let axis = match call.integer("axis").unwrap_or(1) {
        axis if rank.is_some_and(|rank| i64::try_from(rank) == Ok(axis)) => rank.unwrap_or_default(),
        axis => call.axis(axis, rank)?,
    };
    match (value.shape.as_ref(), value.row_axis()) {
        (Some(shape), _) => {
            let (before, behind) = shape.split_at(axis);
            match (Size::product(before), Size::product(behind)) {
                (Some(before), Some(behind)) => rearranged(call, value, vec![before, behind]),
                _ => Err(call.undecided("gives too many entries")),
            }
        }
        (None, None) => Ok(vec![value.without_content()]),
        (None, Some(_)) => Err(call.unranked()),
    }
}

pub(super) fn reshape(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let target = call.operand(1)?;
    if target.row_axis().is_some() {
        return Err(call.mixes("takes its shape from the values of the rows"));
    }
    let Some(target) = target.elements(unknowns) else {
        return Err(call.undecided("takes its shape from a tensor whose size is not known"));
    };
    let rank = target.len();
    // What 0 stands for, and where −1 is.
    let copies = !call.flag("allowzero");
    let mut open = None;
    let mut sizes: Vec<Size> = Vec::with_capacity(rank);
    for (index, element) in target.iter().enumerate() {
        let size = match element {
            Element::Size(size) => size.clone(),
            _ => {
                return Err(call
                    .undecided("computes its shape from the number of rows in a way that is not followed"));
            }
        };
        match size.value() {
            Some(-1) => {
                open = Some(index);
                sizes.push(Size::one());
            }
            Some(0) if copies => {
                let copied = match (&value.shape, &value.dependence) {
                    (Some(shape), _) => shape.get(index).cloned(),
                    (None, Dependence::Rows { axis, each }) if *axis == index => each.times(&Size::rows()),
                    (None, _) => Some(unknowns.size()),
                };
                let Some(copied) = copied else {
                    return Err(call.undecided("copies a dimension that its input lacks"));
                };
                sizes.push(copied);
            }
            // An unknown could be the −1 or a 0; as a size it is what it says.
            None if !size.is_size() => sizes.push(unknowns.size()),
            _ => sizes.push(size),
        }
    }
    // Numbers that are not known as sizes may be −1, and then others are not what they seem.
    let certain = target
        .iter()
        .all(|element| element.size().is_some_and(|size| size.value().is_some() || size.is_size()));
    if !certain {
        return uncertain(call, value, &target, &sizes);
    }
    if let Some(open) = open {
        let stated = Size::product(&sizes);
        let total = value.shape.as_ref().and_then(Size::product);
        let left = stated.zip(total).and_then(|(stated, total)| total.divided_by(&stated));
        sizes[open] = match left {
            Some(left) => left,
            None if value.is_shared() && !sizes.iter().any(Size::counts_rows) => unknowns.size(),
            None if value.row_axis().is_none() => {
                return Ok(vec![Value { dependence: Dependence::Count, shape: None, content: None }]);
            }
            // What is left of a row's entries, where the rows themselves are among the stated sizes.
            None if leads(value, &sizes, open) => unknowns.size(),
            None => return Err(call.undecided("may cut the entries of a row in other places")),
        };
    }
    let Some(_) = value.row_axis() else {
        let content = value.content.clone();
        let counts = value.is_count() || sizes.iter().any(Size::counts_rows);
        let dependence = if counts { Dependence::Count } else { Dependence::Shared };
        return Ok(vec![Value { dependence, shape: Some(sizes), content }]);
    };
    rearranged(call, value, sizes)
}

/// Whether the axis of the rows is stated before the open one, so that what is open is the rest of a row.
fn leads(value: &Value, sizes: &[Size], open: usize) -> bool {
    value.row_axis() == Some(0) && open > 0 && sizes.first().is_some_and(Size::counts_rows)
}

/// A shape with numbers that may be −1: only the first dimension is relied upon.
fn uncertain(call: &Call<'_, '_>, value: &Value, target: &[Element], sizes: &[Size]) -> Outcome {
    let Some(_) = value.row_axis() else {
        if value.is_count() || target.iter().any(Element::counts_rows) {
            return Err(call.undecided("takes its shape from a tensor whose values are not known"));
        }
        return Ok(vec![Value::shared(None)]);
    };
    match (value.row_axis(), sizes.first()) {
        (Some(0), Some(first)) if first.counts_rows() => rearranged(call, value, sizes.to_vec()),
        _ => Err(call.undecided("takes its shape from a tensor whose values are not known")),
    }
}

/// The same entries in the same order, in another shape.
fn rearranged(call: &Call<'_, '_>, value: &Value, sizes: Vec<Size>) -> Outcome {
    let Some(axis) = value.row_axis() else {
        return Ok(vec![Value { shape: Some(sizes), ..value.without_content() }]);
    };
    let counted = sizes.iter().filter(|size| size.counts_rows()).count();
    if counted == 0 {
        return match sizes.iter().all(|size| size.value().is_some()) {
            true => Err(call.mixes("gives the same shape whatever the number of rows")),
            false => Err(call.undecided("gives a shape in which nothing counts the rows")),
        };
    }
    // As many entries before a row as ever: only then do the rows begin where they began.
    let before = match (axis, &value.shape) {
        (0, _) => Some(Size::one()),
        (_, Some(shape)) => Size::product(&shape[..axis]),
        (_, None) => None,
    };
    let Some(before) = before else { return Err(call.unranked()) };
    let mut passed = Size::one();
    for (index, size) in sizes.iter().enumerate() {
        if size.counts_rows() {
            return match passed == before {
                true if counted == 1 => Ok(vec![call.rows_at(index, sizes)?]),
                true => Err(call.undecided("gives a shape in which two dimensions count the rows")),
                false => Err(call.undecided("moves entries of rows into other rows' places")),
            };
        }
        let Some(product) = passed.times(size) else { break };
        passed = product;
    }
    Err(call.undecided("gives a shape in which nothing counts the rows"))
}

pub(super) fn squeeze(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let Some(axes) = call.integers_of("axes", 1)? else {
        if value.row_axis().is_some() {
            return Err(
                call.mixes("drops every axis of one entry, and so that of the rows where there is one row")
            );
        }
        let known = value.shape.as_ref().filter(|shape| shape.iter().all(|size| size.value().is_some()));
        let shape = known.map(|shape| shape.iter().filter(|size| !size.is_one()).cloned().collect());
        return Ok(vec![Value { shape, ..value.clone() }]);
    };
    let axes: Vec<usize> =
        axes.iter().map(|&axis| call.axis(axis, value.rank())).collect::<Result<_, _>>()?;
    let shape = value.shape.as_ref().map(|shape| {
        let kept = shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
        kept.map(|(_, size)| size.clone()).collect::<Vec<Size>>()
    });
    match &value.dependence {
        Dependence::Rows { axis, .. } if axes.contains(axis) => {
            Err(call.mixes(&format!("drops axis {axis}, which counts the rows")))
        }
        Dependence::Rows { axis, each } => {
            let before = axes.iter().filter(|&other| other < axis).count();
            Ok(vec![Value::rows(axis - before, each.clone(), shape)])
        }
        _ => Ok(vec![Value { shape, ..value.clone() }]),
    }
}

pub(super) fn unsqueeze(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let Some(axes) = call.integers_of("axes", 1)? else {
        return Err(call.undecided("does not state its axes"));
    };
    let rank = value.rank().map(|rank| rank + axes.len());
    let mut axes: Vec<usize> = axes.iter().map(|&axis| call.axis(axis, rank)).collect::<Result<_, _>>()?;
    axes.sort_unstable();
    let shape = match &value.shape {
        Some(shape) => {
            let mut sizes = shape.clone();
            for &axis in &axes {
                if axis > sizes.len() {
                    return Err(call.undecided("has an axis that its output lacks"));
                }
                sizes.insert(axis, Size::one());
            }
            Some(sizes)
        }
        None => None,
    };
    Ok(vec![match &value.dependence {
        Dependence::Rows { axis, each } => {
            // Each new axis at or before the rows' moves them on.
            let axis = axes.iter().fold(*axis, |rows, &new| if new <= rows { rows + 1 } else { rows });
            Value::rows(axis, each.clone(), shape)
        }
        _ => Value { shape, ..value.clone() },
    }])
}

/// `Expand`, and `ConstantOfShape` and the like, which expand one number.
pub(super) fn expand(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?.clone();
    let target = call.operand(1)?;
    Ok(vec![expanded(call, &value, target, unknowns)?])
}

pub(super) fn expanded(
    call: &Call<'_, '_>,
    value: &Value,
    target: &Value,
    unknowns: &mut Unknowns,
) -> Result<Value, Verdict> {
    if target.row_axis().is_some() {
        return Err(call.mixes("takes its shape from the values of the rows"));
    }
    let unclear = || call.undecided("takes its shape from a tensor whose values are not known");
    let Some(target) = target.elements(unknowns) else {
        return if value.is_shared() && target.is_shared() {
            Ok(Value::shared(None))
        } else {
            Err(unclear())
        };
    };
    let size = |element: &Element| {
        element.size().filter(|size| size.value().is_none_or(|value| value >= 0)).cloned()
    };
    let Some(sizes) = target.iter().map(size).collect::<Option<Vec<Size>>>() else {
        return Err(unclear());
    };
    let counted: Vec<usize> =
        sizes.iter().enumerate().filter(|(_, size)| size.counts_rows()).map(|(axis, _)| axis).collect();
    if counted.is_empty() || value.row_axis().is_some() {
        let extent = |row_axis| Value {
            dependence: match row_axis {
                Some(axis) => Dependence::Rows { axis, each: Size::one() },
                None => Dependence::Shared,
            },
            shape: Some(sizes.clone()),
            content: None,
        };
        return match counted.as_slice() {
            [] => call.broadcast(&[value, &extent(None)], unknowns),
            [axis] => call.broadcast(&[value, &extent(Some(*axis))], unknowns),
            _ => Err(call.undecided("gives a shape in which two dimensions count the rows")),
        };
    }
    let [axis] = counted.as_slice() else {
        return Err(call.undecided("gives a shape in which two dimensions count the rows"));
    };
    if !value.is_shared() {
        return Err(call.mixes("uses the number of rows as a value"));
    }
    let shape = call.shape(value)?;
    // The same entries for each row: the tensor must have one there, or none.
    let rank = sizes.len().max(shape.len());
    let (axis, offset) = (axis + rank - sizes.len(), rank - shape.len());
    if let Some(size) = axis.checked_sub(offset).and_then(|axis| shape.get(axis))
        && !size.is_one()
    {
        return Err(call.undecided("combines the rows with another axis"));
    }
    let mut result = vec![Size::one(); rank - sizes.len()];
    result.extend(sizes);
    for (index, size) in shape.iter().enumerate() {
        if offset + index != axis {
            result[offset + index] = unknowns.broadcast(&result[offset + index], size);
        }
    }
    call.rows_at(axis, result)
}
