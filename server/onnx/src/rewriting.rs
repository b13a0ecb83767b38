//! Edits the graph in a model's bytes without decoding what stays: nodes and outputs are replaced, and others added.

use std::collections::HashMap;

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

use crate::graph::{Node, Opset, Value};
use crate::initializer::Initializer;

/// Field numbers of onnx.proto3: within the model, and within the graph.
const MODEL_GRAPH: u32 = 7;
const MODEL_OPSET: u32 = 8;
const GRAPH_NODE: u32 = 1;
const GRAPH_INITIALIZER: u32 = 5;
const GRAPH_OUTPUT: u32 = 12;
/// The first version of the standard operators that has `Identity` for every type used here, and one
/// that every runtime of today knows.
const OPSET_FOR_IDENTITY: i64 = 13;

/// What is to be different in a graph. Nodes are given without attributes: those that are kept would lack their types.
#[derive(Default)]
pub(crate) struct Edit {
    /// What takes the place of a node or an output, by field and place.
    replaced: HashMap<(u32, usize), Vec<Vec<u8>>>,
    added: Vec<(u32, Vec<u8>)>,
}

// === impl Edit ===

impl Edit {
    /// Puts `nodes`, of which there may be none, in the place of the node at `index`.
    pub(crate) fn replace_node(&mut self, index: usize, nodes: &[Node]) {
        self.replaced.insert((GRAPH_NODE, index), nodes.iter().map(Message::encode_to_vec).collect());
    }

    /// Puts `values` in the place of the output at `index`.
    pub(crate) fn replace_output(&mut self, index: usize, values: &[Value]) {
        self.replaced.insert((GRAPH_OUTPUT, index), values.iter().map(Message::encode_to_vec).collect());
    }

    /// Adds a node behind all others.
    pub(crate) fn add_node(&mut self, node: &Node) {
        self.added.push((GRAPH_NODE, node.encode_to_vec()));
    }

    pub(crate) fn add_initializer(&mut self, initializer: &Initializer) {
        self.added.push((GRAPH_INITIALIZER, initializer.encode_to_vec()));
    }

    /// The new bytes of the model, or `None` where nothing is to be different.
    ///
    /// `bytes` must have decoded to a model with these `opsets`: they are walked without further checks.
    pub(crate) fn apply(&self, opsets: &[Opset], bytes: &[u8]) -> Option<Vec<u8>> {
        if self.replaced.is_empty() && self.added.is_empty() {
            return None;
        }
        let has_standard_opset = opsets.iter().any(|opset| matches!(opset.domain.as_str(), "" | "ai.onnx"));
        let mut model = Vec::with_capacity(bytes.len() + 256);
        copy_fields(bytes, &mut model, |field, _, content, model| {
            if field != MODEL_GRAPH {
                return false;
            }
            let mut edited = Vec::with_capacity(content.len() + 256);
            copy_fields(content, &mut edited, |field, occurrence, _, edited| {
                let Some(replacements) = self.replaced.get(&(field, occurrence)) else { return false };
                for replacement in replacements {
                    put_message(field, replacement, edited);
                }
                true
            });
            for (field, added) in &self.added {
                put_message(*field, added, &mut edited);
            }
            put_message(field, &edited, model);
            true
        });
        if !has_standard_opset {
            let opset = Opset { domain: String::new(), version: OPSET_FOR_IDENTITY };
            put_message(MODEL_OPSET, &opset.encode_to_vec(), &mut model);
        }
        Some(model)
    }
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
    let mut seen = HashMap::<u32, usize>::new();
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
