//! The checksum manifest of a version, `manifest.json`: which files it has, and whether they are those.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Component, Path, PathBuf};

use gristmill_engine::registry::is_stray;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::codec::byte_order_mark::without_byte_order_mark;

pub(crate) const FILE_NAME: &str = "manifest.json";

/// Says to whoever watches a repository that a version was copied whole; no part of the version.
pub(crate) const COMPLETE_MARKER: &str = ".complete";

/// Bytes read and hashed at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Files by their path in the version's directory, with `/` between its parts.
///
/// As JSON: `{"files": {"model.onnx": {"sha256": "<64 hexadecimal digits>", "bytes": 1234}}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) files: BTreeMap<String, FileDigest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileDigest {
    /// In lower-case hexadecimal digits.
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
}

/// Compares the files of a version with its manifest; `None` where it has none.
///
/// Symbolic links to files are followed, since their contents are what is compared.
///
/// # Errors
/// A file is missing, unreadable, of another size or with another checksum, or not in the manifest: the
/// text names it and both values. Sizes are compared before the first checksum is computed.
pub(crate) fn verify(version_directory: &Path) -> Result<Option<String>, String> {
    let path = version_directory.join(FILE_NAME);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let manifest: Manifest = serde_json::from_slice(without_byte_order_mark(&text))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let problem = |what: String| format!("{} does not agree with the files: {what}", path.display());
    let mut present = list(version_directory)?;
    present.retain(|name, _| name != FILE_NAME && name != COMPLETE_MARKER);
    for (name, expected) in &manifest.files {
        let file = present.get(name).ok_or_else(|| problem(format!("{name} is missing")))?;
        let bytes =
            fs::metadata(file).map_err(|error| problem(format!("{name} is unreadable: {error}")))?.len();
        if bytes != expected.bytes {
            return Err(problem(format!("{name} should have {} bytes, it has {bytes}", expected.bytes)));
        }
    }
    // What an editor or a file system leaves in a directory is nobody's surplus.
    let is_stray = |name: &str| Path::new(name).iter().any(|part| is_stray(Path::new(part)));
    let mut surplus = present.keys().filter(|name| !manifest.files.contains_key(*name) && !is_stray(name));
    if let Some(surplus) = surplus.next() {
        return Err(problem(format!(
            "{surplus} is not in the manifest; remove the file, or import the version again"
        )));
    }
    let mut total_bytes = 0;
    for (name, expected) in &manifest.files {
        let unreadable = |error| problem(format!("{name} is unreadable: {error}"));
        let found = digest(&present[name], &mut std::io::sink()).map_err(unreadable)?;
        if !found.sha256.eq_ignore_ascii_case(&expected.sha256) {
            return Err(problem(format!(
                "{name} should have the SHA-256 {}, it has {}: the file was changed or damaged",
                expected.sha256, found.sha256
            )));
        }
        total_bytes += found.bytes;
    }
    let files = match manifest.files.len() {
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    };
    Ok(Some(format!("manifest: {files}, {total_bytes} bytes match their checksums")))
}

/// Every file below `directory` by its path there, with `/` between its parts.
///
/// # Errors
/// A directory cannot be read, or holds what is no file and no directory: a link to a directory, a
/// socket, a name that is not UTF-8.
pub(crate) fn list(directory: &Path) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![(String::new(), directory.to_owned())];
    while let Some((prefix, directory)) = directories.pop() {
        let unreadable = |error: std::io::Error| format!("cannot read {}: {error}", directory.display());
        for entry in fs::read_dir(&directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                return Err(format!("the file name {} is not UTF-8: rename the file", path.display()));
            };
            let name = format!("{prefix}{name}");
            // Links to files are files; links to directories could lead back, or anywhere.
            let is_link = path.is_symlink();
            let kind =
                fs::metadata(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            if kind.is_file() {
                files.insert(name, path);
            } else if kind.is_dir() && !is_link {
                directories.push((format!("{name}/"), path));
            } else {
                let what = if is_link { "a link to a directory" } else { "no file" };
                return Err(format!(
                    "{} is {what}: a version has files and directories only",
                    path.display()
                ));
            }
        }
    }
    Ok(files)
}

/// Reads a file once, into `copy` and into its digest.
///
/// # Errors
/// It cannot be read, or `copy` cannot be written.
pub(crate) fn digest(path: &Path, copy: &mut dyn Write) -> std::io::Result<FileDigest> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&chunk[..count]);
        copy.write_all(&chunk[..count])?;
        bytes += count as u64;
    }
    let mut sha256 = String::with_capacity(64);
    for byte in hasher.finalize() {
        write!(sha256, "{byte:02x}").expect("writing to a String does not fail; this is a bug");
    }
    Ok(FileDigest { sha256, bytes })
}

