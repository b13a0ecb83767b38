//! TorchServe's archives (`.mar`): zip files with a manifest, the model and what it needs. Models are ONNX here, and the
//! handlers that TorchServe has in Python are sections of a `model.toml`.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};

use bytes::Bytes;
use serde::Deserialize;
use zip::ZipArchive;

use crate::codec::byte_order_mark::without_byte_order_mark;
use crate::config::FILE_NAME as SETTINGS;
use crate::repository_orders::is_plain_path;

/// Where torch-model-archiver writes what it was told.
const MANIFEST: &str = "MAR-INF/MANIFEST.json";
/// Names of the classes, where TorchServe's handlers look for them.
const LABELS: &str = "index_to_name.json";
/// Most bytes of an archive's files together, and most of them: what is unpacked is held in memory.
const BYTES_MAX: u64 = 1 << 30;
const FILES_MAX: usize = 1024;

/// What is in an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Archive {
    pub name: String,
    /// By `<version>/<name>`, and `model.toml`.
    pub files: BTreeMap<String, Bytes>,
}

#[derive(Deserialize)]
struct Manifest {
    model: Described,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    model_name: String,
    model_version: Option<String>,
    serialized_file: Option<String>,
    handler: Option<String>,
}

/// Unpacks an archive. Its model file becomes `model_file`, and files of Python are left out.
///
/// # Errors
/// The text says what was expected: no archive, no ONNX model in it, a handler in Python, or too much.
pub fn read(archive: &[u8], model_file: &str) -> Result<Archive, String> {
    let mut archive =
        ZipArchive::new(Cursor::new(archive)).map_err(|error| format!("it is no archive: {error}"))?;
    if archive.len() > FILES_MAX {
        return Err(format!("it has {} files: expected {FILES_MAX} at most", archive.len()));
    }
    let mut files: BTreeMap<String, Bytes> = BTreeMap::new();
    let mut left = BYTES_MAX;
    for index in 0..archive.len() {
        let unreadable = |error| format!("file {index} in it cannot be read: {error}");
        let mut file = archive.by_index(index).map_err(unreadable)?;
        if file.is_dir() {
            continue;
        }
        let name = file.name().map_err(unreadable)?.into_owned();
        if !is_plain_path(&name) {
            return Err(format!("'{name}' in it is not a plain path: expected one without '..'"));
        }
        let mut content = Vec::new();
        let unpacked = (&mut file).take(left + 1).read_to_end(&mut content);
        unpacked.map_err(|error| format!("'{name}' in it cannot be unpacked: {error}"))?;
        left = left
            .checked_sub(content.len() as u64)
            .ok_or_else(|| format!("its files have more than {BYTES_MAX} bytes, which is the most"))?;
        if files.insert(name.clone(), content.into()).is_some() {
            return Err(format!("it has two files '{name}'"));
        }
    }
    let manifest = files
        .remove(MANIFEST)
        .ok_or_else(|| format!("it has no {MANIFEST}: expected what torch-model-archiver writes"))?;
    let Manifest { model } = serde_json::from_slice(without_byte_order_mark(&manifest))
        .map_err(|error| format!("its {MANIFEST} is malformed: {error}"))?;
    arrange(model, files, model_file)
}

fn arrange(
    model: Described,
    mut files: BTreeMap<String, Bytes>,
    model_file: &str,
) -> Result<Archive, String> {
    let serialized = model.serialized_file.filter(|name| name.ends_with(".onnx")).ok_or(
        "its model is not ONNX: expected a serialized file that ends with .onnx (torch.onnx.export writes one)",
    )?;
    let serialized_content = files
        .remove(&serialized)
        .ok_or_else(|| format!("its manifest names '{serialized}', which is not in it"))?;
    let settings = match files.remove(SETTINGS) {
        Some(settings) => Some(settings),
        None => sections(model.handler.as_deref(), files.contains_key(LABELS))?.map(Bytes::from),
    };
    let version = version(model.model_version.as_deref());
    let is_kept = |name: &String| !name.starts_with("MAR-INF/") && !name.ends_with(".py");
    let mut arranged: BTreeMap<String, Bytes> = files
        .into_iter()
        .filter(|(name, _)| is_kept(name))
        .map(|(name, content)| (format!("{version}/{name}"), content))
        .collect();
    if arranged.insert(format!("{version}/{model_file}"), serialized_content).is_some() {
        return Err(format!("it has '{model_file}' beside the model '{serialized}': expected one of them"));
    }
    arranged.extend(settings.map(|settings| (SETTINGS.to_owned(), settings)));
    Ok(Archive { name: model.model_name, files: arranged })
}

/// Whole versions from 1 on: what comes behind the point, as in TorchServe's usual `1.0`, is passed over.
fn version(said: Option<&str>) -> u64 {
    let whole = said.and_then(|version| version.split('.').next()?.parse().ok());
    whole.filter(|&version| version > 0).unwrap_or(1)
}

