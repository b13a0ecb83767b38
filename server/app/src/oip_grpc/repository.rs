//! The parameters of Triton's model repository extension, as gRPC has them.

use std::collections::HashMap;

use gristmill_engine::error::InferError;
use gristmill_proto::inference::ModelRepositoryParameter;
use gristmill_proto::inference::model_repository_parameter::ParameterChoice;

use crate::repository_orders::{FILE_PREFIX, LoadOrder};

type Parameters = HashMap<String, ModelRepositoryParameter>;

/// Reads what a load says beside the model's name.
pub(super) fn read_load(parameters: Parameters) -> Result<LoadOrder, InferError> {
    let mut order = LoadOrder::default();
    for (name, parameter) in parameters {
        match (name.strip_prefix(FILE_PREFIX), parameter.parameter_choice) {
            (None, Some(ParameterChoice::StringParam(text))) if name == "config" => order.config = Some(text),
            (None, _) if name == "config" => {
                return Err(InferError::InvalidInput("parameter 'config' must be a string".into()));
            }
            (Some(path), Some(ParameterChoice::BytesParam(contents))) => {
                order.files.insert(path.to_owned(), contents);
            }
            (Some(_), _) => {
                return Err(InferError::InvalidInput(format!("parameter '{name}' must be bytes")));
            }
            (None, _) => return Err(unknown(&name, "config or file:<version>/<name>")),
        }
    }
    Ok(order)
}

/// Models have no dependents here, so `unload_dependents` says nothing new.
pub(super) fn check_unload(parameters: &Parameters) -> Result<(), InferError> {
    match parameters.keys().find(|name| *name != "unload_dependents") {
        Some(name) => Err(unknown(name, "unload_dependents")),
        None => Ok(()),
    }
}

fn unknown(name: &str, expected: &str) -> InferError {
    InferError::InvalidInput(format!("unknown parameter '{name}': expected {expected}"))
}
