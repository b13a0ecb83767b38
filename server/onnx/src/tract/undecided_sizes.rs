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

/// What hands the elements of its first input on.
const HANDS_ON: [&str; 6] = ["Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Expand"];

/// Why no plan for all sizes can be right; `None` where one can.
pub(super) fn find(graph: &Graph) -> Option<String> {
    let nodes = graph.all_nodes();
    let sizes = closure(&nodes, HashSet::new(), |node, found| {
        matches!(node.operator.as_str(), "Shape" | "Size") || is_computed(node, found)
    });
    let differences = closure(&nodes, HashSet::new(), |node, found| {
        let begins = matches!(node.operator.as_str(), "Sub" | "Neg") && has_input_of(node, &sizes);
        begins || is_computed(node, found)
    });
    let negatives = negatives(graph, &nodes);
    let is_at_fault = |node: &&&Node| match node.operator.as_str() {
        "Equal" => has_input_of(node, &sizes) && !has_input_of(node, &negatives),
        "Div" | "Mod" => node.inputs.first().is_some_and(|name| differences.contains(name.as_str())),
        _ => false,
    };
    let node = nodes.iter().find(is_at_fault)?;
    Some(format!("operator {} (node '{}') is decided by sizes", node.operator, node.title()))
}

/// Tensors of negative numbers alone, as those that `Expand` compares sizes with in files of PyTorch: no size is equal to
/// one.
fn negatives<'g>(graph: &'g Graph, nodes: &[&'g Node]) -> HashSet<&'g str> {
    let of_ones: HashSet<&str> = nodes
        .iter()
        .filter(|node| node.operator == "ConstantOfShape")
        .flat_map(|node| node.outputs.iter().map(String::as_str))
        .collect();
    let stated = graph.initializers.iter().filter(|initializer| all_negative(initializer));
    let stated = stated.map(|initializer| initializer.name.as_str()).collect();
    closure(nodes, stated, |node, found| match node.operator.as_str() {
        "Constant" => is_negative_constant(node),
        "Mul" => has_input_of(node, &of_ones) && has_input_of(node, found),
        operator => {
            HANDS_ON.contains(&operator)
                && node.inputs.first().is_some_and(|name| found.contains(name.as_str()))
        }
    })
}

/// These tensors, and the outputs of all nodes of which `is_one` says so, which is given what was found before. The same
/// name may stand for several tensors, in the bodies of several nodes; each is only ever added.
fn closure<'g>(
    nodes: &[&'g Node],
    mut found: HashSet<&'g str>,
    is_one: impl Fn(&Node, &HashSet<&str>) -> bool,
) -> HashSet<&'g str> {
    loop {
        let before = found.len();
        for node in nodes {
            if is_one(node, &found) {
                found.extend(node.outputs.iter().map(String::as_str));
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

fn has_input_of(node: &Node, tensors: &HashSet<&str>) -> bool {
    node.inputs.iter().any(|name| tensors.contains(name.as_str()))
}

/// Whether the node computes sizes of sizes.
fn is_computed(node: &Node, sizes: &HashSet<&str>) -> bool {
    let inputs = match OF_THE_FIRST.contains(&node.operator.as_str()) {
        true => &node.inputs[..node.inputs.len().min(1)],
        false => &node.inputs[..],
    };
    COMPUTES.contains(&node.operator.as_str()) && inputs.iter().any(|name| sizes.contains(name.as_str()))
}

fn is_negative_constant(node: &Node) -> bool {
    let value = |name: &str| node.attributes.iter().find(|attribute| attribute.name == name);
    value("value").and_then(|attribute| attribute.tensor.as_ref()).is_some_and(all_negative)
        || value("value_int").is_some_and(|attribute| attribute.integer < 0)
        || value("value_ints").is_some_and(|attribute| attribute.integers.iter().all(|value| *value < 0))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn node(operator: &str, inputs: &[&str], output: &str) -> Node {
        Node {
            operator: operator.into(),
            inputs: inputs.iter().map(|name| (*name).to_owned()).collect(),
            outputs: vec![output.into()],
            ..Node::default()
        }
    }

    fn check(nodes: Vec<Node>, expected: Option<&str>) {
        let graph = Graph { nodes, ..Graph::default() };
        assert_eq!(find(&graph).as_deref(), expected);
    }

    #[test]
    fn names_that_lead_in_a_circle_end() {
        // As two branches may have them, each of its own.
        let circle = || vec![node("Identity", &["b"], "a"), node("Identity", &["a"], "b")];
        check(circle(), None);
        let compared = [node("Shape", &["x"], "n"), node("Equal", &["n", "a"], "c")];
        let expected = "operator Equal (node 'c') is decided by sizes";
        check(circle().into_iter().chain(compared).collect(), Some(expected));
    }

    #[test]
    fn differences_of_sizes_are_told_from_sizes() {
        let size = || node("Shape", &["x"], "n");
        check(vec![size(), node("Div", &["n", "two"], "half")], None);
        let divided = vec![size(), node("Sub", &["n", "k"], "d"), node("Div", &["d", "two"], "half")];
        check(divided, Some("operator Div (node 'half') is decided by sizes"));
        check(vec![node("Sub", &["x", "k"], "d"), node("Div", &["d", "two"], "half")], None);
    }
}
