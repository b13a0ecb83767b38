//! `gristmill models import` as people run it: what it writes is what `gristmill check` finds sound.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Runs the program to its end, without settings from the environment.
fn gristmill(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GRISTMILL_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).output().unwrap()
}

/// Imports `source` into `repository` and returns the exit code with standard output and error.
fn import(source: &Path, repository: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let (source, repository) = (source.to_str().unwrap(), repository.to_str().unwrap());
    let arguments = [&["models", "import", source, "--repository", repository], more].concat();
    let done = gristmill(&arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

fn check(repository: &Path) -> (Option<i32>, String) {
    let done = gristmill(&["check", "--backend", "tract", "--repository", repository.to_str().unwrap()]);
    (done.status.code(), String::from_utf8(done.stdout).unwrap())
}

#[test]
fn imported_models_are_sound() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("repository");
    let name = ["--name", "diabetes"];
    let (code, output, error) = import(&project("models/diabetes/1"), &repository, &name);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let directory = repository.join("diabetes/1");
    assert!(output.starts_with("imported diabetes version 1: 2 files, "), "{output}");
    assert!(output.trim_end().ends_with(directory.to_str().unwrap()), "{output}");

    // The model's file alone, as the next version.
    let file = project("models/diabetes/2/model.onnx");
    let (code, output, _) = import(&file, &repository, &["--name", "diabetes", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&output).unwrap();
    let bytes = fs::metadata(&file).unwrap().len();
    assert_eq!(code, Some(0));
    assert_eq!(
        line,
        serde_json::json!({
            "model": "diabetes",
            "version": 2,
            "directory": repository.join("diabetes/2"),
            "files": 1,
            "bytes": bytes,
        })
    );

    // One with its weights in another file.
    let external = project("server/onnx/tests/fixtures/external_data.onnx");
    let (code, ..) = import(&external, &repository, &["--name", "external", "--version", "5"]);
    assert_eq!(code, Some(0));

    let (code, output) = check(&repository);
    for version in ["diabetes version 1", "diabetes version 2", "external version 5"] {
        assert!(output.contains(&format!("{version}: sound")), "{output}");
    }
    assert!(output.contains("3 of 3 versions are sound"), "{output}");
    assert_eq!(code, Some(0));
}

#[test]
fn the_manifest_says_what_the_files_are() {
    let root = tempfile::tempdir().unwrap();
    let source = project("models/diabetes/1");
    import(&source, root.path(), &["--name", "m"]);
    let text = fs::read_to_string(root.path().join("m/1/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    for file in ["golden.json", "model.onnx"] {
        // What the system's own program says.
        let sum = Command::new("sha256sum").arg(source.join(file)).output().unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        let entry = &manifest["files"][file];
        assert_eq!(entry["sha256"].as_str(), sum.split_whitespace().next(), "{file}");
        assert_eq!(entry["bytes"].as_u64(), Some(fs::metadata(source.join(file)).unwrap().len()));
    }
    assert_eq!(manifest["files"].as_object().unwrap().len(), 2);
}

#[test]
fn what_is_refused_leaves_the_repository_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let source = project("models/diabetes/1");
    import(&source, root.path(), &["--name", "m"]);
    let refused = |source: &Path, more: &[&str], expected: &str| {
        let (code, output, error) = import(source, root.path(), more);
        assert_eq!((code, output.as_str()), (Some(1), ""), "{error}");
        assert!(error.starts_with("gristmill: nothing was imported: "), "{error}");
        assert!(error.contains(expected), "{error}");
    };
    refused(&source, &["--name", "m", "--version", "1"], "version 1 exists");
    refused(&source, &["--name", "../m"], "'../m' cannot be a model's name: it has '/' in it");
    refused(&project("models/diabetes"), &["--name", "m"], "it has versions: import one, such as");
    refused(&project("README.md"), &["--name", "m"], "README.md is not a usable ONNX model");
    let entries = |directory: &Path| {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<Vec<_>>()
    };
    assert_eq!(entries(root.path()), ["m"]);
    assert_eq!(entries(&root.path().join("m")), ["1"]);
}