/// `path` as manifests write it: its parts with `/` between them; `None` where one is not plain UTF-8.
pub(crate) fn name_of(path: &Path) -> Option<String> {
    let mut name = String::new();
    for component in path.components() {
        let Component::Normal(part) = component else { return None };
        if !name.is_empty() {
            name.push('/');
        }
        name += part.to_str()?;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// SHA-256 of "abc", from FIPS 180-4's examples.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn check(manifest: &str, files: &[(&str, &str)], expected: Expect) {
        let directory = tempfile::tempdir().unwrap();
        if !manifest.is_empty() {
            fs::write(directory.path().join(FILE_NAME), manifest.replace("ABC", ABC)).unwrap();
        }
        for (name, content) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let root = directory.path().to_str().unwrap();
        let result = match verify(directory.path()) {
            Ok(note) => format!("{note:?}"),
            Err(error) => error.replace(root, "DIR"),
        };
        expected.assert_eq(&result);
    }

    const ONE: &str = r#"{"files": {"model.onnx": {"sha256": "ABC", "bytes": 3}}}"#;
    const TWO: &str = r#"{"files": {"model.onnx": {"sha256": "ABC", "bytes": 3}, "data/w.bin": {"sha256": "ABC", "bytes": 3}}}"#;

    #[test]
    fn without_a_manifest_there_is_nothing_to_say() {
        check("", &[("model.onnx", "abc")], expect!["None"]);
    }

    #[test]
    fn files_that_match_are_counted() {
        check(
            ONE,
            &[("model.onnx", "abc"), (".complete", "")],
            expect![[r#"Some("manifest: 1 file, 3 bytes match their checksums")"#]],
        );
        check(
            TWO,
            &[("model.onnx", "abc"), ("data/w.bin", "abc")],
            expect![[r#"Some("manifest: 2 files, 6 bytes match their checksums")"#]],
        );
        check(
            &ONE.replace("ABC", &ABC.to_uppercase()),
            &[("model.onnx", "abc")],
            expect![[r#"Some("manifest: 1 file, 3 bytes match their checksums")"#]],
        );
    }

    #[test]
    fn files_that_differ_are_named() {
        check(
            TWO,
            &[("model.onnx", "abc")],
            expect!["DIR/manifest.json does not agree with the files: data/w.bin is missing"],
        );
        check(
            TWO,
            &[("model.onnx", "abc"), ("data/w.bin", "ab")],
            expect![
                "DIR/manifest.json does not agree with the files: data/w.bin should have 3 bytes, it has 2"
            ],
        );
        check(
            ONE,
            &[("model.onnx", "abd")],
            expect![
                "DIR/manifest.json does not agree with the files: model.onnx should have the SHA-256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad, it has a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9: the file was changed or damaged"
            ],
        );
        check(
            ONE,
            &[("model.onnx", "abc"), ("sub/w.bin", "")],
            expect![
                "DIR/manifest.json does not agree with the files: sub/w.bin is not in the manifest; remove the file, or import the version again"
            ],
        );
        check(
            ONE,
            &[("model.onnx", "abc"), (".DS_Store", ""), ("sub/README.md", ""), ("model.onnx~", "")],
            expect![[r#"Some("manifest: 1 file, 3 bytes match their checksums")"#]],
        );
    }

    #[test]
    fn a_malformed_manifest_is_an_error() {
        check("{", &[], expect!["DIR/manifest.json: EOF while parsing an object at line 1 column 1"]);
        check(
            r#"{"files": {"model.onnx": {"sha256": "ABC"}}}"#,
            &[("model.onnx", "abc")],
            expect!["DIR/manifest.json: missing field `bytes` at line 1 column 103"],
        );
        check(
            r#"{"files": {"../model.onnx": {"sha256": "ABC", "bytes": 3}}}"#,
            &[],
            expect!["DIR/manifest.json does not agree with the files: ../model.onnx is missing"],
        );
    }

    #[test]
    fn links_to_files_are_followed_and_others_refused() {
        let store = tempfile::tempdir().unwrap();
        fs::write(store.path().join("blob"), "abc").unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE_NAME), ONE.replace("ABC", ABC)).unwrap();
        std::os::unix::fs::symlink(store.path().join("blob"), directory.path().join("model.onnx")).unwrap();
        let note = verify(directory.path()).unwrap();
        assert_eq!(note.as_deref(), Some("manifest: 1 file, 3 bytes match their checksums"));
        std::os::unix::fs::symlink(store.path(), directory.path().join("more")).unwrap();
        let error = verify(directory.path()).unwrap_err();
        assert!(error.contains("more is a link to a directory"), "{error}");
    }

    #[test]
    fn a_file_longer_than_a_chunk_is_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large");
        let content: Vec<u8> = (0..CHUNK_BYTES + 5).map(|index| (index % 251) as u8).collect();
        fs::write(&path, &content).unwrap();
        let mut copy = Vec::new();
        let found = digest(&path, &mut copy).unwrap();
        assert_eq!(found.bytes, content.len() as u64);
        assert!(copy == content);
        assert_eq!(found.sha256, digest(&path, &mut std::io::sink()).unwrap().sha256);
    }
}
