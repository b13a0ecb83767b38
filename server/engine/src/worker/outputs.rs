//! Whether what a runtime gave is what it declared, so that nobody gets another caller's rows.

use crate::error::RunError;
use crate::tensor::{ShapeText, Signature, Tensor};

/// A runtime that answers with other tensors than it declared must not hand out anybody's rows. `rows` are those that
/// were stacked, if any were.
pub(crate) fn check_outputs(
    signature: &Signature,
    outputs: &[Tensor],
    rows: Option<usize>,
) -> Result<(), RunError> {
    check_declared(signature, outputs)?;
    let Some(rows) = rows else { return Ok(()) };
    for (spec, output) in signature.outputs.iter().zip(outputs) {
        if output.shape().first() != Some(&rows) {
            return Err(RunError::Input(format!(
                "output '{}' has shape {} for a batch of {rows} rows: its first dimension must be the rows; of a model \
                 that gives more or fewer, ask for at most batching.rows_max rows at once, or set batch_axis = \"none\" \
                 in its model.toml",
                spec.name,
                ShapeText(output.shape())
            )));
        }
    }
    Ok(())
}

/// Whether the outputs are as many as declared, and of the declared types.
pub(super) fn check_declared(signature: &Signature, outputs: &[Tensor]) -> Result<(), RunError> {
    if outputs.len() != signature.outputs.len() {
        return Err(RunError::Failed(format!(
            "the model gave {} outputs, its signature has {}",
            outputs.len(),
            signature.outputs.len()
        )));
    }
    for (spec, output) in signature.outputs.iter().zip(outputs) {
        if output.dtype() != spec.dtype {
            return Err(RunError::Failed(format!(
                "output '{}' is {}, the signature says {}",
                spec.name,
                output.dtype(),
                spec.dtype
            )));
        }
    }
    Ok(())
}
