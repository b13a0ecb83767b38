//! Decides whether an instance gives the answers that its model's owner wrote down for chosen inputs.

mod numbers;
#[cfg(test)]
mod tests;

use crate::backend::{InputView, Instance};
pub use crate::comparison::Tolerance;
use crate::gather::Gather;
use crate::request::{NamedTensor, Query, Request};
use crate::tensor::{ShapeText, Signature, Tensor, TensorSpec};

use self::numbers::{Comparison, cast, compare};

/// Inputs whose answers are known. All cases must match before the version serves.
#[derive(Clone, Debug)]
pub struct Golden {
    pub cases: Vec<GoldenCase>,
}

/// One request and what the model must answer.
#[derive(Clone, Debug)]
pub struct GoldenCase {
    /// Where the case comes from, for people: `golden.json`, or `golden.json case 'winter'`.
    pub name: String,
    /// The model's inputs with all their rows, in any order; optional ones may be left out.
    pub inputs: Vec<NamedTensor>,
    /// What the model must give: one of its outputs at least. Others are not compared.
    pub outputs: Vec<NamedTensor>,
    pub tolerance: Tolerance,
}

/// Runs each case whole on `instance`, and returns what was found, for people.
///
/// Tensors of `FP64`, `INT64` and `UINT64`, the dtypes in which JSON's and numpy's numbers come, are
/// taken for any dtype of the model that holds their values; other dtypes must be the model's own.
///
/// # Errors
/// A name, dtype or shape is not the model's, a run fails, or an answer is another: the text names the
/// case, the tensor, the place, both numbers, how many elements differ and by how much at most.
pub(crate) fn check(
    golden: &Golden,
    signature: &Signature,
    instance: &mut dyn Instance,
) -> Result<String, String> {
    if golden.cases.is_empty() {
        return Err("golden inputs: no case is given; expected one at least".into());
    }
    let mut rows = 0;
    for case in &golden.cases {
        rows += check_case(case, signature, instance)
            .map_err(|problem| format!("golden inputs, {}: {problem}", case.name))?;
    }
    let cases = match golden.cases.len() {
        1 => "1 case".to_owned(),
        cases => format!("{cases} cases"),
    };
    Ok(match (signature.is_batched(), rows) {
        (false, _) => format!("golden inputs: {cases} match"),
        (true, 1) => format!("golden inputs: {cases}, 1 row match"),
        (true, rows) => format!("golden inputs: {cases}, {rows} rows match"),
    })
}

/// Returns how many rows the case has.
fn check_case(
    case: &GoldenCase,
    signature: &Signature,
    instance: &mut dyn Instance,
) -> Result<usize, String> {
    let expected = find_outputs(case, signature)?;
    let mut inputs = Vec::with_capacity(case.inputs.len());
    for NamedTensor { name, tensor } in &case.inputs {
        // A name that the model lacks is told by `Request`, with those that it has.
        let spec = signature.inputs.iter().find(|spec| spec.name == *name);
        let tensor = match spec {
            Some(spec) => cast(tensor, spec.dtype).map_err(|problem| format!("input '{name}': {problem}"))?,
            None => tensor.clone(),
        };
        inputs.push(NamedTensor { name: name.clone(), tensor });
    }
    let request =
        Request::new(signature, Query { inputs, ..Query::default() }).map_err(|error| error.to_string())?;
    let outputs = run(&request, signature, instance)?;
    for (index, expected) in expected {
        let spec = &signature.outputs[index];
        let got = outputs.get(index).ok_or_else(|| {
            format!("output '{}' is missing: the run gave {} outputs", spec.name, outputs.len())
        })?;
        check_output(spec, expected, got, case.tolerance, signature.is_batched())
            .map_err(|problem| format!("output '{}' {problem}", spec.name))?;
    }
    Ok(request.rows())
}

/// The case's outputs with their places in the signature.
fn find_outputs<'a>(case: &'a GoldenCase, signature: &Signature) -> Result<Vec<(usize, &'a Tensor)>, String> {
    if case.outputs.is_empty() {
        return Err("no output is given; expected one of the model's at least".into());
    }
    let mut found: Vec<(usize, &Tensor)> = Vec::with_capacity(case.outputs.len());
    for NamedTensor { name, tensor } in &case.outputs {
        let Some(index) = signature.outputs.iter().position(|spec| spec.name == *name) else {
            let known: Vec<String> =
                signature.outputs.iter().map(|spec| format!("'{}'", spec.name)).collect();
            return Err(format!("unexpected output '{name}': the model gives {}", known.join(", ")));
        };
        if found.iter().any(|(other, _)| *other == index) {
            return Err(format!("output '{name}' is given twice"));
        }
        found.push((index, tensor));
    }
    Ok(found)
}

fn run(request: &Request, signature: &Signature, instance: &mut dyn Instance) -> Result<Vec<Tensor>, String> {
    // Tensors own unaligned memory; instances are promised 64 bytes.
    let mut gather = Gather::default();
    gather.fill(std::iter::once(request.inputs()), request.stackable_rows(signature));
    let views: Vec<Option<InputView<'_>>> = gather.views(request.inputs()).collect();
    instance.run(&views).map_err(|error| format!("the model does not run: {error}"))
}

fn check_output(
    spec: &TensorSpec,
    expected: &Tensor,
    got: &Tensor,
    tolerance: Tolerance,
    batched: bool,
) -> Result<(), String> {
    if got.dtype() != spec.dtype {
        return Err(format!("is {} in a run, {} in the model's signature", got.dtype(), spec.dtype));
    }
    let expected = cast(expected, got.dtype()).map_err(|problem| format!("is not comparable: {problem}"))?;
    if expected.shape() != got.shape() {
        return Err(format!(
            "differs: expected shape {}, got {}",
            ShapeText(expected.shape()),
            ShapeText(got.shape())
        ));
    }
    let Comparison { differing, first, largest } = compare(&expected, got, tolerance);
    let Some(first) = first else { return Ok(()) };
    let shape = got.shape();
    let mut text = format!(
        "differs in {differing} of {} elements: {} is expected to be {}, got {}",
        got.element_count(),
        place(first.element, shape, batched),
        first.expected,
        first.got
    );
    if let Some(largest) = largest {
        text += &format!("; the largest difference is {}", short(largest.amount));
        if largest.element != first.element {
            text += &format!(
                ", {} is expected to be {}, got {}",
                place(largest.element, shape, batched),
                largest.expected,
                largest.got
            );
        }
        text += &format!(" (tolerance: {tolerance})");
    }
    Err(text)
}

/// A difference in as many digits as it deserves.
fn short(amount: f64) -> String {
    let rounded: f64 = format!("{amount:.5e}").parse().unwrap_or(amount);
    format!("{rounded:?}").trim_end_matches(".0").to_owned()
}

/// Where the element with the row-major number `element` lies, in words.
fn place(element: usize, shape: &[usize], batched: bool) -> String {
    let mut index = vec![0; shape.len()];
    let mut rest = element;
    for (place, &size) in index.iter_mut().zip(shape).rev() {
        *place = rest % size;
        rest /= size;
    }
    match (index.as_slice(), batched) {
        ([], _) => "the scalar".to_owned(),
        ([row], true) => format!("row {row}"),
        ([row, rest @ ..], true) => format!("row {row} at {}", ShapeText(rest)),
        (index, false) => format!("the element at {}", ShapeText(index)),
    }
}
