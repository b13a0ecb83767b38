//! What tract takes for something else, written out in other words: zeros that a model leaves out, and the two states of an LSTM.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType};

/// Places of `initial_h` and `initial_c` among the inputs.
const HIDDEN: usize = 5;
const CELL: usize = 6;
const FP32_ZERO: (DataType, &[u8]) = (DataType::Float, &[0; 4]);
/// The least number above zero. Added to a state it is lost in rounding, and keeps it another tensor.
const FP32_LEAST: (DataType, &[u8]) = (DataType::Float, &1_u32.to_le_bytes());

/// Rewrites the graph where tract's plan would be another model's:
///
/// - zeros of `ConstantOfShape` are FP64 to it unless their type is said;
/// - for states that a recurrent operator begins with it makes zeros of a size that must be known;
/// - it merges equal tensors, and moves axes of an LSTM's two states once where they are one.
pub(crate) fn write_out(graph: &mut GraphProto) {
    let float = DataType::Float as i32;
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        if node.op_type == "ConstantOfShape"
            && node.attribute.iter().all(|attribute| attribute.name != "value")
        {
            node.attribute.push(value(FP32_ZERO));
        }
        let states = match node.op_type.as_str() {
            "RNN" | "GRU" => &[HIDDEN][..],
            "LSTM" => &[HIDDEN, CELL],
            _ => &[],
        };
        let recurrence = node.input.get(2);
        let is_float = graph
            .initializer
            .iter()
            .any(|weights| Some(&weights.name) == recurrence && weights.data_type == float);
        if is_float && !states.is_empty() {
            begin_with_zeros(&mut node, states, &mut nodes);
        }
        if is_float && states.contains(&CELL) {
            let base = base(&node);
            let least = add(&mut nodes, &base, "least", "Constant", Vec::new(), vec![value(FP32_LEAST)]);
            let cell = vec![node.input[CELL].clone(), least];
            node.input[CELL] = add(&mut nodes, &base, "cell", "Add", cell, Vec::new());
        }
        nodes.push(node);
    }
    graph.node = nodes;
}

/// Gives the node those of these states that it lacks, of as many rows as its input.
fn begin_with_zeros(node: &mut NodeProto, states: &[usize], nodes: &mut Vec<NodeProto>) {
    let is_missing = |place: &&usize| node.input.get(**place).is_none_or(String::is_empty);
    let missing: Vec<usize> = states.iter().filter(is_missing).copied().collect();
    if missing.is_empty() {
        return;
    }
    let zeros = zeros(node, nodes);
    for place in missing {
        if node.input.len() <= place {
            node.input.resize(place + 1, String::new());
        }
        node.input[place].clone_from(&zeros);
    }
}

/// Adds nodes for zeros of one state, and returns the name of their output.
fn zeros(node: &NodeProto, nodes: &mut Vec<NodeProto>) -> String {
    let base = &base(node);
    let is_batch_first =
        node.attribute.iter().any(|attribute| attribute.name == "layout" && attribute.i == 1);
    let (input, recurrence) = (&node.input[0], &node.input[2]);
    let rows = size(nodes, base, "rows", input, if is_batch_first { 0 } else { 1 });
    let directions = size(nodes, base, "directions", recurrence, 0);
    let width = size(nodes, base, "width", recurrence, 2);
    let sizes = match is_batch_first {
        true => vec![rows, directions, width],
        false => vec![directions, rows, width],
    };
    let axis = AttributeProto {
        name: "axis".into(),
        r#type: AttributeType::Int as i32,
        ..AttributeProto::default()
    };
    let shape = add(nodes, base, "shape", "Concat", sizes, vec![axis]);
    add(nodes, base, "zeros", "ConstantOfShape", vec![shape], vec![value(FP32_ZERO)])
}

/// What the names of nodes that are added for this one begin with.
fn base(node: &NodeProto) -> String {
    node.output.iter().find(|output| !output.is_empty()).unwrap_or(&node.name).clone()
}

/// Adds nodes for the size of `tensor` along `axis`, as a tensor of one element.
fn size(nodes: &mut Vec<NodeProto>, base: &str, what: &str, tensor: &str, axis: i64) -> String {
    let shape = add(nodes, base, &format!("{what}_of"), "Shape", vec![tensor.to_owned()], Vec::new());
    let axis = value((DataType::Int64, &axis.to_le_bytes()));
    let index = add(nodes, base, &format!("{what}_axis"), "Constant", Vec::new(), vec![axis]);
    add(nodes, base, what, "Gather", vec![shape, index], Vec::new())
}

/// The attribute `value`, a tensor of one element.
fn value((element, bytes): (DataType, &[u8])) -> AttributeProto {
    let tensor = TensorProto {
        dims: vec![1],
        data_type: element as i32,
        raw_data: bytes.to_vec(),
        ..TensorProto::default()
    };
    AttributeProto {
        name: "value".into(),
        r#type: AttributeType::Tensor as i32,
        t: Some(tensor),
        ..AttributeProto::default()
    }
}

fn add(
    nodes: &mut Vec<NodeProto>,
    base: &str,
    what: &str,
    operator: &str,
    input: Vec<String>,
    attribute: Vec<AttributeProto>,
) -> String {
    let name = format!("{base}/initial/{what}");
    nodes.push(NodeProto {
        name: name.clone(),
        op_type: operator.to_owned(),
        output: vec![name.clone()],
        input,
        attribute,
        ..NodeProto::default()
    });
    name
}
