//! What tract passes over in operators that it has: attributes and inputs without which its answers would be wrong.

use crate::graph::{Attribute, Graph, Node, Opset};

/// Domains whose operators tract looks up by their names alone.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// What the node says that tract would not heed, for people: it follows `operator X (node 'y') with`.
pub(super) fn passed_over(node: &Node, graph: &Graph, opsets: &[Opset]) -> Option<String> {
    let standard = opsets.iter().find(|opset| matches!(opset.domain.as_str(), "" | "ai.onnx"));
    let version = standard.map_or(1, |opset| opset.version);
    match node.operator.as_str() {
        "RNN" => of_recurrent(node, &["Tanh"]),
        "GRU" => of_recurrent(node, &["Sigmoid", "Tanh"]),
        "LSTM" => of_recurrent(node, &["Sigmoid", "Tanh", "Tanh"]),
        // Up to version 8 it has an input of lengths and an axis of batches.
        "Scan" if version < 9 => Some(format!("version {version} of the operator set")),
        // Up to version 6 operands were lined up at an axis.
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "And" | "Or" | "Xor" | "Equal" | "Less" | "Greater" => {
            find(node, "axis").map(|_| "attribute axis".into())
        }
        "BatchNormalization" if integer(node, "training_mode") == 1 => Some("training_mode 1".into()),
        "Swish" if find(node, "alpha").is_some() => Some("attribute alpha".into()),
        "QuantizeLinear" | "DequantizeLinear" if integer(node, "output_dtype") != 0 => {
            Some("attribute output_dtype".into())
        }
        // What a caller says of these fails each run that tract cannot plan for.
        "Dropout" if is_given_by_callers(graph, node, 2) => Some("training_mode in requests".into()),
        "Slice" if is_given_by_callers(graph, node, 1) || is_given_by_callers(graph, node, 2) => {
            Some("starts or ends in requests".into())
        }
        "Attention" if node.domain == "com.microsoft" => {
            Some("the meaning that com.microsoft gives it".into())
        }
        _ => None,
    }
}

/// Whether the operator is one that tract may know, and not another's of the same name.
pub(super) fn is_of_a_known_domain(node: &Node) -> bool {
    DOMAINS.contains(&node.domain.as_str())
}

/// The node that an error of tract's names first, in quotes or as the one that is built.
pub(super) fn node_at_fault<'g>(graph: &'g Graph, error: &str) -> Option<&'g Node> {
    let place = |node: &Node| {
        let quoted = match node.title() {
            // tract makes up a name of a number and the operator.
            "" => error.find(&format!("-{}\"", node.operator)),
            title => error.find(&format!("\"{title}\"")),
        };
        let built = format!("Building node {} ({})", node.name, node.operator).replace("  ", " ");
        quoted.or_else(|| error.find(&built))
    };
    let places = graph.all_nodes().into_iter().filter_map(|node| Some((place(node)?, node)));
    places.min_by_key(|(place, _)| *place).map(|(_, node)| node)
}

/// How texts name a use of an operator.
pub(super) fn title(node: &Node) -> String {
    format!("operator {} (node '{}')", node.operator, node.title())
}

/// tract has the usual functions alone, and runs forwards unless there are weights for both directions.
fn of_recurrent(node: &Node, usual: &[&str]) -> Option<String> {
    let direction = find(node, "direction").map_or("forward".into(), |it| lower(&it.string));
    if direction == "reverse" {
        return Some("direction 'reverse'".into());
    }
    if direction == "bidirectional" && integer(node, "layout") == 1 {
        return Some("direction 'bidirectional' and layout 1".into());
    }
    let functions = find(node, "activations").map_or(&[][..], |it| it.strings.as_slice());
    let is_usual = functions.chunks(usual.len()).all(|of_one_direction| {
        of_one_direction.len() == usual.len()
            && of_one_direction.iter().zip(usual).all(|(one, other)| lower(one) == other.to_lowercase())
    });
    if !is_usual {
        let names: Vec<_> = functions.iter().map(|name| String::from_utf8_lossy(name)).collect();
        return Some(format!("activations {}", names.join(", ")));
    }
    if find(node, "clip").is_some() {
        return Some("attribute clip".into());
    }
    (integer(node, "input_forget") != 0).then(|| "input_forget 1".into())
}

