//! What MLflow's clients read: `predictions`, as records or as whole outputs by name.

use gristmill_engine::error::InferError;
use gristmill_engine::request::Response;
use gristmill_engine::tensor::{Dim, Signature, TensorSpec};

use crate::codec::json::nested::{NestedWriter, Texts};
use crate::codec::json::outputs::Outputs;
use crate::codec::json::write::write_string;

/// `{"predictions": …}`: for a model of columns a list with an object for each row, else an object with each whole
/// output, as MLflow answers for ONNX models.
///
/// # Errors
/// `InvalidInput` for strings that are not UTF-8.
pub fn encode_scoring(response: &Response) -> Result<Vec<u8>, InferError> {
    let signature = &response.model.signature;
    let mut outputs: Vec<(&str, NestedWriter<'_>, &[usize])> = response
        .outputs
        .iter()
        .map(|(index, tensor)| {
            let name = signature.outputs[*index].name.as_str();
            let writer = NestedWriter::new(name, tensor, Texts::Strings).within(response.answer_limit);
            (name, writer, tensor.shape())
        })
        .collect();
    let mut json = Vec::with_capacity(Outputs::estimate(response));
    json.extend_from_slice(b"{\"predictions\":");
    let rows = response.rows;
    if is_of_columns(signature) && outputs.iter().all(|(_, _, shape)| shape.first() == Some(&rows)) {
        for (_, _, shape) in &mut outputs {
            *shape = &shape[1..];
            // One value a row stands without the list around it, as in a column of a frame.
            if shape.iter().all(|&size| size == 1) {
                *shape = &[];
            }
        }
        json.push(b'[');
        for row in 0..rows {
            if row > 0 {
                json.push(b',');
            }
            write_object(&mut outputs, &mut json)?;
        }
        json.push(b']');
    } else {
        write_object(&mut outputs, &mut json)?;
    }
    json.push(b'}');
    Ok(json)
}

/// Several inputs that take one value a row, as models that were trained on a frame have.
fn is_of_columns(signature: &Signature) -> bool {
    let is_plain = |spec: &TensorSpec| {
        let row = spec.shape.as_deref().and_then(|dims| dims.get(1..));
        row.is_some_and(|row| row.iter().all(|dim| *dim == Dim::Fixed(1)))
    };
    signature.is_batched() && signature.inputs.len() > 1 && signature.inputs.iter().all(is_plain)
}

fn write_object(
    outputs: &mut [(&str, NestedWriter<'_>, &[usize])],
    json: &mut Vec<u8>,
) -> Result<(), InferError> {
    json.push(b'{');
    for (index, (name, writer, shape)) in outputs.iter_mut().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_string(name, json);
        json.push(b':');
        writer.write(shape, json)?;
    }
    json.push(b'}');
    Ok(())
}
