//! Turns outputs that are sequences of tensors, or optional ones, into tensors: which there are, and the edit that gives them.

use std::collections::HashSet;

use crate::graph::{Graph, Node, TensorType, Type, TypeKind, Value};
use crate::initializer::{Initializer, Number, TensorFields};
use crate::rewriting::Edit;

/// Nodes between an output and what makes its sequence; files have one or two, and one for each tensor inserted.
const STEPS_MAX: usize = 256;
/// More outputs than anybody reads by name.
const OUTPUTS_MAX: usize = 1024;
/// `TensorProto.DataType.INT64`.
const INT64: i32 = 7;

/// What a sequence holds, as far as the file tells before a run.
enum Contents {
    /// These tensors, in this order.
    Tensors(Vec<String>),
    /// So many, which only the sequence has.
    Count(usize),
}

/// Where an output gets its tensor from.
enum Source {
    Tensor(String),
    /// The sequence of that name, at that place.
    Place(String, usize),
}

/// Replaces each output that is a sequence of tensors by one for each of them, called like the sequence with a number
/// from 0 behind it, and each optional tensor that is always there by that tensor. What only a run can tell is left as
/// it is.
pub(crate) fn replace(graph: &mut Graph, edit: &mut Edit) {
    let mut outputs = Vec::with_capacity(graph.outputs.len());
    for (index, output) in std::mem::take(&mut graph.outputs).into_iter().enumerate() {
        let Some((tensors, sources)) = parts(graph, &output) else {
            outputs.push(output);
            continue;
        };
        edit.replace_output(index, &tensors);
        for (tensor, source) in tensors.iter().zip(sources) {
            add(graph, edit, &tensor.name, source);
        }
        outputs.extend(tensors);
    }
    graph.outputs = outputs;
    drop_unused(graph, edit);
}

/// The tensors that take the place of `output`, and where each comes from.
fn parts(graph: &Graph, output: &Value) -> Option<(Vec<Value>, Vec<Source>)> {
    let (sequence, inner) = match output.kind.as_ref()?.value.as_ref()? {
        TypeKind::Sequence(inner) => (output.name.clone(), inner),
        TypeKind::Optional(inner) => {
            let always = of_optional(graph, &output.name)?;
            match inner.element.as_ref()?.value.as_ref()? {
                TypeKind::Tensor(tensor) => {
                    return Some((vec![value(&output.name, tensor)], vec![Source::Tensor(always)]));
                }
                TypeKind::Sequence(inner) => (always, inner),
                _ => return None,
            }
        }
        _ => return None,
    };
    let tensor = inner.tensor()?;
    let sources = match contents(graph, &sequence, &mut { STEPS_MAX })? {
        Contents::Tensors(tensors) => tensors.into_iter().map(Source::Tensor).collect::<Vec<_>>(),
        Contents::Count(count @ 0..=OUTPUTS_MAX) => {
            (0..count).map(|place| Source::Place(sequence.clone(), place)).collect()
        }
        Contents::Count(_) => return None,
    };
    if sources.is_empty() {
        return None;
    }
    let values: Vec<Value> =
        (0..sources.len()).map(|place| value(&format!("{}_{place}", output.name), tensor)).collect();
    let taken: HashSet<&str> = graph.names().collect();
    values.iter().all(|value| !taken.contains(value.name.as_str())).then_some((values, sources))
}

fn value(name: &str, tensor: &TensorType) -> Value {
    Value { name: name.to_owned(), kind: Some(Type { value: Some(TypeKind::Tensor(tensor.clone())) }) }
}

/// Adds what gives `source` the name of an output.
fn add(graph: &mut Graph, edit: &mut Edit, name: &str, source: Source) {
    let node = |operator: &str, inputs: Vec<String>| Node {
        inputs,
        outputs: vec![name.to_owned()],
        name: name.to_owned(),
        operator: operator.into(),
        ..Node::default()
    };
    let node = match source {
        Source::Tensor(tensor) => node("Identity", vec![tensor]),
        Source::Place(sequence, place) => {
            let index = Initializer(TensorFields {
                element: INT64,
                int64s: vec![place as i64],
                name: format!("{name}/place"),
                ..TensorFields::default()
            });
            edit.add_initializer(&index);
            let node = node("SequenceAt", vec![sequence, index.name.clone()]);
            graph.initializers.push(index);
            node
        }
    };
    // An optional output has its name already, from the node that made it optional.
    match graph.nodes.iter().position(|node| node.outputs.iter().any(|output| output == name)) {
        Some(index) => {
            edit.replace_node(index, std::slice::from_ref(&node));
            graph.nodes[index] = node;
        }
        None => {
            edit.add_node(&node);
            graph.nodes.push(node);
        }
    }
}