/// Whether this input of the node is one of the model that has no default.
fn is_given_by_callers(graph: &Graph, node: &Node, input: usize) -> bool {
    let Some(name) = node.inputs.get(input) else { return false };
    graph.inputs.iter().any(|value| value.name == *name) && !graph.has_initializer(name)
}

fn find<'n>(node: &'n Node, name: &str) -> Option<&'n Attribute> {
    node.attributes.iter().find(|attribute| attribute.name == name)
}

/// 0 where the node does not say it, which is the default of those that are asked for here.
fn integer(node: &Node, name: &str) -> i64 {
    find(node, name).map_or(0, |attribute| attribute.integer)
}

fn lower(text: &[u8]) -> String {
    String::from_utf8_lossy(text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Value;

    fn check(line: &str, attributes: &[(&str, i64, &str)], expected: &str) {
        let mut inputs = line.split_whitespace().map(str::to_owned);
        let operator = inputs.next().unwrap();
        let (domain, operator) = operator.split_once(':').unwrap_or(("", &operator));
        let attribute = |&(name, integer, texts): &(&str, i64, &str)| Attribute {
            name: name.into(),
            integer,
            string: texts.into(),
            strings: texts.split_whitespace().map(Into::into).collect(),
            ..Attribute::default()
        };
        let node = Node {
            operator: operator.into(),
            domain: domain.into(),
            inputs: inputs.collect(),
            attributes: attributes.iter().map(attribute).collect(),
            ..Node::default()
        };
        let given = Value { name: "given".into(), ..Value::default() };
        let graph = Graph { inputs: vec![given], ..Graph::default() };
        let opsets = [Opset { domain: String::new(), version: 8 }];
        let found = passed_over(&node, &graph, &opsets).unwrap_or_default();
        assert_eq!(found, expected, "{line} {attributes:?}");
    }

    #[test]
    fn what_tract_would_pass_over_is_found() {
        check("LSTM x w r", &[("direction", 0, "forward")], "");
        check("LSTM x w r", &[("direction", 0, "bidirectional")], "");
        check("LSTM x w r", &[("direction", 0, "reverse")], "direction 'reverse'");
        check("LSTM x w r", &[("activations", 0, "sigmoid tanh Tanh Sigmoid Tanh Tanh")], "");
        check("LSTM x w r", &[("activations", 0, "Relu Tanh Tanh")], "activations Relu, Tanh, Tanh");
        check("GRU x w r", &[("activations", 0, "Sigmoid")], "activations Sigmoid");
        check("GRU x w r", &[("clip", 0, "")], "attribute clip");
        check("LSTM x w r", &[("input_forget", 1, "")], "input_forget 1");
        let both = ("direction", 0, "bidirectional");
        check("RNN x w r", &[both, ("layout", 1, "")], "direction 'bidirectional' and layout 1");
        check("Scan a b", &[], "version 8 of the operator set");
        check("Add a b", &[("axis", 1, "")], "attribute axis");
        check("Slice x starts ends", &[], "");
        check("Slice x starts given", &[], "starts or ends in requests");
        check("Dropout x ratio given", &[], "training_mode in requests");
        check("com.microsoft:Attention x", &[], "the meaning that com.microsoft gives it");
        check("Attention x", &[], "");
    }

    #[test]
    fn an_error_names_a_node() {
        let node = |name: &str, operator: &str, output: &str| Node {
            name: name.into(),
            operator: operator.into(),
            outputs: vec![output.into()],
            ..Node::default()
        };
        let nodes = vec![node("first", "Pad", "a"), node("", "ReduceSum", "b"), node("", "LSTM", "")];
        let graph = Graph { nodes, ..Graph::default() };
        let of = |error| node_at_fault(&graph, error).map(title);
        assert_eq!(of("Building node first (Pad): mode").unwrap(), "operator Pad (node 'first')");
        assert_eq!(of("Building node (ReduceSum): axes").unwrap(), "operator ReduceSum (node 'b')");
        assert_eq!(of("node #3 \"b\" Reduce13: as \"first\"").unwrap(), "operator ReduceSum (node 'b')");
        assert_eq!(of("node #8 \"8-LSTM\" LSTM: lengths").unwrap(), "operator LSTM (node '')");
        assert_eq!(of("it panicked"), None);
    }
}
