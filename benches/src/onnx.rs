//! Model files made when they are needed: chains of matrix products, written with as much of onnx.proto as they need.

use prost::Message;

/// A graph with FP32 `x` of rows in and FP32 `y` of rows out.
pub(crate) struct Chain {
    graph: Graph,
    /// The tensor that was computed last.
    value: String,
}

// === impl Chain ===

impl Chain {
    pub(crate) fn new(name: &str, columns: usize) -> Chain {
        let inputs = vec![tensor_of_rows("x", columns)];
        let graph = Graph { name: name.into(), inputs, ..Graph::default() };
        Chain { graph, value: "x".into() }
    }

    /// A constant of FP32.
    pub(crate) fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        data: impl Iterator<Item = f32>,
    ) {
        let dims = vec![rows as i64, columns as i64];
        let data = data.flat_map(f32::to_le_bytes).collect();
        self.graph.initializers.push(Tensor { dims, data_type: FLOAT, name: name.into(), data });
    }

    /// The next value is the product of the last one and a matrix.
    pub(crate) fn multiply(&mut self, matrix: &str) {
        let product = format!("product_{}", self.graph.nodes.len());
        let inputs = vec![std::mem::replace(&mut self.value, product.clone()), matrix.to_owned()];
        self.graph.nodes.push(Node { inputs, outputs: vec![product], operator: "MatMul".into() });
    }

    /// The next value is the last one without what is negative.
    pub(crate) fn activate(&mut self) {
        let activated = format!("activated_{}", self.graph.nodes.len());
        let inputs = vec![std::mem::replace(&mut self.value, activated.clone())];
        self.graph.nodes.push(Node { inputs, outputs: vec![activated], operator: "Relu".into() });
    }

    /// The file, with the last value as `y`.
    pub(crate) fn into_file(mut self, columns: usize) -> Vec<u8> {
        if let Some(last) = self.graph.nodes.last_mut() {
            last.outputs = vec!["y".into()];
        }
        self.graph.outputs.push(tensor_of_rows("y", columns));
        let opset = Opset { version: 13 };
        OnnxModel { ir_version: 8, graph: Some(self.graph), opsets: vec![opset] }.encode_to_vec()
    }
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
