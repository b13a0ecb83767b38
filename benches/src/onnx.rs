//! Model files made when they are needed, written with as much of onnx.proto as they need.

use prost::Message;

/// A graph that is built operator by operator, in the order in which they run.
#[derive(Default)]
pub(crate) struct Network {
    graph: Graph,
}

/// A graph with FP32 `x` of rows in and FP32 `y` of rows out, each operator on what the one before it gave.
pub(crate) struct Chain {
    network: Network,
    /// The tensor that was computed last.
    value: String,
}

// === impl Network ===

impl Network {
    pub(crate) fn new(name: &str) -> Network {
        Network { graph: Graph { name: name.into(), ..Graph::default() } }
    }

    /// An input of FP32 rows.
    pub(crate) fn float_input(&mut self, name: &str, row: &[usize]) {
        self.graph.inputs.push(tensor_of_rows(name, FLOAT, row));
    }

    /// An input of INT64 rows.
    pub(crate) fn integer_input(&mut self, name: &str, row: &[usize]) {
        self.graph.inputs.push(tensor_of_rows(name, INT64, row));
    }

    /// A constant of FP32.
    pub(crate) fn floats(&mut self, name: &str, dims: &[usize], data: impl Iterator<Item = f32>) {
        self.constant(name, FLOAT, dims, data.flat_map(f32::to_le_bytes).collect());
    }

    /// A constant of INT64.
    pub(crate) fn integers(&mut self, name: &str, dims: &[usize], data: &[i64]) {
        self.constant(name, INT64, dims, data.iter().copied().flat_map(i64::to_le_bytes).collect());
    }

    fn constant(&mut self, name: &str, data_type: i32, dims: &[usize], data: Vec<u8>) {
        let dims = dims.iter().map(|&dim| dim as i64).collect();
        self.graph.initializers.push(Tensor { dims, data_type, name: name.into(), data });
    }

    /// What `operator` makes of `inputs`.
    pub(crate) fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[Attribute]) -> String {
        let output = format!("{}_{}", operator.to_lowercase(), self.graph.nodes.len());
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        let outputs = vec![output.clone()];
        let node = Node { inputs, outputs, operator: operator.into(), attributes: attributes.to_vec() };
        self.graph.nodes.push(node);
        output
    }

    /// The file, with what the last operator gave as `y`, rows of FP32.
    pub(crate) fn into_file(mut self, row: &[usize]) -> Vec<u8> {
        if let Some(last) = self.graph.nodes.last_mut() {
            last.outputs = vec!["y".into()];
        }
        self.graph.outputs.push(tensor_of_rows("y", FLOAT, row));
        // The first with LayerNormalization.
        let opset = Opset { version: 17 };
        OnnxModel { ir_version: 8, graph: Some(self.graph), opsets: vec![opset] }.encode_to_vec()
    }
}

// === impl Chain ===

impl Chain {
    pub(crate) fn new(name: &str, row: &[usize]) -> Chain {
        let mut network = Network::new(name);
        network.float_input("x", row);
        Chain { network, value: "x".into() }
    }

    /// A constant of FP32.
    pub(crate) fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        data: impl Iterator<Item = f32>,
    ) {
        self.network.floats(name, &[rows, columns], data);
    }

    /// The next value is the product of the last one and a matrix.
    pub(crate) fn multiply(&mut self, matrix: &str) {
        self.value = self.network.node("MatMul", &[&self.value, matrix], &[]);
    }

    /// The next value is the last one without what is negative.
    pub(crate) fn activate(&mut self) {
        self.value = self.network.node("Relu", &[&self.value], &[]);
    }

    /// The file, with the last value as `y`, rows of `row`.
    pub(crate) fn into_file(self, row: &[usize]) -> Vec<u8> {
        self.network.into_file(row)
    }
}

// === impl Attribute ===

impl Attribute {
    pub(crate) fn integer(name: &str, value: i64) -> Attribute {
        Attribute { name: name.into(), integer: value, kind: ATTRIBUTE_INT, ..Attribute::default() }
    }

    pub(crate) fn integers(name: &str, values: &[i64]) -> Attribute {
        Attribute { name: name.into(), integers: values.into(), kind: ATTRIBUTE_INTS, ..Attribute::default() }
    }
}

fn tensor_of_rows(name: &str, element_type: i32, row: &[usize]) -> Value {
    let batch = Dimension { size: None, symbol: Some("batch".into()) };
    let row = row.iter().map(|&size| Dimension { size: Some(size as i64), symbol: None });
    let shape = Some(Shape { dims: std::iter::once(batch).chain(row).collect() });
    let kind = Some(Type { tensor: Some(TensorType { data_type: element_type, shape }) });
    Value { name: name.into(), kind }
}

/// `TensorProto.DataType.FLOAT` ...
const FLOAT: i32 = 1;
/// ... and `.INT64`.
const INT64: i32 = 7;
/// `AttributeProto.AttributeType.INT` ...
const ATTRIBUTE_INT: i32 = 2;
/// ... and `.INTS`.
const ATTRIBUTE_INTS: i32 = 7;

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
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
}

/// `AttributeProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    integer: i64,
    #[prost(int64, repeated, tag = "8")]
    integers: Vec<i64>,
    #[prost(int32, tag = "20")]
    kind: i32,
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
