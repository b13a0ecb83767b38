//! TensorFlow's tensors: in `tensor_content`, or in the field for their datatype, where the last element stands for all
//! that follow it.

use std::iter::repeat_n;

use bytes::{Buf, Bytes};
use gristmill_engine::error::InferError;
use gristmill_engine::tensor::{DType, Shape, ShapeText, Tensor, element_count};
use gristmill_proto::tensorflow::tensor_shape_proto::Dim;
use gristmill_proto::tensorflow::{DataType, TensorProto, TensorShapeProto};
use half::{bf16, f16};
use prost::encoding::decode_varint;

use super::contents::{narrow, numbers, view};
use super::input_error;

/// TensorFlow's name for `dtype`; none for narrow types, which it lays out in another way.
pub fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::Bool => DataType::DtBool,
        DType::Int8 => DataType::DtInt8,
        DType::Int16 => DataType::DtInt16,
        DType::Int32 => DataType::DtInt32,
        DType::Int64 => DataType::DtInt64,
        DType::Uint8 => DataType::DtUint8,
        DType::Uint16 => DataType::DtUint16,
        DType::Uint32 => DataType::DtUint32,
        DType::Uint64 => DataType::DtUint64,
        DType::Fp16 => DataType::DtHalf,
        DType::Bf16 => DataType::DtBfloat16,
        DType::Fp32 => DataType::DtFloat,
        DType::Fp64 => DataType::DtDouble,
        DType::Bytes => DataType::DtString,
        DType::Narrow(_) => DataType::DtInvalid,
    }
}

/// The shape with sizes as they are, or −1 for any.
pub fn shape_proto(sizes: impl IntoIterator<Item = i64>) -> TensorShapeProto {
    let dim = |size| Dim { size, name: String::new() };
    TensorShapeProto { dim: sizes.into_iter().map(dim).collect(), unknown_rank: false }
}

/// The tensor that `message` has for input `name`. One whose elements would take more than `bytes_max` is refused
/// before they are made: a few bytes can stand for any number of them.
///
/// # Errors
/// `InvalidInput` for a datatype that is not served, a shape that is not known, or elements that are not those of the
/// shape and the datatype; `TooLarge`.
pub fn decode_tensor(name: &str, message: TensorProto, bytes_max: usize) -> Result<Tensor, InferError> {
    let data_type_given = DataType::try_from(message.dtype).unwrap_or(DataType::DtInvalid);
    let Some(dtype) = DType::ALL.into_iter().find(|&dtype| data_type(dtype) == data_type_given) else {
        let got = data_type_given.as_str_name();
        return Err(input_error(name, format_args!("datatype {got} ({}) is not supported", message.dtype)));
    };
    let shape = read_shape(name, message.tensor_shape.as_ref())?;
    let elements = element_count(&shape).ok_or_else(|| {
        input_error(name, format_args!("shape {} has too many elements", ShapeText(&shape)))
    })?;
    let (field, given) = check_fields(name, dtype, &message)?;
    if !message.tensor_content.is_empty() {
        if given > 0 {
            return Err(input_error(name, format_args!("has elements in tensor_content and in {field}")));
        }
        let tensor = match dtype {
            DType::Bytes => {
                Tensor::from_elements(shape, read_strings(name, elements, message.tensor_content)?)
            }
            _ => Tensor::new(dtype, shape, message.tensor_content),
        };
        return tensor.map_err(|error| input_error(name, error));
    }
    if given > elements {
        let shape = ShapeText(&shape);
        return Err(input_error(
            name,
            format_args!("expected at most {elements} elements for shape {shape} in {field}, got {given}"),
        ));
    }
    let element_bytes = dtype.size().unwrap_or_else(|| 4 + message.string_val.last().map_or(0, Bytes::len));
    let stand_in_bytes = (elements - given).saturating_mul(element_bytes);
    if stand_in_bytes > bytes_max {
        return Err(InferError::TooLarge(format!(
            "input '{name}': the elements of shape {} would take {stand_in_bytes} bytes, the limit is {bytes_max}: \
             send less, or raise --grpc-message-bytes-max",
            ShapeText(&shape)
        )));
    }
    let data = match dtype {
        DType::Bool => view(message.bool_val),
        DType::Int8 => narrow::<i32, i8>(name, dtype, &message.int_val)?,
        DType::Int16 => narrow::<i32, i16>(name, dtype, &message.int_val)?,
        DType::Int32 => view(message.int_val),
        DType::Int64 => view(message.int64_val),
        DType::Uint8 => narrow::<i32, u8>(name, dtype, &message.int_val)?,
        DType::Uint16 => narrow::<i32, u16>(name, dtype, &message.int_val)?,
        DType::Uint32 => view(message.uint32_val),
        DType::Uint64 => view(message.uint64_val),
        DType::Fp16 | DType::Bf16 => narrow::<i32, u16>(name, dtype, &message.half_val)?,
        DType::Fp32 => view(message.float_val),
        DType::Fp64 => view(message.double_val),
        DType::Bytes => {
            let last = message.string_val.last().cloned().unwrap_or_default();
            let strings = message.string_val.into_iter().chain(repeat_n(last, elements - given));
            return Tensor::from_elements(shape, strings).map_err(|error| input_error(name, error));
        }
        DType::Narrow(_) => Bytes::new(),
    };
    let data = if given == elements { data } else { filled(&data, element_bytes, elements) };
    Tensor::new(dtype, shape, data).map_err(|error| input_error(name, error))
}

