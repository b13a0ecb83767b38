//! Tensors in protobuf: what a `ModelInferRequest` says, and what a `ModelInferResponse` is made of.
//!
//! Raw tensors keep the memory that their message came in, and typed ones the memory that prost
//! decoded them into, so decoding copies only what changes its layout (narrow integers, `BYTES`).

mod contents;
pub mod examples;
mod parameters;
pub mod tensorflow;
pub(crate) mod wire;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::request::{NamedTensor, Query, Response, VersionSelector};
use gristmill_engine::tensor::{DType, Shape, Tensor};
use gristmill_proto::inference::infer_parameter::ParameterChoice;
use gristmill_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use gristmill_proto::inference::model_infer_response::InferOutputTensor;
use gristmill_proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
};
use prost::Message;

use crate::codec::classification::WantedClasses;
use crate::routing_key::routed_members;
use crate::shared_memory::{PlacedOutput, Reach};

/// A decoded `ModelInferRequest`.
#[derive(Clone, Debug)]
pub struct InferCall {
    /// Its deadline and its timeout are not set: only the caller knows when the request arrived.
    pub query: Query,
    /// To be echoed in the answer.
    pub id: String,
    /// How long after its arrival the client stops waiting (the `timeout` parameter).
    pub timeout: Option<Duration>,
    /// How the client reads outputs.
    pub form: Form,
    /// Outputs of which the best classes are to be answered.
    pub classes: Vec<WantedClasses>,
    /// Outputs that are to be answered in shared memory.
    pub placed: Vec<PlacedOutput>,
    /// As they came.
    pub parameters: HashMap<String, InferParameter>,
}

/// Where a message carries its tensors' elements. One of the two for a whole message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `raw_input_contents` and `raw_output_contents`: little-endian bytes.
    #[default]
    Raw,
    /// `contents` of each tensor, in the field for its datatype. FP16 and BF16 have none.
    Typed,
}

/// Decodes one serialised `ModelInferRequest`.
///
/// # Errors
/// `InvalidInput` when `message` is not valid protobuf, and as [`decode`].
pub fn decode_infer(message: &[u8]) -> Result<InferCall, InferError> {
    let request = ModelInferRequest::decode(Bytes::copy_from_slice(message))
        .map_err(|error| InferError::InvalidInput(format!("malformed ModelInferRequest: {error}")))?;
    decode(request)
}

/// Takes a request apart. Outputs will be written as its inputs came (raw unless some input has
/// typed contents), or as its `binary_data_output` parameter says.
///
/// # Errors
/// `InvalidInput` that names the tensor or parameter, what was expected and what came.
pub fn decode(request: ModelInferRequest) -> Result<InferCall, InferError> {
    decode_within(request, &mut Reach::nothing())
}

/// The same for a request whose tensors may be in shared memory, within `reach`: inputs are copied from there now.
///
/// # Errors
/// As [`decode`], and `TooLarge` for more inputs there than a request may have.
pub(crate) fn decode_within(
    request: ModelInferRequest,
    reach: &mut Reach<'_>,
) -> Result<InferCall, InferError> {
    let parameters = parameters::read_request(&request.parameters)?;
    let version = VersionSelector::parse(&request.model_version)?;
    let (inputs, form) = decode_inputs(request.inputs, request.raw_input_contents, reach)?;
    let form = match parameters.binary_data_output {
        Some(true) => Form::Raw,
        Some(false) => Form::Typed,
        None => form,
    };
    let mut outputs = Vec::with_capacity(request.outputs.len());
    let (mut classes, mut placed) = (Vec::new(), Vec::new());
    for InferRequestedOutputTensor { name, parameters } in request.outputs {
        let output = outputs.len();
        let wanted = parameters::read_classes(&parameters)?;
        classes.extend(wanted.map(|count| WantedClasses { output, count }));
        if let Some(place) = parameters::read_place(&parameters)? {
            if wanted.is_some() {
                return Err(InferError::InvalidInput(format!(
                    "output '{name}' has both 'classification' and 'shared_memory_region': classes are answered in \
                     the message"
                )));
            }
            placed.push(PlacedOutput { output, part: reach.find(&format!("output '{name}'"), place)? });
        }
        outputs.push(name);
    }
    let query = Query {
        model: request.model_name,
        version,
        inputs,
        outputs,
        priority: parameters.priority,
        ..Query::default()
    };
    let timeout = parameters.timeout;
    Ok(InferCall { query, id: request.id, timeout, form, classes, placed, parameters: request.parameters })
}

