//! A golden case while its parts come in, from either format: what may be said once, and what must be.

use gristmill_engine::golden::{GoldenCase, Tolerance};
use gristmill_engine::request::NamedTensor;
use gristmill_engine::tensor::Tensor;

/// A case as far as it was read.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) name: Option<String>,
    pub(super) inputs: Option<Vec<NamedTensor>>,
    pub(super) outputs: Option<Vec<NamedTensor>>,
    pub(super) absolute: Option<f64>,
    pub(super) relative: Option<f64>,
}

// === impl Draft ===

impl Draft {
    /// Whether nothing but a tolerance was said.
    pub(super) fn is_bare(&self) -> bool {
        self.name.is_none() && self.inputs.is_none() && self.outputs.is_none()
    }

    /// Takes one bound of the tolerance.
    ///
    /// # Errors
    /// It was said before, or is no such bound.
    pub(super) fn set_bound(&mut self, bound: &str, value: f64) -> Result<(), String> {
        let field = if bound == "absolute" { &mut self.absolute } else { &mut self.relative };
        if !(value.is_finite() && value >= 0.0) {
            return Err(format!("the {bound} tolerance is {value:?}: expected 0 or a positive number"));
        }
        if field.replace(value).is_some() {
            return Err(format!("the {bound} tolerance is given twice"));
        }
        Ok(())
    }

    /// The case of the file `label`, the `number`th of several where that is given. Bounds that it
    /// lacks are those of `default`.
    ///
    /// # Errors
    /// It has no inputs or no outputs; the text says of which case.
    pub(super) fn finish(
        self,
        label: &str,
        number: Option<usize>,
        default: Tolerance,
    ) -> Result<GoldenCase, String> {
        let case = match (&self.name, number) {
            (Some(name), _) => format!("case '{name}'"),
            (None, Some(number)) => format!("case {number}"),
            (None, None) => "the file".to_owned(),
        };
        let Some(inputs) = self.inputs else {
            return Err(format!("{case} has no inputs: expected \"inputs\" with a tensor for each input"));
        };
        let outputs = self.outputs.filter(|outputs| !outputs.is_empty()).ok_or_else(|| {
            format!("{case} has no outputs: expected \"outputs\" with one of the model's outputs at least")
        })?;
        let name = match (&self.name, number) {
            (None, None) => label.to_owned(),
            _ => format!("{label} {case}"),
        };
        let tolerance = Tolerance {
            absolute: self.absolute.unwrap_or(default.absolute),
            relative: self.relative.unwrap_or(default.relative),
        };
        Ok(GoldenCase { name, inputs, outputs, tolerance })
    }
}

/// Adds a tensor to a list in which each name is once.
///
/// # Errors
/// The name is there already.
pub(super) fn add(tensors: &mut Vec<NamedTensor>, name: &str, tensor: Tensor) -> Result<(), String> {
    if tensors.iter().any(|other| other.name == name) {
        return Err(format!("'{name}' is given twice"));
    }
    tensors.push(NamedTensor { name: name.to_owned(), tensor });
    Ok(())
}