/// `tensor` with its elements in the field for its datatype, where clients without TensorFlow look for them.
pub fn encode_tensor(tensor: &Tensor) -> TensorProto {
    let mut message = TensorProto {
        dtype: data_type(tensor.dtype()).into(),
        tensor_shape: Some(shape_proto(tensor.shape().iter().map(|&size| size as i64))),
        ..TensorProto::default()
    };
    let data = tensor.data();
    match tensor.dtype() {
        DType::Bool => message.bool_val = data.iter().map(|&byte| byte != 0).collect(),
        DType::Int8 => message.int_val = data.iter().map(|&byte| i32::from(byte as i8)).collect(),
        DType::Int16 => message.int_val = numbers(data, |bytes| i32::from(i16::from_le_bytes(bytes))),
        DType::Int32 => message.int_val = numbers(data, i32::from_le_bytes),
        DType::Int64 => message.int64_val = numbers(data, i64::from_le_bytes),
        DType::Uint8 => message.int_val = data.iter().map(|&byte| i32::from(byte)).collect(),
        DType::Uint16 => message.int_val = numbers(data, |bytes| i32::from(u16::from_le_bytes(bytes))),
        DType::Uint32 => message.uint32_val = numbers(data, u32::from_le_bytes),
        DType::Uint64 => message.uint64_val = numbers(data, u64::from_le_bytes),
        DType::Fp16 | DType::Bf16 => {
            message.half_val = numbers(data, |bytes| i32::from(u16::from_le_bytes(bytes)));
        }
        DType::Fp32 => message.float_val = numbers(data, f32::from_le_bytes),
        DType::Fp64 => message.double_val = numbers(data, f64::from_le_bytes),
        DType::Bytes => {
            message.string_val = tensor.bytes_elements().map(|element| data.slice_ref(element)).collect();
        }
        DType::Narrow(_) => {}
    }
    message
}

