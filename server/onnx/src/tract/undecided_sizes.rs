//! Sizes that tract decides about while it plans, though only a run knows them: models with such operators are planned for each combination of input shapes.
//!
//! tract computes with sizes as expressions of symbols. It takes `Equal` of an expression and a number for false unless
//! they are the same for every size, and rounds the quotient of a negative one down where ONNX rounds towards zero.

use std::collections::HashSet;

use crate::graph::{Graph, Node};
use crate::initializer::{Initializer, Number};

/// What makes sizes of sizes.
const COMPUTES: [&str; 20] = [
    "Identity",
    "Cast",
    "Gather",
    "Slice",
    "Squeeze",
    "Unsqueeze",
    "Concat",
    "Reshape",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Mod",
    "Neg",
    "Abs",
    "Min",
    "Max",
    "Where",
    "ReduceProd",
    "ReduceSum",
];
/// Of these only the first input is computed with; the others say how.
const OF_THE_FIRST: [&str; 5] = ["Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape"];

/// Why no plan for all sizes can be right; `None` where one can.
pub(super) fn find(graph: &Graph) -> Option<String> {
    let nodes = graph.all_nodes();
    let sizes = closure(&nodes, |node| matches!(node.operator.as_str(), "Shape" | "Size"));
    let differences = closure(&nodes, |node| {
        matches!(node.operator.as_str(), "Sub" | "Neg")
            && node.inputs.iter().any(|name| sizes.contains(name.as_str()))
    });
    let is_at_fault = |node: &&&Node| match node.operator.as_str() {
        "Equal" => {
            let of_sizes = |name: &String| sizes.contains(name.as_str());
            node.inputs.iter().any(of_sizes)
                && !node.inputs.iter().any(|name| !of_sizes(name) && is_negative(graph, &nodes, name))
        }
        "Div" | "Mod" => node.inputs.first().is_some_and(|name| differences.contains(name.as_str())),
        _ => false,
    };
    let node = nodes.iter().find(is_at_fault)?;
    Some(format!("operator {} (node '{}') is decided by sizes", node.operator, node.title()))
}

/// The tensors that `begins` gives, and all that is computed of them.
fn closure<'g>(nodes: &[&'g Node], begins: impl Fn(&Node) -> bool) -> HashSet<&'g str> {
    let mut found: HashSet<&str> = HashSet::new();
    loop {
        let before = found.len();
        for node in nodes {
            let inputs = match OF_THE_FIRST.contains(&node.operator.as_str()) {
                true => &node.inputs[..node.inputs.len().min(1)],
                false => &node.inputs[..],
            };
            let is_computed = COMPUTES.contains(&node.operator.as_str())
                && inputs.iter().any(|input| found.contains(input.as_str()));
            if is_computed || begins(node) {
                found.extend(node.outputs.iter().map(String::as_str));
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Whether a tensor holds negative numbers alone, as what `Expand` compares sizes with in files of PyTorch: no size is
/// equal to one.
fn is_negative(graph: &Graph, nodes: &[&Node], tensor: &str) -> bool {
    if let Some(constant) = graph.initializers.iter().find(|initializer| initializer.name == tensor) {
        return all_negative(constant);
    }
    let Some(node) = nodes.iter().find(|node| node.outputs.iter().any(|output| output == tensor)) else {
        return false;
    };
    match node.operator.as_str() {
        "Constant" => {
            let value = |name: &str| node.attributes.iter().find(|attribute| attribute.name == name);
            let tensor = value("value").and_then(|attribute| attribute.tensor.as_ref());
            tensor.is_some_and(all_negative)
                || value("value_int").is_some_and(|attribute| attribute.integer < 0)
                || value("value_ints")
                    .is_some_and(|attribute| attribute.integers.iter().all(|value| *value < 0))
        }
        "Identity" | "Cast" | "Unsqueeze" | "Squeeze" | "Reshape" | "Expand" => {
            node.inputs.first().is_some_and(|name| is_negative(graph, nodes, name))
        }
        // A tensor of ones times -1.
        "Mul" => {
            let is_ones = |name: &String| {
                nodes.iter().any(|node| node.operator == "ConstantOfShape" && node.outputs.contains(name))
            };
            node.inputs.iter().any(is_ones)
                && node.inputs.iter().any(|name| !is_ones(name) && is_negative(graph, nodes, name))
        }
        _ => false,
    }
}

fn all_negative(constant: &Initializer) -> bool {
    let numbers = constant.numbers();
    numbers.is_some_and(|numbers| {
        numbers.iter().all(|number| match number {
            Number::Integer(value) => *value < 0,
            Number::Float(value) => *value < 0.0,
        })
    })
}
