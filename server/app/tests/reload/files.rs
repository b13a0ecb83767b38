//! Changes a repository as careful people do: whole versions and whole files appear by a rename.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A model repository that goes with the test.
pub(crate) struct Repository {
    /// Without symbolic links, so that messages can be compared.
    root: PathBuf,
    _directory: TempDir,
}

impl Repository {
    pub(crate) fn new() -> Repository {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap().join("models");
        fs::create_dir(&root).unwrap();
        Repository { root, _directory: directory }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Something that lies beside the repository and goes with the test.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.root.with_file_name(name)
    }

    pub(crate) fn version(&self, model: &str, version: u64) -> PathBuf {
        self.root.join(model).join(version.to_string())
    }

    /// A version with these files appears at once.
    pub(crate) fn put(&self, model: &str, version: u64, files: &[(&str, &[u8])]) {
        self.put_made(model, version, |directory| {
            for (name, contents) in files {
                fs::write(directory.join(name), contents).unwrap();
            }
        });
    }

    /// The same with whatever `make` puts into its directory.
    pub(crate) fn put_made(&self, model: &str, version: u64, make: impl FnOnce(&Path)) {
        let draft = self.root.join(format!(".{model}-{version}"));
        fs::create_dir(&draft).unwrap();
        make(&draft);
        fs::create_dir_all(self.root.join(model)).unwrap();
        fs::rename(draft, self.version(model, version)).unwrap();
    }

    /// A file of a model, such as `model.toml` or `1/model.onnx`, has other contents at once.
    pub(crate) fn replace(&self, model: &str, file: &str, contents: &[u8]) {
        let draft = self.root.join(".draft");
        fs::write(&draft, contents).unwrap();
        fs::create_dir_all(self.root.join(model)).unwrap();
        fs::rename(draft, self.root.join(model).join(file)).unwrap();
    }

    pub(crate) fn remove(&self, model: &str, version: u64) {
        // Out of sight first: a version that loses file after file would look damaged.
        let removed = self.root.join(format!(".removed-{model}-{version}"));
        fs::rename(self.version(model, version), &removed).unwrap();
        fs::remove_dir_all(removed).unwrap();
    }

    /// `text` with the repository's place as `ROOT`.
    pub(crate) fn anonymous(&self, text: &str) -> String {
        text.replace(self.root.to_str().unwrap(), "ROOT")
    }
}