/// The elements of `tensor` as the messages of classes and values have them; none of `BYTES`.
pub(crate) fn floats(tensor: &Tensor) -> Vec<f32> {
    let data = tensor.data();
    match tensor.dtype() {
        DType::Bool => data.iter().map(|&byte| f32::from(byte)).collect(),
        DType::Int8 => data.iter().map(|&byte| f32::from(byte as i8)).collect(),
        DType::Int16 => numbers(data, |bytes| i16::from_le_bytes(bytes).into()),
        DType::Int32 => numbers(data, |bytes| i32::from_le_bytes(bytes) as f32),
        DType::Int64 => numbers(data, |bytes| i64::from_le_bytes(bytes) as f32),
        DType::Uint8 => data.iter().map(|&byte| byte.into()).collect(),
        DType::Uint16 => numbers(data, |bytes| u16::from_le_bytes(bytes).into()),
        DType::Uint32 => numbers(data, |bytes| u32::from_le_bytes(bytes) as f32),
        DType::Uint64 => numbers(data, |bytes| u64::from_le_bytes(bytes) as f32),
        DType::Fp16 => numbers(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
        DType::Bf16 => numbers(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        DType::Fp32 => numbers(data, f32::from_le_bytes),
        DType::Fp64 => numbers(data, |bytes| f64::from_le_bytes(bytes) as f32),
        DType::Bytes | DType::Narrow(_) => Vec::new(),
    }
}

fn read_shape(name: &str, shape: Option<&TensorShapeProto>) -> Result<Shape, InferError> {
    let Some(shape) = shape else { return Ok(Shape::new()) };
    if shape.unknown_rank {
        return Err(input_error(name, "tensor_shape has an unknown rank: send the sizes of this tensor"));
    }
    let size = |dim: &Dim| {
        usize::try_from(dim.size).map_err(|_| {
            input_error(
                name,
                format_args!("tensor_shape has the size {}: send that of this tensor", dim.size),
            )
        })
    };
    shape.dim.iter().map(size).collect()
}

/// The field for `dtype` and how many elements it has.
///
/// # Errors
/// Another field has some: without this, a client that fills the wrong one would get answers for zeros.
fn check_fields<'a>(name: &str, dtype: DType, message: &TensorProto) -> Result<(&'a str, usize), InferError> {
    let lengths = [
        ("half_val", message.half_val.len()),
        ("float_val", message.float_val.len()),
        ("double_val", message.double_val.len()),
        ("int_val", message.int_val.len()),
        ("string_val", message.string_val.len()),
        ("int64_val", message.int64_val.len()),
        ("bool_val", message.bool_val.len()),
        ("uint32_val", message.uint32_val.len()),
        ("uint64_val", message.uint64_val.len()),
    ];
    let expected = match dtype {
        DType::Fp16 | DType::Bf16 => "half_val",
        DType::Fp32 => "float_val",
        DType::Fp64 => "double_val",
        DType::Int8 | DType::Int16 | DType::Int32 | DType::Uint8 | DType::Uint16 => "int_val",
        DType::Bytes => "string_val",
        DType::Narrow(_) => "tensor_content",
        DType::Int64 => "int64_val",
        DType::Bool => "bool_val",
        DType::Uint32 => "uint32_val",
        DType::Uint64 => "uint64_val",
    };
    let mut given = 0;
    for (field, length) in lengths {
        if field == expected {
            given = length;
        } else if length > 0 {
            let wanted = data_type(dtype).as_str_name();
            return Err(input_error(
                name,
                format_args!("expected elements of {wanted} in {expected}, got {length} in {field}"),
            ));
        }
    }
    Ok((expected, given))
}

/// `data`, and its last element for those that are not there; zeros where there is none, as TensorFlow has it.
fn filled(data: &[u8], element_bytes: usize, elements: usize) -> Bytes {
    let mut filled = Vec::with_capacity(elements * element_bytes);
    filled.extend_from_slice(data);
    let zero = [0; 8];
    let last = if data.is_empty() { &zero[..element_bytes] } else { &data[data.len() - element_bytes..] };
    while filled.len() < elements * element_bytes {
        filled.extend_from_slice(last);
    }
    filled.into()
}

/// Strings as TensorFlow packs them: all their lengths, then all their bytes.
fn read_strings(name: &str, elements: usize, mut content: Bytes) -> Result<Vec<Bytes>, InferError> {
    let malformed = || input_error(name, "tensor_content is not the lengths and the bytes of its strings");
    // A length takes a byte at least.
    if elements > content.len() {
        return Err(malformed());
    }
    let mut lengths = Vec::with_capacity(elements);
    for _ in 0..elements {
        let length = decode_varint(&mut content).map_err(|_| malformed())?;
        lengths.push(usize::try_from(length).map_err(|_| malformed())?);
    }
    let mut strings = Vec::with_capacity(elements);
    for length in lengths {
        if length > content.remaining() {
            return Err(malformed());
        }
        strings.push(content.split_to(length));
    }
    if content.is_empty() { Ok(strings) } else { Err(malformed()) }
}
