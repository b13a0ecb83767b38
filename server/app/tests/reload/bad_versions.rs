//! Every way in which a version can be bad: the one before serves on, and the index and readiness say why.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use expect_test::{Expect, expect};

use crate::files::Repository;
use crate::onnx;
use crate::server::{Entry, Server};

/// The rest of the repository while a bad version comes.
struct Case {
    repository: Repository,
    server: Server,
}

impl Case {
    /// Version 1 adds 1 and serves.
    fn new(model_toml: &str) -> Case {
        let repository = Repository::new();
        repository.replace("m", "model.toml", model_toml.as_bytes());
        repository.put("m", 1, &[("model.onnx", &onnx::adds(1.0))]);
        let server = Server::start(&repository, "30ms");
        assert_eq!(server.infer("m"), ("1".into(), 1.0));
        Case { repository, server }
    }

    /// Waits until version 2 has been given up, and checks what is said about that.
    fn check(self, expected: Expect) {
        let has_failed = |entry: &Entry| {
            entry.state == "UNAVAILABLE" && entry.reason != "its files are still being written"
        };
        self.server.wait_for(|server| server.entry("m", 2).filter(has_failed));
        assert_eq!(self.server.infer("m"), ("1".into(), 1.0), "the version before serves on");
        let readiness = self.server.readiness();
        assert_eq!(readiness["ready"], true);
        let failing = readiness["failing"].as_array().unwrap();
        let mut text = String::new();
        for entry in self.server.index() {
            text += &format!("{} {}: {}\n", entry.version, entry.state, entry.reason);
        }
        for reason in failing {
            text += &format!("failing: {}\n", reason.as_str().unwrap());
        }
        let text = mask(mask(self.repository.anonymous(&text), " (", " attempts)"), " is ", "s, the budget");
        let text = mask(text, "percentile of ", " runs");
        expected.assert_eq(&mask(text, "took ", " bytes"));
    }
}

/// Leaves out what stands between `from` and `to` on a line and differs from run to run.
fn mask(text: String, from: &str, to: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once(to) {
        Some((before, after)) => match before.rsplit_once(from) {
            Some((kept, number)) if number.len() < 12 => format!("{kept}{from}...{to}{after}\n"),
            _ => format!("{line}\n"),
        },
        None => format!("{line}\n"),
    });
    lines.collect()
}

const QUICK: &str = "instances = 1\nbatching.rows_max = 4\n";

fn check(files: &[(&str, &[u8])], expected: Expect) {
    let case = Case::new(QUICK);
    case.repository.put("m", 2, files);
    case.check(expected);
}

fn check_made(make: impl FnOnce(&Path), expected: Expect) {
    let case = Case::new(QUICK);
    case.repository.put_made("m", 2, make);
    case.check(expected);
}

#[test]
fn a_truncated_file() {
    let whole = onnx::adds(2.0);
    check(
        &[("model.onnx", &whole[..whole.len() / 2])],
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: ROOT/m/2/model.onnx is not a usable ONNX model: the file seems cut short or damaged (52 bytes): failed to decode Protobuf message: Model.graph: buffer underflow
        failing: model 'm': version 2: ROOT/m/2/model.onnx is not a usable ONNX model: the file seems cut short or damaged (52 bytes): failed to decode Protobuf message: Model.graph: buffer underflow
    "#]],
    );
}

#[test]
fn a_file_that_is_no_model() {
    check(
        &[("model.onnx", b"PK\x03\x04 is how an archive begins, not a model")],
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: ROOT/m/2/model.onnx is not a usable ONNX model: its contents are something else
        failing: model 'm': version 2: ROOT/m/2/model.onnx is not a usable ONNX model: its contents are something else
    "#]],
    );
}

#[test]
fn no_file_at_all() {
    check(
        &[("model.onnx.part", b"what a download leaves behind")],
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: cannot read the model file ROOT/m/2/model.onnx: No such file or directory (os error 2)
        failing: model 'm': version 2: cannot read the model file ROOT/m/2/model.onnx: No such file or directory (os error 2)
    "#]],
    );
}

