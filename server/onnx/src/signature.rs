//! Derives a `Signature` from an ONNX graph: names, dtypes, shapes, which inputs may be left out, and whether axis 0 can be a batch axis.

use std::path::Path;

use gristmill_engine::backend::RowIndependence;
use gristmill_engine::error::LoadError;
use gristmill_engine::tensor::{BatchAxis, DType, Dim, Signature, TensorSpec};

use crate::element_type;
use crate::graph::{DimensionValue, ModelFile, TensorType, TypeKind, Value};
use crate::row_independence;

/// The first IR version in which an initializer that is also an input is a default that callers may override.
const IR_WITH_DEFAULTS: i64 = 4;

/// What exporters write as the name of a dimension that they know nothing of.
const ANONYMOUS: [&str; 3] = ["", "?", "None"];

/// A signature, and what a person should know about how it came to be.
#[derive(Debug)]
pub(crate) struct Derived {
    pub(crate) signature: Signature,
    /// Where the signature has a batch axis.
    pub(crate) independence: RowIndependence,
    pub(crate) notes: Vec<String>,
}

/// The signature of the model that `path` names and `file` describes. Without `overridable` (a runtime
/// that cannot override initializers) the inputs that have a default are left out; `is_unbatched` is its owner's word
/// that there is no batch axis.
///
/// # Errors
/// An input or output is no tensor, or its elements are of a type that the protocol lacks.
pub(crate) fn derive(
    path: &Path,
    file: &ModelFile,
    overridable: bool,
    is_unbatched: bool,
) -> Result<Derived, LoadError> {
    let graph = &file.graph;
    let mut notes = Vec::new();
    let mut inputs = Vec::new();
    for value in &graph.inputs {
        let optional = graph.has_initializer(&value.name);
        if optional && file.ir_version < IR_WITH_DEFAULTS {
            continue;
        }
        if optional && !overridable {
            notes.push(format!(
                "input '{}' keeps its default: tract cannot take it from a request",
                value.name
            ));
            continue;
        }
        let spec = spec(path, "input", value)?;
        inputs.push(TensorSpec { optional: optional || is_optional(value), ..spec });
    }
    let mut outputs = Vec::with_capacity(graph.outputs.len());
    for value in &graph.outputs {
        let labels = graph.class_labels(&value.name);
        outputs.push(TensorSpec { labels, ..spec(path, "output", value)? });
    }

    let declared = || is_unbatched.then(|| "model.toml has batch_axis = \"none\"".to_owned());
    let values = || graph.inputs.iter().chain(&graph.outputs);
    let optional =
        || Some(format!("'{}' is an optional value", values().find(|value| is_optional(value))?.name));
    if let Some(reason) = declared().or_else(optional).or_else(|| batch_obstacle(&inputs, &outputs)) {
        return Ok(unbatched(inputs, outputs, notes, reason));
    }
    let (rows, kept): (Vec<TensorSpec>, Vec<TensorSpec>) = {
        let symbol = rows_symbol(&inputs);
        inputs.iter().cloned().partition(|input| match first_dim(input) {
            _ if !input.optional => true,
            Some(Dim::Dynamic(Some(own))) => symbol.is_none_or(|symbol| symbol == own),
            Some(Dim::Dynamic(None)) => true,
            _ => false,
        })
    };
    let independence = match row_independence::analyse(file, &rows) {
        Ok(independence) => independence,
        Err(reason) => return Ok(unbatched(inputs, outputs, notes, reason)),
    };
    notes.extend(kept.iter().map(|input| {
        format!(
            "input '{}' keeps its default: its first dimension does not count rows, and requests of \
             this model are batched along that axis",
            input.name
        )
    }));
    notes.push(row_independence::note(&independence));
    let signature = Signature { inputs: rows, outputs, batch: BatchAxis::Rows };
    Ok(Derived { signature, independence, notes })
}

fn unbatched(
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    notes: Vec<String>,
    reason: String,
) -> Derived {
    let independence = RowIndependence::Undecided { reason: reason.clone() };
    let signature = Signature { inputs, outputs, batch: BatchAxis::None { reason } };
    Derived { signature, independence, notes }
}

