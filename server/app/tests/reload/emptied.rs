//! A repository that has lost all of its models at once: what serves goes on until that is certain.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use expect_test::expect;
use serde_json::json;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::files::Repository;
use crate::onnx;
use crate::server::Server;

fn two_models() -> Repository {
    let repository = Repository::new();
    for (model, added) in [("a", 1.0), ("b", 2.0)] {
        repository.put(model, 1, &[("model.onnx", &onnx::adds(added))]);
    }
    repository
}

/// What `take_away` does to the repository is doubted, and `bring_back` ends the doubt.
fn check(take_away: impl FnOnce(&Repository), bring_back: impl FnOnce(&Repository)) -> String {
    let repository = two_models();
    let server = Server::start(&repository, "30ms");
    take_away(&repository);
    let failing = server.wait_for(|server| {
        let readiness = server.readiness();
        assert_eq!(readiness["ready"], true);
        readiness["failing"].as_array().map(|lines| lines[lines.len() - 1].as_str().unwrap().to_owned())
    });
    assert_eq!((server.infer("a"), server.infer("b")), (("1".into(), 1.0), ("1".into(), 2.0)));
    assert_eq!(server.index().iter().filter(|entry| entry.state == "READY").count(), 2);
    bring_back(&repository);
    server.wait_for(|server| (server.readiness() == json!({"ready": true})).then_some(()));
    assert_eq!((server.infer("a"), server.infer("b")), (("1".into(), 1.0), ("1".into(), 2.0)));
    let log = server.log();
    let told = log.lines().filter(|line| line.contains(&failing)).count();
    assert_eq!(told, 1, "{log}");
    repository.anonymous(&failing)
}

/// An empty directory stands where the repository was, as where a volume is not mounted.
fn unmount(repository: &Repository) {
    fs::rename(repository.root(), repository.beside("volume")).unwrap();
    fs::create_dir(repository.root()).unwrap();
}

fn mount(repository: &Repository) {
    fs::remove_dir_all(repository.root()).unwrap();
    fs::rename(repository.beside("volume"), repository.root()).unwrap();
}

#[test]
fn an_unmounted_volume_unloads_nothing() {
    expect!["the model repository has no model any more: what serves goes on for at least 30 s, in case that it is not mounted; unload its models if they are to go at once"].assert_eq(&check(unmount, mount));
}

#[test]
fn a_fresh_volume_in_its_place_unloads_nothing() {
    let take_away = |repository: &Repository| {
        unmount(repository);
        for directory in ["lost+found", "docs", ".snapshots"] {
            fs::create_dir(repository.root().join(directory)).unwrap();
        }
        fs::write(repository.root().join("README"), "not mounted").unwrap();
    };
    check(take_away, mount);
}

#[test]
fn models_that_are_moved_away_and_back_are_not_unloaded() {
    let models = ["a", "b"];
    let take_away = |repository: &Repository| {
        for model in models {
            let hidden = repository.root().join(format!(".{model}"));
            fs::rename(repository.root().join(model), hidden).unwrap();
        }
    };
    let bring_back = |repository: &Repository| {
        for model in models {
            let hidden = repository.root().join(format!(".{model}"));
            fs::rename(hidden, repository.root().join(model)).unwrap();
        }
    };
    let repository = two_models();
    let server = Server::start(&repository, "30ms");
    take_away(&repository);
    // The first of the two may have been seen to go alone: that is believed.
    server.wait_for(|server| server.readiness()["failing"].is_array().then_some(()));
    assert_eq!(server.infer("b"), ("1".into(), 2.0));
    bring_back(&repository);
    server.wait_for(|server| (server.readiness() == json!({"ready": true})).then_some(()));
    for (model, added) in [("a", 1.0), ("b", 2.0)] {
        server.wait_for(|server| server.entry(model, 1).filter(|entry| entry.state == "READY"));
        assert_eq!(server.infer(model), ("1".into(), added));
    }
}

#[test]
fn a_repository_that_cannot_be_read_unloads_nothing() {
    let take_away =
        |repository: &Repository| fs::rename(repository.root(), repository.beside("volume")).unwrap();
    let bring_back =
        |repository: &Repository| fs::rename(repository.beside("volume"), repository.root()).unwrap();
    expect!["cannot read the model repository ROOT: No such file or directory (os error 2)"]
        .assert_eq(&check(take_away, bring_back));
    let take_away = |repository: &Repository| {
        fs::rename(repository.root(), repository.beside("volume")).unwrap();
        symlink("nowhere", repository.root()).unwrap();
    };
    let bring_back = |repository: &Repository| {
        fs::remove_file(repository.root()).unwrap();
        fs::rename(repository.beside("volume"), repository.root()).unwrap();
    };
    check(take_away, bring_back);
}

#[test]
fn an_order_is_believed_at_once() {
    let repository = two_models();
    let server = Server::start(&repository, "30ms");
    unmount(&repository);
    server.wait_for(|server| server.readiness()["failing"].is_array().then_some(()));
    assert_eq!(server.call("POST", "/v2/repository/models/a/unload", &json!({})).0, 200);
    assert_eq!(server.call("GET", "/v2/models/a/ready", &json!({})).0, 503);
    assert_eq!(server.infer("b"), ("1".into(), 2.0));
    assert_eq!(server.readiness()["ready"], true);
}

#[test]
fn a_repository_that_stays_empty_is_believed() {
    let repository = two_models();
    let server = Server::start(&repository, "30ms");
    unmount(&repository);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gone = runtime.block_on(async {
        let endpoint = tonic::transport::Endpoint::new(server.grpc.clone()).unwrap();
        let mut client = HealthClient::new(endpoint.connect().await.unwrap());
        let request = HealthCheckRequest { service: "a".into() };
        let mut statuses = client.watch(request).await.unwrap().into_inner();
        let mut last = ServingStatus::Unknown;
        let until_gone = async {
            while last != ServingStatus::ServiceUnknown {
                last = statuses.message().await.unwrap().unwrap().status();
            }
        };
        tokio::time::timeout(Duration::from_secs(120), until_gone).await
    });
    gone.unwrap();
    assert_eq!(server.index(), []);
    assert_eq!(server.readiness(), json!({"ready": true}), "an empty repository is a matter of the start");
}
