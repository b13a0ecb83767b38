//! Whether the clients of one signature can use another: a new version must not break them.

use crate::tensor::{Dim, Signature, TensorSpec};

/// Compares what serves with what is to replace it. New outputs and new optional inputs are compatible.
///
/// # Errors
/// The text names the tensor, what it was and what it would be.
pub(crate) fn check(old: &Signature, new: &Signature) -> Result<(), String> {
    check_inputs(old, new)?;
    for spec in &old.outputs {
        let Some(other) = find(&new.outputs, &spec.name) else {
            return Err(format!("output '{}' is gone", spec.name));
        };
        if other.dtype != spec.dtype || !accepts(spec, other) {
            return Err(format!("output {spec} would be {other}"));
        }
    }
    Ok(())
}

/// Whether requests for one can be mirrored to the other, and something of the answers be compared.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_mirrored(primary: &Signature, shadow: &Signature) -> Result<(), String> {
    check_inputs(primary, shadow)?;
    if primary.outputs.iter().any(|spec| find(&shadow.outputs, &spec.name).is_some()) {
        return Ok(());
    }
    let names = |specs: &[TensorSpec]| {
        specs.iter().map(|spec| format!("'{}'", spec.name)).collect::<Vec<_>>().join(", ")
    };
    Err(format!(
        "no output is in both: one gives {}, the other {}",
        names(&primary.outputs),
        names(&shadow.outputs)
    ))
}

fn check_inputs(old: &Signature, new: &Signature) -> Result<(), String> {
    for spec in &old.inputs {
        let Some(other) = find(&new.inputs, &spec.name) else {
            return Err(format!("input '{}' is gone", spec.name));
        };
        if other.dtype != spec.dtype || !accepts(other, spec) {
            return Err(format!("input {spec} would be {other}"));
        }
        if spec.optional && !other.optional {
            return Err(format!("input '{}' is optional and would be required", spec.name));
        }
    }
    for spec in new.inputs.iter().filter(|spec| !spec.optional) {
        if find(&old.inputs, &spec.name).is_none() {
            return Err(format!("input {spec} is new and required"));
        }
    }
    Ok(())
}

fn find<'a>(specs: &'a [TensorSpec], name: &str) -> Option<&'a TensorSpec> {
    specs.iter().find(|spec| spec.name == name)
}

/// Whether every shape of `given` is one of `taken`. What a file does not say may be anything.
fn accepts(taken: &TensorSpec, given: &TensorSpec) -> bool {
    let (Some(taken), Some(given)) = (&taken.shape, &given.shape) else { return true };
    taken.len() == given.len()
        && taken.iter().zip(given).all(|(taken, given)| match (taken, given) {
            (Dim::Fixed(taken), Dim::Fixed(given)) => taken == given,
            (Dim::Fixed(_), Dim::Dynamic(_)) => false,
            (Dim::Dynamic(_), _) => true,
        })
}

#[cfg(test)]
mod tests;
