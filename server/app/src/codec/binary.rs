//! Triton's binary tensor extension: where the JSON of a body ends, and whose the bytes behind it are.

use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::request::NamedTensor;
use gristmill_engine::tensor::{DType, Dim, Shape, Signature, Tensor, TensorSpec};

/// The length in bytes of the JSON at the start of a body; 0 means that there is none.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// The bytes behind a body's JSON, handed out in the order of the inputs.
#[derive(Debug)]
pub(crate) struct BinaryTail {
    rest: Bytes,
    total: usize,
    taken: usize,
}

/// Splits `body` into its JSON and what follows. Without a length all of it is JSON.
///
/// # Errors
/// `InvalidInput` if the body is shorter than the length says.
pub(crate) fn split_body(
    mut body: Bytes,
    header_length: Option<usize>,
) -> Result<(Bytes, BinaryTail), InferError> {
    let length = header_length.unwrap_or(body.len());
    if length > body.len() {
        return Err(InferError::InvalidInput(format!(
            "Inference-Header-Content-Length says that the JSON has {length} bytes, the whole body has {}",
            body.len()
        )));
    }
    let json = body.split_to(length);
    Ok((json, BinaryTail { total: body.len(), rest: body, taken: 0 }))
}

/// The one tensor of a body without JSON (a header length of 0), which must be the model's only input.
///
/// A batched model gets one row, as Triton has it; one other dimension may be dynamic.
///
/// # Errors
/// `InvalidInput` if the model takes several inputs, its shape does not follow from a byte count, or
/// the byte count does not fit.
pub(crate) fn raw_input(signature: &Signature, body: Bytes) -> Result<NamedTensor, InferError> {
    let [spec] = signature.inputs.as_slice() else {
        return Err(InferError::InvalidInput(format!(
            "a body without JSON (Inference-Header-Content-Length: 0) needs a model with one input, this one \
             takes {}: send JSON with \"binary_data_size\" for each",
            signature.inputs.len()
        )));
    };
    let shape = raw_shape(spec, signature.is_batched(), body.len())?;
    let tensor = Tensor::new(spec.dtype, shape, body)
        .map_err(|error| InferError::InvalidInput(format!("input '{}': {error}", spec.name)))?;
    Ok(NamedTensor { name: spec.name.clone(), tensor })
}

fn raw_shape(spec: &TensorSpec, batched: bool, bytes: usize) -> Result<Shape, InferError> {
    let invalid = |why: &str| InferError::InvalidInput(format!("input '{}': {why}", spec.name));
    let dims = spec.shape.as_ref().ok_or_else(|| {
        invalid("the model does not say its rank, so its shape does not follow from a byte count: send JSON")
    })?;
    let mut shape: Shape = dims
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Dynamic(_) => 1,
        })
        .collect();
    let open: Vec<usize> =
        (usize::from(batched)..dims.len()).filter(|&axis| dims[axis] != Dim::Fixed(shape[axis])).collect();
    match (open.as_slice(), spec.dtype.size()) {
        ([], _) => {}
        (_, None) => {
            return Err(invalid(&format!(
                "a {} shape with dynamic dimensions does not follow from a byte count: send JSON",
                spec.dtype
            )));
        }
        (&[axis], Some(size)) => {
            let row_bytes = shape.iter().product::<usize>() * size;
            if row_bytes == 0 || !bytes.is_multiple_of(row_bytes) {
                return Err(invalid(&format!(
                    "{bytes} bytes are not a multiple of {row_bytes}, the bytes for each step of dimension {axis} \
                     ({} {:?})",
                    spec.dtype,
                    spec.protocol_shape()
                )));
            }
            shape[axis] = bytes / row_bytes;
        }
        (_, Some(_)) => {
            return Err(invalid(&format!(
                "shape {:?} has several dynamic dimensions, which do not follow from a byte count: send JSON",
                spec.protocol_shape()
            )));
        }
    }
    Ok(shape)
}

// === impl BinaryTail ===

