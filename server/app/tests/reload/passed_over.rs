//! What looks like a version and is none: the index, the log and `gristmill check` say why it is not served.

use std::fs;

use expect_test::expect;
use gristmill_proto::inference::RepositoryIndexRequest;
use gristmill_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use serde_json::json;

use crate::files::Repository;
use crate::onnx;
use crate::server::{Server, check};

#[test]
fn versions_that_are_passed_over_are_named_with_the_reason() {
    let repository = Repository::new();
    let model = onnx::adds(1.0);
    repository.put("a", 1, &[("model.onnx", &model)]);
    for version in ["02", "v4", "0", "20261130121530999888", "1.5", "latest"] {
        fs::create_dir_all(repository.root().join("a").join(version)).unwrap();
        fs::write(repository.root().join("a").join(version).join("model.onnx"), &model).unwrap();
    }
    fs::write(repository.root().join("a/7"), "a file").unwrap();
    // These nobody takes for versions.
    fs::create_dir(repository.root().join("a/assets")).unwrap();
    fs::create_dir(repository.root().join("a/.3.part")).unwrap();
    let server = Server::start(&repository, "30ms");
    let mut text = String::new();
    for entry in server.index() {
        text += &format!("{} {} {} {}\n", entry.model, entry.version, entry.state, entry.reason);
    }
    expect![[r#"
        a 1 READY 
        a 0 UNAVAILABLE it is passed over: 0 is not a version: expected a number from 1
        a 02 UNAVAILABLE it is passed over: expected the plain number: rename it 2
        a 1.5 UNAVAILABLE it is passed over: it is not a whole number: expected a name such as 1 or 20261130
        a 20261130121530999888 UNAVAILABLE it is passed over: the number is too large: expected 1 to 18446744073709551615
        a 7 UNAVAILABLE it is passed over: it is a file: expected a directory with model.onnx in it
        a latest UNAVAILABLE it is passed over: it is not a whole number: expected a name such as 1 or 20261130
        a v4 UNAVAILABLE it is passed over: it is not a whole number: expected a name such as 1 or 20261130
    "#]].assert_eq(&text);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = GrpcInferenceServiceClient::connect(server.grpc.clone()).await.unwrap();
        let mut index = async |ready| {
            let request = RepositoryIndexRequest { repository_name: String::new(), ready };
            client.repository_index(request).await.unwrap().into_inner().models
        };
        let over_grpc: String = index(false)
            .await
            .iter()
            .map(|entry| format!("{} {} {} {}\n", entry.name, entry.version, entry.state, entry.reason))
            .collect();
        assert_eq!(over_grpc, text);
        assert_eq!(index(true).await.len(), 1, "what is passed over is not ready");
    });
    assert_eq!(server.readiness(), json!({"ready": true}));

    // Looked at again, and told no more.
    repository.put("b", 1, &[("model.onnx", &model)]);
    server.wait_for(|server| server.entry("b", 1).filter(|entry| entry.state == "READY"));
    fs::create_dir(repository.root().join("b/01")).unwrap();
    server.wait_for(|server| server.log().contains("b/01").then_some(()));
    let log = server.log();
    for path in ["a/02", "a/v4", "a/0", "a/20261130121530999888", "a/1.5", "a/latest", "a/7", "b/01"] {
        let lines = log.lines().filter(|line| line.contains(&format!("path=\"{path}\"")));
        assert_eq!(lines.count(), 1, "{path}: {log}");
    }
    assert!(!log.contains("assets") && !log.contains("part"), "{log}");

    let (succeeds, output) = check(&repository);
    assert!(succeeds, "what is passed over is no fault: {output}");
    let named: Vec<&str> = output.lines().filter(|line| line.starts_with("passed over: ")).collect();
    expect![[r#"
        passed over: a/0: 0 is not a version: expected a number from 1
        passed over: a/02: expected the plain number: rename it 2
        passed over: a/1.5: it is not a whole number: expected a name such as 1 or 20261130
        passed over: a/20261130121530999888: the number is too large: expected 1 to 18446744073709551615
        passed over: a/7: it is a file: expected a directory with model.onnx in it
        passed over: a/latest: it is not a whole number: expected a name such as 1 or 20261130
        passed over: a/v4: it is not a whole number: expected a name such as 1 or 20261130
        passed over: b/01: expected the plain number: rename it 1"#]]
    .assert_eq(&named.join("\n"));
}
