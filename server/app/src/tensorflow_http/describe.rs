//! States of versions and signatures of models, in the words of TensorFlow Serving.

use gristmill_engine::engine::{Engine, IndexEntry, VersionState};
use gristmill_engine::error::InferError;
use gristmill_engine::request::{ModelInfo, VersionSelector};
use gristmill_engine::tensor::TensorSpec;
use serde_json::{Map, Value, json};

use super::request::SIGNATURE;
use crate::codec::proto::tensorflow::data_type;
use crate::oip_http::Target;

/// What the index says of the versions that `target` means: all of the model, or one.
///
/// # Errors
/// `NotFound` for a name, version or label that is not in the repository.
pub(crate) fn entries(engine: &Engine, target: &Target) -> Result<Vec<IndexEntry>, InferError> {
    let wanted = match &target.version {
        VersionSelector::Default => None,
        VersionSelector::Number(version) => Some(*version),
        // A label stands for a version that serves.
        VersionSelector::Label(_) => Some(engine.model(&target.model, &target.version)?.version),
    };
    let mut entries = engine.index();
    entries.retain(|entry| entry.model == target.model);
    let is_known = !entries.is_empty();
    entries.retain(|entry| wanted.map_or(entry.version > 0, |wanted| entry.version == wanted));
    if is_known && (wanted.is_none() || !entries.is_empty()) {
        return Ok(entries);
    }
    // The engine says best what is not there.
    engine.model(&target.model, &target.version).map(|_| entries)
}

/// The states of the versions that `target` means.
///
/// # Errors
/// As [`entries`].
pub(super) fn versions(engine: &Engine, target: &Target) -> Result<Value, InferError> {
    let state = |entry: IndexEntry| {
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
    };
    Ok(entries(engine, target)?.into_iter().map(state).collect())
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
        "dtype": data_type(spec.dtype).as_str_name(),
        "tensor_shape": {"dim": dims.unwrap_or_else(|| json!([])), "unknown_rank": spec.shape.is_none()},
        "name": spec.name,
    })
}
