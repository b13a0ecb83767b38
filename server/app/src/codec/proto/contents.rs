//! Typed tensor contents: which field holds which datatype, and its elements as bytes and back.

use std::fmt::Display;

use bytemuck::NoUninit;
use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::tensor::{DType, ShapeText, Tensor, element_count};
use gristmill_proto::inference::InferTensorContents;

use super::input_error;

// Vectors of numbers are handed over as the little-endian bytes that tensors are made of.
const _: () = assert!(cfg!(target_endian = "little"), "tensors are little-endian in memory");

/// The elements of one tensor.
pub(super) enum Values {
    /// Little-endian numbers, in the memory that they were decoded into where the widths agree.
    Numbers(Bytes),
    /// Elements of `BYTES`.
    Elements(Vec<Bytes>),
}

/// The field for `dtype`, or `None` for those that can only be sent raw.
pub(super) fn field(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::Bool => Some("bool_contents"),
        DType::Int8 | DType::Int16 | DType::Int32 => Some("int_contents"),
        DType::Int64 => Some("int64_contents"),
        DType::Uint8 | DType::Uint16 | DType::Uint32 => Some("uint_contents"),
        DType::Uint64 => Some("uint64_contents"),
        DType::Fp32 => Some("fp32_contents"),
        DType::Fp64 => Some("fp64_contents"),
        DType::Bytes => Some("bytes_contents"),
        DType::Fp16 | DType::Bf16 | DType::Narrow(_) => None,
    }
}

pub(super) fn is_empty(contents: &InferTensorContents) -> bool {
    lengths(contents).iter().all(|(_, length)| *length == 0)
}

/// Takes the elements of input `name` out of the one field that may hold them.
///
/// # Errors
/// `InvalidInput` when another field is filled, the number of elements is not that of `shape`, a
/// value does not fit `dtype`, or `dtype` has no field.
pub(super) fn read(
    name: &str,
    dtype: DType,
    shape: &[usize],
    contents: InferTensorContents,
) -> Result<Values, InferError> {
    let Some(expected) = field(dtype) else {
        return Err(input_error(
            name,
            format_args!("{dtype} has no typed contents: send it in raw_input_contents"),
        ));
    };
    let lengths = lengths(&contents);
    if let Some((other, length)) = lengths.iter().find(|(field, length)| *length > 0 && *field != expected) {
        return Err(input_error(
            name,
            format_args!("expected {dtype} elements in {expected}, got {length} in {other}"),
        ));
    }
    let length: usize = lengths.iter().map(|(_, length)| length).sum();
    if element_count(shape) != Some(length) {
        return Err(wrong_count(name, shape, expected, length));
    }
    Ok(match dtype {
        DType::Bool => Values::Numbers(view(contents.bool_contents)),
        DType::Int8 => Values::Numbers(narrow::<i32, i8>(name, dtype, &contents.int_contents)?),
        DType::Int16 => Values::Numbers(narrow::<i32, i16>(name, dtype, &contents.int_contents)?),
        DType::Int32 => Values::Numbers(view(contents.int_contents)),
        DType::Int64 => Values::Numbers(view(contents.int64_contents)),
        DType::Uint8 => Values::Numbers(narrow::<u32, u8>(name, dtype, &contents.uint_contents)?),
        DType::Uint16 => Values::Numbers(narrow::<u32, u16>(name, dtype, &contents.uint_contents)?),
        DType::Uint32 => Values::Numbers(view(contents.uint_contents)),
        DType::Uint64 => Values::Numbers(view(contents.uint64_contents)),
        DType::Fp32 => Values::Numbers(view(contents.fp32_contents)),
        DType::Fp64 => Values::Numbers(view(contents.fp64_contents)),
        DType::Bytes | DType::Fp16 | DType::Bf16 | DType::Narrow(_) => {
            Values::Elements(contents.bytes_contents)
        }
    })
}

/// Copies `tensor`'s elements into the field for its datatype; none for datatypes without one.
pub(super) fn write(tensor: &Tensor) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    let data = tensor.data();
    match tensor.dtype() {
        DType::Bool => contents.bool_contents = data.iter().map(|&byte| byte != 0).collect(),
        DType::Int8 => contents.int_contents = data.iter().map(|&byte| i32::from(byte as i8)).collect(),
        DType::Int16 => contents.int_contents = numbers(data, |bytes| i32::from(i16::from_le_bytes(bytes))),
        DType::Int32 => contents.int_contents = numbers(data, i32::from_le_bytes),
        DType::Int64 => contents.int64_contents = numbers(data, i64::from_le_bytes),
        DType::Uint8 => contents.uint_contents = data.iter().map(|&byte| u32::from(byte)).collect(),
        DType::Uint16 => contents.uint_contents = numbers(data, |bytes| u32::from(u16::from_le_bytes(bytes))),
        DType::Uint32 => contents.uint_contents = numbers(data, u32::from_le_bytes),
        DType::Uint64 => contents.uint64_contents = numbers(data, u64::from_le_bytes),
        DType::Fp32 => contents.fp32_contents = numbers(data, f32::from_le_bytes),
        DType::Fp64 => contents.fp64_contents = numbers(data, f64::from_le_bytes),
        DType::Bytes => {
            contents.bytes_contents =
                tensor.bytes_elements().map(|element| data.slice_ref(element)).collect();
        }
        DType::Fp16 | DType::Bf16 | DType::Narrow(_) => {}
    }
    contents
}

fn lengths(contents: &InferTensorContents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ]
}

fn wrong_count(name: &str, shape: &[usize], field: &str, length: usize) -> InferError {
    let shape_text = ShapeText(shape);
    match element_count(shape) {
        None => input_error(name, format_args!("shape {shape_text} has too many elements")),
        Some(count) if length == 0 => input_error(
            name,
            format_args!(
                "no data: expected {count} elements for shape {shape_text} in {field}, \
                 or every input in raw_input_contents"
            ),
        ),
        Some(count) => input_error(
            name,
            format_args!("expected {count} elements for shape {shape_text} in {field}, got {length}"),
        ),
    }
}

/// The vector as bytes, without a copy.
pub(super) fn view<T: NoUninit + Send>(values: Vec<T>) -> Bytes {
    struct Owner<T>(Vec<T>);

    impl<T: NoUninit> AsRef<[u8]> for Owner<T> {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }

    Bytes::from_owner(Owner(values))
}

pub(super) fn narrow<W, N>(name: &str, dtype: DType, values: &[W]) -> Result<Bytes, InferError>
where
    W: Copy + Display,
    N: TryFrom<W> + NoUninit + Send,
{
    let mut narrowed = Vec::with_capacity(values.len());
    for (index, &value) in values.iter().enumerate() {
        let Ok(value) = N::try_from(value) else {
            return Err(input_error(
                name,
                format_args!("element {index} is {value}, which does not fit {dtype}"),
            ));
        };
        narrowed.push(value);
    }
    Ok(view(narrowed))
}

pub(super) fn numbers<const WIDTH: usize, T>(data: &[u8], decode: impl Fn([u8; WIDTH]) -> T) -> Vec<T> {
    let (chunks, rest) = data.as_chunks::<WIDTH>();
    debug_assert!(rest.is_empty(), "a tensor holds whole elements");
    chunks.iter().map(|bytes| decode(*bytes)).collect()
}
