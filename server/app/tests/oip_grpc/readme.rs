//! The README's table of gRPC services and methods against those that the server has, both ways.

use std::collections::BTreeSet;

use gristmill_proto::FILE_DESCRIPTOR_SET;
use gristmill_proto::inference::grpc_inference_service_server::SERVICE_NAME;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Status;

use super::server::{Server, echo, frame, text};

/// What serves reflection itself is described in crates of its own.
const REFLECTION: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
const REFLECTION_METHOD: &str = "ServerReflectionInfo";
/// Another name of [`SERVICE_NAME`], which stands without its methods.
const ALIAS: &str = "org.pytorch.serve.grpc.openinference.GRPCInferenceService";

fn path(service: &str, method: &str) -> String {
    format!("/{service}/{method}")
}

/// Of each `service.Name` in backticks, with the methods that follow it behind a colon.
fn listed() -> BTreeSet<String> {
    let readme = include_str!("../../../../README.md");
    let (_, table) = readme.split_once("| dialect | routes and methods |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let mut listed = BTreeSet::new();
    for row in table.lines().filter(|row| row.starts_with("| ")) {
        let cell = row.split(" | ").nth(1).unwrap_or_default();
        let mut pieces = cell.split('`');
        while let (Some(_), Some(service)) = (pieces.next(), pieces.next()) {
            if !service.contains('.') || service.contains('/') {
                continue;
            }
            if service == ALIAS {
                listed.insert(service.to_owned());
                continue;
            }
            let rest = pieces.clone().next().unwrap_or_default();
            let methods = rest.strip_prefix(": ").unwrap_or_else(|| panic!("{service} has no methods"));
            let methods = methods.split(';').next().unwrap_or_default().split(',');
            listed.extend(methods.map(|method| path(service, method.trim())));
        }
    }
    listed
}

/// What reflection tells, and what tells it.
fn described() -> BTreeSet<String> {
    let mut described: BTreeSet<String> =
        REFLECTION.map(|service| path(service, REFLECTION_METHOD)).into_iter().collect();
    described.insert(ALIAS.to_owned());
    for set in [FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET] {
        for file in FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                described.extend(service.method.iter().map(|method| path(&name, method.name())));
            }
        }
    }
    described
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_lists_every_method() {
    let listed = listed();
    assert_eq!(listed, described(), "left: the README's table; right: what there is");

    let server = Server::start([("echo", echo())]).await;
    let answer = async |path: &str| server.raw_call_to(path, &[], frame(0, b"")).await.1;
    let is_absent = |status: &Status| text(status).contains("the server has no such method");
    assert!(is_absent(&answer("/inference.GRPCInferenceService/NoSuchMethod").await), "the test can fail");
    let alias = listed.iter().filter_map(|path| path.strip_prefix(&format!("/{SERVICE_NAME}/")));
    let alias: Vec<String> = alias.map(|method| path(ALIAS, method)).collect();
    for path in listed.iter().filter(|path| *path != ALIAS).chain(&alias) {
        // Streams of answers end with the message that they are sent; a watch of health would go on.
        if path == "/grpc.health.v1.Health/Watch" {
            continue;
        }
        let status = answer(path).await;
        assert!(!is_absent(&status), "{path}: {}", text(&status));
    }
}
