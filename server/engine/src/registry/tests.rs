//! Repositories of every kind, and what a registry makes of them.

use super::*;
use expect_test::{Expect, expect};

use crate::tensor::DType;
use crate::testing::FakeBackend;

/// Long ago enough for any file, as far as a registry of these tests can tell.
const NO_TIME: Duration = Duration::ZERO;

fn settings() -> ModelSettings {
    ModelSettings::new(Arc::new(FakeBackend::identity(DType::Fp32, &[1])))
}

fn registry(root: &Path, settle: Duration) -> DirRegistry {
    DirRegistry::new(root.to_owned(), Box::new(|_| Ok(settings())), settle)
}

fn write(root: &Path, file: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, b"").unwrap();
}

fn describe(root: &Path, settle: Duration) -> String {
    let mut lines = String::new();
    for (name, model) in registry(root, settle).desired().unwrap().models {
        let text = match model {
            DesiredModel::Sound { versions, .. } => {
                let shown: Vec<_> = versions
                    .iter()
                    .map(|(number, version)| format!("{number} {:?}", version.state))
                    .collect();
                shown.join(", ")
            }
            DesiredModel::Faulty { reason } => reason,
        };
        lines += &format!("{name:?}: {text}\n").replace(root.to_str().unwrap(), "ROOT");
    }
    lines
}

fn check(files: &[&str], expected: Expect) {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        write(root.path(), file);
    }
    expected.assert_eq(&describe(root.path(), NO_TIME));
}

#[test]
fn directories_are_models_and_numbers_are_versions() {
    check(
        &["a/1/model.onnx", "a/notes/x", "b/01/model.onnx", "c/README", ".git/1/model.onnx", "file"],
        expect![[r#"
            "a": 1 Complete
            "b": ROOT/b has no version: expected <number>/model.onnx in it, for example 1/model.onnx
            "c": ROOT/c has no version: expected <number>/model.onnx in it, for example 1/model.onnx
        "#]],
    );
}

#[test]
fn versions_are_listed_by_number() {
    check(
        &["m/2/a", "m/10/a", "m/1/a", "m/0/a", "m/007/a", "m/x/a"],
        expect![[r#"
            "m": 1 Complete, 2 Complete, 10 Complete
        "#]],
    );
}

#[test]
fn a_name_with_path_characters_is_refused() {
    check(
        &["back\\slash/1/model.onnx", "new\nline/1/model.onnx"],
        expect![[r#"
            "back\\slash": model name "back\\slash" has the character '\\': expected no path separators and no control characters
            "new\nline": model name "new\nline" has the character '\n': expected no path separators and no control characters
        "#]],
    );
    assert!(check_name("../etc").is_err());
    assert!(check_name("..").is_err());
    assert!(check_name("").is_err());
    assert!(check_name("iris-v2.1_é").is_ok());
}

#[test]
fn a_link_out_of_the_repository_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "1/model.onnx");
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "file/1/other");
    write(root.path(), "inside/1/model.onnx");
    std::os::unix::fs::symlink(outside.path(), root.path().join("model")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("1"), root.path().join("inside/2")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("1/model.onnx"), root.path().join("file/1/model.onnx"))
        .unwrap();
    std::os::unix::fs::symlink("1", root.path().join("inside/3")).unwrap();
    expect![[r#"
        "file": 1 Refused("ROOT/file/1/model.onnx leads out of the model repository: expected files inside it; copy them there, or serve the directory that holds both")
        "inside": 1 Complete, 2 Refused("ROOT/inside/2 leads out of the model repository: expected files inside it; copy them there, or serve the directory that holds both"), 3 Complete
        "model": ROOT/model leads out of the model repository: expected files inside it; copy them there, or serve the directory that holds both
    "#]]
    .assert_eq(&describe(root.path(), NO_TIME));
}

#[test]
fn what_was_written_a_moment_ago_is_changing_until_it_is_marked_complete() {
    let root = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3600);
    fs::create_dir_all(root.path().join("m/1")).unwrap();
    assert_eq!(describe(root.path(), hour), "\"m\": 1 Changing\n", "nothing is there yet");
    write(root.path(), "m/1/model.onnx");
    assert_eq!(describe(root.path(), hour), "\"m\": 1 Changing\n");
    write(root.path(), "m/1/.complete");
    assert_eq!(describe(root.path(), hour), "\"m\": 1 Complete\n");
}

#[test]
fn other_contents_have_another_stamp() {
    let root = tempfile::tempdir().unwrap();
    let stamp = || {
        let desired = registry(root.path(), NO_TIME).desired().unwrap();
        match &desired.models["m"] {
            DesiredModel::Sound { versions, .. } => versions[&1].stamp,
            DesiredModel::Faulty { reason } => panic!("{reason}"),
        }
    };
    write(root.path(), "m/1/model.onnx");
    let mut seen = vec![stamp()];
    assert_eq!(stamp(), seen[0], "nothing has changed");
    let mut changed = |what: &str| {
        let stamp = stamp();
        assert!(!seen.contains(&stamp), "{what}");
        seen.push(stamp);
    };
    fs::write(root.path().join("m/1/model.onnx"), b"x").unwrap();
    changed("longer");
    write(root.path(), "m/1/data/weights.bin");
    changed("external data");
    write(root.path(), "m/model.toml");
    changed("settings");
    fs::rename(root.path().join("m/model.toml"), root.path().join("m/config.pbtxt")).unwrap();
    changed("other settings");
}

#[test]
fn a_missing_repository_is_an_error() {
    let error = registry(Path::new("/nonexistent/models"), NO_TIME).desired().err().unwrap().to_string();
    assert!(error.starts_with("cannot read the model repository /nonexistent/models: "), "{error}");
}
