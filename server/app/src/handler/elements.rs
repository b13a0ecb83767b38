//! The bytes of a model's input as a body: its elements, row by row.

use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::request::NamedTensor;
use gristmill_engine::tensor::{DType, Dim, Shape, Tensor};

use crate::features::Features;

/// How the elements of an input, little-endian as in the Open Inference Protocol, become rows.
#[derive(Debug)]
pub(super) struct Elements {
    pub(super) name: String,
    pub(super) dtype: DType,
    /// Bytes of an element.
    pub(super) element_bytes: usize,
    /// Of a row; at most one is dynamic, and then a body is one row.
    pub(super) row: Vec<Dim>,
    /// Whether the input has an axis for rows.
    pub(super) has_rows: bool,
}

// === impl Elements ===

impl Elements {
    /// # Errors
    /// `InvalidInput` for bytes that are not whole rows.
    pub(super) fn read(&self, content: &Bytes) -> Result<Features, InferError> {
        let fixed = self.row.iter().filter_map(|dim| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Dynamic(_) => None,
        });
        let step_bytes = fixed.product::<usize>() * self.element_bytes;
        let is_open = self.row.iter().any(|dim| matches!(dim, Dim::Dynamic(_)));
        let bytes = content.len();
        let steps = bytes / step_bytes;
        if steps == 0 || !bytes.is_multiple_of(step_bytes) || (steps > 1 && !is_open && !self.has_rows) {
            let (or_more, what) = match (is_open, self.has_rows) {
                (true, _) => (", or a multiple", "a step of the dimension that is open"),
                (false, true) => (", or a multiple", "a row"),
                (false, false) => ("", "the input"),
            };
            return Err(InferError::InvalidInput(format!(
                "input '{}' takes bytes: expected {step_bytes}{or_more}, as many as {what} has, got {bytes}",
                self.name
            )));
        }
        let rows = if is_open { 1 } else { steps };
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Dynamic(_) => steps,
        };
        let shape: Shape =
            self.has_rows.then_some(rows).into_iter().chain(self.row.iter().map(size)).collect();
        let tensor = Tensor::new(self.dtype, shape, content.clone())
            .map_err(|error| InferError::InvalidInput(format!("input '{}': {error}", self.name)))?;
        Ok(Features { inputs: vec![NamedTensor { name: self.name.clone(), tensor }], listed: rows > 1 })
    }
}
