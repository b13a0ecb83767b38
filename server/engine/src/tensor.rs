//! What a tensor is: a dtype, a shape and `Bytes`; what a model takes and gives (`Signature`); row arithmetic.

use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::byte_strings;
use crate::narrow::Narrow;

/// Element types of the Open Inference Protocol, and those of ONNX that travel as raw bytes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    /// Variable-length byte strings, each stored as a little-endian `u32` length and its bytes.
    Bytes,
    Narrow(Narrow),
}

/// Concrete dimensions, in elements. Four or fewer are stored inline.
pub type Shape = SmallVec<[usize; 4]>;

/// A dense row-major tensor whose length is known to agree with its shape.
///
/// Numbers are little-endian and need no alignment. `BYTES` elements are each a little-endian
/// `u32` length followed by that many bytes, as in Triton's raw encoding.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    data: Bytes,
}

/// Why a dtype, a shape and some bytes do not make a tensor. The text names no tensor: the caller knows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TensorError(pub(crate) String);

/// One dimension of a model's input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    Fixed(usize),
    /// Any size; dimensions of one model that carry the same symbol have the same size.
    Dynamic(Option<String>),
}

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub dtype: DType,
    /// Dimensions with the batch axis included; `None` where the model file does not say the rank.
    pub shape: Option<Vec<Dim>>,
    /// The model has a default for this input, so a request may leave it out. Always false for outputs.
    pub optional: bool,
    /// Names of the classes along the last axis (or of an index tensor's values), where the model carries them.
    pub labels: Vec<String>,
}

/// Whether requests may be stacked along axis 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchAxis {
    /// Axis 0 of every input and every output counts rows.
    Rows,
    /// Requests run one at a time; `reason` says which axis or tensor prevents batching.
    None { reason: String },
}

/// What a model takes and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    pub batch: BatchAxis,
}

// === impl DType ===

impl DType {
    /// Those of the protocol.
    pub const ALL: [DType; 14] = [
        DType::Bool,
        DType::Int8,
        DType::Int16,
        DType::Int32,
        DType::Int64,
        DType::Uint8,
        DType::Uint16,
        DType::Uint32,
        DType::Uint64,
        DType::Fp16,
        DType::Bf16,
        DType::Fp32,
        DType::Fp64,
        DType::Bytes,
    ];

