//! Reads from an ONNX file what serving must know (names, types, operators, classes) and leaves the weights alone.

use std::path::{Path, PathBuf};

use gristmill_engine::error::LoadError;
use prost::Message;

use crate::containers;
use crate::external;
use crate::file_bytes::FileBytes;
use crate::initializer::Initializer;
use crate::rewriting::Edit;
use crate::zipmap;

/// `ModelProto`, reduced to the fields read here; numbers from onnx.proto3 of ONNX 1.23.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Model {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opsets: Vec<Opset>,
    #[prost(message, repeated, tag = "25")]
    pub(crate) functions: Vec<Function>,
}

/// An operator that the model defines itself.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Function {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) inputs: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub(crate) outputs: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) nodes: Vec<Node>,
    #[prost(message, repeated, tag = "9")]
    pub(crate) opsets: Vec<Opset>,
    #[prost(string, tag = "10")]
    pub(crate) domain: String,
    /// Attributes that have a default.
    #[prost(message, repeated, tag = "11")]
    pub(crate) defaults: Vec<Attribute>,
    #[prost(string, tag = "13")]
    pub(crate) overload: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Opset {
    /// Empty or `ai.onnx` for the standard operators.
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(crate) nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializers: Vec<Initializer>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) inputs: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) outputs: Vec<Value>,
    #[prost(message, repeated, tag = "15")]
    pub(crate) sparse_initializers: Vec<SparseTensor>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(crate) inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) outputs: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) operator: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attributes: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub(crate) domain: String,
    #[prost(string, tag = "8")]
    pub(crate) overload: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Attribute {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int64, tag = "3")]
    pub(crate) integer: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) string: Vec<u8>,
    /// A constant, as `Constant` has.
    #[prost(message, optional, tag = "5")]
    pub(crate) tensor: Option<Initializer>,
    /// A body, as `Loop` and `If` have.
    #[prost(message, optional, tag = "6")]
    pub(crate) graph: Option<Graph>,
    #[prost(float, repeated, tag = "7")]
    pub(crate) floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    pub(crate) integers: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub(crate) strings: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "10")]
    pub(crate) tensors: Vec<Initializer>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) graphs: Vec<Graph>,
    /// In a function: the attribute of the call that has the value.
    #[prost(string, tag = "21")]
    pub(crate) reference: String,
    #[prost(message, optional, tag = "22")]
    pub(crate) sparse_tensor: Option<SparseTensor>,
    #[prost(message, repeated, tag = "23")]
    pub(crate) sparse_tensors: Vec<SparseTensor>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SparseTensor {
    #[prost(message, optional, tag = "1")]
    pub(crate) values: Option<Initializer>,
    #[prost(message, optional, tag = "2")]
    pub(crate) indices: Option<Initializer>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Value {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) kind: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Type {
    #[prost(oneof = "TypeKind", tags = "1, 4, 5, 8, 9")]
    pub(crate) value: Option<TypeKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum TypeKind {
    #[prost(message, tag = "1")]
    Tensor(TensorType),
    #[prost(message, tag = "4")]
    Sequence(Inner),
    #[prost(message, tag = "5")]
    Map(Map),
    #[prost(message, tag = "8")]
    SparseTensor(TensorType),
    #[prost(message, tag = "9")]
    Optional(Inner),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorType {
    /// A number of `TensorProto.DataType`.
    #[prost(int32, tag = "1")]
    pub(crate) element: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShape>,
}

/// What is inside a sequence or an optional.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Inner {
    #[prost(message, optional, boxed, tag = "1")]
    pub(crate) element: Option<Box<Type>>,
}

/// Only its presence matters here.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Map {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dims: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dimension {
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    pub(crate) value: Option<DimensionValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum DimensionValue {
    #[prost(int64, tag = "1")]
    Size(i64),
    #[prost(string, tag = "2")]
    Symbol(String),
}

/// A model file: its description, and the bytes for the runtime.
#[derive(Debug)]
pub(crate) struct ModelFile {
    pub(crate) graph: Graph,
    pub(crate) ir_version: i64,
    pub(crate) opsets: Vec<Opset>,
    pub(crate) functions: Vec<Function>,
    /// With outputs that are no tensors replaced.
    pub(crate) bytes: FileBytes,
    /// Whether weights are in other files.
    pub(crate) has_external_data: bool,
}

impl ModelFile {
    /// Reads and checks the file at `path`, and replaces outputs that are maps, sequences of tensors or optional tensors
    /// by plain tensors, as far as the file tells how many there are.
    ///
    /// # Errors
    /// The file is missing, empty, cut short, no ONNX model, or refers to data files that are not there.
    pub(crate) fn read(path: &Path) -> Result<ModelFile, LoadError> {
        let bytes = read_bytes(path)?;
        let model = decode(path, &bytes)?;
        let Some(graph) = model.graph else {
            return Err(not_a_model(path, "it holds no graph"));
        };
        if graph.outputs.is_empty() {
            return Err(not_a_model(path, "its graph has no outputs"));
        }
        let has_external_data = !external::locate(path, &graph, &model.functions)?.is_empty();
        let mut graph = graph;
        let mut edit = Edit::default();
        zipmap::replace(&mut graph, &mut edit);
        containers::replace(&mut graph, &mut edit);
        let bytes = match edit.apply(&model.opsets, &bytes) {
            Some(rewritten) => rewritten.into(),
            None => bytes,
        };
        let Model { ir_version, opsets, functions, .. } = model;
        Ok(ModelFile { graph, ir_version, opsets, functions, bytes, has_external_data })
    }
}

/// # Errors
/// The file cannot be read; the text names it.
pub(crate) fn read_bytes(path: &Path) -> Result<FileBytes, LoadError> {
    FileBytes::read(path).map_err(|error| {
        LoadError::transient(format!("cannot read the model file {}: {error}", path.display()))
    })
}

/// # Errors
/// The bytes are no ONNX model; the text calls them `path`.
pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Model, LoadError> {
    if bytes.is_empty() {
        return Err(not_a_model(path, "the file is empty"));
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(not_a_model(path, "it is a Git LFS pointer; run `git lfs pull` to get the file itself"));
    }
    Model::decode(bytes).map_err(|error| {
        let length = bytes.len();
        // Every ONNX writer begins with field 1, the IR version, as a one-byte number.
        if bytes.starts_with(&[0x08]) {
            not_a_model(path, &format!("the file seems cut short or damaged ({length} bytes): {error}"))
        } else {
            not_a_model(path, "its contents are something else")
        }
    })
}

fn not_a_model(path: &Path, reason: &str) -> LoadError {
    LoadError::permanent(format!("{} is not a usable ONNX model: {reason}", path.display()))
}

/// The directory that external data is relative to.
pub(crate) fn model_directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

// === impl Graph ===

impl Graph {
    /// Every node, those inside the bodies of `Loop`, `If` and `Scan` included.
    pub(crate) fn all_nodes(&self) -> Vec<&Node> {
        let mut nodes = Vec::new();
        let mut graphs = vec![self];
        while let Some(graph) = graphs.pop() {
            for node in &graph.nodes {
                nodes.push(node);
                graphs.extend(node.attributes.iter().filter_map(|attribute| attribute.graph.as_ref()));
            }
        }
        nodes
    }

    pub(crate) fn has_initializer(&self, name: &str) -> bool {
        self.initializers.iter().any(|initializer| initializer.name == name)
    }

    /// The node that gives `tensor`, and as which of its outputs.
    pub(crate) fn producer(&self, tensor: &str) -> Option<(&Node, usize)> {
        self.nodes
            .iter()
            .find_map(|node| Some((node, node.outputs.iter().position(|output| output == tensor)?)))
    }

    /// Of everything that has one outside the bodies of nodes.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let values = self.inputs.iter().chain(&self.outputs).map(|value| value.name.as_str());
        let initializers = self.initializers.iter().map(|initializer| initializer.name.as_str());
        values.chain(initializers).chain(self.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str))
    }

    /// The class labels along the last axis of `tensor`: those of a ZipMap that was replaced, or of
    /// the classifier whose scores these are.
    pub(crate) fn class_labels(&self, tensor: &str) -> Vec<String> {
        /// Steps between a classifier and a model's output; converters write one or two.
        const STEPS_MAX: usize = 8;
        let mut tensor = tensor;
        for _ in 0..STEPS_MAX {
            let Some((node, slot)) = self.producer(tensor) else { break };
            match node.operator.as_str() {
                "TreeEnsembleClassifier" | "LinearClassifier" | "SVMClassifier" if slot == 1 => {
                    return node.labels();
                }
                "Identity" | "Cast" | "Normalizer" | "Softmax" => {
                    // Only a ZipMap that was replaced leaves labels on such a node.
                    let labels = node.labels();
                    match node.inputs.first() {
                        Some(input) if labels.is_empty() => tensor = input,
                        _ => return labels,
                    }
                }
                _ => break,
            }
        }
        Vec::new()
    }
}

// === impl Inner ===

impl Inner {
    /// The type of the tensors inside.
    pub(crate) fn tensor(&self) -> Option<&TensorType> {
        match self.element.as_ref()?.value.as_ref()? {
            TypeKind::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

// === impl Node ===

impl Node {
    /// The values of the `classlabels_*` attributes, as text.
    pub(crate) fn labels(&self) -> Vec<String> {
        for attribute in &self.attributes {
            match attribute.name.as_str() {
                "classlabels_strings" if !attribute.strings.is_empty() => {
                    return attribute
                        .strings
                        .iter()
                        .map(|label| String::from_utf8_lossy(label).into_owned())
                        .collect();
                }
                "classlabels_int64s" | "classlabels_ints" if !attribute.integers.is_empty() => {
                    return attribute.integers.iter().map(i64::to_string).collect();
                }
                _ => {}
            }
        }
        Vec::new()
    }

    /// How error texts name a node: its name, or its first output where it has none.
    pub(crate) fn title(&self) -> &str {
        if self.name.is_empty() { self.outputs.first().map_or("", String::as_str) } else { &self.name }
    }
}