/// What the sequence called `name` holds; `None` where only a run tells how many tensors.
fn contents(graph: &Graph, name: &str, steps: &mut usize) -> Option<Contents> {
    *steps = steps.checked_sub(1)?;
    let (node, 0) = graph.producer(name)? else { return None };
    match node.operator.as_str() {
        "SequenceConstruct" => Some(Contents::Tensors(node.inputs.clone())),
        "SequenceEmpty" => Some(Contents::Tensors(Vec::new())),
        "Identity" | "Optional" => contents(graph, node.inputs.first()?, steps),
        "SequenceInsert" => match contents(graph, node.inputs.first()?, steps)? {
            Contents::Tensors(mut tensors) => {
                let tensor = node.inputs.get(1)?.clone();
                match node.inputs.get(2).filter(|place| !place.is_empty()) {
                    None => tensors.push(tensor),
                    Some(place) => tensors.insert(wrapped(integer(graph, place)?, tensors.len())?, tensor),
                }
                Some(Contents::Tensors(tensors))
            }
            Contents::Count(count) => Some(Contents::Count(count + 1)),
        },
        "SequenceErase" => match contents(graph, node.inputs.first()?, steps)? {
            Contents::Tensors(mut tensors) => {
                let last = tensors.len().checked_sub(1)?;
                let place = match node.inputs.get(1).filter(|place| !place.is_empty()) {
                    None => last,
                    Some(place) => {
                        wrapped(integer(graph, place)?, tensors.len()).filter(|&place| place <= last)?
                    }
                };
                tensors.remove(place);
                Some(Contents::Tensors(tensors))
            }
            Contents::Count(count) => Some(Contents::Count(count.checked_sub(1)?)),
        },
        // The sizes of the pieces, one each: of equal pieces only a run tells how many.
        "SplitToSequence" => {
            let sizes = constant(graph, node.inputs.get(1)?)?;
            match sizes.dims.as_slice() {
                [count] => usize::try_from(*count).ok().map(Contents::Count),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The value of the optional called `name`, where it always has one.
fn of_optional(graph: &Graph, name: &str) -> Option<String> {
    let mut name = name;
    for _ in 0..STEPS_MAX {
        let (node, _) = graph.producer(name)?;
        let input = node.inputs.first().filter(|input| !input.is_empty())?;
        match node.operator.as_str() {
            "Optional" => return Some(input.clone()),
            "Identity" => name = input,
            _ => return None,
        }
    }
    None
}

/// Places count from the end where they are negative.
fn wrapped(place: i64, length: usize) -> Option<usize> {
    let place = if place < 0 { place.checked_add(i64::try_from(length).ok()?)? } else { place };
    usize::try_from(place).ok().filter(|&place| place <= length)
}

fn integer(graph: &Graph, name: &str) -> Option<i64> {
    match constant(graph, name)?.numbers()?.as_slice() {
        [Number::Integer(value)] => Some(*value),
        _ => None,
    }
}

/// The tensor called `name`, where the file has its elements and no caller can give others.
fn constant<'a>(graph: &'a Graph, name: &str) -> Option<&'a Initializer> {
    if graph.inputs.iter().any(|input| input.name == name) {
        return None;
    }
    let initializer = graph.initializers.iter().find(|initializer| initializer.name == name);
    initializer.or_else(|| {
        let (node, _) = graph.producer(name).filter(|(node, _)| node.operator == "Constant")?;
        node.attributes.iter().find(|attribute| attribute.name == "value")?.tensor.as_ref()
    })
}

/// Leaves out nodes whose sequence nobody takes any more: tract has none of them.
fn drop_unused(graph: &mut Graph, edit: &mut Edit) {
    const OPERATORS: [&str; 3] = ["SequenceConstruct", "SequenceInsert", "SequenceEmpty"];
    let mut dropped = Vec::new();
    loop {
        let used: HashSet<String> = {
            let inputs = graph.all_nodes().into_iter().flat_map(|node| &node.inputs);
            let outputs = graph.outputs.iter().map(|output| &output.name);
            inputs.chain(outputs).cloned().collect()
        };
        let unused = |node: &Node| {
            OPERATORS.contains(&node.operator.as_str())
                && !node.outputs.iter().any(|name| used.contains(name))
        };
        let Some(index) = graph.nodes.iter().position(unused) else { break };
        edit.replace_node(index, &[]);
        graph.nodes[index] = Node::default();
        dropped.push(index);
    }
    // At the end: until then nodes are known by their places in the file.
    dropped.sort_unstable();
    for index in dropped.into_iter().rev() {
        graph.nodes.remove(index);
    }
}
