//! Turns scikit-learn's ZipMap outputs (a sequence of maps) into tensors: which there are, and the edit that gives their scores.

use crate::graph::{Dimension, DimensionValue, Graph, Node, TensorShape, TensorType, Type, TypeKind, Value};
use crate::rewriting::Edit;

const OPERATOR: &str = "ZipMap";
/// What takes its place.
const IDENTITY: &str = "Identity";

/// `TensorProto.DataType.FLOAT`: ZipMap takes scores of this type alone.
const FLOAT: i32 = 1;

/// Replaces each ZipMap whose map is an output of the model by an `Identity` that gives the scores
/// under the same name, as FP32 `[rows, classes]`. Corrects `graph` too, where the node keeps its labels.
pub(crate) fn replace(graph: &mut Graph, edit: &mut Edit) {
    for (index, node) in graph.nodes.iter_mut().enumerate() {
        let Some(map) = node.outputs.first().filter(|_| node.operator == OPERATOR) else { continue };
        let Some(output) = graph.outputs.iter().position(|output| output.name == *map) else { continue };
        let identity = Node {
            inputs: node.inputs.clone(),
            outputs: node.outputs.clone(),
            name: node.name.clone(),
            operator: IDENTITY.into(),
            ..Node::default()
        };
        let scores = scores(map, node.labels().len());
        edit.replace_node(index, &[identity]);
        edit.replace_output(output, std::slice::from_ref(&scores));
        graph.outputs[output] = scores;
        node.operator = IDENTITY.into();
        node.domain.clear();
    }
}

/// An output of FP32 `[rows, classes]`.
fn scores(name: &str, classes: usize) -> Value {
    let classes = match i64::try_from(classes) {
        Ok(classes) if classes > 0 => Some(DimensionValue::Size(classes)),
        _ => None,
    };
    let dims = vec![Dimension { value: None }, Dimension { value: classes }];
    let tensor = TensorType { element: FLOAT, shape: Some(TensorShape { dims }) };
    Value { name: name.to_owned(), kind: Some(Type { value: Some(TypeKind::Tensor(tensor)) }) }
}
