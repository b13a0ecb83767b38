//! A tensor's elements as values of one kind, whatever its dtype.

use bytes::Bytes;
use half::{bf16, f16};

use crate::tensor::{DType, Tensor};

/// A tensor's elements as values of one kind.
pub(crate) enum Elements<'a> {
    Whole(Vec<i128>),
    Real(Vec<f64>),
    Text(Vec<&'a [u8]>),
}

// === impl Elements ===

impl Elements<'_> {
    /// Numbers as floats; none of texts.
    pub(super) fn into_reals(self) -> Vec<f64> {
        match self {
            Elements::Real(values) => values,
            Elements::Whole(values) => values.into_iter().map(|value| value as f64).collect(),
            Elements::Text(_) => Vec::new(),
        }
    }
}

pub(crate) fn at<const SIZE: usize>(data: &Bytes, element: usize) -> [u8; SIZE] {
    data.as_chunks().0[element]
}

pub(crate) fn elements(tensor: &Tensor) -> Elements<'_> {
    /// The data as the type's little-endian values, each turned into the kind's type.
    macro_rules! read {
        ($kind:ident, $number:ty, $turn:expr) => {{
            let chunks = tensor.data().as_chunks().0;
            Elements::$kind(chunks.iter().map(|&bytes| $turn(<$number>::from_le_bytes(bytes))).collect())
        }};
    }
    match tensor.dtype() {
        DType::Bool => Elements::Whole(tensor.data().iter().map(|&byte| i128::from(byte != 0)).collect()),
        DType::Int8 => read!(Whole, i8, i128::from),
        DType::Int16 => read!(Whole, i16, i128::from),
        DType::Int32 => read!(Whole, i32, i128::from),
        DType::Int64 => read!(Whole, i64, i128::from),
        DType::Uint8 => read!(Whole, u8, i128::from),
        DType::Uint16 => read!(Whole, u16, i128::from),
        DType::Uint32 => read!(Whole, u32, i128::from),
        DType::Uint64 => read!(Whole, u64, i128::from),
        DType::Fp16 => read!(Real, f16, f64::from),
        DType::Bf16 => read!(Real, bf16, f64::from),
        DType::Fp32 => read!(Real, f32, f64::from),
        DType::Fp64 => read!(Real, f64, f64::from),
        // Not numbers, but comparable.
        DType::Narrow(_) => Elements::Whole(tensor.data().iter().map(|&byte| byte.into()).collect()),
        DType::Bytes => Elements::Text(tensor.bytes_elements().collect()),
    }
}