impl BinaryTail {
    /// The next `size` bytes as the tensor `name`, sharing the body's memory.
    ///
    /// # Errors
    /// `InvalidInput` if fewer are left or they do not fit `dtype` and `shape`.
    pub(crate) fn take(
        &mut self,
        name: &str,
        dtype: DType,
        shape: Shape,
        size: usize,
    ) -> Result<Tensor, InferError> {
        if size > self.rest.len() {
            return Err(InferError::InvalidInput(format!(
                "input '{name}': binary_data_size is {size}, {} of the {} bytes behind the JSON are left",
                self.rest.len(),
                self.total
            )));
        }
        self.taken += size;
        Tensor::new(dtype, shape, self.rest.split_to(size))
            .map_err(|error| InferError::InvalidInput(format!("input '{name}': {error}")))
    }

    /// Checks that every byte belonged to an input.
    ///
    /// # Errors
    /// `InvalidInput` if some are left.
    pub(crate) fn end(self) -> Result<(), InferError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(InferError::InvalidInput(format!(
            "{} bytes follow the JSON, the inputs' binary_data_size add up to {}",
            self.total, self.taken
        )))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use gristmill_engine::tensor::BatchAxis;

    use super::*;

    fn signature(dtype: DType, dims: &[Option<usize>], batch: BatchAxis, inputs: usize) -> Signature {
        let dims = dims.iter().map(|dim| dim.map_or(Dim::Dynamic(None), Dim::Fixed)).collect();
        let spec =
            TensorSpec { name: "x".into(), dtype, shape: Some(dims), optional: false, labels: Vec::new() };
        Signature { inputs: vec![spec; inputs], outputs: Vec::new(), batch }
    }

    fn check(signature: &Signature, bytes: usize, expected: Expect) {
        let shown = match raw_input(signature, vec![0; bytes].into()) {
            Ok(input) => format!("{} {:?}", input.name, input.tensor),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn a_raw_body_gets_its_shape_from_the_model() {
        let rows = BatchAxis::Rows;
        let none = BatchAxis::None { reason: String::new() };
        check(
            &signature(DType::Fp32, &[None, Some(3)], rows.clone(), 1),
            12,
            expect!["x FP32 [1, 3] (12 bytes)"],
        );
        check(
            &signature(DType::Fp32, &[None, Some(3)], rows.clone(), 1),
            24,
            expect!["input 'x': expected 12 bytes for FP32 [1, 3], got 24 bytes"],
        );
        check(
            &signature(DType::Fp32, &[None, None, Some(2)], rows.clone(), 1),
            40,
            expect!["x FP32 [1, 5, 2] (40 bytes)"],
        );
        check(
            &signature(DType::Fp32, &[None, None, Some(2)], rows.clone(), 1),
            41,
            expect![
                "input 'x': 41 bytes are not a multiple of 8, the bytes for each step of dimension 1 (FP32 [-1, -1, 2])"
            ],
        );
        check(
            &signature(DType::Fp32, &[None, None, None], rows.clone(), 1),
            8,
            expect![
                "input 'x': shape [-1, -1, -1] has several dynamic dimensions, which do not follow from a byte count: send JSON"
            ],
        );
        check(
            &signature(DType::Bytes, &[None, Some(1)], rows.clone(), 1),
            4,
            expect!["x BYTES [1, 1] (4 bytes)"],
        );
        check(&signature(DType::Uint8, &[None], none, 1), 7, expect!["x UINT8 [7] (7 bytes)"]);
        check(
            &signature(DType::Fp32, &[None, Some(0), None], rows.clone(), 1),
            7,
            expect![
                "input 'x': 7 bytes are not a multiple of 0, the bytes for each step of dimension 2 (FP32 [-1, 0, -1])"
            ],
        );
        check(
            &signature(DType::Fp32, &[None], rows, 2),
            7,
            expect![[
                r#"a body without JSON (Inference-Header-Content-Length: 0) needs a model with one input, this one takes 2: send JSON with "binary_data_size" for each"#
            ]],
        );
    }
}
