//! How large an answer may be: checked before a request waits where shapes tell, and else when its outputs are there.

use crate::error::InferError;
use crate::tensor::{DType, Dim, Signature, Tensor, TensorSpec};

/// The most that an answer may have, as the protocol that carries it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerLimit {
    pub bytes_max: usize,
    /// The flag that raises it, for messages.
    pub flag: &'static str,
}

// === impl AnswerLimit ===

impl AnswerLimit {
    /// # Errors
    /// `TooLarge` for more than the limit.
    pub fn check(&self, bytes: usize) -> Result<(), InferError> {
        if bytes <= self.bytes_max {
            return Ok(());
        }
        Err(InferError::TooLarge(format!(
            "the answer has {bytes} bytes or more, the limit is {}: ask for fewer rows or outputs in a request, or \
             raise {}",
            self.bytes_max, self.flag
        )))
    }

    /// # Errors
    /// As [`AnswerLimit::check`], for the bytes of the tensors.
    pub(crate) fn check_tensors<'t>(
        &self,
        tensors: impl Iterator<Item = &'t Tensor>,
    ) -> Result<(), InferError> {
        self.check(tensors.map(|tensor| tensor.data().len()).sum())
    }
}

/// The bytes that `outputs` have at the least for so many rows, by the sizes that the signature states. A symbol states
/// none: files give one to different sizes.
pub(crate) fn least_bytes<'s>(
    signature: &Signature,
    outputs: impl Iterator<Item = &'s TensorSpec>,
    rows: usize,
) -> usize {
    let least = |spec: &TensorSpec| {
        let Some(dims) = &spec.shape else { return 0 };
        let (rows, skip) = if signature.is_batched() { (rows, 1) } else { (1, 0) };
        let element = match spec.dtype {
            // Each has its length before it.
            DType::Bytes => 4,
            dtype => dtype.size().unwrap_or(0),
        };
        let row = element.saturating_mul(rows);
        dims.iter().skip(skip).fold(row, |bytes, dim| match dim {
            Dim::Fixed(size) => bytes.saturating_mul(*size),
            Dim::Dynamic(_) => 0,
        })
    };
    outputs.map(least).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::BatchAxis;

    fn check(dtype: DType, batch: BatchAxis, dims: &[Dim], expected: usize) {
        let shape = Some(dims.to_vec());
        let y = TensorSpec { name: "y".into(), dtype, shape, optional: false, labels: Vec::new() };
        let signature = Signature { inputs: Vec::new(), outputs: vec![y], batch };
        assert_eq!(least_bytes(&signature, signature.outputs.iter(), 3), expected);
    }

    #[test]
    fn the_least_is_what_shapes_state() {
        let batch = || Dim::Dynamic(Some("batch".into()));
        check(DType::Fp32, BatchAxis::Rows, &[batch(), Dim::Fixed(7)], 3 * 7 * 4);
        check(DType::Bytes, BatchAxis::Rows, &[batch()], 3 * 4);
        check(DType::Fp32, BatchAxis::Rows, &[batch(), Dim::Dynamic(None)], 0);
        check(DType::Fp32, BatchAxis::Rows, &[batch(), Dim::Dynamic(None), Dim::Fixed(usize::MAX)], 0);
        check(DType::Fp32, BatchAxis::Rows, &[batch(), Dim::Fixed(usize::MAX), Dim::Fixed(2)], usize::MAX);
        let alone = || BatchAxis::None { reason: String::new() };
        check(DType::Fp64, alone(), &[Dim::Fixed(5), Dim::Fixed(2)], 5 * 2 * 8);
        check(DType::Fp64, alone(), &[batch(), Dim::Fixed(2)], 0);
    }

    #[test]
    fn beyond_the_limit_is_said_with_the_flag() {
        let limit = AnswerLimit { bytes_max: 10, flag: "--limit" };
        assert_eq!(limit.check(10), Ok(()));
        assert_eq!(
            limit.check(11).unwrap_err().to_string(),
            "the answer has 11 bytes or more, the limit is 10: ask for fewer rows or outputs in a request, or raise --limit"
        );
    }
}
