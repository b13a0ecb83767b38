//! Reads of a `TensorProto` its name, type and shape, and its elements only where they are few: weights are left alone.

use std::ops::Deref;

use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, decode_varint, skip_field};
use prost::{DecodeError, Message};

/// The longest field of elements that is read, in bytes: sizes, axes and permutations are shorter, weights longer.
const ELEMENTS_BYTES_MAX: u64 = 1024;

/// `TensorProto.DataType`: the types whose elements are read.
const FLOAT: i32 = 1;
const INT32: i32 = 6;
const INT64: i32 = 7;
const BOOL: i32 = 9;
/// `TensorProto.DataLocation.EXTERNAL`.
pub(crate) const EXTERNAL: i32 = 1;

/// `TensorProto`. Elements that take more than [`ELEMENTS_BYTES_MAX`] are skipped.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Initializer(pub(crate) TensorFields);

/// The fields of `TensorProto` that are read here; numbers from onnx.proto3 of ONNX 1.23.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorFields {
    #[prost(int64, repeated, tag = "1")]
    pub(crate) dims: Vec<i64>,
    /// A number of `TensorProto.DataType`.
    #[prost(int32, tag = "2")]
    pub(crate) element: i32,
    #[prost(float, repeated, tag = "4")]
    pub(crate) floats: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub(crate) int32s: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub(crate) int64s: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub(crate) raw: Vec<u8>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) external: Vec<ExternalEntry>,
    /// A number of `TensorProto.DataLocation`.
    #[prost(int32, tag = "14")]
    pub(crate) location: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExternalEntry {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// An element of a tensor that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Integer(i64),
    Float(f32),
}

// === impl Initializer ===

impl Initializer {
    /// The elements, where they are few, in the file, and integers, truth values or of single precision.
    pub(crate) fn numbers(&self) -> Option<Vec<Number>> {
        if self.location == EXTERNAL {
            return None;
        }
        let count =
            self.dims.iter().try_fold(1_usize, |count, &dim| count.checked_mul(dim.try_into().ok()?))?;
        let integers = |values: &[i32]| values.iter().map(|&value| Number::Integer(value.into())).collect();
        let raw = !self.raw.is_empty();
        let numbers: Vec<Number> = match self.element {
            FLOAT if raw => words(&self.raw, |word| Number::Float(f32::from_le_bytes(word))),
            INT32 if raw => words(&self.raw, |word| Number::Integer(i32::from_le_bytes(word).into())),
            INT64 if raw => words(&self.raw, |word| Number::Integer(i64::from_le_bytes(word))),
            BOOL if raw => words(&self.raw, |[byte]| Number::Integer(byte.into())),
            FLOAT => self.floats.iter().copied().map(Number::Float).collect(),
            INT32 | BOOL => integers(&self.int32s),
            INT64 => self.int64s.iter().copied().map(Number::Integer).collect(),
            _ => return None,
        };
        (numbers.len() == count).then_some(numbers)
    }
}

fn words<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> Number) -> Vec<Number> {
    let (words, _) = bytes.as_chunks::<N>();
    words.iter().copied().map(number).collect()
}

impl Deref for Initializer {
    type Target = TensorFields;

    fn deref(&self) -> &TensorFields {
        &self.0
    }
}

impl Message for Initializer {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.0.encode_raw(buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if wire == WireType::LengthDelimited && matches!(tag, 4 | 5 | 7 | 9) {
            let mut ahead = buf.chunk();
            if decode_varint(&mut ahead).is_ok_and(|length| length > ELEMENTS_BYTES_MAX) {
                return skip_field(wire, tag, buf, context);
            }
        }
        self.0.merge_field(tag, wire, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(fields: TensorFields) -> Initializer {
        Initializer::decode(fields.encode_to_vec().as_slice()).unwrap()
    }

    #[test]
    fn few_elements_are_read_and_many_are_skipped() {
        let axes =
            TensorFields { dims: vec![2], element: INT64, int64s: vec![-1, 300], ..Default::default() };
        assert_eq!(decoded(axes).numbers(), Some(vec![Number::Integer(-1), Number::Integer(300)]));
        let raw: Vec<u8> = [0.5_f32, 2.0].into_iter().flat_map(f32::to_le_bytes).collect();
        let scales = TensorFields { dims: vec![2, 1], element: FLOAT, raw, ..Default::default() };
        assert_eq!(decoded(scales).numbers(), Some(vec![Number::Float(0.5), Number::Float(2.0)]));
        let scalar = TensorFields { element: INT32, int32s: vec![7], ..Default::default() };
        assert_eq!(decoded(scalar).numbers(), Some(vec![Number::Integer(7)]));

        let raw = vec![0; 4 * 1000];
        let weights = TensorFields { dims: vec![1000], element: FLOAT, raw, ..Default::default() };
        let weights = decoded(weights);
        assert_eq!((weights.dims.as_slice(), weights.raw.len()), (&[1000][..], 0));
        assert_eq!(weights.numbers(), None);
    }
}
