//! Models that are registered from elsewhere than the repository: the directory, and the URLs, that an operator allows.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::oneshot;

use super::Registration;
use super::archive::{self, Archive};
use super::fault::{Fault, Kind};
use crate::config::FILE_NAME as SETTINGS;
use crate::model_sources::{DownloadError, ModelSources};
use crate::repository_orders::LoadOrder;

/// A model as it was found there.
pub(super) struct Stored {
    name: String,
    /// By `<version>/<name>`, and by name what all versions share.
    files: BTreeMap<String, Bytes>,
}

/// The file of a version that is the model.
const MODEL_FILE: &str = "model.onnx";
/// How TorchServe's archives end.
const ARCHIVE: &str = ".mar";
/// The version of what does not say one.
const VERSION: &str = "1";

/// What is at `url`, a path in the store, in `file://` or without; nothing where nothing is.
///
/// # Errors
/// The path leads out of the store, what is there is no model, or it cannot be read.
pub(super) async fn find(store: &Path, url: &str) -> Result<Option<Stored>, Fault> {
    let (root, url) = (store.to_owned(), url.strip_prefix("file://").unwrap_or(url).to_owned());
    beside_io(move || read(&root, &url)).await
}

/// Whether it is a URL of another kind than `file://`. A model of the repository has no such name.
pub(super) fn is_on_a_server(url: &str) -> bool {
    url.contains("://") && !url.starts_with("file://")
}

/// The model file or archive at `url`, if that is allowed.
///
/// # Errors
/// It is not allowed, it is no model, or it cannot be had.
pub(super) async fn download(sources: &ModelSources, url: &str) -> Result<Stored, Fault> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let file_name = path.rsplit('/').next().unwrap_or_default().to_owned();
    if !is_model_file(&file_name) {
        let text =
            format!("'{url}' is not a model: expected the URL of a file that ends with .onnx or {ARCHIVE}");
        return Err(Fault::new(Kind::BadRequest, text));
    }
    let contents = sources.download(url).await.map_err(|error| match error {
        DownloadError::NotAllowed(text) => Fault::new(Kind::UrlNotAllowed, text),
        DownloadError::Failed(text) => Fault::new(Kind::DownloadFailed, text),
    })?;
    let url = url.to_owned();
    beside_io(move || Stored::of_file(&url, &file_name, contents)).await
}

/// Reads, or unpacks, in a thread of its own: a large model takes a while.
async fn beside_io<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let (answer, found) = oneshot::channel();
    let work = move || {
        // Nobody waits any more where the client has left.
        let _gone = answer.send(work());
    };
    let started = std::thread::Builder::new().name("model-store".into()).spawn(work);
    started.map_err(|error| Fault::new(Kind::Internal, format!("cannot read the model store: {error}")))?;
    found.await.unwrap_or_else(|_| Err(Fault::new(Kind::Internal, "reading the model store panicked")))
}

/// Whether a file of that name is a model, with a name before the ending.
fn is_model_file(name: &str) -> bool {
    [".onnx", ARCHIVE].iter().any(|ending| name.strip_suffix(ending).is_some_and(|name| !name.is_empty()))
}

// === impl Stored ===

impl Stored {
    /// `url` is how errors call the file.
    fn of_file(url: &str, file_name: &str, contents: Bytes) -> Result<Stored, Fault> {
        if file_name.ends_with(ARCHIVE) {
            let unpacked = archive::read(&contents, MODEL_FILE);
            let Archive { name, files } = unpacked.map_err(|why| {
                Fault::new(Kind::BadRequest, format!("'{url}' cannot be registered: {why}"))
            })?;
            return Ok(Stored { name, files });
        }
        let name = file_name.strip_suffix(".onnx").unwrap_or(file_name).to_owned();
        Ok(Stored { name, files: BTreeMap::from([(format!("{VERSION}/{MODEL_FILE}"), contents)]) })
    }

    /// The name to serve it under, and what to load.
    pub(super) fn order(self, registration: &Registration) -> (String, LoadOrder) {
        let mut config = json!({});
        let said = |number: Option<u32>| number.filter(|&number| number > 0);
        if let Some(count) = said(registration.initial_workers) {
            config["instance_group"] = json!([{"count": count}]);
        }
        if let Some(rows) = said(registration.batch_size) {
            config["max_batch_size"] = rows.into();
        }
        if let Some(delay) = said(registration.max_batch_delay_ms) {
            let microseconds = u64::from(delay) * 1000;
            config["dynamic_batching"] = json!({"max_queue_delay_microseconds": microseconds});
        }
        let name = registration.model_name.clone().unwrap_or(self.name);
        (name, LoadOrder { config: Some(config.to_string()), files: self.files })
    }
}

fn read(root: &Path, url: &str) -> Result<Option<Stored>, Fault> {
    let cannot_read = |error: io::Error| {
        Fault::new(Kind::Internal, format!("cannot read '{url}' in the model store: {error}"))
    };
    let root = root.canonicalize().map_err(cannot_read)?;
    let path = match root.join(url).canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot_read(error)),
    };
    if !path.starts_with(&root) || path == root {
        let text = format!("'{url}' is not in the model store: expected a path below it");
        return Err(Fault::new(Kind::BadRequest, text));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !path.is_dir() {
        if !is_model_file(&name) {
            let text = format!(
                "'{url}' is not a model: expected a file that ends with .onnx or {ARCHIVE}, or a directory"
            );
            return Err(Fault::new(Kind::BadRequest, text));
        }
        let contents = fs::read(&path).map_err(cannot_read)?;
        return Stored::of_file(url, &name, contents.into()).map(Some);
    }
    let mut files = BTreeMap::new();
    if path.join(MODEL_FILE).is_file() {
        read_files(&path, &format!("{VERSION}/"), &mut files).map_err(cannot_read)?;
        if let Some(settings) = files.remove(&format!("{VERSION}/{SETTINGS}")) {
            files.insert(SETTINGS.to_owned(), settings);
        }
    } else {
        for entry in fs::read_dir(&path).map_err(cannot_read)? {
            let entry = entry.map_err(cannot_read)?;
            let version = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && version.bytes().all(|byte| byte.is_ascii_digit()) {
                read_files(&entry.path(), &format!("{version}/"), &mut files).map_err(cannot_read)?;
            }
        }
        if !files.is_empty() {
            read_files(&path, "", &mut files).map_err(cannot_read)?;
        }
    }
    if files.is_empty() {
        let text =
            format!("'{url}' has no model: expected {MODEL_FILE} in it, or in a directory for each version");
        return Err(Fault::new(Kind::BadRequest, text));
    }
    Ok(Some(Stored { name, files }))
}

/// Adds the files of a directory: a model and what it keeps beside it, or what all versions share.
fn read_files(directory: &Path, prefix: &str, files: &mut BTreeMap<String, Bytes>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.insert(format!("{prefix}{name}"), fs::read(entry.path())?.into());
        }
    }
    Ok(())
}
