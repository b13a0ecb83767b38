//! A model of files that came with a load: written to a directory that lives as long as something needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_engine::backend::{Artifact, Backend, Model};
use gristmill_engine::control::ControlError;
use gristmill_engine::error::LoadError;
use gristmill_engine::registry::{DesiredModel, DirRegistry, Registry};
use tempfile::TempDir;

use super::FILE_PREFIX;
use crate::accompanied::Accompanied;
use crate::config::{FILE_NAME, SettingsReader};
use crate::triton_config::TritonConfig;

/// Keeps the files until neither the settings nor a loaded model needs them.
struct KeepingBackend {
    inner: Arc<dyn Backend>,
    files: Arc<TempDir>,
}

/// Writes the files and describes the model that they are. `files` are by their paths in the model's directory.
///
/// # Errors
/// The configuration is another model's, a path leads elsewhere, a version has no model file, or the files
/// cannot be written.
pub(super) fn from_files(
    reader: &SettingsReader,
    model: &str,
    config: TritonConfig,
    files: &BTreeMap<String, Bytes>,
) -> Result<DesiredModel, ControlError> {
    let refused = ControlError::Refused;
    if model.starts_with(['.', '_']) {
        let text = format!("'{model}' is not a model's name: expected none that begins with '.' or '_'");
        return Err(refused(text));
    }
    for path in files.keys() {
        check_path(path).map_err(refused)?;
    }
    let cannot_write =
        |error: io::Error| ControlError::Failed(format!("cannot write the files of '{model}': {error}"));
    let directory = tempfile::Builder::new()
        .prefix("gristmill-load-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .map_err(cannot_write)?;
    let directory = Arc::new(directory);
    let model_directory = directory.path().join(model);
    let mut settings = match files.get(FILE_NAME) {
        None => reader
            .triton_settings(config, &model_directory)
            .map_err(|why| refused(format!("parameter 'config': {why}")))?,
        Some(text) => std::str::from_utf8(text)
            .map_err(|error| format!("{FILE_NAME} is not UTF-8 at byte {}", error.valid_up_to()))
            .and_then(|text| reader.settings_of_both(text, config, &model_directory))
            .map_err(refused)?,
    };
    check_versions(files, &settings.file_name).map_err(refused)?;
    for (path, contents) in files {
        write(&model_directory.join(path), contents).map_err(cannot_write)?;
    }
    settings.backend = Arc::new(KeepingBackend { inner: settings.backend, files: Arc::clone(&directory) });
    let read_settings = move |_: &Path| Ok(settings.clone());
    let mut registry = DirRegistry::new(directory.path().to_owned(), Box::new(read_settings), Duration::ZERO);
    let desired =
        registry.desired().map_err(|error| ControlError::Failed(error.to_string()))?.models.remove(model);
    desired.ok_or_else(|| ControlError::Failed(format!("the files of '{model}' were removed meanwhile")))
}

fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, contents)
}

/// Such a path leads to one place below a directory, and no other path leads there.
pub(crate) fn is_plain_path(path: &str) -> bool {
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    let is_bad = |character: char| character == '\\' || character.is_control();
    path.split('/').all(is_plain) && !path.contains(is_bad)
}

fn check_path(path: &str) -> Result<(), String> {
    if is_plain_path(path) {
        return Ok(());
    }
    Err(format!(
        "parameter {:?}: expected <version>/<name> after '{FILE_PREFIX}', without '..', for example \
         {FILE_PREFIX}1/model.onnx",
        format!("{FILE_PREFIX}{path}")
    ))
}

fn check_versions(files: &BTreeMap<String, Bytes>, model_file: &str) -> Result<(), String> {
    let version = |path: &String| {
        let (first, _) = path.split_once('/')?;
        let version = first.parse::<u64>().ok()?;
        (version > 0 && version.to_string() == first).then_some(version)
    };
    let versions: BTreeSet<u64> = files.keys().filter_map(version).collect();
    if versions.is_empty() {
        return Err(format!(
            "the load has files and none of a version: expected a parameter such as {FILE_PREFIX}1/{model_file}"
        ));
    }
    match versions.iter().find(|version| !files.contains_key(&format!("{version}/{model_file}"))) {
        Some(version) => Err(format!(
            "version {version} has no model file: expected the parameter {FILE_PREFIX}{version}/{model_file}, or \
             another name as default_model_filename in the configuration"
        )),
        None => Ok(()),
    }
}

// === impl KeepingBackend ===

impl Backend for KeepingBackend {
    fn load(&self, artifact: &Artifact) -> Result<Box<dyn Model>, LoadError> {
        let inner = self.inner.load(artifact)?;
        Ok(Box::new(Accompanied::new(inner, Arc::clone(&self.files) as Arc<_>)))
    }
}
