//! Operators that compute each entry from the entries at the same place, broadcast; and arithmetic on sizes.

use super::super::call::{Call, Outcome};
use super::super::size::{Size, Unknowns};
use super::super::value::{CONTENT_MAX, Dependence, Element, Value};

/// `TensorProto.DataType` of integers that hold sizes, and of single precision.
const FLOAT: i64 = 1;
const INT32: i64 = 6;
const INT64: i64 = 7;

/// Of one operand, and of others that only say how.
pub(super) fn unary(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    Ok(vec![call.operand(0)?.without_content()])
}

pub(super) fn identity(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    Ok(vec![call.operand(0)?.clone()])
}

/// Of all operands.
pub(super) fn nary(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let operands: Vec<&Value> = call.operands.iter().flatten().collect();
    let result = call.broadcast(&operands, unknowns)?;
    if operands.iter().all(|value| value.is_shared() || value.is_count())
        && let Some(computed) = computed(call, &operands, &result, unknowns)
    {
        return Ok(vec![computed]);
    }
    Ok(vec![result])
}

/// `Dropout`: as it came, unless the model trains while it serves.
pub(super) fn dropout(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    if let Some(training) = call.optional(2)
        && training.integers().as_deref() != Some(&[0])
    {
        return Err(call.random("drops entries at random"));
    }
    let value = call.operand(0)?.without_content();
    Ok(vec![value.clone(), value])
}

pub(super) fn cast(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let content = value.content.as_ref().and_then(|content| {
        let convert = |element: &Element| match (call.integer("to"), element) {
            (Some(INT32 | INT64), Element::Float(value)) => Some(Element::Size(Size::known(*value as i64))),
            (Some(INT32 | INT64 | FLOAT), other) => Some(other.clone()),
            _ => None,
        };
        content.iter().map(convert).collect()
    });
    Ok(vec![Value { content, ..value.clone() }])
}

/// The elements of a small result.
fn computed(
    call: &Call<'_, '_>,
    operands: &[&Value],
    result: &Value,
    unknowns: &mut Unknowns,
) -> Option<Value> {
    let shape = result.shape.clone()?;
    let count = usize::try_from(Size::product(&shape)?.value()?).ok()?;
    let contents: Vec<&Vec<Element>> =
        operands.iter().map(|value| value.content.as_ref()).collect::<Option<_>>()?;
    // Tensors of several dimensions may be broadcast in ways that are not followed here.
    let plain = contents.iter().all(|content| content.len() == count || content.len() == 1);
    if count > CONTENT_MAX || !plain {
        return None;
    }
    let element = |index: usize| {
        let at = |content: &&Vec<Element>| content.get(index).or(content.first()).cloned();
        let elements: Vec<Element> = contents.iter().map(at).collect::<Option<_>>()?;
        Some(element(&call.node.operator, &elements).unwrap_or_else(|| {
            match elements.iter().any(Element::counts_rows) {
                true => Element::Count,
                false => Element::Size(unknowns.number()),
            }
        }))
    };
    Some(Value::with_content(shape, (0..count).map(element).collect::<Option<_>>()?))
}

/// One element of the result, where it can be told.
fn element(operator: &str, operands: &[Element]) -> Option<Element> {
    if operator == "Where" {
        let [condition, yes, no] = operands else { return None };
        return Some(if condition.integer()? != 0 { yes.clone() } else { no.clone() });
    }
    let [one, other] = operands else { return None };
    let (Element::Size(left), Element::Size(right)) = (one, other) else {
        let (left, right) = (one.number()?, other.number()?);
        let value = match operator {
            "Add" => left + right,
            "Sub" => left - right,
            "Mul" => left * right,
            "Div" => left / right,
            _ => return None,
        };
        return Some(Element::Float(value as f32));
    };
    let truth = |value: bool| Size::known(value.into());
    let size = match (operator, left.value(), right.value()) {
        ("Mul", ..) => left.times(right)?,
        ("Div", ..) if left.divided_by(right).is_some() => left.divided_by(right)?,
        ("Div", Some(left), Some(right)) => Size::known(left.checked_div(right)?),
        ("Add", Some(left), Some(right)) => Size::known(left.checked_add(right)?),
        ("Sub", Some(left), Some(right)) => Size::known(left.checked_sub(right)?),
        ("Add", Some(0), _) => right.clone(),
        ("Add" | "Sub", _, Some(0)) => left.clone(),
        ("Sub", ..) if left == right => Size::known(0),
        ("Mod", Some(left), Some(right)) if left >= 0 && right > 0 => Size::known(left % right),
        ("Min", Some(left), Some(right)) => Size::known(left.min(right)),
        ("Max", Some(left), Some(right)) => Size::known(left.max(right)),
        ("Min" | "Max", ..) if left == right => left.clone(),
        ("Equal", Some(left), Some(right)) => truth(left == right),
        ("Equal", ..) if left == right => truth(true),
        ("Equal", _, Some(..0)) if left.is_size() => truth(false),
        ("Equal", Some(..0), _) if right.is_size() => truth(false),
        ("Greater", Some(left), Some(right)) => truth(left > right),
        ("GreaterOrEqual", Some(left), Some(right)) => truth(left >= right),
        ("Less", Some(left), Some(right)) => truth(left < right),
        ("LessOrEqual", Some(left), Some(right)) => truth(left <= right),
        ("And", Some(left), Some(right)) => truth(left != 0 && right != 0),
        ("Or", Some(left), Some(right)) => truth(left != 0 || right != 0),
        _ => return None,
    };
    Some(Element::Size(size))
}

/// `Not` and `Neg` of what is known; of anything else as [`unary`].
pub(super) fn negation(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let negate = |integer: i64| match call.node.operator.as_str() {
        "Not" => i64::from(integer == 0),
        _ => integer.wrapping_neg(),
    };
    match (&value.dependence, value.integers()) {
        (Dependence::Shared, Some(integers)) => {
            let content = integers.into_iter().map(|integer| Element::Size(Size::known(negate(integer))));
            Ok(vec![Value { content: Some(content.collect()), ..value.clone() }])
        }
        _ => unary(call, unknowns),
    }
}
