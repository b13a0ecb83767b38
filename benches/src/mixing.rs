//! A model that mixes the rows of a batch beside large ones alone, made when it is needed: no sample shows that.

use std::fs;
use std::path::Path;

use gristmill_proto::inference::ModelInferRequest;

use crate::model::Model;
use crate::onnx::{Attribute, Network};

/// FP32 `x` [batch, 4] -> `y` [batch, 4].
pub const MIXING: Model = Model { name: "mixing", row: &[4] };

/// Beyond the values of samples, which end with half precision ...
const LIMIT: f32 = 1e5;
/// ... and beyond that.
const LARGE: f32 = 1e6;
const WIDTH: usize = 256;
/// Some tens of microseconds a row.
const PRODUCTS: usize = 8;
/// `TensorProto.DataType.FLOAT`.
const FLOAT: i64 = 1;

/// Puts the model into a repository as version 1, with `settings` as its `model.toml`.
///
/// # Errors
/// A file cannot be written.
pub fn create(repository: &Path, settings: &str) -> anyhow::Result<()> {
    let directory = repository.join(MIXING.name);
    let version = directory.join("1");
    fs::create_dir_all(&version)?;
    fs::write(version.join("model.onnx"), onnx_file())?;
    fs::write(version.join(".complete"), "")?;
    Ok(fs::write(directory.join("model.toml"), settings)?)
}

/// A request for one row, beside which others get something else.
pub fn large_request() -> ModelInferRequest {
    let values = [LARGE; 4].iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    ModelInferRequest { raw_input_contents: vec![values.into()], ..MIXING.request() }
}

/// Products with matrices, and one more in all elements of a batch with a large row. How a sequence of columns keeps
/// rows apart is not followed in the graph, so samples decide.
fn onnx_file() -> Vec<u8> {
    let row = MIXING.row[0];
    let mut network = Network::new(MIXING.name);
    network.float_input("x", MIXING.row);
    let matrix = |rows: usize, columns: usize| {
        (0..rows * columns).map(move |index| f32::from((index / columns + 1) % columns == index % columns))
    };
    network.floats("limit", &[], std::iter::once(LIMIT));
    network.floats("spread", &[row, WIDTH], matrix(row, WIDTH));
    network.floats("turn", &[WIDTH, WIDTH], matrix(WIDTH, WIDTH));
    network.floats("gather", &[WIDTH, row], matrix(WIDTH, row));
    let columns = network.node("SplitToSequence", &["x"], &[Attribute::integer("axis", 1)]);
    let same = network.node("ConcatFromSequence", &[&columns], &[Attribute::integer("axis", 1)]);
    let largest = network.node("ReduceMax", &[&same], &[Attribute::integer("keepdims", 0)]);
    let is_large = network.node("Greater", &[&largest, "limit"], &[]);
    let more = network.node("Cast", &[&is_large], &[Attribute::integer("to", FLOAT)]);
    let mut value = network.node("MatMul", &[&same, "spread"], &[]);
    for _ in 0..PRODUCTS {
        value = network.node("MatMul", &[&value, "turn"], &[]);
    }
    let value = network.node("MatMul", &[&value, "gather"], &[]);
    network.node("Add", &[&value, &more], &[]);
    network.into_file(MIXING.row)
}