/// What a handler of TorchServe's does, with its sizes, means and deviations (`ts/torch_handler/image_classifier.py`);
/// nothing for a model of plain tensors.
fn sections(handler: Option<&str>, has_labels: bool) -> Result<Option<String>, String> {
    let labels = if has_labels { format!("labels = \"{LABELS}\"\n") } else { String::new() };
    let output = format!("[output]\nkind = \"classes\"\nsoftmax = true\n{labels}");
    Ok(match handler.map(|handler| handler.split(':').next().unwrap_or_default()) {
        None | Some("" | "base_handler") => None,
        Some("image_classifier") => Some(format!(
            "[input]\nkind = \"image\"\nresize = 256\nsize = [224, 224]\n\
             mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n{output}"
        )),
        Some("text_classifier") => Some(format!("[input]\nkind = \"text\"\n{output}")),
        Some(other) => {
            return Err(format!(
                "its handler is '{other}', and Python does not run here: expected image_classifier, text_classifier or \
                 base_handler, or a {SETTINGS} among its extra files, whose [input] and [output] say what the handler \
                 does; an empty one means plain tensors"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use expect_test::{Expect, expect};
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn check(manifest: &str, files: &[(&str, &str)], expected: Expect) {
        let files: Vec<_> = [(MANIFEST, manifest)].into_iter().chain(files.iter().copied()).collect();
        expected.assert_eq(&match read(&archive(&files), "model.onnx") {
            Ok(Archive { name, files }) => {
                let files = files.into_iter().map(|(name, content)| {
                    format!("{name}: {}", String::from_utf8_lossy(&content).trim_end())
                });
                format!("{name}\n{}", files.collect::<Vec<_>>().join("\n"))
            }
            Err(why) => why,
        });
    }

    #[test]
    fn plain_tensors() {
        check(
            r#"{"runtime": "python", "model": {"modelName": "sugar", "serializedFile": "s.onnx", "modelVersion": "3.1"}}"#,
            &[("s.onnx", "onnx"), ("s.data", "weights"), ("handler.py", "pass"), ("MAR-INF/more", "x")],
            expect![[r"
                sugar
                3/model.onnx: onnx
                3/s.data: weights"]],
        );
    }

    #[test]
    fn the_usual_handlers() {
        check(
            r#"{"model": {"modelName": "cat", "serializedFile": "m.onnx", "handler": "image_classifier", "modelVersion": "0.9"}}"#,
            &[("m.onnx", "onnx"), (LABELS, "{}")],
            expect![[r#"
                cat
                1/index_to_name.json: {}
                1/model.onnx: onnx
                model.toml: [input]
                kind = "image"
                resize = 256
                size = [224, 224]
                mean = [0.485, 0.456, 0.406]
                std = [0.229, 0.224, 0.225]
                [output]
                kind = "classes"
                softmax = true
                labels = "index_to_name.json""#]],
        );
        check(
            r#"{"model": {"modelName": "mood", "serializedFile": "m.onnx", "handler": "text_classifier"}}"#,
            &[("m.onnx", "onnx"), ("tokenizer.json", "{}")],
            expect![[r#"
                mood
                1/model.onnx: onnx
                1/tokenizer.json: {}
                model.toml: [input]
                kind = "text"
                [output]
                kind = "classes"
                softmax = true"#]],
        );
    }

    #[test]
    fn its_own_settings_stand_for_its_handler() {
        check(
            r#"{"model": {"modelName": "m", "serializedFile": "m.onnx", "handler": "mine.py:handle"}}"#,
            &[("m.onnx", "onnx"), (SETTINGS, "input = { kind = \"csv\" }")],
            expect![[r#"
                m
                1/model.onnx: onnx
                model.toml: input = { kind = "csv" }"#]],
        );
    }

    #[test]
    fn faults() {
        assert!(read(b"PK", "model.onnx").unwrap_err().starts_with("it is no archive: "));
        let none = archive(&[("m.onnx", "onnx")]);
        expect!["it has no MAR-INF/MANIFEST.json: expected what torch-model-archiver writes"]
            .assert_eq(&read(&none, "model.onnx").unwrap_err());
        check(
            "{}",
            &[],
            expect!["its MAR-INF/MANIFEST.json is malformed: missing field `model` at line 1 column 2"],
        );
        check(
            r#"{"model": {"modelName": "m", "serializedFile": "m.pt"}}"#,
            &[("m.pt", "")],
            expect![
                "its model is not ONNX: expected a serialized file that ends with .onnx (torch.onnx.export writes one)"
            ],
        );
        check(
            r#"{"model": {"modelName": "m", "serializedFile": "m.onnx"}}"#,
            &[],
            expect!["its manifest names 'm.onnx', which is not in it"],
        );
        check(
            r#"{"model": {"modelName": "m", "serializedFile": "m.onnx"}}"#,
            &[("m.onnx", "a"), ("model.onnx", "b")],
            expect!["it has 'model.onnx' beside the model 'm.onnx': expected one of them"],
        );
        check(
            r#"{"model": {"modelName": "m", "serializedFile": "m.onnx", "handler": "mine.py:handle"}}"#,
            &[("m.onnx", "a")],
            expect![
                "its handler is 'mine.py', and Python does not run here: expected image_classifier, text_classifier or base_handler, or a model.toml among its extra files, whose [input] and [output] say what the handler does; an empty one means plain tensors"
            ],
        );
        expect!["'../m.onnx' in it is not a plain path: expected one without '..'"]
            .assert_eq(&read(&archive(&[("../m.onnx", "a")]), "model.onnx").unwrap_err());
        let many: Vec<String> = (0..=FILES_MAX).map(|index| index.to_string()).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
        expect!["it has 1025 files: expected 1024 at most"]
            .assert_eq(&read(&archive(&many), "model.onnx").unwrap_err());
    }
}
