//! Turns scikit-learn's ZipMap outputs (a sequence of maps) into tensors by editing the model's bytes before a runtime sees them.

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

use crate::graph::{
    Dimension, DimensionValue, Graph, Node, Opset, TensorShape, TensorType, Type, TypeKind, Value,
};

const OPERATOR: &str = "ZipMap";
/// What takes its place.
const IDENTITY: &str = "Identity";

/// `TensorProto.DataType.FLOAT`: ZipMap takes scores of this type alone.
const FLOAT: i32 = 1;
/// Field numbers of onnx.proto3: the graph within the model, nodes and outputs within the graph.
const MODEL_GRAPH: u32 = 7;
const MODEL_OPSET: u32 = 8;
const GRAPH_NODE: u32 = 1;
const GRAPH_OUTPUT: u32 = 12;
/// The first version of the standard operators that has `Identity` for every type used here, and one
/// that every runtime of today knows.
const OPSET_FOR_IDENTITY: i64 = 13;

/// Replaces each ZipMap whose map is an output of the model by an `Identity` that gives the scores
/// under the same name, as FP32 `[rows, classes]`. Corrects `graph` (where the node keeps its
/// labels), and returns the model's new bytes, or `None` where there is nothing to replace.
///
/// `bytes` must have decoded to `graph` and `opsets`: they are walked without further checks.
pub(crate) fn replace(graph: &mut Graph, opsets: &[Opset], bytes: &[u8]) -> Option<Vec<u8>> {
    let mut nodes = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let Some(map) = node.outputs.first().filter(|_| node.operator == OPERATOR) else { continue };
        let Some(output) = graph.outputs.iter().position(|output| output.name == *map) else { continue };
        nodes.push((index, output));
    }
    if nodes.is_empty() {
        return None;
    }

    let mut new_nodes = Vec::new();
    let mut new_outputs = Vec::new();
    for (index, output) in nodes {
        let node = &graph.nodes[index];
        let identity = Node {
            inputs: node.inputs.clone(),
            outputs: node.outputs.clone(),
            name: node.name.clone(),
            operator: IDENTITY.into(),
            ..Node::default()
        };
        let scores = scores(&graph.outputs[output].name, node.labels().len());
        new_nodes.push((index, identity.encode_to_vec()));
        new_outputs.push((output, scores.encode_to_vec()));
        graph.outputs[output] = scores;
        graph.nodes[index].operator = IDENTITY.into();
        graph.nodes[index].domain.clear();
    }

    let has_standard_opset = opsets.iter().any(|opset| matches!(opset.domain.as_str(), "" | "ai.onnx"));
    let mut model = Vec::with_capacity(bytes.len() + 256);
    copy_fields(bytes, &mut model, |field, _, content, model| {
        if field != MODEL_GRAPH {
            return false;
        }
        let mut edited = Vec::with_capacity(content.len() + 256);
        copy_fields(content, &mut edited, |field, occurrence, _, edited| {
            let replacements = match field {
                GRAPH_NODE => &new_nodes,
                GRAPH_OUTPUT => &new_outputs,
                _ => return false,
            };
            let replacement = replacements.iter().find(|(index, _)| *index == occurrence);
            if let Some((_, replacement)) = replacement {
                put_message(field, replacement, edited);
            }
            replacement.is_some()
        });
        put_message(field, &edited, model);
        true
    });
    if !has_standard_opset {
        let opset = Opset { domain: String::new(), version: OPSET_FOR_IDENTITY };
        put_message(MODEL_OPSET, &opset.encode_to_vec(), &mut model);
    }
    Some(model)
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

fn put_message(field: u32, content: &[u8], to: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, to);
    encode_varint(content.len() as u64, to);
    to.extend_from_slice(content);
}

/// Copies the fields of a message, except those that `edit` has written in its own way. `edit` is told
/// the field's number, how many of that number came before, and the content of embedded messages.
fn copy_fields(from: &[u8], to: &mut Vec<u8>, mut edit: impl FnMut(u32, usize, &[u8], &mut Vec<u8>) -> bool) {
    let expected = "bytes that decoded before decode again; this is a bug";
    let mut seen = std::collections::HashMap::<u32, usize>::new();
    let mut rest = from;
    while !rest.is_empty() {
        let start = rest;
        let (field, wire) = decode_key(&mut rest).expect(expected);
        let occurrence = seen.entry(field).or_default();
        let mut content: &[u8] = &[];
        if wire == WireType::LengthDelimited {
            let length = decode_varint(&mut rest).expect(expected) as usize;
            (content, rest) = rest.split_at(length);
        } else {
            skip_field(wire, field, &mut rest, Default::default()).expect(expected);
        }
        if !edit(field, *occurrence, content, to) {
            to.extend_from_slice(&start[..start.len() - rest.len()]);
        }
        *occurrence += 1;
    }
}
