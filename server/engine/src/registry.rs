//! What ought to be served, and from where.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::Backend;
use crate::workers::Tuning;

/// States what ought to be served. Stateless: asked twice about the same repository it answers the same.
pub trait Registry: Send {
    /// # Errors
    /// The repository as a whole cannot be read. A fault of one model is part of the answer.
    fn desired(&mut self) -> Result<Desired, RegistryError>;
}

/// The repository cannot be read; the text says which and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegistryError(pub String);

/// Models by name.
#[derive(Clone, Default)]
pub struct Desired {
    pub models: BTreeMap<String, DesiredModel>,
}

/// A model in the repository: either its versions with its settings, or what is wrong with it.
#[derive(Clone)]
pub enum DesiredModel {
    Sound { versions: BTreeMap<u64, PathBuf>, settings: ModelSettings },
    Faulty { reason: String },
}

/// How to run a model.
#[derive(Clone)]
pub struct ModelSettings {
    pub backend: Arc<dyn Backend>,
    pub tuning: Tuning,
}

/// Reads a model's optional settings file; the text of an error names the file and the field.
pub type ReadSettings = Box<dyn Fn(&Path) -> Result<ModelSettings, String> + Send>;

/// A directory of `<model>/<version>/model.onnx`.
pub struct DirRegistry {
    root: PathBuf,
    read_settings: ReadSettings,
}

const MODEL_FILE: &str = "model.onnx";

// === impl DirRegistry ===

impl DirRegistry {
    /// `read_settings` is given a model's directory.
    pub fn new(root: PathBuf, read_settings: ReadSettings) -> DirRegistry {
        DirRegistry { root, read_settings }
    }

    fn model(&self, directory: &Path) -> DesiredModel {
        let versions = match versions(directory) {
            Ok(versions) => versions,
            Err(reason) => return DesiredModel::Faulty { reason },
        };
        if versions.is_empty() {
            let reason = format!(
                "{} has no version: expected <number>/{MODEL_FILE} in it, for example 1/{MODEL_FILE}",
                directory.display()
            );
            return DesiredModel::Faulty { reason };
        }
        match (self.read_settings)(directory) {
            Ok(settings) => DesiredModel::Sound { versions, settings },
            Err(reason) => DesiredModel::Faulty { reason },
        }
    }
}

impl Registry for DirRegistry {
    fn desired(&mut self) -> Result<Desired, RegistryError> {
        let unreadable = |error: std::io::Error| {
            RegistryError(format!("cannot read the model repository {}: {error}", self.root.display()))
        };
        let mut models = BTreeMap::new();
        for entry in fs::read_dir(&self.root).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if !path.is_dir() {
                continue;
            }
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                tracing::warn!(path = %path.display(), "skipped a directory whose name is not UTF-8");
                continue;
            };
            if name.starts_with(['.', '_']) {
                continue;
            }
            models.insert(name.to_owned(), self.model(&path));
        }
        Ok(Desired { models })
    }
}

/// Version directories are positive whole numbers without leading zeros; others are not versions.
fn versions(directory: &Path) -> Result<BTreeMap<u64, PathBuf>, String> {
    let unreadable = |error: std::io::Error| format!("cannot read {}: {error}", directory.display());
    let mut versions = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Ok(version) = name.parse::<u64>() else { continue };
        if version == 0 || version.to_string() != name || !path.is_dir() {
            continue;
        }
        versions.insert(version, path.join(MODEL_FILE));
    }
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(files: &[&str], expected: Expect) {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let settings = |_: &Path| Err("no settings in this test".to_owned());
        let registry = DirRegistry::new(root.path().to_owned(), Box::new(settings));
        let mut lines = String::new();
        let mut registry = registry;
        for (name, model) in registry.desired().unwrap().models {
            let text = match model {
                DesiredModel::Sound { versions, .. } => format!("{:?}", versions.keys()),
                DesiredModel::Faulty { reason } => reason.replace(root.path().to_str().unwrap(), "ROOT"),
            };
            lines += &format!("{name}: {text}\n");
        }
        expected.assert_eq(&lines);
    }

    #[test]
    fn directories_are_models_and_numbers_are_versions() {
        check(
            &["a/1/model.onnx", "a/notes/x", "b/01/model.onnx", "c/README", ".git/1/model.onnx", "file"],
            expect![[r#"
                a: no settings in this test
                b: ROOT/b has no version: expected <number>/model.onnx in it, for example 1/model.onnx
                c: ROOT/c has no version: expected <number>/model.onnx in it, for example 1/model.onnx
            "#]],
        );
    }

    #[test]
    fn versions_are_listed_by_number() {
        let root = tempfile::tempdir().unwrap();
        for version in ["2", "10", "1", "0", "007", "x"] {
            fs::create_dir(root.path().join(version)).unwrap();
        }
        assert_eq!(versions(root.path()).unwrap().into_keys().collect::<Vec<_>>(), [1, 2, 10]);
    }

    #[test]
    fn a_missing_repository_is_an_error() {
        let settings = |_: &Path| Err(String::new());
        let mut registry = DirRegistry::new("/nonexistent/models".into(), Box::new(settings));
        let error = registry.desired().err().unwrap().to_string();
        assert!(error.starts_with("cannot read the model repository /nonexistent/models: "), "{error}");
    }
}
