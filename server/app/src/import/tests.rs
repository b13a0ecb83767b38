//! Imports of the example models and of damaged ones: what appears in the repository, and what is refused.

use super::*;

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../onnx/tests/fixtures").join(name)
}

fn entries(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn refused(source: &Path, repository: &Path, name: &str, version: Option<u64>, expected: &str) {
    let error = format!("{:#}", import(source, repository, name, version).unwrap_err());
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_directory_is_copied_with_its_golden_inputs_and_a_manifest() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("new/repository");
    let imported = import(&model("diabetes/2"), &repository, "diabetes", None).unwrap();
    assert_eq!((imported.version, imported.files), (1, 2));
    assert_eq!(imported.directory, repository.join("diabetes/1"));
    assert_eq!(entries(&repository), ["diabetes"]);
    assert_eq!(entries(&repository.join("diabetes")), ["1"]);
    assert_eq!(entries(&imported.directory), ["golden.json", "manifest.json", "model.onnx"]);
    let note = manifest::verify(&imported.directory).unwrap().unwrap();
    assert_eq!(note, format!("manifest: 2 files, {} bytes match their checksums", imported.bytes));
}

#[test]
fn versions_count_up_from_the_newest_and_are_not_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let source = model("diabetes/1");
    let imported = |version| import(&source, root.path(), "m", version).unwrap().version;
    assert_eq!(imported(Some(7)), 7);
    assert_eq!(imported(None), 8);
    assert_eq!(imported(Some(2)), 2);
    assert_eq!(imported(None), 9);
    fs::create_dir(root.path().join("m/0010")).unwrap();
    assert_eq!(imported(None), 10);
    assert_eq!(entries(&root.path().join("m")), ["0010", "10", "2", "7", "8", "9"]);
    refused(&source, root.path(), "m", Some(7), "version 7 exists: ");
    refused(&source, root.path(), "m", Some(0), "version 0 is none");
    assert_eq!(imported(Some(u64::MAX)), u64::MAX);
    refused(&source, root.path(), "m", None, "there is no version after 18446744073709551615");
}

#[test]
fn a_file_is_copied_with_the_data_that_it_refers_to() {
    let root = tempfile::tempdir().unwrap();
    let imported = import(&fixture("external_data.onnx"), root.path(), "m", None).unwrap();
    assert_eq!(entries(&imported.directory), ["external_data.bin", "manifest.json", "model.onnx"]);
    let imported = import(&fixture("mlp.onnx"), root.path(), "m", None).unwrap();
    assert_eq!(entries(&imported.directory), ["manifest.json", "model.onnx"]);
}

#[test]
fn hidden_files_stay_behind_and_directories_come_along() {
    let source = tempfile::tempdir().unwrap();
    fs::copy(fixture("mlp.onnx"), source.path().join("model.onnx")).unwrap();
    for (directory, file) in [(".git", "config"), ("assets/deep", "labels.txt")] {
        fs::create_dir_all(source.path().join(directory)).unwrap();
        fs::write(source.path().join(directory).join(file), "x").unwrap();
    }
    fs::write(source.path().join(".complete"), "").unwrap();
    let root = tempfile::tempdir().unwrap();
    let imported = import(source.path(), root.path(), "m", None).unwrap();
    assert_eq!(entries(&imported.directory), ["assets", "manifest.json", "model.onnx"]);
    assert_eq!(fs::read(imported.directory.join("assets/deep/labels.txt")).unwrap(), b"x");
    assert!(manifest::verify(&imported.directory).unwrap().is_some());
    // What was imported can be imported again.
    assert_eq!(import(&imported.directory, root.path(), "m", None).unwrap().version, 2);
}

#[test]
fn names_that_are_no_single_visible_directory_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let source = model("diabetes/1");
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    for name in ["", "a/b", "../up", "/root", "..", ".", ".hidden", "_private", "a\\b", "a\nb", "a\0b", &long]
    {
        import(&source, root.path(), name, None).unwrap_err();
        assert_eq!(entries(root.path()), [""; 0], "{name:?}");
    }
    refused(&source, root.path(), "a/b", None, "'a/b' cannot be a model's name: it has '/' in it");
    import(&source, root.path(), "Ünïcode name-1.2", None).unwrap();
}

#[test]
fn sources_that_are_no_sound_model_are_refused_and_leave_nothing() {
    let root = tempfile::tempdir().unwrap();
    refused(Path::new("/nonexistent"), root.path(), "m", None, "cannot read /nonexistent");
    refused(&model("diabetes"), root.path(), "m", None, "holds no model.onnx; it has versions: import one");
    refused(&fixture(""), root.path(), "m", None, "holds no model.onnx; name the model's file");
    refused(&fixture("truncated.onnx"), root.path(), "m", None, "cut short or damaged");
    refused(&fixture("missing_external_data.onnx"), root.path(), "m", None, "put the data file beside");
    let damaged = import(&model("diabetes/1"), root.path(), "damaged", None).unwrap().directory;
    fs::write(damaged.join("golden.json"), "{}").unwrap();
    refused(&damaged, root.path(), "m", None, "golden.json should have");
    fs::remove_file(damaged.join("manifest.json")).unwrap();
    refused(&damaged, root.path(), "m", None, "golden.json: the file has no inputs");
    assert_eq!(entries(root.path()), ["damaged"]);
}

#[test]
fn data_files_with_a_versions_own_names_are_refused() {
    let source = tempfile::tempdir().unwrap();
    fs::copy(fixture("external_data.onnx"), source.path().join("net.onnx")).unwrap();
    let bytes = fs::read(source.path().join("net.onnx")).unwrap();
    // A name of the same length, so that the lengths in the file stay right.
    let at = bytes.windows(17).position(|window| window == b"external_data.bin").unwrap();
    let renamed = [&bytes[..at], b"././manifest.json", &bytes[at + 17..]].concat();
    fs::write(source.path().join("net.onnx"), renamed).unwrap();
    fs::copy(fixture("external_data.bin"), source.path().join("manifest.json")).unwrap();
    let root = tempfile::tempdir().unwrap();
    let expected = "keeps weights in a file called manifest.json";
    refused(&source.path().join("net.onnx"), root.path(), "m", None, expected);
}

#[test]
fn imports_at_one_time_become_different_versions() {
    let root = tempfile::tempdir().unwrap();
    let source = model("diabetes/1");
    let mut versions: Vec<u64> = std::thread::scope(|scope| {
        let import = || import(&source, root.path(), "m", None).unwrap().version;
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(import)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(entries(root.path()), ["m"]);
    assert_eq!(entries(&root.path().join("m")), ["1", "2", "3", "4", "5", "6", "7", "8"]);
}
