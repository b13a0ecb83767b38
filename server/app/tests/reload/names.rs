//! Names with characters that mean something in a path: refused wherever they come from.

use std::fs;

use expect_test::expect;
use serde_json::json;

use crate::files::Repository;
use crate::onnx;
use crate::server::Server;

#[test]
fn a_name_with_path_characters_leads_nowhere() {
    let repository = Repository::new();
    repository.put("m", 1, &[("model.onnx", &onnx::adds(1.0))]);
    // What such a name would reach.
    repository.put(".hidden", 1, &[("model.onnx", &onnx::adds(2.0))]);
    let server = Server::start(&repository, "30ms");
    let mut text = String::new();
    for name in ["..%2Fm", "..", "%2E%2E", ".hidden", "m%2F1", "m%5C..", "m%00", "%2Fetc"] {
        let (status, answer) = server.call("POST", &format!("/v2/repository/models/{name}/load"), &json!({}));
        text += &format!("{name}: {status} {}\n", answer["error"]);
    }
    assert_eq!(server.infer("m"), ("1".into(), 1.0));
    assert_eq!(server.index().len(), 1, "{:?}", server.index());
    expect![[r#"
        ..%2Fm: 404 "model '../m' is not in the repository"
        ..: 404 "model '..' is not in the repository"
        %2E%2E: 404 "model '..' is not in the repository"
        .hidden: 404 "model '.hidden' is not in the repository"
        m%2F1: 404 "model 'm/1' is not in the repository"
        m%5C..: 404 "model 'm\\..' is not in the repository"
        m%00: 404 "model 'm\\0' is not in the repository"
        %2Fetc: 404 "model '/etc' is not in the repository"
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_directory_with_path_characters_is_no_model() {
    let repository = Repository::new();
    repository.put("m", 1, &[("model.onnx", &onnx::adds(1.0))]);
    let server = Server::start(&repository, "30ms");
    repository.put("a\\b", 1, &[("model.onnx", &onnx::adds(2.0))]);
    let entry = server.wait_for(|server| server.index().into_iter().find(|entry| entry.model == "a\\b"));
    assert_eq!((entry.version.as_str(), entry.state.as_str()), ("", "UNAVAILABLE"));
    expect![[r#"
        model name "a\\b" has the character '\\': expected no path separators and no control characters
        {"ready":true,"failing":["model 'a\\b': model name \"a\\\\b\" has the character '\\\\': expected no path separators and no control characters"]}
    "#]].assert_eq(&format!("{}\n{}\n", entry.reason, server.readiness()));
    assert_eq!(server.infer("m"), ("1".into(), 1.0));

    fs::rename(repository.root().join("a\\b"), repository.root().join("b")).unwrap();
    server.wait_for(|server| server.entry("b", 1).filter(|entry| entry.state == "READY"));
    assert_eq!(server.readiness(), json!({"ready": true}));
    assert_eq!(server.infer("b"), ("1".into(), 2.0));
}
