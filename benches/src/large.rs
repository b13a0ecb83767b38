//! A model of 100 MB, made when it is needed, and a repository in which one version of it replaces another.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use prost::Message;

use crate::model::Model;

/// Seven layers with weights of 100 MB together, all of them in the file. Rows are as those of the small models.
pub const LARGE: Model = Model { name: "large", row: &[30] };

/// Five matrices of this many rows and columns have 100.4 MB.
const WIDTH: usize = 2240;
const SQUARE_LAYERS: usize = 5;
const OUTPUTS: usize = 2;
/// Numbers of versions have three digits for long, so that all answers are of one length.
const FIRST_VERSION: u64 = 101;

/// Two directories with the model, of which one is in the repository as its newest version.
///
/// Files come and go by rename, whole and with their old times, as an atomic deployment does it: nothing is
/// copied while something is measured.
pub struct Versions {
    /// Of the model.
    directory: PathBuf,
    /// Where the version that is not in the repository waits.
    spare: PathBuf,
    newest: u64,
}

// === impl Versions ===

impl Versions {
    /// Makes the model `name` with one version in `repository`, and `settings` as its `model.toml`; `scratch` is a
    /// directory in the same file system.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn create(repository: &Path, scratch: &Path, settings: &str) -> anyhow::Result<Versions> {
        let directory = repository.join(LARGE.name);
        let spare = scratch.join("spare");
        let first = directory.join(FIRST_VERSION.to_string());
        let file = onnx_file();
        for version in [&spare, &first] {
            fs::create_dir_all(version)?;
            let path = version.join("model.onnx");
            fs::write(&path, &file).with_context(|| format!("cannot write {}", path.display()))?;
            fs::write(version.join(".complete"), "")?;
        }
        fs::write(directory.join("model.toml"), settings)?;
        Ok(Versions { directory, spare, newest: FIRST_VERSION })
    }

    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Moves one more version into the repository. The one before it must be taken out before the next.
    ///
    /// # Errors
    /// The file system's.
    pub fn add(&mut self) -> anyhow::Result<()> {
        let version = self.directory.join((self.newest + 1).to_string());
        fs::rename(&self.spare, &version)
            .with_context(|| format!("cannot rename to {}", version.display()))?;
        self.newest += 1;
        Ok(())
    }

    /// Moves the version before the newest out of the repository.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove_older(&mut self) -> anyhow::Result<()> {
        let version = self.directory.join((self.newest - 1).to_string());
        fs::rename(&version, &self.spare).with_context(|| format!("cannot rename {}", version.display()))
    }
}

/// `x` FP32 [batch, 30] -> `y` FP32 [batch, 2], through matrix products with ReLU between them.
fn onnx_file() -> Vec<u8> {
    let mut sizes = vec![LARGE.row[0]];
    sizes.extend([WIDTH; SQUARE_LAYERS + 1]);
    sizes.push(OUTPUTS);
    let mut graph = Graph { name: LARGE.name.into(), ..Graph::default() };
    let layers = sizes.len() - 1;
    let mut value = "x".to_owned();
    for (layer, size) in sizes.windows(2).enumerate() {
        let weights = format!("weights_{layer}");
        graph.initializers.push(matrix(&weights, layer, size[0], size[1]));
        let is_last = layer + 1 == layers;
        let product = if is_last { "y".into() } else { format!("product_{layer}") };
        graph.nodes.push(node("MatMul", vec![value, weights], &product));
        value = product;
        if !is_last {
            let activated = format!("activated_{layer}");
            graph.nodes.push(node("Relu", vec![value], &activated));
            value = activated;
        }
    }
    graph.inputs.push(tensor_of_rows("x", LARGE.row[0]));
    graph.outputs.push(tensor_of_rows("y", OUTPUTS));
    let opset = Opset { version: 13 };
    OnnxModel { ir_version: 8, graph: Some(graph), opsets: vec![opset] }.encode_to_vec()
}

/// Made-up weights of a size that keeps the variance of what a layer is given. No two layers may be equal: a
/// runtime would keep one of them.
fn matrix(name: &str, layer: usize, rows: usize, columns: usize) -> Tensor {
    let scale = (6.0 / rows as f32).sqrt();
    let mut random = layer as u32;
    let mut weight = || {
        // The generator of Numerical Recipes: quick, and good enough for weights.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random as f32 / u32::MAX as f32 * 2.0 - 1.0) * scale
    };
    let data = (0..rows * columns).flat_map(|_| weight().to_le_bytes()).collect();
    Tensor { dims: vec![rows as i64, columns as i64], data_type: FLOAT, name: name.into(), data }
}

fn node(operator: &str, inputs: Vec<String>, output: &str) -> Node {
    Node { inputs, outputs: vec![output.into()], operator: operator.into() }
}

fn tensor_of_rows(name: &str, columns: usize) -> Value {
    let batch = Dimension { size: None, symbol: Some("batch".into()) };
    let columns = Dimension { size: Some(columns as i64), symbol: None };
    let shape = Some(Shape { dims: vec![batch, columns] });
    let kind = Some(Type { tensor: Some(TensorType { data_type: FLOAT, shape }) });
    Value { name: name.into(), kind }
}

/// `TensorProto.DataType.FLOAT`.
const FLOAT: i32 = 1;

/// `ModelProto`; this and the messages below have the fields that are needed here, with the numbers of onnx.proto.
#[derive(Clone, PartialEq, Message)]
struct OnnxModel {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opsets: Vec<Opset>,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
struct Opset {
    #[prost(int64, tag = "2")]
    version: i64,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializers: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    inputs: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    outputs: Vec<Value>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "4")]
    operator: String,
}

/// `TensorProto`.
#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    data: Vec<u8>,
}

/// `ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Type>,
}

/// `TypeProto`.
#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    data_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dims: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`.
#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    size: Option<i64>,
    #[prost(string, optional, tag = "2")]
    symbol: Option<String>,
}
