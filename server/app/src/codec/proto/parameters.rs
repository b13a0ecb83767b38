//! The `parameters` maps of a request: which mean something here, which are refused, which are ignored.

use std::collections::HashMap;
use std::time::Duration;

use gristmill_engine::error::InferError;
use gristmill_proto::inference::InferParameter;
use gristmill_proto::inference::infer_parameter::ParameterChoice;

use crate::shared_memory::Place;

/// What a request's parameters ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RequestParameters {
    /// `timeout`, in microseconds on the wire; 0 means none.
    pub(super) timeout: Option<Duration>,
    /// From 1, the most urgent; 0 is the model's default.
    pub(super) priority: u64,
    /// `binary_data_output`: true for raw outputs, false for typed ones.
    pub(super) binary_data_output: Option<bool>,
}

/// Names that no model may use for its own parameters.
const RESERVED_PREFIX: &str = "triton_";

/// Reads the parameters of a request. Unknown ones are the client's own business and are ignored.
///
/// # Errors
/// `InvalidInput` for a value of the wrong type, for a sequence (no model here keeps state between
/// requests) and for an unknown name with the reserved prefix.
pub(super) fn read_request(
    parameters: &HashMap<String, InferParameter>,
) -> Result<RequestParameters, InferError> {
    let mut read = RequestParameters::default();
    for (name, parameter) in parameters {
        let value = parameter.parameter_choice.as_ref();
        match name.as_str() {
            "timeout" => {
                let microseconds = whole_number(name, value)?;
                read.timeout = (microseconds > 0).then(|| Duration::from_micros(microseconds));
            }
            "priority" => read.priority = whole_number(name, value)?,
            "binary_data_output" => read.binary_data_output = Some(truth(name, value)?),
            // Every answer of a stream is final here and says so, with or without this parameter.
            "triton_enable_empty_final_response" => {
                truth(name, value)?;
            }
            "sequence_id" if is_no_sequence(value) => {}
            "sequence_start" | "sequence_end" if !truth(name, value)? => {}
            "sequence_id" | "sequence_start" | "sequence_end" => {
                return Err(InferError::InvalidInput(format!(
                    "parameter '{name}': sequences are not supported, every request is answered by itself"
                )));
            }
            _ if name.starts_with(RESERVED_PREFIX) => {
                return Err(InferError::InvalidInput(format!(
                    "parameter '{name}': names that begin with '{RESERVED_PREFIX}' are reserved; \
                     the only one known is 'triton_enable_empty_final_response'"
                )));
            }
            _ => {}
        }
    }
    Ok(read)
}

/// Whether they say that a tensor is in shared memory.
pub(super) fn have_place(parameters: &HashMap<String, InferParameter>) -> bool {
    ["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"]
        .iter()
        .any(|&name| parameters.contains_key(name))
}

/// Where in shared memory a tensor is, if it is there.
///
/// # Errors
/// `InvalidInput` for values of the wrong type.
pub(super) fn read_place(parameters: &HashMap<String, InferParameter>) -> Result<Option<Place>, InferError> {
    let mut place = Place::default();
    for (key, parameter) in parameters {
        let value = parameter.parameter_choice.as_ref();
        match key.as_str() {
            "shared_memory_region" => place.region = Some(text(key, value)?),
            "shared_memory_byte_size" => place.byte_size = Some(whole_number(key, value)?),
            "shared_memory_offset" => place.offset = Some(whole_number(key, value)?),
            _ => {}
        }
    }
    Ok(place.is_said().then_some(place))
}

/// Of how many classes a requested output is to be answered; all of it where nothing is said, or 0.
///
/// # Errors
/// `InvalidInput` for a `classification` that is not a number of classes.
pub(super) fn read_classes(
    parameters: &HashMap<String, InferParameter>,
) -> Result<Option<usize>, InferError> {
    let Some(parameter) = parameters.get("classification") else { return Ok(None) };
    let count = whole_number("classification", parameter.parameter_choice.as_ref())?;
    Ok(Some(usize::try_from(count).unwrap_or(usize::MAX)).filter(|&count| count > 0))
}

fn whole_number(name: &str, value: Option<&ParameterChoice>) -> Result<u64, InferError> {
    match value {
        Some(ParameterChoice::Uint64Param(value)) => Ok(*value),
        Some(ParameterChoice::Int64Param(value)) => u64::try_from(*value).map_err(|_| {
            InferError::InvalidInput(format!("parameter '{name}': expected 0 or more, got {value}"))
        }),
        other => Err(wrong_type(name, "int64_param or uint64_param", other)),
    }
}

fn text(name: &str, value: Option<&ParameterChoice>) -> Result<String, InferError> {
    match value {
        Some(ParameterChoice::StringParam(value)) => Ok(value.clone()),
        other => Err(wrong_type(name, "string_param", other)),
    }
}

fn truth(name: &str, value: Option<&ParameterChoice>) -> Result<bool, InferError> {
    match value {
        Some(ParameterChoice::BoolParam(value)) => Ok(*value),
        other => Err(wrong_type(name, "bool_param", other)),
    }
}

/// 0 and the empty string are how clients say that a request belongs to no sequence.
fn is_no_sequence(value: Option<&ParameterChoice>) -> bool {
    match value {
        None => true,
        Some(ParameterChoice::Int64Param(id)) => *id == 0,
        Some(ParameterChoice::Uint64Param(id)) => *id == 0,
        Some(ParameterChoice::StringParam(id)) => id.is_empty(),
        Some(ParameterChoice::BoolParam(_) | ParameterChoice::DoubleParam(_)) => false,
    }
}

fn wrong_type(name: &str, expected: &str, got: Option<&ParameterChoice>) -> InferError {
    let got = match got {
        None => "no value",
        Some(ParameterChoice::BoolParam(_)) => "bool_param",
        Some(ParameterChoice::Int64Param(_)) => "int64_param",
        Some(ParameterChoice::StringParam(_)) => "string_param",
        Some(ParameterChoice::DoubleParam(_)) => "double_param",
        Some(ParameterChoice::Uint64Param(_)) => "uint64_param",
    };
    InferError::InvalidInput(format!("parameter '{name}': expected {expected}, got {got}"))
}
