//! The inference response of the Open Inference Protocol: JSON, with binary tensors behind it.

use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::request::Response;
use gristmill_engine::tensor::DType;
use smallvec::SmallVec;

use super::infer::InferBody;
use super::write::{write_data, write_integer, write_shape, write_string};
use crate::routing_key::routed_members;

/// Binary outputs of up to this many bytes together are copied behind the JSON, so that a small answer
/// is one buffer; larger ones are sent from where they are.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// The body of a response.
#[derive(Debug)]
pub struct Encoded {
    /// To be sent one after another.
    pub parts: SmallVec<[Bytes; 1]>,
    /// Bytes of JSON at the start, where binary tensors follow.
    pub header_length: Option<usize>,
}

/// Encodes the answer to `request`.
///
/// # Errors
/// `InvalidInput` for an output that JSON cannot carry and that was not asked for as binary, `TooLarge` for text that is
/// longer than the response may be.
pub fn encode_infer(request: &InferBody, response: &Response) -> Result<Encoded, InferError> {
    let model = &response.model;
    let mut json = Vec::with_capacity(256 + json_bytes_estimate(request, response));
    json.push(b'{');
    if let Some(id) = &request.id {
        json.extend_from_slice(b"\"id\":");
        write_string(id, &mut json);
        json.push(b',');
    }
    json.extend_from_slice(b"\"model_name\":");
    write_string(&model.name, &mut json);
    json.extend_from_slice(b",\"model_version\":\"");
    write_integer(model.version, &mut json);
    json.push(b'"');
    if let Some(routed) = &response.routed {
        json.extend_from_slice(b",\"parameters\":{");
        for (position, (name, value)) in routed_members(routed).into_iter().enumerate() {
            if position > 0 {
                json.push(b',');
            }
            write_string(name, &mut json);
            json.push(b':');
            write_string(&value, &mut json);
        }
        json.push(b'}');
    }
    json.extend_from_slice(b",\"outputs\":[");

    let mut binary: SmallVec<[Bytes; 2]> = SmallVec::new();
    for (position, (index, tensor)) in response.outputs.iter().enumerate() {
        let name = &model.signature.outputs[*index].name;
        if position > 0 {
            json.push(b',');
        }
        json.extend_from_slice(b"{\"name\":");
        write_string(name, &mut json);
        json.extend_from_slice(b",\"datatype\":\"");
        json.extend_from_slice(tensor.dtype().name().as_bytes());
        json.extend_from_slice(b"\",\"shape\":");
        write_shape(tensor.shape(), &mut json);
        if request.is_placed(position) {
            // No parameters, as in Triton's answers: its client in C++ takes any for those of binary data.
        } else if request.is_binary(position) {
            json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            write_integer(tensor.data().len(), &mut json);
            json.push(b'}');
            binary.push(tensor.data().clone());
        } else {
            json.extend_from_slice(b",\"data\":");
            write_data(name, tensor, response.answer_limit, &mut json)?;
        }
        json.push(b'}');
    }
    json.extend_from_slice(b"]}");

    let header_length = (!binary.is_empty()).then_some(json.len());
    let mut parts = SmallVec::new();
    if binary.iter().map(Bytes::len).sum::<usize>() <= COPIED_BYTES_MAX {
        binary.iter().for_each(|data| json.extend_from_slice(data));
        parts.push(json.into());
    } else {
        parts.push(json.into());
        parts.extend(binary.into_iter().filter(|data| !data.is_empty()));
    }
    Ok(Encoded { parts, header_length })
}

// === impl InferBody ===

impl InferBody {
    /// Whether the output at `position` of the response is written to shared memory instead of being sent.
    fn is_placed(&self, position: usize) -> bool {
        self.placed.iter().any(|placed| placed.output == position)
    }

    /// Whether the output at `position` of the response is sent as binary data.
    fn is_binary(&self, position: usize) -> bool {
        self.outputs.get(position).and_then(|output| output.binary_data).unwrap_or(self.binary_data_output)
    }
}

fn json_bytes_estimate(request: &InferBody, response: &Response) -> usize {
    let tensors = response.outputs.iter().enumerate();
    let bytes: usize = tensors
        .map(|(position, (_, tensor))| match tensor.dtype() {
            _ if request.is_binary(position) || request.is_placed(position) => 128,
            DType::Bytes => 128 + tensor.data().len() * 2,
            _ => 128 + tensor.element_count() * 12,
        })
        .sum();
    bytes.min(response.answer_limit.map_or(usize::MAX, |limit| limit.bytes_max))
}
