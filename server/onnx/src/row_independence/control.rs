//! `If`, `Loop` and `Scan`: bodies are followed until nothing new is learned, and what decides how they run must be the same for all rows.

use super::call::{Call, Outcome};
use super::size::{Size, Unknowns};
use super::value::{Dependence, Value, Verdict};
use super::walk::{Scope, Surroundings, Walk};
use crate::graph::Graph;

/// Times that a body is followed before what it keeps from step to step is given up.
const ROUNDS_MAX: usize = 8;

/// The outputs of an operator that has bodies; `None` where it is no such operator.
pub(super) fn follow<'a>(
    walk: &mut Walk<'a>,
    call: &Call<'_, 'a>,
    scope: &Scope<'_, 'a>,
    surroundings: Surroundings<'_, 'a>,
) -> Option<Outcome> {
    let inside = Surroundings { depth: surroundings.depth + 1, ..surroundings };
    match call.node.operator.as_str() {
        "If" => Some(branch(walk, call, scope, inside)),
        "Loop" => Some(repeat(walk, call, scope, inside)),
        "Scan" if call.version >= 9 => Some(scan(walk, call, scope, inside)),
        _ => None,
    }
}

/// The outputs of a body that is given these inputs.
fn body<'a>(
    walk: &mut Walk<'a>,
    graph: &'a Graph,
    inputs: &[Value],
    scope: &Scope<'_, 'a>,
    inside: Surroundings<'_, 'a>,
) -> Vec<Value> {
    let mut own = Scope::new(Some(scope));
    for (input, value) in graph.inputs.iter().zip(inputs) {
        own.set(&input.name, value.clone());
    }
    walk.graph(graph, &mut own, inside);
    let missing =
        |name: &str| Value::lost(Verdict::Undecided(format!("nothing computes the tensor '{name}'").into()));
    graph
        .outputs
        .iter()
        .map(|output| own.get(&output.name).cloned().unwrap_or_else(|| missing(&output.name)))
        .collect()
}

fn branch<'a>(
    walk: &mut Walk<'a>,
    call: &Call<'_, 'a>,
    scope: &Scope<'_, 'a>,
    inside: Surroundings<'_, 'a>,
) -> Outcome {
    let condition = call.operand(0)?;
    match condition.dependence {
        Dependence::Shared => {}
        Dependence::Count => return Err(call.undecided("decides by the number of rows")),
        _ => return Err(call.mixes("decides for all rows by the values of some")),
    }
    let (Some(yes), Some(no)) = (call.graph("then_branch"), call.graph("else_branch")) else {
        return Err(call.undecided("lacks a branch"));
    };
    match condition.integers().as_deref() {
        Some([0]) => return Ok(body(walk, no, &[], scope, inside)),
        Some([_]) => return Ok(body(walk, yes, &[], scope, inside)),
        _ => {}
    }
    let yes = body(walk, yes, &[], scope, inside);
    let no = body(walk, no, &[], scope, inside);
    Ok(yes
        .iter()
        .zip(&no)
        .map(|(yes, no)| joined(call, yes, no, &mut walk.unknowns, &mut Vec::new()))
        .collect())
}

/// What is true of both. Sizes that differ become unknowns, which are added to `widened`; one that is there
/// already stands for any size.
fn joined(
    call: &Call<'_, '_>,
    one: &Value,
    other: &Value,
    unknowns: &mut Unknowns,
    widened: &mut Vec<Size>,
) -> Value {
    let dependence = match (&one.dependence, &other.dependence) {
        (Dependence::Lost(one), Dependence::Lost(other)) => {
            Dependence::Lost(if one.severity() >= other.severity() { one } else { other }.clone())
        }
        (lost @ Dependence::Lost(_), _) | (_, lost @ Dependence::Lost(_)) => lost.clone(),
        (one, other) if one == other => one.clone(),
        (Dependence::Shared, Dependence::Count) | (Dependence::Count, Dependence::Shared) => {
            Dependence::Count
        }
        _ => {
            let verdict =
                call.undecided("gives rows in some cases, and what has none or has them elsewhere in others");
            Dependence::Lost(verdict)
        }
    };
    if let Dependence::Lost(verdict) = dependence {
        return Value::lost(verdict);
    }
    let content = if one.content == other.content { one.content.clone() } else { None };
    let shape = match (&one.shape, &other.shape) {
        (Some(one), Some(other)) if one.len() == other.len() && dependence != Dependence::Count => {
            let sizes = one.iter().zip(other).map(|(one, other)| {
                if one == other || widened.contains(one) {
                    return one.clone();
                }
                let size = unknowns.size();
                widened.push(size.clone());
                size
            });
            Some(sizes.collect())
        }
        (Some(one), Some(other)) if one == other => Some(one.clone()),
        _ => None,
    };
    Value { dependence, shape, content }
}

/// A value that a body keeps from step to step, as its first step finds it.
fn state(value: &Option<Value>) -> Value {
    match value {
        Some(value) => value.without_content(),
        None => Value::shared(None),
    }
}