#[test]
fn missing_external_data() {
    check(
        &[("model.onnx", &onnx::with_external_data())],
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: ROOT/m/2/model.onnx keeps the weights 'added' in the file ROOT/m/2/added.bin, which cannot be read: No such file or directory (os error 2); put the data file beside the model
        failing: model 'm': version 2: ROOT/m/2/model.onnx keeps the weights 'added' in the file ROOT/m/2/added.bin, which cannot be read: No such file or directory (os error 2); put the data file beside the model
    "#]],
    );
}

#[test]
fn external_data_of_another_size() {
    check(
        &[("model.onnx", &onnx::with_external_data()), ("added.bin", b"ab")],
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: tract cannot run ROOT/m/2/model.onnx: external data range 0..4 is out of bounds (2 bytes); serve it with ONNX Runtime (run `make`, or set ORT_DYLIB_PATH)
        failing: model 'm': version 2: tract cannot run ROOT/m/2/model.onnx: external data range 0..4 is out of bounds (2 bytes); serve it with ONNX Runtime (run `make`, or set ORT_DYLIB_PATH)
    "#]],
    );
}

#[test]
fn another_signature() {
    check(
        &[("model.onnx", &onnx::wide(4, 2.0))],
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: signature: input x FP32 [batch, 3] would be x FP32 [batch, 4]; version 1 serves and its clients would fail: set allow_signature_change = true in model.toml if they have been changed
        failing: model 'm': version 2: signature: input x FP32 [batch, 3] would be x FP32 [batch, 4]; version 1 serves and its clients would fail: set allow_signature_change = true in model.toml if they have been changed
    "#]],
    );
}

#[test]
fn rows_that_see_each_other() {
    check(
        &[("model.onnx", &onnx::mixes_rows())],
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: batch proof: ReduceMean 'mean' averages over axis 0, which counts the rows; version 1 is batched and this one could not be: set allow_signature_change = true in model.toml to serve it one request at a time
        failing: model 'm': version 2: batch proof: ReduceMean 'mean' averages over axis 0, which counts the rows; version 1 is batched and this one could not be: set allow_signature_change = true in model.toml to serve it one request at a time
    "#]],
    );
}

#[test]
fn a_golden_answer_that_differs() {
    let golden = br#"{"inputs": {"x": [[1, 2, 3]]}, "outputs": {"y": [[3, 4, 5.5]]}, "tolerance": 1e-3}"#;
    check(
        &[("model.onnx", &onnx::adds(2.0)), ("golden.json", golden)],
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: golden inputs, golden.json: output 'y' differs in 1 of 3 elements: row 0 at [2] is expected to be 5.5, got 5.0; the largest difference is 0.5 (tolerance: absolute 0.001, relative 0.001)
        failing: model 'm': version 2: golden inputs, golden.json: output 'y' differs in 1 of 3 elements: row 0 at [2] is expected to be 5.5, got 5.0; the largest difference is 0.5 (tolerance: absolute 0.001, relative 0.001)
    "#]],
    );
}

#[test]
fn golden_inputs_for_another_model() {
    let golden = br#"{"inputs": {"pixels": [[1, 2, 3]]}, "outputs": {"y": [[3, 4, 5]]}}"#;
    check(
        &[("model.onnx", &onnx::adds(2.0)), ("golden.json", golden)],
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: golden inputs, golden.json: unexpected input 'pixels': the model takes 'x'
        failing: model 'm': version 2: golden inputs, golden.json: unexpected input 'pixels': the model takes 'x'
    "#]],
    );
}