    /// The protocol's name, for example `FP32`.
    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "BOOL",
            DType::Int8 => "INT8",
            DType::Int16 => "INT16",
            DType::Int32 => "INT32",
            DType::Int64 => "INT64",
            DType::Uint8 => "UINT8",
            DType::Uint16 => "UINT16",
            DType::Uint32 => "UINT32",
            DType::Uint64 => "UINT64",
            DType::Fp16 => "FP16",
            DType::Bf16 => "BF16",
            DType::Fp32 => "FP32",
            DType::Fp64 => "FP64",
            DType::Bytes => "BYTES",
            DType::Narrow(narrow) => narrow.name(),
        }
    }

    /// The dtype with that protocol name, compared exactly.
    pub fn parse(name: &str) -> Option<DType> {
        let all = DType::ALL.into_iter().chain(Narrow::ALL.map(DType::Narrow));
        all.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes per element, or `None` for `BYTES` and where two elements share a byte.
    pub fn size(self) -> Option<usize> {
        match self {
            DType::Bool | DType::Int8 | DType::Uint8 => Some(1),
            DType::Int16 | DType::Uint16 | DType::Fp16 | DType::Bf16 => Some(2),
            DType::Int32 | DType::Uint32 | DType::Fp32 => Some(4),
            DType::Int64 | DType::Uint64 | DType::Fp64 => Some(8),
            DType::Narrow(narrow) => (!narrow.shares_bytes()).then_some(1),
            DType::Bytes => None,
        }
    }

    /// Bytes of so many elements, or `None` for `BYTES` and for more than there can be.
    pub fn size_of(self, elements: usize) -> Option<usize> {
        match self {
            DType::Narrow(narrow) if narrow.shares_bytes() => Some(elements.div_ceil(2)),
            _ => elements.checked_mul(self.size()?),
        }
    }

    /// Whether JSON and the typed fields of messages have no form for its elements.
    pub fn is_narrow(self) -> bool {
        matches!(self, DType::Narrow(_))
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Tensor ===

impl Tensor {
    /// Checks that `data` holds exactly the elements that `shape` counts.
    ///
    /// # Errors
    /// The shape's product overflows, the byte count differs, or a `BYTES` element is cut short.
    pub fn new(dtype: DType, shape: impl Into<Shape>, data: Bytes) -> Result<Tensor, TensorError> {
        let shape = shape.into();
        let elements = element_count(&shape)
            .ok_or_else(|| TensorError(format!("shape {} has too many elements", ShapeText(&shape))))?;
        match dtype {
            DType::Bytes => {
                byte_strings::check(&data, elements, ShapeText(&shape)).map_err(TensorError)?;
            }
            _ => {
                let expected = dtype.size_of(elements).ok_or_else(|| {
                    TensorError(format!("shape {} has too many elements", ShapeText(&shape)))
                })?;
                if data.len() != expected {
                    return Err(TensorError(format!(
                        "expected {expected} bytes for {dtype} {}, got {} bytes",
                        ShapeText(&shape),
                        data.len()
                    )));
                }
            }
        }
        Ok(Tensor { dtype, shape, data })
    }

    /// A `BYTES` tensor from its elements, in row-major order.
    ///
    /// # Errors
    /// The number of elements differs from what `shape` counts, or one is 4 GiB or longer.
    pub fn from_elements<E: AsRef<[u8]>>(
        shape: impl Into<Shape>,
        elements: impl IntoIterator<Item = E>,
    ) -> Result<Tensor, TensorError> {
        let mut data = BytesMut::new();
        for element in elements {
            push_bytes_element(&mut data, element.as_ref())?;
        }
        Tensor::new(DType::Bytes, shape, data.freeze())
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn data(&self) -> &Bytes {
        &self.data
    }

    pub fn into_data(self) -> Bytes {
        self.data
    }

    pub fn element_count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements of a `BYTES` tensor, in row-major order; nothing for other dtypes.
    pub fn bytes_elements(&self) -> BytesElements<'_> {
        BytesElements { rest: if self.dtype == DType::Bytes { &self.data } else { &[] } }
    }

    /// Rows `range` along axis 0, sharing this tensor's memory. `BYTES` costs a scan of the elements before.
    ///
    /// # Panics
    /// On a scalar and on rows out of range, and where elements share bytes: callers have checked all.
    pub fn rows(&self, range: Range<usize>) -> Tensor {
        let rows = self.shape[0];
        assert!(range.start <= range.end && range.end <= rows, "rows {range:?} out of {rows}");
        self.assert_apart();
        let row_elements: usize = self.shape[1..].iter().product();
        let bytes = match self.dtype.size() {
            Some(size) => range.start * row_elements * size..range.end * row_elements * size,
            None => {
                let start = byte_strings::prefix(&self.data, range.start * row_elements);
                start..start + byte_strings::prefix(&self.data[start..], range.len() * row_elements)
            }
        };
        let mut shape = self.shape.clone();
        shape[0] = range.len();
        Tensor { dtype: self.dtype, shape, data: self.data.slice(bytes) }
    }

    /// Cuts the tensor along axis 0 into consecutive parts of `counts` rows, sharing its memory, in one pass.
    ///
    /// # Panics
    /// On a scalar, when the counts exceed the rows, and where elements share bytes: callers have checked all.
    pub fn split_rows<'a>(&'a self, counts: &'a [usize]) -> impl Iterator<Item = Tensor> + 'a {
        assert!(counts.iter().sum::<usize>() <= self.shape[0], "parts hold the tensor's rows; this is a bug");
        self.assert_apart();
        let row_elements: usize = self.shape[1..].iter().product();
        let mut offset = 0;
        counts.iter().map(move |&count| {
            let length = match self.dtype.size() {
                Some(size) => count * row_elements * size,
                None => byte_strings::prefix(&self.data[offset..], count * row_elements),
            };
            let data = self.data.slice(offset..offset + length);
            offset += length;
            let mut shape = self.shape.clone();
            shape[0] = count;
            Tensor { dtype: self.dtype, shape, data }
        })
    }

    fn assert_apart(&self) {
        let is_apart = self.dtype == DType::Bytes || self.dtype.size().is_some();
        assert!(is_apart, "models of {} are not batched; this is a bug", self.dtype);
    }

    /// Stacks `parts` along axis 0 into one new tensor.
    ///
    /// # Errors
    /// `parts` is empty, holds a scalar, or its members differ in dtype or in a later dimension.
    pub fn stack_rows(parts: &[Tensor]) -> Result<Tensor, TensorError> {
        let first = parts.first().ok_or_else(|| TensorError("no rows to join".into()))?;
        if first.shape.is_empty() {
            return Err(TensorError("a scalar has no rows to join".into()));
        }
        let mut shape = first.shape.clone();
        shape[0] = 0;
        let mut data = BytesMut::with_capacity(parts.iter().map(|part| part.data.len()).sum());
        for part in parts {
            if part.dtype != first.dtype || part.shape.len() != shape.len() || part.shape[1..] != shape[1..] {
                return Err(TensorError(format!(
                    "parts differ: {} {} and {} {}",
                    first.dtype,
                    ShapeText(&first.shape),
                    part.dtype,
                    ShapeText(&part.shape)
                )));
            }
            shape[0] += part.shape[0];
            data.extend_from_slice(&part.data);
        }
        Tensor::new(first.dtype, shape, data.freeze())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.dtype, ShapeText(&self.shape), self.data.len())
    }
}

/// Iterator over the elements of a `BYTES` tensor.
#[derive(Clone, Debug)]
pub struct BytesElements<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for BytesElements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let (element, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        self.rest = rest;
        Some(element)
    }
}