fn spec(path: &Path, role: &str, value: &Value) -> Result<TensorSpec, LoadError> {
    let name = &value.name;
    let stated = value.kind.as_ref().and_then(|kind| kind.value.as_ref());
    let tensor = match stated {
        Some(TypeKind::Tensor(tensor)) => Some(tensor),
        Some(TypeKind::Optional(inner)) => inner.tensor(),
        _ => None,
    };
    let kind = match (stated, tensor) {
        (_, Some(tensor)) => {
            return match element_type::dtype(tensor.element) {
                Some(dtype) => Ok(TensorSpec {
                    name: name.clone(),
                    dtype,
                    shape: dims(tensor),
                    optional: false,
                    labels: Vec::new(),
                }),
                None => Err(LoadError::permanent(format!(
                    "{}: {role} '{name}' has elements of ONNX type {}, which the Open Inference Protocol lacks; \
                     add a Cast to the model",
                    path.display(),
                    element_type::name(tensor.element)
                ))),
            };
        }
        (Some(TypeKind::Sequence(_)), _) if role == "output" => {
            return Err(LoadError::permanent(format!(
                "{}: output '{name}' is a sequence, and the file does not tell of how many tensors: give the tensors \
                 themselves, by SequenceAt, or one of them all, by ConcatFromSequence",
                path.display()
            )));
        }
        (Some(TypeKind::Sequence(_)), _) => "a sequence",
        (Some(TypeKind::Map(_)), _) => "a map",
        (Some(TypeKind::SparseTensor(_)), _) => "a sparse tensor",
        (Some(TypeKind::Optional(_)), _) => "an optional value of another type",
        (Some(TypeKind::Tensor(_)) | None, _) => "of no stated type",
    };
    Err(LoadError::permanent(format!(
        "{}: {role} '{name}' is {kind}; only tensors can be served, so export the model with a tensor there",
        path.display()
    )))
}

/// Whether a value may be left out, or be missing.
fn is_optional(value: &Value) -> bool {
    let stated = value.kind.as_ref().and_then(|kind| kind.value.as_ref());
    matches!(stated, Some(TypeKind::Optional(_)))
}

fn dims(tensor: &TensorType) -> Option<Vec<Dim>> {
    let shape = tensor.shape.as_ref()?;
    let dim = |value: &Option<DimensionValue>| match value {
        // Some exporters write −1 for a dynamic dimension.
        Some(DimensionValue::Size(size)) => usize::try_from(*size).map_or(Dim::Dynamic(None), Dim::Fixed),
        Some(DimensionValue::Symbol(symbol)) if !ANONYMOUS.contains(&symbol.as_str()) => {
            Dim::Dynamic(Some(symbol.clone()))
        }
        _ => Dim::Dynamic(None),
    };
    Some(shape.dims.iter().map(|dimension| dim(&dimension.value)).collect())
}

fn first_dim(spec: &TensorSpec) -> Option<&Dim> {
    spec.shape.as_ref()?.first()
}

/// The symbol that the inputs give to the number of rows, where one does.
pub(crate) fn rows_symbol(inputs: &[TensorSpec]) -> Option<&str> {
    inputs.iter().filter(|input| !input.optional).find_map(|input| match first_dim(input) {
        Some(Dim::Dynamic(symbol)) => symbol.as_deref(),
        _ => None,
    })
}