/// Puts an answer into a message, moving its tensors. Falls back to [`Form::Raw`] when an output
/// has a datatype without typed contents.
pub fn encode(response: Response, id: String, form: Form) -> ModelInferResponse {
    let Response { model, routed, outputs, .. } = response;
    let typed =
        form == Form::Typed && outputs.iter().all(|(_, tensor)| contents::field(tensor.dtype()).is_some());
    let mut message = ModelInferResponse {
        model_name: model.name.clone(),
        model_version: model.version.to_string(),
        id,
        outputs: Vec::with_capacity(outputs.len()),
        ..ModelInferResponse::default()
    };
    if !typed {
        message.raw_output_contents.reserve_exact(outputs.len());
    }
    if let Some(routed) = routed {
        message.parameters.extend(routed_members(&routed).map(|(name, value)| {
            let parameter_choice = Some(ParameterChoice::StringParam(value));
            (name.to_owned(), InferParameter { parameter_choice })
        }));
    }
    for (index, tensor) in outputs {
        message.outputs.push(InferOutputTensor {
            name: model.signature.outputs[index].name.clone(),
            datatype: tensor.dtype().name().to_owned(),
            shape: tensor.shape().iter().map(|&size| size as i64).collect(),
            contents: typed.then(|| contents::write(&tensor)),
            ..InferOutputTensor::default()
        });
        if !typed {
            message.raw_output_contents.push(tensor.into_data());
        }
    }
    message
}

/// Puts an answer into a message without the elements of the outputs that are `placed`.
pub(crate) fn encode_without(
    response: Response,
    id: String,
    form: Form,
    placed: &[PlacedOutput],
) -> ModelInferResponse {
    let mut message = encode(response, id, form);
    for PlacedOutput { output, .. } in placed {
        let Some(tensor) = message.outputs.get_mut(*output) else { continue };
        tensor.contents = None;
        // As Triton has it, an entry without bytes stays in its place: clients count by outputs.
        if let Some(raw) = message.raw_output_contents.get_mut(*output) {
            raw.clear();
        }
    }
    message
}

/// Inputs in shared memory have no entry in `raw`: Triton's clients leave it out.
fn decode_inputs(
    inputs: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
    reach: &mut Reach<'_>,
) -> Result<(Vec<NamedTensor>, Form), InferError> {
    let in_message = inputs.iter().filter(|input| !parameters::have_place(&input.parameters)).count();
    if !raw.is_empty() && raw.len() != in_message {
        return Err(InferError::InvalidInput(format!(
            "raw_input_contents has {} for {}{}: expected one entry for each input, in the order of the inputs",
            counted(raw.len(), "entry", "entries"),
            counted(in_message, "input", "inputs"),
            if in_message < inputs.len() { " beside those in shared memory" } else { "" }
        )));
    }
    let has_raw = !raw.is_empty();
    let mut raw = raw.into_iter();
    let mut form = Form::Raw;
    let mut tensors = Vec::with_capacity(inputs.len());
    for input in inputs {
        let header = read_header(&input)?;
        let place = parameters::read_place(&input.parameters)?;
        let InferInputTensor { name, contents, .. } = input;
        let contents = contents.filter(|contents| !contents::is_empty(contents));
        if let Some(place) = place {
            if contents.is_some() {
                return Err(input_error(&name, "has contents and is in shared memory: use one of the two"));
            }
            let data = reach.read(&format!("input '{name}'"), place)?;
            let tensor =
                Tensor::new(header.dtype, header.shape, data).map_err(|error| input_error(&name, error))?;
            tensors.push(NamedTensor { name, tensor });
            continue;
        }
        let tensor = match (raw.next(), contents) {
            (Some(data), None) => {
                Tensor::new(header.dtype, header.shape, data).map_err(|error| input_error(&name, error))?
            }
            (Some(_), Some(_)) => {
                return Err(input_error(
                    &name,
                    "has contents in a request with raw_input_contents: use one of the two for all inputs",
                ));
            }
            (None, contents) => {
                debug_assert!(!has_raw, "as many raw entries as inputs");
                form = Form::Typed;
                decode_typed(&name, header, contents.unwrap_or_default())?
            }
        };
        tensors.push(NamedTensor { name, tensor });
    }
    Ok((tensors, form))
}

fn decode_typed(name: &str, header: Header, contents: InferTensorContents) -> Result<Tensor, InferError> {
    let values = contents::read(name, header.dtype, &header.shape, contents)?;
    match values {
        contents::Values::Numbers(data) => Tensor::new(header.dtype, header.shape, data),
        contents::Values::Elements(elements) => Tensor::from_elements(header.shape, elements),
    }
    .map_err(|error| input_error(name, error))
}

struct Header {
    dtype: DType,
    shape: Shape,
}

fn read_header(input: &InferInputTensor) -> Result<Header, InferError> {
    let Some(dtype) = DType::parse(&input.datatype) else {
        let known = DType::ALL.map(DType::name).join(", ");
        return Err(input_error(
            &input.name,
            format_args!("unknown datatype '{}', expected one of {known}", input.datatype),
        ));
    };
    let mut shape = Shape::with_capacity(input.shape.len());
    for &size in &input.shape {
        let Ok(size) = usize::try_from(size) else {
            return Err(input_error(
                &input.name,
                format_args!(
                    "shape {:?} has a negative dimension: send the sizes of this tensor",
                    input.shape
                ),
            ));
        };
        shape.push(size);
    }
    Ok(Header { dtype, shape })
}

fn input_error(name: &str, problem: impl std::fmt::Display) -> InferError {
    InferError::InvalidInput(format!("input '{name}': {problem}"))
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests;