/// Appends one element in the `BYTES` encoding.
///
/// # Errors
/// The element is 4 GiB or longer.
pub fn push_bytes_element(data: &mut BytesMut, element: &[u8]) -> Result<(), TensorError> {
    let length = u32::try_from(element.len())
        .map_err(|_| TensorError(format!("a BYTES element of {} bytes is too long", element.len())))?;
    data.reserve(4 + element.len());
    data.put_u32_le(length);
    data.put_slice(element);
    Ok(())
}

/// The product of `shape`, or `None` on overflow.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

/// Writes dimensions as `[2, 3]`.
pub struct ShapeText<'a>(pub &'a [usize]);

impl fmt::Display for ShapeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, dim) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

// === impl TensorSpec ===

impl TensorSpec {
    /// Dimensions as protocols print them: −1 where any size is allowed, `[-1]` where the rank is unknown.
    pub fn protocol_shape(&self) -> Vec<i64> {
        match &self.shape {
            None => vec![-1],
            Some(dims) => dims
                .iter()
                .map(|dim| match dim {
                    Dim::Fixed(size) => *size as i64,
                    Dim::Dynamic(_) => -1,
                })
                .collect(),
        }
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.name, self.dtype)?;
        let Some(dims) = &self.shape else { return f.write_str("[?]") };
        f.write_str("[")?;
        for (index, dim) in dims.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match dim {
                Dim::Fixed(size) => write!(f, "{size}")?,
                Dim::Dynamic(Some(symbol)) => f.write_str(symbol)?,
                Dim::Dynamic(None) => f.write_str("?")?,
            }
        }
        f.write_str("]")
    }
}

// === impl Signature ===

impl Signature {
    pub fn is_batched(&self) -> bool {
        self.batch == BatchAxis::Rows
    }

    /// Where requests are stacked, the first dimension of every output is the number of rows, whatever the model
    /// file states.
    pub(crate) fn count_output_rows(&mut self) {
        if !self.is_batched() {
            return;
        }
        for shape in self.outputs.iter_mut().filter_map(|output| output.shape.as_mut()) {
            if let Some(first @ Dim::Fixed(_)) = shape.first_mut() {
                *first = Dim::Dynamic(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fp32(shape: &[usize], values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DType::Fp32, shape, data.into()).unwrap()
    }

    #[test]
    fn length_must_agree_with_shape() {
        let error = Tensor::new(DType::Fp32, [2usize, 3].as_slice(), Bytes::from_static(&[0; 20]));
        assert_eq!(error.unwrap_err().to_string(), "expected 24 bytes for FP32 [2, 3], got 20 bytes");
        let error = Tensor::new(DType::Fp64, [usize::MAX, 2].as_slice(), Bytes::new());
        assert!(error.unwrap_err().to_string().contains("too many elements"));
        let error = Tensor::new(DType::Fp64, [usize::MAX / 2].as_slice(), Bytes::new());
        assert!(error.unwrap_err().to_string().contains("too many elements"));
        assert!(Tensor::new(DType::Fp32, Shape::new(), Bytes::from_static(&[0; 4])).is_ok(), "a scalar");
        assert!(Tensor::new(DType::Fp32, [0usize, 4].as_slice(), Bytes::new()).is_ok(), "no rows");
    }

    #[test]
    fn bytes_encoding_is_checked() {
        let check = |data: &'static [u8], elements: usize| {
            Tensor::new(DType::Bytes, [elements].as_slice(), Bytes::from_static(data))
                .map_err(|e| e.to_string())
        };
        assert!(check(b"\x01\0\0\0a\0\0\0\0", 2).is_ok());
        assert_eq!(check(b"\x01\0\0\0a", 2).unwrap_err(), "expected 2 BYTES elements for shape [2], got 1");
        assert!(
            check(b"\x01\0\0", 1).unwrap_err().contains("a 4-byte length was expected, 3 bytes are left")
        );
        assert!(check(b"\x05\0\0\0ab", 1).unwrap_err().contains("says 5 bytes, 2 are left"));
    }

    #[test]
    fn rows_share_memory_and_stack_back() {
        let whole = fp32(&[3, 2], &[1., 2., 3., 4., 5., 6.]);
        let parts = [whole.rows(0..1), whole.rows(1..3)];
        assert_eq!(parts[1].shape(), [2, 2]);
        assert_eq!(parts[1].data().as_ptr(), whole.data()[8..].as_ptr());
        assert_eq!(Tensor::stack_rows(&parts).unwrap(), whole);

        let texts = Tensor::from_elements([3usize, 1].as_slice(), ["a", "", "ccc"]).unwrap();
        let parts = [texts.rows(0..2), texts.rows(2..3)];
        assert_eq!(texts.split_rows(&[2, 1]).collect::<Vec<_>>(), parts);
        assert_eq!(whole.split_rows(&[1, 2]).collect::<Vec<_>>(), [whole.rows(0..1), whole.rows(1..3)]);
        assert_eq!(parts[1].bytes_elements().collect::<Vec<_>>(), [b"ccc"]);
        assert_eq!(Tensor::stack_rows(&parts).unwrap(), texts);
        assert!(Tensor::stack_rows(&[whole, texts]).is_err());
    }
}
