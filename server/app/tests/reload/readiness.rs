//! Nothing that arrives takes a server that is ready out of service: every probe says so, and what is at fault is named.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use gristmill_proto::inference::ServerReadyRequest;
use gristmill_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use serde_json::{Value, json};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::files::Repository;
use crate::onnx;
use crate::server::{Server, command};

const SETTLE: [&str; 2] = ["--settle-time", "30ms"];

/// What is asked whether the server may be sent traffic.
const HTTP_PROBES: [&str; 3] = ["/v2/health/ready", "/ping", "/health"];

/// Whether every probe of the server says that it is ready, or none; they never disagree.
fn is_ready(server: &Server) -> bool {
    let statuses = HTTP_PROBES.map(|path| server.call("GET", path, &Value::Null).0);
    let ready = statuses == [200; 3];
    assert!(ready || statuses == [503; 3], "{statuses:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = tonic::transport::Endpoint::new(server.grpc.clone()).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let mut client = GrpcInferenceServiceClient::new(channel.clone());
        let answer = client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready;
        assert_eq!(answer, ready, "ServerReady");
        let mut client = HealthClient::new(channel);
        for service in ["", "inference.GRPCInferenceService"] {
            let request = HealthCheckRequest { service: service.into() };
            let status = client.check(request).await.unwrap().into_inner().status();
            assert_eq!(status == ServingStatus::Serving, ready, "grpc.health.v1 of {service:?}");
        }
    });
    ready
}

/// Waits until the probes say so.
fn wait_until(server: &Server, ready: bool) {
    server.wait_for(|server| (server.readiness()["ready"] == ready).then_some(()));
    assert_eq!(is_ready(server), ready);
}

/// Asks again and again while `change` happens; none may say that the server is not ready.
fn while_ready<T>(server: &Server, change: impl FnOnce() -> T) -> T {
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let probing = scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                let (status, answer) = server.call("GET", "/v2/health/ready", &Value::Null);
                assert_eq!(status, 200, "{answer}");
            }
        });
        let result = change();
        assert!(is_ready(server));
        ends.store(true, Ordering::Relaxed);
        probing.join().unwrap();
        result
    })
}