/// Follows a body until its states are what they were. Gives them, and the body's other outputs.
fn settle<'a>(
    walk: &mut Walk<'a>,
    call: &Call<'_, 'a>,
    mut states: Vec<Value>,
    mut round: impl FnMut(&mut Walk<'a>, &[Value]) -> (Vec<Value>, Vec<Value>),
) -> Result<(Vec<Value>, Vec<Value>), Verdict> {
    let mut widened = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let (next, others) = round(walk, &states);
        if next.len() != states.len() {
            return Err(call.undecided("has a body that gives other states than it takes"));
        }
        let merged: Vec<Value> = states
            .iter()
            .zip(&next)
            .map(|(state, next)| {
                joined(call, state, &next.without_content(), &mut walk.unknowns, &mut widened)
            })
            .collect();
        if merged == states {
            return Ok((states, others));
        }
        states = merged;
    }
    Err(call.undecided("has a body whose states are not the same from step to step"))
}

fn repeat<'a>(
    walk: &mut Walk<'a>,
    call: &Call<'_, 'a>,
    scope: &Scope<'_, 'a>,
    inside: Surroundings<'_, 'a>,
) -> Outcome {
    call.setting(0, "number of steps")?;
    call.setting(1, "condition")?;
    let Some(graph) = call.graph("body") else { return Err(call.undecided("lacks a body")) };
    let states: Vec<Value> = call.operands.iter().skip(2).map(state).collect();
    let count = states.len();
    let (states, others) = settle(walk, call, states, |walk, states| {
        let step = Value::shared(Some(Vec::new()));
        let inputs = [&[step.clone(), step], states].concat();
        let mut outputs = body(walk, graph, &inputs, scope, inside);
        if outputs.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let condition = outputs.remove(0);
        let mut scanned = outputs.split_off(count.min(outputs.len()));
        scanned.push(condition);
        (outputs, scanned)
    })?;
    let Some((condition, scanned)) = others.split_last() else {
        return Err(call.undecided("has a body without outputs"));
    };
    match &condition.dependence {
        Dependence::Shared => {}
        Dependence::Lost(verdict) => return Err(verdict.clone()),
        _ => return Err(call.mixes("goes on for all rows until the values of some end it")),
    }
    let scanned = scanned.iter().map(|value| stacked(value, 0, &mut walk.unknowns));
    Ok(states.into_iter().chain(scanned).collect())
}

/// Values of all steps along a new axis.
fn stacked(value: &Value, axis: usize, unknowns: &mut Unknowns) -> Value {
    let mut result = value.without_content();
    if let Some(shape) = &mut result.shape {
        shape.insert(axis.min(shape.len()), unknowns.size());
    }
    if let Dependence::Rows { axis: rows, .. } = &mut result.dependence
        && axis <= *rows
    {
        *rows += 1;
    }
    result
}

fn scan<'a>(
    walk: &mut Walk<'a>,
    call: &Call<'_, 'a>,
    scope: &Scope<'_, 'a>,
    inside: Surroundings<'_, 'a>,
) -> Outcome {
    let Some(graph) = call.graph("body") else { return Err(call.undecided("lacks a body")) };
    let scanned = call.integer("num_scan_inputs").and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let Some(count) = call.operands.len().checked_sub(scanned) else {
        return Err(call.undecided("has fewer inputs than it states"));
    };
    let mut elements = Vec::with_capacity(scanned);
    for place in 0..scanned {
        let value = call.operand(count + place)?;
        let axis = call.integers("scan_input_axes").and_then(|axes| axes.get(place).copied()).unwrap_or(0);
        let axis = call.axis(axis, value.rank())?;
        let mut element = value.without_content();
        if let Some(shape) = &mut element.shape {
            shape.remove(axis);
        }
        match &mut element.dependence {
            Dependence::Rows { axis: rows, .. } if *rows == axis => {
                return Err(call.mixes("goes through the rows one after another"));
            }
            Dependence::Rows { axis: rows, .. } if axis < *rows => *rows -= 1,
            Dependence::Count => {
                return Err(call.undecided("goes through what depends on the number of rows"));
            }
            _ => {}
        }
        elements.push(element);
    }
    let states: Vec<Value> = call.operands.iter().take(count).map(state).collect();
    let (states, outputs) = settle(walk, call, states, |walk, states| {
        let inputs = [states, &elements].concat();
        let mut outputs = body(walk, graph, &inputs, scope, inside);
        let scanned = outputs.split_off(count.min(outputs.len()));
        (outputs, scanned)
    })?;
    let mut results = states;
    for (place, output) in outputs.iter().enumerate() {
        let axis = call.integers("scan_output_axes").and_then(|axes| axes.get(place).copied()).unwrap_or(0);
        let axis = call.axis(axis, output.rank().map(|rank| rank + 1))?;
        results.push(stacked(output, axis, &mut walk.unknowns));
    }
    Ok(results)
}
