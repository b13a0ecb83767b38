//! `gristmill models` against a running server, as operators use it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use expect_test::{Expect, expect};
use serde_json::Value;

/// The real program on free ports, with versions 1 and 2 of diabetes; ended with the test.
struct Server {
    child: Child,
    grpc: String,
    _root: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let root = tempfile::tempdir().unwrap();
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/diabetes");
        for version in ["1", "2"] {
            let directory = root.path().join("models/diabetes").join(version);
            fs::create_dir_all(&directory).unwrap();
            fs::copy(models.join(version).join("model.onnx"), directory.join("model.onnx")).unwrap();
            fs::write(directory.join(".complete"), "").unwrap();
        }
        let ready_file = root.path().join("ready.json");
        let child = Command::new(env!("CARGO_BIN_EXE_gristmill"))
            .env_clear()
            .args(["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .args(["--backend", "tract", "--log", "off", "--repository"])
            .arg(root.path().join("models"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Server { child, grpc: String::new(), _root: root };
        let addresses: Value = loop {
            if let Ok(text) = fs::read_to_string(&ready_file) {
                break serde_json::from_str(&text).unwrap();
            }
            assert_eq!(server.child.try_wait().unwrap(), None, "the server ended");
            std::thread::yield_now();
        };
        server.grpc = addresses["grpc"].as_str().unwrap().to_owned();
        server
    }

    /// Runs a command; what it prints, or else what it complains of.
    fn models(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
        command.env_clear().arg("models").args(arguments).args(["--server", &self.grpc]);
        let done = command.output().unwrap();
        match done.status.success() {
            true => Ok(String::from_utf8(done.stdout).unwrap()),
            false => Err(String::from_utf8(done.stderr).unwrap()),
        }
    }

    /// The same as JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.models(&[arguments, &["--json"]].concat()).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing depends on how it ends.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn check_fault(result: Result<String, String>, expected: Expect) {
    expected.assert_eq(result.unwrap_err().trim_end());
}

#[test]
fn models_are_listed_for_people_and_for_scripts() {
    let server = Server::start();
    expect![[r#"
        model     version  state        names             reason
        diabetes        1  READY
        diabetes        2  READY        default
    "#]]
    .assert_eq(&server.models(&["list"]).unwrap());
    let model = &server.json(&["list"])["models"][0];
    assert_eq!(model["name"], "diabetes");
    assert_eq!(model["default_version"], 2);
    let kinds = |model: &Value| -> Vec<String> {
        let history = model["history"].as_array().unwrap();
        history.iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds(model), [""; 0], "lists are short");
    let shown = kinds(&server.json(&["show", "diabetes"]));
    assert_eq!(shown.iter().filter(|kind| *kind == "loaded").count(), 2, "{shown:?}");
    check_fault(
        server.models(&["show", "iris"]),
        expect!["gristmill: model 'iris' is not in the repository"],
    );
}

#[test]
fn the_way_back_is_one_command() {
    let server = Server::start();
    let model = server.json(&["rollback", "diabetes", "--reason", "it predicts nonsense"]);
    assert_eq!(model["default_version"], 1);
    assert_eq!(model["versions"][1]["reason"], "rolled back: it predicts nonsense");
    check_fault(
        server.models(&["rollback", "diabetes"]),
        expect![
            "gristmill: model 'diabetes' has no version loaded to go back to from 1: the one before is not in memory any more; load it, or raise keep_previous in its model.toml"
        ],
    );
    let model = server.json(&["load", "diabetes"]);
    assert_eq!(model["default_version"], 2, "asked for again");
}

#[test]
fn labels_decide_what_is_served_by_default() {
    let server = Server::start();
    let model = server.json(&["label", "diabetes", "stable", "1"]);
    assert_eq!(model["default_version"], 1);
    assert_eq!(model["labels"]["stable"], 1);
    let model = server.json(&["label", "diabetes", "stable", "0"]);
    assert_eq!(model["default_version"], 2);
    assert_eq!(model["labels"], serde_json::json!({}));
    check_fault(
        server.models(&["label", "diabetes", "stable", "7"]),
        expect!["gristmill: model 'diabetes' has no version 7"],
    );
    check_fault(
        server.models(&["label", "diabetes", "7", "1"]),
        expect!["gristmill: '7' is not a label: expected a name that is not a number, without '/'"],
    );
}

#[test]
fn what_is_unloaded_stays_out_until_it_is_loaded() {
    let server = Server::start();
    let model = server.json(&["unload", "diabetes"]);
    assert_eq!(model["default_version"], 0);
    for version in model["versions"].as_array().unwrap() {
        assert_eq!(version["state"], "UNAVAILABLE");
    }
    assert_eq!(server.json(&["load", "diabetes"])["default_version"], 2);
    check_fault(
        server.models(&["unload", "iris"]),
        expect!["gristmill: model 'iris' is not in the repository"],
    );
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    // Nothing listens on port 1.
    let done = command.env_clear().args(["models", "list", "--server", "127.0.0.1:1"]).output().unwrap();
    let text = String::from_utf8(done.stderr).unwrap();
    assert!(text.contains("cannot reach a server at 127.0.0.1:1: --server is its gRPC address"), "{text}");
    assert!(!done.status.success());
}