/// Why requests cannot be stacked along axis 0, or `None` where nothing in the file speaks against it.
fn batch_obstacle(inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Option<String> {
    let shares_bytes =
        |spec: &&TensorSpec| matches!(spec.dtype, DType::Narrow(narrow) if narrow.shares_bytes());
    if let Some(spec) = inputs.iter().chain(outputs).find(shares_bytes) {
        return Some(format!(
            "two elements of '{}' share a byte, so its rows cannot be cut apart",
            spec.name
        ));
    }
    let mut required = inputs.iter().filter(|input| !input.optional).peekable();
    if required.peek().is_none() {
        return Some("the model has no input that every request gives".into());
    }
    let mut symbol: Option<(&str, &str)> = None;
    for input in required {
        let name = &input.name;
        let Some(shape) = &input.shape else {
            return Some(format!("input '{name}' has no stated number of dimensions"));
        };
        match shape.first() {
            None => return Some(format!("input '{name}' is a scalar")),
            Some(Dim::Fixed(size)) => {
                return Some(format!("input '{name}' has a fixed first dimension {size}"));
            }
            Some(Dim::Dynamic(None)) => {}
            Some(Dim::Dynamic(Some(this))) => match symbol {
                Some((first, other)) if other != this => {
                    return Some(format!(
                        "inputs '{first}' and '{name}' name their first dimensions differently, '{other}' and '{this}'"
                    ));
                }
                _ => symbol = Some((name, this)),
            },
        }
    }
    for output in outputs {
        let name = &output.name;
        // A stated first size is not believed: converters write 1 for what has as many rows as the inputs.
        if output.shape.as_ref().is_some_and(Vec::is_empty) {
            return Some(format!("output '{name}' is a scalar"));
        }
    }
    let (_, symbol) = symbol?;
    let roles =
        inputs.iter().map(|input| ("input", input)).chain(outputs.iter().map(|output| ("output", output)));
    for (role, spec) in roles {
        let later = spec.shape.iter().flatten().enumerate().skip(1);
        for (axis, dim) in later {
            if matches!(dim, Dim::Dynamic(Some(this)) if this == symbol) {
                return Some(format!(
                    "{role} '{}' has the number of rows, '{symbol}', as axis {axis} too",
                    spec.name
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn tensor(name: &str, shape: Option<&[Dim]>) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            dtype: DType::Fp32,
            shape: shape.map(<[Dim]>::to_vec),
            optional: false,
            labels: Vec::new(),
        }
    }

    fn named(symbol: &str) -> Dim {
        Dim::Dynamic(Some(symbol.into()))
    }

    #[test]
    fn obstacles_to_batching_are_named() {
        let any = Dim::Dynamic(None);
        let check = |inputs: &[TensorSpec], outputs: &[TensorSpec], expected: Option<&str>| {
            assert_eq!(batch_obstacle(inputs, outputs).as_deref(), expected);
        };
        let x = tensor("x", Some(&[named("n"), Dim::Fixed(3)]));
        let y = tensor("y", Some(&[any.clone(), Dim::Fixed(2)]));
        check(&[x.clone(), y.clone()], &[y.clone(), tensor("z", None)], None);
        check(from_ref(&y), from_ref(&x), None);
        check(&[], from_ref(&x), Some("the model has no input that every request gives"));
        check(&[x.clone(), tensor("s", Some(&[]))], &[], Some("input 's' is a scalar"));
        check(&[tensor("u", None)], &[], Some("input 'u' has no stated number of dimensions"));
        check(
            &[tensor("f", Some(&[Dim::Fixed(1), any.clone()]))],
            &[],
            Some("input 'f' has a fixed first dimension 1"),
        );
        check(
            &[x.clone(), y.clone(), tensor("o", Some(&[named("m")]))],
            &[],
            Some("inputs 'x' and 'o' name their first dimensions differently, 'n' and 'm'"),
        );
        check(from_ref(&x), &[tensor("t", Some(&[]))], Some("output 't' is a scalar"));
        check(from_ref(&x), &[tensor("t", Some(&[Dim::Fixed(1)]))], None);
        check(
            from_ref(&x),
            &[tensor("pairs", Some(&[named("n"), named("n")]))],
            Some("output 'pairs' has the number of rows, 'n', as axis 1 too"),
        );
        let optional = TensorSpec { optional: true, ..tensor("bias", Some(&[Dim::Fixed(2)])) };
        check(&[x, optional.clone()], &[y], None);
        check(&[optional], &[], Some("the model has no input that every request gives"));
    }
}
