//! What `[input]` with `kind = "bytes"` means for a signature.

use gristmill_engine::tensor::{Dim, Signature, TensorSpec};
use serde::Deserialize;

use super::only_input;
use crate::handler::elements::Elements;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawElements {
    tensor: Option<String>,
    /// Of a row.
    shape: Option<Vec<usize>>,
}

/// # Errors
/// The text names the field, what was expected and what the model has.
pub(super) fn elements(raw: &RawElements, signature: &Signature) -> Result<Elements, String> {
    let spec = only_input("bytes", raw.tensor.as_deref(), signature)?;
    let element_bytes = spec.dtype.size().ok_or_else(|| {
        format!(
            "input '{}' is {}, whose elements are no fixed number of bytes: leave the section out",
            spec.name, spec.dtype
        )
    })?;
    let has_rows = signature.is_batched();
    let row = match (&spec.shape, &raw.shape) {
        (Some(dims), None) => dims[usize::from(has_rows)..].to_vec(),
        (Some(dims), Some(sizes)) => sizes_of_row(spec, &dims[usize::from(has_rows)..], sizes)?,
        (None, Some(sizes)) => sizes.iter().copied().map(Dim::Fixed).collect(),
        (None, None) => {
            return Err("input.shape is not said, nor by the model: expected the sizes of a row".to_owned());
        }
    };
    if row.iter().filter(|dim| matches!(dim, Dim::Dynamic(_))).count() > 1 {
        return Err(format!(
            "input.shape is not said: expected the sizes of a row, of which input '{}', {:?}, leaves several open",
            spec.name,
            spec.protocol_shape()
        ));
    }
    if row.contains(&Dim::Fixed(0)) {
        return Err(format!("input '{}' has rows without elements: expected sizes of at least 1", spec.name));
    }
    Ok(Elements { name: spec.name.clone(), dtype: spec.dtype, element_bytes, row, has_rows })
}

fn sizes_of_row(spec: &TensorSpec, dims: &[Dim], sizes: &[usize]) -> Result<Vec<Dim>, String> {
    let fits = |(dim, size): (&Dim, &usize)| !matches!(dim, Dim::Fixed(fixed) if fixed != size);
    match dims.len() == sizes.len() && dims.iter().zip(sizes).all(fits) {
        true => Ok(sizes.iter().copied().map(Dim::Fixed).collect()),
        false => Err(format!(
            "input.shape is {sizes:?}: expected the sizes of a row of input '{}', which is {:?}",
            spec.name,
            spec.protocol_shape()
        )),
    }
}
