//! Repositories of every kind, and what a registry makes of them.

use super::*;
use expect_test::{Expect, expect};

use crate::registry::ModelSettings;
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
    let desired = registry(root, settle).desired().unwrap();
    for (name, model) in desired.models {
        let text = match model {
            DesiredModel::Sound { versions, .. } => {
                let shown: Vec<_> = versions
                    .iter()
                    .map(|(number, version)| format!("{number} {:?}", version.state))
                    .collect();
                shown.join(", ")
            }
            DesiredModel::Faulty { reason } => format!("faulty: {reason}"),
            DesiredModel::Vacant { reason } => format!("vacant: {reason}"),
        };
        lines += &format!("{name:?}: {text}\n");
    }
    for one in desired.passed_over {
        lines += &format!("passed over: {one}\n");
    }
    lines.replace(root.to_str().unwrap(), "ROOT")
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
            "b": vacant: ROOT/b has no version: expected <number>/model.onnx in it, for example 1/model.onnx
            "c": vacant: ROOT/c has no version: expected <number>/model.onnx in it, for example 1/model.onnx
            passed over: b: ROOT/b has no version: expected <number>/model.onnx in it, for example 1/model.onnx
            passed over: b/01: expected the plain number: rename it 1
            passed over: c: ROOT/c has no version: expected <number>/model.onnx in it, for example 1/model.onnx
        "#]],
    );
}

#[test]
fn versions_are_listed_by_number() {
    check(
        &["m/2/a", "m/10/a", "m/1/a"],
        expect![[r#"
            "m": 1 Complete, 2 Complete, 10 Complete
        "#]],
    );
}

#[test]
fn what_looks_like_a_version_and_is_none_is_named() {
    check(
        &[
            "m/1/a",
            "m/0/a",
            "m/007/a",
            "m/v4/a",
            "m/1.5/a",
            "m/-1/a",
            "m/2026-11-30/a",
            "m/18446744073709551616/a",
            "m/3",
            "m/latest/model.onnx",
            "m/notes/a",
            "m/.5/model.onnx",
            "m/_6/model.onnx",
            "m/configs/7.toml",
            "m/README.2",
        ],
        expect![[r#"
            "m": 1 Complete
            passed over: m/-1: it is not a whole number: expected a name such as 1 or 20261130
            passed over: m/0: 0 is not a version: expected a number from 1
            passed over: m/007: expected the plain number: rename it 7
            passed over: m/1.5: it is not a whole number: expected a name such as 1 or 20261130
            passed over: m/18446744073709551616: the number is too large: expected 1 to 18446744073709551615
            passed over: m/2026-11-30: it is not a whole number: expected a name such as 1 or 20261130
            passed over: m/3: it is a file: expected a directory with model.onnx in it
            passed over: m/latest: it is not a whole number: expected a name such as 1 or 20261130
            passed over: m/v4: it is not a whole number: expected a name such as 1 or 20261130
        "#]],
    );
}

#[test]
fn directories_that_are_no_models_are_named() {
    check(
        &[
            "a/1/model.onnx",
            "docs/notes.md",
            "lost+found/#123",
            "__pycache__/x.pyc",
            ".snapshots/1/model.onnx",
            "notes.txt",
        ],
        expect![[r#"
            "a": 1 Complete
            "docs": vacant: ROOT/docs has no version: expected <number>/model.onnx in it, for example 1/model.onnx
            passed over: docs: ROOT/docs has no version: expected <number>/model.onnx in it, for example 1/model.onnx
            passed over: lost+found: it is the file system's own
        "#]],
    );
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "a/1/model.onnx");
    std::os::unix::fs::symlink("nowhere", root.path().join("b")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.path().join("a/2")).unwrap();
    std::os::unix::fs::symlink("c", root.path().join("c")).unwrap();
    fs::create_dir(root.path().join("new")).unwrap();
    expect![[r#"
        "a": 1 Complete, 2 Refused("cannot read ROOT/a/2: No such file or directory (os error 2)")
        "b": vacant: ROOT/b is a link to what is not there
        "c": faulty: cannot read ROOT/c: Too many levels of symbolic links (os error 40)
        "new": vacant: ROOT/new has no version: expected <number>/model.onnx in it, for example 1/model.onnx
        passed over: b: ROOT/b is a link to what is not there
        passed over: new: ROOT/new has no version: expected <number>/model.onnx in it, for example 1/model.onnx
    "#]].assert_eq(&describe(root.path(), NO_TIME));
    let hour = Duration::from_secs(3600);
    assert!(!describe(root.path(), hour).contains("passed over"), "somebody may be about to fill it");
}

#[test]
fn a_name_with_path_characters_is_refused() {
    check(
        &["back\\slash/1/model.onnx", "new\nline/1/model.onnx"],
        expect![[r#"
            "back\\slash": faulty: model name "back\\slash" has the character '\\': expected no path separators and no control characters
            "new\nline": faulty: model name "new\nline" has the character '\n': expected no path separators and no control characters
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
        "model": faulty: ROOT/model leads out of the model repository: expected files inside it; copy them there, or serve the directory that holds both
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
            DesiredModel::Faulty { reason } | DesiredModel::Vacant { reason } => panic!("{reason}"),
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