fn failing(server: &Server) -> Vec<String> {
    let readiness = server.readiness();
    let lines = readiness["failing"].as_array().into_iter().flatten();
    lines.map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// What arrives, and what the server then says is failing and logs.
fn check_arrival(arrive: impl FnOnce(&Repository), expected: Expect) {
    let repository = Repository::new();
    repository.put("a", 1, &[("model.onnx", &onnx::adds(1.0))]);
    let server = Server::start(&repository, SETTLE[1]);
    while_ready(&server, || {
        arrive(&repository);
        // What comes after it is seen twice, with time to settle in between: so it was seen as well.
        for model in ["later", "latest"] {
            repository.put(model, 1, &[("model.onnx", &onnx::adds(2.0))]);
            server.wait_for(|server| server.entry(model, 1).filter(|entry| entry.state == "READY"));
        }
        server
            .wait_for(|server| (!server.index().iter().any(|entry| entry.state == "LOADING")).then_some(()));
    });
    assert_eq!(server.infer("a"), ("1".into(), 1.0));
    let mut text = String::new();
    for reason in failing(&server) {
        text += &format!("failing: {reason}\n");
    }
    // What is named only when it has lain still is named at the next poll.
    let logged = |server: &Server| {
        let log = server.log();
        let lines = log.lines().filter_map(|line| {
            let (_, line) = line.split_once(" WARN ").or_else(|| line.split_once("ERROR "))?;
            Some(line.trim().to_owned())
        });
        let mut lines: Vec<String> = lines.filter(|line| !line.contains("ONNX Runtime")).collect();
        // Loads that fail are tried again.
        lines.dedup();
        (!lines.is_empty()).then_some(lines)
    };
    for line in server.wait_for(logged) {
        text += &format!("log: {line}\n");
    }
    let (_, metrics) = server.text("/metrics");
    for line in metrics.lines().filter(|line| line.starts_with("gristmill_model_failing{")) {
        text += &format!("metric: {line}\n");
    }
    assert!(metrics.contains("\ngristmill_server_ready 1.0\n"), "{metrics}");
    expected.assert_eq(&repository.anonymous(&text));
}

#[test]
fn a_directory_without_a_version_is_no_model() {
    check_arrival(
        |repository| fs::create_dir(repository.root().join("b")).unwrap(),
        expect![[r#"
        log: gristmill_engine::reconcile: passed over path="b" reason="ROOT/b has no version: expected <number>/model.onnx in it, for example 1/model.onnx"
    "#]],
    );
    check_arrival(
        |repository| {
            fs::create_dir_all(repository.root().join("docs/img")).unwrap();
            fs::write(repository.root().join("docs/notes.md"), "hi").unwrap();
        },
        expect![[r#"
            log: gristmill_engine::reconcile: passed over path="docs" reason="ROOT/docs has no version: expected <number>/model.onnx in it, for example 1/model.onnx"
        "#]],
    );
    check_arrival(
        |repository| fs::create_dir(repository.root().join("lost+found")).unwrap(),
        expect![[r#"
        log: gristmill_engine::reconcile: passed over path="lost+found" reason="it is the file system's own"
    "#]],
    );
    check_arrival(
        |repository| symlink("nowhere", repository.root().join("b")).unwrap(),
        expect![[r#"
        log: gristmill_engine::reconcile: passed over path="b" reason="ROOT/b is a link to what is not there"
    "#]],
    );
}

#[test]
fn a_new_model_that_is_broken_is_failing_and_nothing_else() {
    check_arrival(
        |repository| repository.put("b", 1, &[("model.onnx", b"nonsense")]),
        expect![[r#"
        failing: model 'b': version 1: ROOT/b/1/model.onnx is not a usable ONNX model: its contents are something else
        log: gristmill_engine::managed::history: model="b" version=1 detail="ROOT/b/1/model.onnx is not a usable ONNX model: its contents are something else" what="load_failed"
        metric: gristmill_model_failing{model="b"} 1.0
    "#]],
    );
    check_arrival(
        |repository| repository.put("b", 1, &[("notes.txt", b"no model")]),
        expect![[r#"
        failing: model 'b': version 1: cannot read the model file ROOT/b/1/model.onnx: No such file or directory (os error 2)
        log: gristmill_engine::managed::history: model="b" version=1 detail="cannot read the model file ROOT/b/1/model.onnx: No such file or directory (os error 2)" what="load_failed"
        metric: gristmill_model_failing{model="b"} 1.0
    "#]],
    );
    check_arrival(
        |repository| {
            repository.put("b", 1, &[("model.onnx", &onnx::adds(1.0))]);
            repository.replace("b", "model.toml", b"instances = \"many\"\n");
        },
        expect![[r#"
            failing: model 'b': ROOT/b/model.toml: TOML parse error at line 1, column 13
              |
            1 | instances = "many"
              |             ^^^^^^
            invalid type: string "many", expected usize
            log: gristmill_engine::managed::report: at fault model="b" why="ROOT/b/model.toml: TOML parse error at line 1, column 13\n  |\n1 | instances = \"many\"\n  |             ^^^^^^\ninvalid type: string \"many\", expected usize"
            metric: gristmill_model_failing{model="b"} 1.0
        "#]],
    );
    check_arrival(
        |repository| {
            repository.replace("b", "config.pbtxt", b"name: \"c\"\n");
            repository.put("b", 1, &[("model.onnx", &onnx::adds(1.0))]);
        },
        expect![[r#"
            failing: model 'b': ROOT/b/config.pbtxt: name is 'c': expected 'b', the name of its directory, or none
            log: gristmill_engine::managed::report: at fault model="b" why="ROOT/b/config.pbtxt: name is 'c': expected 'b', the name of its directory, or none"
            metric: gristmill_model_failing{model="b"} 1.0
        "#]],
    );
    check_arrival(
        |repository| symlink("/etc", repository.root().join("b")).unwrap(),
        expect![[r#"
        failing: model 'b': ROOT/b leads out of the model repository: expected files inside it; copy them there, or serve the directory that holds both
        log: gristmill_engine::managed::report: at fault model="b" why="ROOT/b leads out of the model repository: expected files inside it; copy them there, or serve the directory that holds both"
        metric: gristmill_model_failing{model="b"} 1.0
    "#]],
    );
    check_arrival(
        |repository| {
            fs::create_dir(repository.root().join("b")).unwrap();
            symlink("nowhere", repository.root().join("b/1")).unwrap();
        },
        expect![[r#"
            failing: model 'b': version 1: cannot read ROOT/b/1: No such file or directory (os error 2)
            log: gristmill_engine::managed::report: at fault model="b" why="version 1: cannot read ROOT/b/1: No such file or directory (os error 2)"
            metric: gristmill_model_failing{model="b"} 1.0
        "#]],
    );
    check_arrival(
        |repository| repository.put("a", 2, &[("model.onnx", b"nonsense")]),
        expect![[r#"
        failing: model 'a': version 2: ROOT/a/2/model.onnx is not a usable ONNX model: its contents are something else
        log: gristmill_engine::managed::history: model="a" version=2 detail="ROOT/a/2/model.onnx is not a usable ONNX model: its contents are something else" what="load_failed"
        metric: gristmill_model_failing{model="a"} 1.0
    "#]],
    );
}

#[test]
fn good_models_come_and_go_and_versions_are_rolled_back() {
    let repository = Repository::new();
    repository.put("a", 1, &[("model.onnx", &onnx::adds(1.0))]);
    let server = Server::start(&repository, SETTLE[1]);
    while_ready(&server, || {
        for model in ["b", "c", "d"] {
            repository.put(model, 1, &[("model.onnx", &onnx::adds(2.0))]);
            server.wait_for(|server| server.entry(model, 1).filter(|entry| entry.state == "READY"));
        }
        repository.put("a", 2, &[("model.onnx", &onnx::adds(3.0))]);
        server.wait_for(|server| (server.infer("a") == ("2".into(), 3.0)).then_some(()));
        let order = json!({});
        assert_eq!(server.call("POST", "/v2/repository/models/b/unload", &order).0, 200);
        fs::rename(repository.root().join("c"), repository.root().join(".c")).unwrap();
        server.wait_for(|server| server.entry("c", 1).is_none().then_some(()));
        fs::rename(repository.root().join("d"), repository.root().join("e")).unwrap();
        server.wait_for(|server| server.entry("e", 1).filter(|entry| entry.state == "READY"));
        assert_eq!(failing(&server), [""; 0]);
    });
    assert_eq!(server.call("POST", "/v2/repository/models/b/load", &json!({})).0, 200);
    assert_eq!(server.readiness(), json!({"ready": true}));
}

#[test]
fn a_model_that_loses_its_versions_and_keeps_its_directory_serves_on() {
    let repository = Repository::new();
    repository.put("a", 1, &[("model.onnx", &onnx::adds(1.0))]);
    repository.put("b", 1, &[("model.onnx", &onnx::adds(2.0))]);
    let server = Server::start(&repository, SETTLE[1]);
    while_ready(&server, || {
        repository.remove("b", 1);
        server.wait_for(|server| (!failing(server).is_empty()).then_some(()));
    });
    assert_eq!(server.infer("b"), ("1".into(), 2.0));
    expect!["model 'b': ROOT/b has no version: expected <number>/model.onnx in it, for example 1/model.onnx; remove the directory if the model is to go"].assert_eq(&repository.anonymous(&failing(&server).join("\n")));
    fs::remove_dir(repository.root().join("b")).unwrap();
    server.wait_for(|server| server.entry("b", 1).is_none().then_some(()));
    assert_eq!(server.readiness(), json!({"ready": true}));
}

#[test]
fn a_refused_order_changes_nothing() {
    let repository = Repository::new();
    repository.put("a", 1, &[("model.onnx", &onnx::adds(1.0))]);
    repository.put("bad", 1, &[("model.onnx", b"nonsense")]);
    fs::create_dir(repository.root().join("empty")).unwrap();
    let server = Server::launch(&repository, &["--settle-time", "1ms", "--model-control", "explicit"]);
    assert!(is_ready(&server), "nothing was asked for");
    let load = |model: &str| {
        let (status, answer) =
            server.call("POST", &format!("/v2/repository/models/{model}/load"), &json!({}));
        format!("{status} {}", repository.anonymous(answer["error"].as_str().unwrap_or_default()))
    };
    while_ready(&server, || {
        assert_eq!(load("a"), "200 ");
        expect!["500 failed to load 'bad', version 1: ROOT/bad/1/model.onnx is not a usable ONNX model: its contents are something else"].assert_eq(&load("bad"));
        expect!["404 model 'empty' is not in the repository: ROOT/empty has no version: expected <number>/model.onnx in it, for example 1/model.onnx"].assert_eq(&load("empty"));
        expect!["404 model 'nothing' is not in the repository"].assert_eq(&load("nothing"));
        assert!(failing(&server)[0].starts_with("model 'bad': version 1: "), "{:?}", failing(&server));
        assert_eq!(server.call("POST", "/v2/repository/models/bad/unload", &json!({})).0, 200);
        assert_eq!(server.readiness(), json!({"ready": true}));
        assert_eq!(server.call("POST", "/v2/repository/models/a/unload", &json!({})).0, 200);
    });
}

#[test]
fn a_server_that_starts_again_waits_for_what_served_before() {
    let repository = Repository::new();
    repository.put("a", 1, &[("model.onnx", &onnx::adds(1.0))]);
    repository.put("b", 1, &[("model.onnx", &onnx::adds(2.0))]);
    repository.put("never", 1, &[("model.onnx", b"nonsense")]);
    let server = Server::start(&repository, SETTLE[1]);
    assert_eq!(failing(&server).len(), 1, "what has never served is not waited for");
    let remembered = repository.beside("models.state").join("served.json");
    server.wait_for(|_| {
        let text = fs::read_to_string(&remembered).unwrap_or_default();
        (text == r#"{"served":["a","b"]}"#).then_some(())
    });
    server.stop();

    repository.replace("b", "1/model.onnx", b"nonsense");
    let server = Server::launch(&repository, &SETTLE);
    assert!(!is_ready(&server));
    let reasons = server.readiness()["reasons"].to_string();
    assert!(reasons.starts_with("[\"model 'b': version 1: "), "{reasons}");
    repository.replace("b", "1/model.onnx", &onnx::adds(3.0));
    wait_until(&server, true);
    assert_eq!(server.infer("b"), ("1".into(), 3.0));
    server.stop();

    // A volume that is not mounted yet.
    repository.remove("b", 1);
    let server = Server::launch(&repository, &SETTLE);
    let reasons = server.readiness()["reasons"].to_string();
    assert!(reasons.contains("model 'b': ") && reasons.contains("has no version"), "{reasons}");
    server.stop();

    // Somebody has taken it away.
    fs::remove_dir(repository.root().join("b")).unwrap();
    let server = Server::launch(&repository, &SETTLE);
    assert!(is_ready(&server));
    server.wait_for(|_| (fs::read_to_string(&remembered).unwrap() == r#"{"served":["a"]}"#).then_some(()));
    server.stop();

    // Another state directory, such as a new container has, knows of nothing.
    let state = repository.beside("other");
    repository.put("c", 1, &[("model.onnx", b"nonsense")]);
    let flags = [SETTLE[0], SETTLE[1], "--state-dir", state.to_str().unwrap()];
    let server = Server::launch(&repository, &flags);
    assert!(is_ready(&server));
}

#[test]
fn a_start_at_which_no_model_serves_is_none() {
    let repository = Repository::new();
    repository.put("a", 1, &[("model.onnx", b"nonsense")]);
    let server = Server::launch(&repository, &SETTLE);
    assert!(!is_ready(&server));
    repository.replace("a", "1/model.onnx", &onnx::adds(1.0));
    wait_until(&server, true);
}

#[test]
fn a_strict_server_is_ready_while_every_model_serves() {
    let repository = Repository::new();
    repository.put("a", 1, &[("model.onnx", &onnx::adds(1.0))]);
    let server = Server::launch(&repository, &[SETTLE[0], SETTLE[1], "--strict-readiness"]);
    assert!(is_ready(&server));
    fs::create_dir(repository.root().join("docs")).unwrap();
    repository.put("b", 1, &[("model.onnx", b"nonsense")]);
    wait_until(&server, false);
    server.wait_for(|server| {
        let reasons = server.readiness()["reasons"].to_string();
        reasons.starts_with("[\"model 'b': version 1: ").then_some(())
    });
    let line = server.wait_for(|server| {
        let log = server.log();
        log.lines().find(|line| line.contains("not ready any more")).map(str::to_owned)
    });
    assert!(line.contains("model 'b'"), "{line}");
    fs::rename(repository.root().join("b"), repository.root().join(".b")).unwrap();
    wait_until(&server, true);
}

#[test]
fn a_server_that_is_to_end_on_errors_ends() {
    let repository = Repository::new();
    repository.put("a", 1, &[("model.onnx", &onnx::adds(1.0))]);
    let flags = [SETTLE[0], SETTLE[1], "--exit-on-error"];
    Server::launch(&repository, &flags).stop();
    let broken: [fn(&Repository); 3] = [
        |repository| repository.put("b", 1, &[("model.onnx", b"nonsense")]),
        |repository| {
            fs::rename(repository.root().join("b"), repository.root().join(".b")).unwrap();
            repository.replace("a", "model.toml", b"instances = \"many\"\n");
        },
        |repository| {
            fs::remove_file(repository.root().join("a/model.toml")).unwrap();
            symlink("/etc", repository.root().join("a/2")).unwrap();
        },
    ];
    for break_it in broken {
        break_it(&repository);
        let log = repository.beside("log");
        let mut child = command(&repository, &flags).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("the server serves on: {}", fs::read_to_string(&log).unwrap());
            }
            thread::yield_now();
        };
        let log = fs::read_to_string(&log).unwrap();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("--exit-on-error"), "{log}");
    }
    let server = Server::launch(&repository, &[SETTLE[0], SETTLE[1], "--exit-on-error=false"]);
    assert!(is_ready(&server));
}
