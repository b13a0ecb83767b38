//! Makes tiny ONNX files whose answers tell which file answered.

use prost::Message;

/// Columns of every model's input.
pub(crate) const COLUMNS: usize = 3;

const FLOAT: i32 = 1;
const INTEGER_ATTRIBUTE: i32 = 2;
const INTEGERS_ATTRIBUTE: i32 = 7;
const EXTERNAL: i32 = 1;

// The fields of onnx.proto that these models need, by their numbers there.

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<Opset>,
}

#[derive(Clone, PartialEq, Message)]
struct Opset {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Weights>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Weights {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<Entry>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Dims>,
}

#[derive(Clone, PartialEq, Message)]
struct Dims {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, optional, tag = "1")]
    size: Option<i64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
}

/// `x` FP32 [batch, 3] in, `y = x + added` out.
pub(crate) fn adds(added: f32) -> Vec<u8> {
    wide(COLUMNS, added)
}

/// The same with another number of columns.
pub(crate) fn wide(columns: usize, added: f32) -> Vec<u8> {
    let weights = floats("added", &[1], &[added]);
    model(columns, vec![node("Add", &["x", "added"], "y")], vec![weights])
}

/// The same with its only weight in the file `added.bin` beside it.
pub(crate) fn with_external_data() -> Vec<u8> {
    let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into() };
    let weights = Weights {
        external_data: vec![entry("location", "added.bin"), entry("length", "4")],
        data_location: EXTERNAL,
        ..floats("added", &[1], &[])
    };
    model(COLUMNS, vec![node("Add", &["x", "added"], "y")], vec![weights])
}

/// `y = x - mean of x over the batch`: a row's answer depends on who else is in its batch.
pub(crate) fn mixes_rows() -> Vec<u8> {
    let mut mean = node("ReduceMean", &["x"], "mean");
    let attribute = |name: &str, kind| Attribute { name: name.into(), kind, ..Attribute::default() };
    mean.attribute = vec![
        Attribute { ints: vec![0], ..attribute("axes", INTEGERS_ATTRIBUTE) },
        Attribute { i: 1, ..attribute("keepdims", INTEGER_ATTRIBUTE) },
    ];
    model(COLUMNS, vec![mean, node("Sub", &["x", "mean"], "y")], Vec::new())
}

/// Has two weights of 32 MiB each.
pub(crate) fn large() -> Vec<u8> {
    let hidden = (32 << 20) / 4 / COLUMNS;
    let values = vec![0.001; hidden * COLUMNS];
    let nodes = vec![node("MatMul", &["x", "first"], "h"), node("MatMul", &["h", "second"], "y")];
    let weights =
        vec![floats("first", &[COLUMNS, hidden], &values), floats("second", &[hidden, COLUMNS], &values)];
    model(COLUMNS, nodes, weights)
}

fn model(columns: usize, node: Vec<Node>, initializer: Vec<Weights>) -> Vec<u8> {
    let value = |name: &str| {
        let batch = Dim { size: None, name: Some("batch".into()) };
        let columns = Dim { size: Some(columns as i64), name: None };
        let shape = Some(Dims { dim: vec![batch, columns] });
        let tensor = Some(TensorType { element: FLOAT, shape });
        Value { name: name.into(), r#type: Some(Type { tensor }) }
    };
    let graph =
        Graph { node, name: "made".into(), initializer, input: vec![value("x")], output: vec![value("y")] };
    let opset_import = vec![Opset { domain: String::new(), version: 17 }];
    Model { ir_version: 8, graph: Some(graph), opset_import }.encode_to_vec()
}

fn node(op_type: &str, input: &[&str], output: &str) -> Node {
    Node {
        input: input.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        op_type: op_type.into(),
        attribute: Vec::new(),
    }
}

fn floats(name: &str, dims: &[usize], values: &[f32]) -> Weights {
    Weights {
        dims: dims.iter().map(|&size| size as i64).collect(),
        data_type: FLOAT,
        name: name.into(),
        raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        ..Weights::default()
    }
}
