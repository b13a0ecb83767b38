//! States of versions and signatures of models, in the words of TensorFlow Serving.

use gristmill_engine::engine::{Engine, VersionState};
use gristmill_engine::error::InferError;
use gristmill_engine::request::{ModelInfo, VersionSelector};
use gristmill_engine::tensor::{DType, TensorSpec};
use serde_json::{Map, Value, json};

use super::request::SIGNATURE;
use crate::oip_http::Target;

/// The states of the versions that `target` means: all of the model, or one.
///
/// # Errors
/// `NotFound` for a name, version or label that is not in the repository.
pub(super) fn versions(engine: &Engine, target: &Target) -> Result<Value, InferError> {
    let wanted = match &target.version {
        VersionSelector::Default => None,
        VersionSelector::Number(version) => Some(*version),
        // A label stands for a version that serves.
        VersionSelector::Label(_) => Some(engine.model(&target.model, &target.version)?.version),
    };
    let entries = engine.index();
    let of_model = entries.iter().filter(|entry| entry.model == target.model);
    let states: Vec<Value> = of_model
        .filter(|entry| wanted.map_or(entry.version > 0, |wanted| entry.version == wanted))
        .map(|entry| {
            let (state, code) = match entry.state {
                VersionState::Loading => ("LOADING", "OK"),
                VersionState::Ready => ("AVAILABLE", "OK"),
                VersionState::Unavailable => ("END", "UNAVAILABLE"),
            };
            json!({
                "version": entry.version.to_string(),
                "state": state,
                "status": {"error_code": code, "error_message": entry.reason},
            })
        })
        .collect();
    let is_known = entries.iter().any(|entry| entry.model == target.model);
    if is_known && (wanted.is_none() || !states.is_empty()) {
        return Ok(states.into());
    }
    // The engine says best what is not there.
    match engine.model(&target.model, &target.version) {
        Err(error) => Err(error),
        Ok(_) => Ok(states.into()),
    }
}

pub(super) fn metadata(model: &ModelInfo) -> Value {
    let tensors = |specs: &[TensorSpec]| -> Map<String, Value> {
        specs.iter().map(|spec| (spec.name.clone(), tensor(spec))).collect()
    };
    json!({
        "model_spec": {"name": model.name, "signature_name": "", "version": model.version.to_string()},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: {
            "inputs": tensors(&model.signature.inputs),
            "outputs": tensors(&model.signature.outputs),
            "method_name": "tensorflow/serving/predict",
        }}}},
    })
}

fn tensor(spec: &TensorSpec) -> Value {
    let dim = |size: i64| json!({"size": size.to_string(), "name": ""});
    let dims = spec.shape.is_some().then(|| spec.protocol_shape().into_iter().map(dim).collect());
    json!({
        "dtype": type_name(spec.dtype),
        "tensor_shape": {"dim": dims.unwrap_or_else(|| json!([])), "unknown_rank": spec.shape.is_none()},
        "name": spec.name,
    })
}

/// TensorFlow's name of a dtype.
fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "DT_BOOL",
        DType::Int8 => "DT_INT8",
        DType::Int16 => "DT_INT16",
        DType::Int32 => "DT_INT32",
        DType::Int64 => "DT_INT64",
        DType::Uint8 => "DT_UINT8",
        DType::Uint16 => "DT_UINT16",
        DType::Uint32 => "DT_UINT32",
        DType::Uint64 => "DT_UINT64",
        DType::Fp16 => "DT_HALF",
        DType::Bf16 => "DT_BFLOAT16",
        DType::Fp32 => "DT_FLOAT",
        DType::Fp64 => "DT_DOUBLE",
        DType::Bytes => "DT_STRING",
    }
}
