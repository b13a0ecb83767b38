//! A list of models that ought to serve, as TensorFlow Serving's clients send it, and the orders that it comes to.

use std::collections::BTreeMap;

use gristmill_engine::control::Control;
use gristmill_engine::engine::Engine;
use gristmill_engine::error::InferError;
use gristmill_engine::request::VersionSelector;
use gristmill_proto::tensorflow::serving::ModelConfig;
use gristmill_proto::tensorflow::serving::ModelServerConfig;
use gristmill_proto::tensorflow::serving::model_server_config::Config;

use crate::repository_orders::{nobody, refused};

/// Versions by label.
type Labels = Vec<(String, u64)>;

/// Loads what `config` lists and does not serve, points its labels, and takes out of service what it does not list, in
/// this order: one that cannot be followed leaves what serves as it was.
///
/// # Errors
/// Nobody may give orders, the list says what cannot be followed from here, or a model cannot be loaded.
pub(super) async fn reload(
    engine: &Engine,
    control: Option<&Control>,
    config: Option<ModelServerConfig>,
) -> Result<(), InferError> {
    let control = control.ok_or_else(nobody)?;
    let listed = read(config)?;
    for model in listed.keys() {
        if engine.model(model, &VersionSelector::Default).is_err() {
            control.load(model, None).await.map_err(refused)?;
        }
    }
    for (model, labels) in &listed {
        for (label, version) in labels {
            control.set_label(model, label, Some(*version)).await.map_err(refused)?;
        }
    }
    let mut served: Vec<String> = engine.models().iter().map(|model| model.name.clone()).collect();
    served.dedup();
    for model in served.iter().filter(|model| !listed.contains_key(*model)) {
        control.unload(model).await.map_err(refused)?;
    }
    Ok(())
}

fn read(config: Option<ModelServerConfig>) -> Result<BTreeMap<String, Labels>, InferError> {
    let invalid = |text: String| Err(InferError::InvalidInput(text));
    let list = match config.and_then(|config| config.config) {
        Some(Config::ModelConfigList(list)) => list,
        Some(Config::CustomModelConfig(_)) => {
            return invalid("custom_model_config is not supported: send model_config_list".into());
        }
        None => return invalid("config is empty: expected model_config_list".into()),
    };
    let mut listed = BTreeMap::new();
    for config in list.config {
        let name = config.name.clone();
        if name.is_empty() {
            return invalid("a model of model_config_list has no name".into());
        }
        let labels = read_model(config)?;
        if listed.insert(name.clone(), labels).is_some() {
            return invalid(format!("model '{name}' is listed twice"));
        }
    }
    Ok(listed)
}

/// The labels, of a model that asks for nothing else than what its files say.
fn read_model(config: ModelConfig) -> Result<Labels, InferError> {
    let ModelConfig { name, base_path, model_version_policy, version_labels, logging_config, .. } = config;
    let complaint = |problem: String| InferError::InvalidInput(format!("model '{name}': {problem}"));
    let directory = base_path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if !directory.is_empty() && directory != name {
        return Err(complaint(format!(
            "base_path is '{base_path}': expected nothing, or the directory '{name}' of this server's repository"
        )));
    }
    if model_version_policy.is_some() {
        return Err(complaint(
            "model_version_policy cannot be set from here: say 'versions' in the model's model.toml".into(),
        ));
    }
    if logging_config.is_some() {
        return Err(complaint("logging_config is not supported: requests are not logged".into()));
    }
    let labels = version_labels.into_iter().map(|(label, version)| match u64::try_from(version) {
        Ok(number) if number > 0 => Ok((label, number)),
        _ => Err(complaint(format!("label '{label}' is for version {version}: expected 1 or more"))),
    });
    labels.collect()
}
