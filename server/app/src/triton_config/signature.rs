//! Whether a model file takes and gives what its configuration declares.

use gristmill_engine::tensor::{BatchAxis, Dim, Signature, TensorSpec};

use super::batching::Batching;
use super::tensors::{DeclaredTensor, Dims};
use super::warm_up::WarmUpInput;
use super::{TritonConfig, note};

/// Compares what `config` declares with the `signature` of the model file, whose shapes include the
/// batch axis. Says what a client should know in notes.
///
/// # Errors
/// Names the tensor, what was declared and what the file has: a name that is missing on either side,
/// another dtype, dimensions that cannot agree, or a warm-up sample that does not fit.
pub(crate) fn check_signature(config: &TritonConfig, signature: &Signature) -> Result<Vec<String>, String> {
    // Where the configuration leaves batching to the file, Triton reads dims by what it finds there.
    let rows = match config.batching {
        Batching::Never => false,
        Batching::UpTo(_) => true,
        Batching::Derived => signature.is_batched(),
    };
    let mut notes = Vec::new();
    if let (Batching::UpTo(_), BatchAxis::None { reason }) = (config.batching, &signature.batch) {
        note(&mut notes, "max_batch_size", format!("requests run one at a time, because {reason}"));
    }
    for input in &config.inputs {
        let spec = find("input", &input.name, &signature.inputs)?;
        compare("input", input, spec, config, rows)?;
        note_input(input, spec, rows, &mut notes);
    }
    for output in &config.outputs {
        let spec = find("output", &output.name, &signature.outputs)?;
        compare("output", output, spec, config, rows)?;
    }
    check_complete(config, signature, &mut notes)?;
    check_warm_up(config, signature, rows)?;
    Ok(notes)
}

