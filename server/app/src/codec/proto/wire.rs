//! Answers as the bytes of their messages. Those with raw outputs are written without a message in between, whose
//! strings, shapes and lists would each be allocated, filled, read once and freed.

use bytes::{BufMut, Bytes};
use gristmill_engine::request::Response;
use gristmill_engine::tensor::Tensor;
use gristmill_proto::inference::ModelInferResponse;
use prost::{Message, encode_length_delimiter, length_delimiter_len};
use smallvec::SmallVec;

use super::{Form, encode_without};
use crate::shared_memory::PlacedOutput;

/// A `ModelInferResponse` in protobuf's encoding, after a prefix.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// Without the prefix.
    pub(crate) length: usize,
    /// One, unless there are large outputs: those stay where they are.
    pub(crate) segments: SmallVec<[Bytes; 1]>,
}

/// What stands before a message, made from the message's length.
pub(crate) type Prefix<const N: usize> = fn(usize) -> [u8; N];

/// Smaller outputs are copied: a segment of its own costs more.
const SEGMENT_BYTES_MIN: usize = 16 << 10;

/// The wire type of strings, bytes and messages.
const LENGTH_DELIMITED: u8 = 2;

// Numbers of fields of `ModelInferResponse` ...
const MODEL_NAME: u8 = 1;
const MODEL_VERSION: u8 = 2;
const ID: u8 = 3;
const OUTPUTS: u8 = 5;
const RAW_OUTPUT_CONTENTS: u8 = 6;
// ... and of its `InferOutputTensor`. All keys have one byte.
const NAME: u8 = 1;
const DATATYPE: u8 = 2;
const SHAPE: u8 = 3;

/// The same bytes as those of the message that [`encode_without`] makes.
pub(crate) fn encode<const N: usize>(
    response: Response,
    id: String,
    form: Form,
    placed: &[PlacedOutput],
    prefix: Prefix<N>,
) -> Encoded {
    match form {
        Form::Raw if placed.is_empty() && response.routed.is_none() => encode_raw(response, &id, prefix),
        _ => of_message(&encode_without(response, id, form, placed), prefix),
    }
}

fn of_message<const N: usize>(message: &ModelInferResponse, prefix: Prefix<N>) -> Encoded {
    let length = message.encoded_len();
    let mut buffer = Vec::with_capacity(N + length);
    buffer.extend_from_slice(&prefix(length));
    message.encode(&mut buffer).expect("a vector grows; this is a bug");
    Encoded { length, segments: SmallVec::from_buf([buffer.into()]) }
}

fn encode_raw<const N: usize>(response: Response, id: &str, prefix: Prefix<N>) -> Encoded {
    let Response { model, outputs, .. } = response;
    let mut digits = itoa::Buffer::new();
    let version = digits.format(model.version);
    let name = |index: usize| model.signature.outputs[index].name.as_str();

    let strings = [(MODEL_NAME, model.name.as_str()), (MODEL_VERSION, version), (ID, id)];
    let strings_bytes: usize = strings.iter().map(|(_, text)| string_bytes(text)).sum();
    let outputs_bytes: usize =
        outputs.iter().map(|(index, tensor)| field_bytes(output_bytes(name(*index), tensor))).sum();
    let raw_bytes: usize = outputs.iter().map(|(_, tensor)| field_bytes(tensor.data().len())).sum();
    let length = strings_bytes + outputs_bytes + raw_bytes;

    let apart: usize = outputs
        .iter()
        .map(|(_, tensor)| tensor.data().len())
        .filter(|&bytes| bytes >= SEGMENT_BYTES_MIN)
        .sum();
    let mut buffer = Vec::with_capacity(N + length - apart);
    buffer.extend_from_slice(&prefix(length));
    for (field, text) in strings {
        put_string(&mut buffer, field, text);
    }
    for (index, tensor) in &outputs {
        put_key(&mut buffer, OUTPUTS, output_bytes(name(*index), tensor));
        put_output(&mut buffer, name(*index), tensor);
    }
    let mut segments = SmallVec::new();
    for (_, tensor) in outputs {
        put_key(&mut buffer, RAW_OUTPUT_CONTENTS, tensor.data().len());
        if tensor.data().len() < SEGMENT_BYTES_MIN {
            buffer.extend_from_slice(tensor.data());
        } else {
            segments.push(std::mem::take(&mut buffer).into());
            segments.push(tensor.into_data());
        }
    }
    if !buffer.is_empty() {
        segments.push(buffer.into());
    }
    Encoded { length, segments }
}

fn output_bytes(name: &str, tensor: &Tensor) -> usize {
    let shape = match shape_bytes(tensor) {
        0 => 0,
        bytes => field_bytes(bytes),
    };
    string_bytes(name) + string_bytes(tensor.dtype().name()) + shape
}

fn put_output(buffer: &mut Vec<u8>, name: &str, tensor: &Tensor) {
    put_string(buffer, NAME, name);
    put_string(buffer, DATATYPE, tensor.dtype().name());
    let bytes = shape_bytes(tensor);
    if bytes > 0 {
        put_key(buffer, SHAPE, bytes);
        tensor.shape().iter().for_each(|&size| put_varint(buffer, size));
    }
}

/// Of the sizes, packed. They are `int64`, whose numbers from zero are written as those of unsigned ones.
fn shape_bytes(tensor: &Tensor) -> usize {
    tensor.shape().iter().map(|&size| length_delimiter_len(size)).sum()
}

/// With its key and length; a string that is empty is left out.
fn string_bytes(text: &str) -> usize {
    if text.is_empty() { 0 } else { field_bytes(text.len()) }
}

fn put_string(buffer: &mut Vec<u8>, field: u8, text: &str) {
    if !text.is_empty() {
        put_key(buffer, field, text.len());
        buffer.extend_from_slice(text.as_bytes());
    }
}

/// Of contents, with their key and length.
fn field_bytes(contents: usize) -> usize {
    1 + length_delimiter_len(contents) + contents
}

fn put_key(buffer: &mut Vec<u8>, field: u8, length: usize) {
    buffer.put_u8(field << 3 | LENGTH_DELIMITED);
    put_varint(buffer, length);
}

fn put_varint(buffer: &mut Vec<u8>, number: usize) {
    encode_length_delimiter(number, buffer).expect("a vector grows; this is a bug");
}