#[test]
fn over_its_time_budget() {
    let case = Case::new(QUICK);
    let budget = format!("{QUICK}budget.run_p99 = {{ 1 = \"1ns\" }}\n");
    // The file is for all versions: that of the version that serves is proved anew as well.
    case.repository.replace("m", "model.toml", budget.as_bytes());
    let is_refused = |entry: &Entry| entry.reason.starts_with("newer contents are not served");
    case.server.wait_for(|server| server.entry("m", 1).filter(is_refused));
    case.repository.put("m", 2, &[("model.onnx", &onnx::adds(2.0))]);
    case.check(expect![[r#"
        1 READY: newer contents are not served: time budget: the 99th percentile of ... runs of 1 rows is ...s, the budget is 1ns
        2 UNAVAILABLE: time budget: the 99th percentile of ... runs of 1 rows is ...s, the budget is 1ns
        failing: model 'm': version 2: time budget: the 99th percentile of ... runs of 1 rows is ...s, the budget is 1ns
    "#]]);
}

#[test]
fn over_its_memory_budget() {
    // The first load of a process brings in the runtime as well: less than this, which is less than the model.
    let case = Case::new(&format!("{QUICK}budget.resident_bytes = 48_000_000\n"));
    case.repository.put("m", 2, &[("model.onnx", &onnx::large())]);
    case.check(expect![[r#"
        1 READY: 
        2 UNAVAILABLE: memory budget: loading it took ... bytes of resident memory, the budget is 48000000
        failing: model 'm': version 2: memory budget: loading it took ... bytes of resident memory, the budget is 48000000
    "#]]);
}

#[test]
fn a_link_to_nothing() {
    check_made(
        |directory| symlink("nowhere", directory.join("model.onnx")).unwrap(),
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: cannot read ROOT/m/2/model.onnx: No such file or directory (os error 2)
        failing: model 'm': version 2: cannot read ROOT/m/2/model.onnx: No such file or directory (os error 2)
    "#]],
    );
}

#[test]
fn links_in_a_circle() {
    let make = |directory: &Path| {
        fs::write(directory.join("model.onnx"), onnx::adds(2.0)).unwrap();
        symlink("there", directory.join("here")).unwrap();
        symlink("here", directory.join("there")).unwrap();
    };
    check_made(
        make,
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: cannot read ROOT/m/2/here: Too many levels of symbolic links (os error 40)
        failing: model 'm': version 2: cannot read ROOT/m/2/here: Too many levels of symbolic links (os error 40)
    "#]],
    );
}

#[test]
fn a_link_out_of_the_repository() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(&outside, onnx::adds(2.0)).unwrap();
    check_made(
        |directory| symlink(&outside, directory.join("model.onnx")).unwrap(),
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: ROOT/m/2/model.onnx leads out of the model repository: expected files inside it; copy them there, or serve the directory that holds both
        failing: model 'm': version 2: ROOT/m/2/model.onnx leads out of the model repository: expected files inside it; copy them there, or serve the directory that holds both
    "#]],
    );
}

#[test]
fn a_version_that_is_a_link_out_of_the_repository() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("model.onnx"), onnx::adds(2.0)).unwrap();
    let case = Case::new(QUICK);
    symlink(outside.path(), case.repository.version("m", 2)).unwrap();
    case.check(expect![[r#"
        1 READY: 
        2 UNAVAILABLE: ROOT/m/2 leads out of the model repository: expected files inside it; copy them there, or serve the directory that holds both
        failing: model 'm': version 2: ROOT/m/2 leads out of the model repository: expected files inside it; copy them there, or serve the directory that holds both
    "#]]);
}

#[test]
fn a_checksum_that_differs() {
    let manifest = format!(
        r#"{{"files": {{"model.onnx": {{"sha256": "{}", "bytes": {}}}}}}}"#,
        "0".repeat(64),
        onnx::adds(2.0).len()
    );
    check(
        &[("model.onnx", &onnx::adds(2.0)), ("manifest.json", manifest.as_bytes())],
        expect![[r#"
        1 READY: 
        2 UNAVAILABLE: ROOT/m/2/manifest.json does not agree with the files: model.onnx should have the SHA-256 0000000000000000000000000000000000000000000000000000000000000000, it has c2b47f8a752c0fbabcca266f06700577a9242bb3d0d54db25829a90619a93013: the file was changed or damaged
        failing: model 'm': version 2: ROOT/m/2/manifest.json does not agree with the files: model.onnx should have the SHA-256 0000000000000000000000000000000000000000000000000000000000000000, it has c2b47f8a752c0fbabcca266f06700577a9242bb3d0d54db25829a90619a93013: the file was changed or damaged
    "#]],
    );
}