fn find<'a>(role: &str, name: &str, specs: &'a [TensorSpec]) -> Result<&'a TensorSpec, String> {
    specs.iter().find(|spec| spec.name == name).ok_or_else(|| {
        format!("the configuration declares {role} '{name}', the model file has {}", names(specs))
    })
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<String> = specs.iter().map(|spec| format!("'{}'", spec.name)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn compare(
    role: &str,
    declared: &DeclaredTensor,
    spec: &TensorSpec,
    config: &TritonConfig,
    rows: bool,
) -> Result<(), String> {
    let fits = declared.dtype == spec.dtype
        && match spec.shape.as_deref() {
            None => true,
            // Triton has no tensors without dimensions, and stands in a one for them.
            Some([]) => !rows && declared.model_dims().0.iter().all(|dim| *dim == Some(1)),
            Some([first, rest @ ..]) if rows => {
                matches!(first, Dim::Dynamic(_)) && agree(declared.model_dims(), rest)
            }
            Some(dims) => agree(declared.model_dims(), dims),
        };
    if fits {
        return Ok(());
    }
    let complete = |dims: &Dims| {
        let rows = rows.then_some(None);
        Dims(rows.into_iter().chain(dims.0.iter().copied()).collect())
    };
    let mut text = format!(
        "the configuration declares {role} '{}' as {} {}",
        declared.name,
        declared.dtype,
        complete(&declared.dims)
    );
    if let Some(reshape) = &declared.reshape {
        text.push_str(&format!(", reshaped to {}", complete(reshape)));
    }
    text.push_str(&format!(", the model file has {spec}"));
    if rows && spec.shape.as_ref().is_some_and(|shape| !matches!(shape.first(), Some(Dim::Dynamic(_)))) {
        let given = match config.batching {
            Batching::UpTo(rows) => format!("max_batch_size is {rows}"),
            Batching::Derived | Batching::Never => "the file counts rows".to_owned(),
        };
        text.push_str(&format!(
            ": {given}, so the first dimension in the file must be open; set max_batch_size to 0 and give \
             all dimensions in dims"
        ));
    }
    Err(text)
}

/// The configuration may narrow what the file leaves open, and not the other way round.
fn agree(declared: &Dims, file: &[Dim]) -> bool {
    declared.0.len() == file.len()
        && declared.0.iter().zip(file).all(|(declared, file)| match file {
            Dim::Dynamic(_) => true,
            Dim::Fixed(size) => *declared == Some(*size),
        })
}

fn note_input(declared: &DeclaredTensor, spec: &TensorSpec, rows: bool, notes: &mut Vec<String>) {
    let name = &declared.name;
    let shape = spec.shape.as_deref().unwrap_or_default();
    let own = if rows { shape.get(1..).unwrap_or_default() } else { shape };
    let narrows = declared
        .model_dims()
        .0
        .iter()
        .zip(own)
        .any(|(declared, file)| declared.is_some() && matches!(file, Dim::Dynamic(_)));
    if shape.is_empty() && spec.shape.is_some() {
        notes.push(format!(
            "input '{name}': requests give it shape [], the model file has no dimensions for it"
        ));
    }
    if narrows || spec.shape.is_none() {
        notes
            .push(format!("input '{name}': dims {} narrow what the model file takes, {spec}", declared.dims));
    }
    if declared.optional && !spec.optional {
        let instead = "the model file has no default for it, so every request must give it";
        note(notes, format!("input '{name}': optional"), instead);
    }
}

/// Every input that requests must give is declared, if any is; outputs need not be.
fn check_complete(
    config: &TritonConfig,
    signature: &Signature,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let declares = |tensors: &[DeclaredTensor], name: &str| tensors.iter().any(|tensor| tensor.name == name);
    if !config.inputs.is_empty() {
        let missing =
            signature.inputs.iter().find(|spec| !spec.optional && !declares(&config.inputs, &spec.name));
        if let Some(spec) = missing {
            return Err(format!(
                "the model file has the input {spec}, which the configuration does not declare; declare every \
                 input without a default, or none"
            ));
        }
    }
    if !config.outputs.is_empty() {
        for spec in signature.outputs.iter().filter(|spec| !declares(&config.outputs, &spec.name)) {
            notes.push(format!(
                "output '{}' is not declared, and is served as the model file has it: {spec}",
                spec.name
            ));
        }
    }
    Ok(())
}

fn check_warm_up(config: &TritonConfig, signature: &Signature, rows: bool) -> Result<(), String> {
    for (index, sample) in config.warm_up.iter().enumerate() {
        let what = format!("warm-up sample {index} '{}'", sample.name);
        for input in &sample.inputs {
            let spec =
                find("input", &input.name, &signature.inputs).map_err(|why| format!("{what}: {why}"))?;
            let declared = config.inputs.iter().find(|declared| declared.name == input.name);
            if !fits(input, declared, spec, rows) {
                let dims: Vec<Option<usize>> = input.dims.iter().copied().map(Some).collect();
                return Err(format!(
                    "{what}: its input '{}' is {} {}, which does not fit {spec} in the model file",
                    input.name,
                    input.dtype,
                    Dims(dims)
                ));
            }
        }
        let given = |name: &str| sample.inputs.iter().any(|input| input.name == name);
        if let Some(spec) = signature.inputs.iter().find(|spec| !spec.optional && !given(&spec.name)) {
            return Err(format!("{what} lacks the input {spec}"));
        }
        if sample.rows > 1 && !rows {
            return Err(format!(
                "{what} has a batch_size of {}, and the model file does not count rows; write 1",
                sample.rows
            ));
        }
    }
    Ok(())
}

fn fits(input: &WarmUpInput, declared: Option<&DeclaredTensor>, spec: &TensorSpec, rows: bool) -> bool {
    let dims = match declared {
        Some(declared) => declared.model_shape(&input.dims, false),
        None => Some(input.dims.as_slice().into()),
    };
    let Some(dims) = dims else { return false };
    let dims = Dims(dims.iter().copied().map(Some).collect());
    input.dtype == spec.dtype
        && match spec.shape.as_deref() {
            None => true,
            Some([_, rest @ ..]) if rows => agree(&dims, rest),
            Some(file) => agree(&dims, file),
        }
}
