//! Loads and unloads models when a client says so, also from files that it hands over.

mod contents;
mod registry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use gristmill_engine::control::{Control, ControlError};
use gristmill_engine::error::InferError;
use gristmill_engine::registry::HandedOver;

pub(crate) use self::contents::is_plain_path;
pub(crate) use self::registry::OrderedRegistry;

/// Before the path of a file in the names of Triton's load parameters.
pub(crate) const FILE_PREFIX: &str = "file:";

/// What a load says beside the model's name.
#[derive(Debug, Default)]
pub(crate) struct LoadOrder {
    /// A model configuration as JSON.
    pub(crate) config: Option<String>,
    /// By `<version>/<name>`.
    pub(crate) files: BTreeMap<String, Bytes>,
}

/// Loads a model and waits until it serves.
///
/// # Errors
/// As [`Control::load`], and for files without a configuration.
pub(crate) async fn load(control: &Control, model: &str, order: LoadOrder) -> Result<(), InferError> {
    let contents = match order {
        LoadOrder { config: Some(config), files } => Some(HandedOver { config, files }),
        LoadOrder { config: None, files } if files.is_empty() => None,
        LoadOrder { config: None, .. } => {
            return Err(InferError::InvalidInput(
                "the load has files and no parameter config: expected the model's configuration as JSON with \
                 them, for example {\"backend\": \"onnxruntime\"}"
                    .into(),
            ));
        }
    };
    control.load(model, contents).await.map_err(refused)
}

/// Takes a model out of service.
///
/// # Errors
/// As [`Control::unload`].
pub(crate) async fn unload(control: &Control, model: &str) -> Result<(), InferError> {
    control.unload(model).await.map_err(refused)
}

/// The answer of a server that nobody may tell to load or unload.
pub(crate) fn nobody() -> InferError {
    InferError::Unavailable("this server takes no orders to load or unload models".into())
}

/// The place of an operator's errors in the table of errors.
pub(crate) fn refused(error: ControlError) -> InferError {
    match error {
        ControlError::NotFound(text) => InferError::NotFound(text),
        ControlError::Refused(text) => InferError::InvalidInput(text),
        ControlError::Failed(text) => InferError::Backend(text),
    }
}
