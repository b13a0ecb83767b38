//! Holds a request to the symbols of the model file: tract plans with them, where ONNX Runtime only reads the sizes.

use gristmill_engine::backend::InputView;
use gristmill_engine::error::RunError;
use gristmill_engine::tensor::{Dim, ShapeText, Signature};
use smallvec::SmallVec;

use crate::signature::rows_symbol;

/// # Errors
/// `Input` where dimensions that a plan takes for the same have different sizes.
pub(super) fn check(signature: &Signature, inputs: &[Option<InputView<'_>>]) -> Result<(), RunError> {
    let rows = signature.is_batched().then(|| rows_symbol(&signature.inputs).unwrap_or("rows"));
    let mut known: SmallVec<[(&str, usize); 4]> = SmallVec::new();
    for (spec, view) in signature.inputs.iter().zip(inputs) {
        let (Some(dims), Some(view)) = (&spec.shape, view) else { continue };
        for (axis, (dim, &size)) in dims.iter().zip(view.shape).enumerate() {
            let symbol = match dim {
                Dim::Dynamic(Some(symbol)) => symbol.as_str(),
                Dim::Dynamic(None) if axis == 0 && rows.is_some() => rows.unwrap_or_default(),
                _ => continue,
            };
            match known.iter().find(|(name, _)| *name == symbol) {
                Some(&(_, expected)) if expected != size => {
                    return Err(RunError::Input(format!(
                        "input '{}': dimension '{symbol}' is {expected} in another place of the request, got {size} \
                         in {}; tract needs the same, ONNX Runtime may not",
                        spec.name,
                        ShapeText(view.shape)
                    )));
                }
                Some(_) => {}
                None => known.push((symbol, size)),
            }
        }
    }
    Ok(())
}
