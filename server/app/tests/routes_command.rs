//! `gristmill routes` and `routes.toml` against a running server, which may be killed at any moment.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "routes_command/canary.rs"]
mod canary;
#[path = "routes_command/kills.rs"]
mod kills;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

/// Versions 1 and 2 of diabetes.
struct Repository {
    root: tempfile::TempDir,
}

/// The real program on free ports; ended with the test.
struct Server {
    child: Child,
    grpc: String,
    http: String,
}

impl Repository {
    fn new() -> Repository {
        let root = tempfile::tempdir().unwrap();
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/diabetes");
        for version in ["1", "2"] {
            let directory = root.path().join("models/diabetes").join(version);
            fs::create_dir_all(&directory).unwrap();
            fs::copy(models.join(version).join("model.onnx"), directory.join("model.onnx")).unwrap();
            fs::write(directory.join(".complete"), "").unwrap();
        }
        Repository { root }
    }

    fn routes(&self) -> PathBuf {
        self.root.path().join("models/routes.toml")
    }

    /// Of the latest server.
    fn log(&self) -> PathBuf {
        self.root.path().join("log")
    }

    fn serve(&self) -> Server {
        let ready_file = self.root.path().join("ready.json");
        // Of the server before.
        let _none = fs::remove_file(&ready_file);
        let child = Command::new(env!("CARGO_BIN_EXE_gristmill"))
            .env_clear()
            .args(["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .args(["--backend", "tract", "--log", "info", "--settle-time", "1ms", "--repository"])
            .arg(self.root.path().join("models"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stderr(File::create(self.log()).unwrap())
            .spawn()
            .unwrap();
        let mut server = Server { child, grpc: String::new(), http: String::new() };
        let addresses: Value = loop {
            if let Ok(text) = fs::read_to_string(&ready_file) {
                break serde_json::from_str(&text).unwrap();
            }
            assert_eq!(server.child.try_wait().unwrap(), None, "the server ended");
            std::thread::yield_now();
        };
        server.grpc = addresses["grpc"].as_str().unwrap().to_owned();
        server.http = addresses["http"].as_str().unwrap().to_owned();
        // Ready with one of the versions; the other may still be loading.
        while server.get("/v2/models/diabetes/versions/1/ready").0 != 200
            || server.get("/v2/models/diabetes/versions/2/ready").0 != 200
        {
            std::thread::yield_now();
        }
        server
    }
}

impl Server {
    /// Runs a command; what it prints, or else what it complains of.
    fn routes(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
        command.env_clear().arg("routes").args(arguments).args(["--server", &self.grpc]);
        let done = command.output().unwrap();
        match done.status.success() {
            true => Ok(String::from_utf8(done.stdout).unwrap()),
            false => Err(String::from_utf8(done.stderr).unwrap()),
        }
    }

    /// The same as JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.routes(&[arguments, &["--json"]].concat()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn get(&self, path: &str) -> (u16, String, String) {
        request(&self.http, "GET", path, "", "").unwrap()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let (status, _, answer) = request(&self.http, "POST", path, "", &body.to_string()).unwrap();
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// What one request to a route is told of it: arm, version and prediction id.
    fn ask(&self, route: &str, key: &str) -> [String; 3] {
        let body = json!({"inputs": [{"name": "measurements", "shape": [1, 10], "datatype": "FP32", "data": vec![0.5; 10]}]});
        let header = format!("X-Routing-Key: {key}\r\n");
        let path = format!("/v2/models/{route}/infer");
        let (status, headers, answer) =
            request(&self.http, "POST", &path, &header, &body.to_string()).unwrap();
        assert_eq!(status, 200, "{answer}");
        let value = |name: &str| {
            let line = headers.lines().find_map(|line| line.strip_prefix(&format!("x-gristmill-{name}: ")));
            line.unwrap_or_else(|| panic!("{name} is not in {headers}")).to_owned()
        };
        assert_eq!(value("route"), route);
        [value("arm"), value("version"), value("prediction-id")]
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing depends on how it ends.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Status, headers in lower case, and body.
fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> std::io::Result<(u16, String, String)> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
    Ok((status, head.to_lowercase(), body.to_owned()))
}

const SET: &[&str] = &["set", "risk", "--arm", "control=diabetes@1:90", "--arm", "candidate=diabetes@2:10"];

#[test]
fn a_route_is_set_promoted_and_aborted_and_a_restart_resumes() {
    let repository = Repository::new();
    let server = repository.serve();
    expect![[r#"
        route  arm        weight  goes to     serves
        risk   control      90 %  diabetes@1  version 1
        risk   candidate    10 %  diabetes@2  version 2

        dealt by header, salt "risk"
    "#]]
    .assert_eq(&server.routes(SET).unwrap());
    expect![[r##"
        # Written by `gristmill routes`. What is edited here is taken over at once.

        [routes."risk"]
        policy = "split"
        key = "header"
        salt = "risk"
        arms = [
            { name = "control", model = "diabetes", version = 1, weight = 90 },
            { name = "candidate", model = "diabetes", version = 2, weight = 10 },
        ]
    "##]]
    .assert_eq(&fs::read_to_string(repository.routes()).unwrap());
    let arms: Vec<String> = (0..20).map(|key| server.ask("risk", &key.to_string())[0].clone()).collect();
    assert!(arms.contains(&"control".to_owned()), "{arms:?}");
    let again: Vec<String> = (0..20).map(|key| server.ask("risk", &key.to_string())[0].clone()).collect();
    assert_eq!(again, arms);

    let promoted = server.json(&["promote", "risk", "candidate"]);
    assert_eq!(
        (&promoted["arms"][0]["weight"], &promoted["arms"][1]["weight"]),
        (&json!(0.0), &json!(100.0))
    );
    let [arm, version, prediction] = server.ask("risk", "0");
    assert_eq!((arm.as_str(), version.as_str(), prediction.len()), ("candidate", "diabetes:2", 32));
    expect![[r#"
        route  arm        weight  goes to     serves
        risk   control       0 %  diabetes@1  version 1
        risk   candidate   100 %  diabetes@2  version 2

        dealt by header, salt "risk"
    "#]]
    .assert_eq(&server.routes(&["list"]).unwrap());
    server.kill();

    let server = repository.serve();
    assert_eq!(server.json(&["show", "risk"]), promoted);
    server.routes(&["abort", "risk"]).unwrap();
    assert_eq!(server.ask("risk", "0")[0], "control");
}

fn check_fault(result: Result<String, String>, expected: Expect) {
    expected.assert_eq(result.unwrap_err().trim_end());
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let repository = Repository::new();
    let server = repository.serve();
    server.routes(SET).unwrap();
    let before = fs::read_to_string(repository.routes()).unwrap();
    let set = |arms: &[&str]| {
        let arms = arms.iter().flat_map(|arm| ["--arm", arm]);
        server.routes(&["set", "risk"].into_iter().chain(arms).collect::<Vec<_>>())
    };
    check_fault(
        set(&["a=diabetes@1:60", "b=diabetes@2:30"]),
        expect!["gristmill: route 'risk': the weights add up to 90, expected 100: 60 (a) + 30 (b)"],
    );
    check_fault(
        set(&["a=diabetes@1:60", "b=diabetes@7:40"]),
        expect![
            "gristmill: route 'risk': arm 'b' names version 7 of model 'diabetes', which has no such version"
        ],
    );
    check_fault(
        set(&["a=diabetes@1:60", "b=iris:40"]),
        expect!["gristmill: route 'risk': arm 'b' names the model 'iris', which is not in the repository"],
    );
    check_fault(
        set(&["a=risk:100"]),
        expect![
            "gristmill: route 'risk': arm 'a' names the route 'risk': routes cannot be nested; name its models instead"
        ],
    );
    check_fault(
        server.routes(&["set", "diabetes", "--arm", "a=diabetes@1:100"]),
        expect![
            "gristmill: route 'diabetes': a model of the repository has this name: give the route another one; route 'risk': arm 'control' names the route 'diabetes': routes cannot be nested; name its models instead"
        ],
    );
    check_fault(
        server.routes(&["promote", "risk", "third"]),
        expect!["gristmill: route 'risk' has no arm 'third': its arms are 'control', 'candidate'"],
    );
    check_fault(server.routes(&["show", "none"]), expect!["gristmill: there is no route 'none'"]);
    check_fault(
        server.routes(&["promote", "risk", "candidate", "--weight", "10.001"]),
        expect!["gristmill: weight is 10.001: expected whole hundredths of a percent"],
    );
    assert_eq!(fs::read_to_string(repository.routes()).unwrap(), before);
}

#[test]
fn the_file_is_taken_over_while_the_server_runs_unless_it_is_broken() {
    let repository = Repository::new();
    let server = repository.serve();
    let write = |weight: u32| {
        let other = 100 - weight;
        let text = format!(
            "[routes.risk]\narms = [\n  {{ name = \"old\", model = \"diabetes\", version = 1, weight = {other} }},\n  \
             {{ name = \"new\", model = \"diabetes\", version = 2, weight = {weight} }},\n]\n"
        );
        fs::write(repository.routes(), text).unwrap();
    };
    write(100);
    while server.get("/v1/admin/routes/risk").0 != 200 {
        std::thread::yield_now();
    }
    assert_eq!(server.ask("risk", "1")[0], "new");
    fs::write(repository.routes(), "[routes.risk]\narms = [").unwrap();
    let fault = loop {
        let fault = server.json(&["show", "risk"])["fault"].as_str().unwrap().to_owned();
        if !fault.is_empty() {
            break fault;
        }
    };
    assert!(fault.contains("routes.toml: TOML parse error at line 2"), "{fault}");
    assert_eq!(server.ask("risk", "1")[0], "new", "the table before goes on");
    let refused = server.routes(&["abort", "risk"]).unwrap_err();
    assert!(refused.contains("mend them first"), "{refused}");
    write(0);
    while server.ask("risk", "1")[0] != "old" {
        std::thread::yield_now();
    }
}

#[test]
fn a_server_that_is_killed_during_changes_resumes_with_the_old_or_the_new_ones() {
    let repository = Repository::new();
    let mut server = repository.serve();
    server.routes(SET).unwrap();
    for changes in [1, 2, 3, 5, 8] {
        let (done, answered) = mpsc::channel();
        let http = server.http.clone();
        let client = std::thread::spawn(move || {
            for change in 0.. {
                let weight = f64::from(change % 100);
                let body = json!({"arm": "candidate", "weight": weight}).to_string();
                match request(&http, "POST", "/v1/admin/routes/risk/promote", "", &body) {
                    Ok((200, ..)) => done.send(weight).unwrap(),
                    // It was killed; this change may have been made or not.
                    _ => return weight,
                }
            }
            unreachable!("the server is killed before")
        });
        let seen: Vec<f64> = answered.iter().take(changes).collect();
        server.kill();
        let tried = client.join().unwrap();
        let told = answered.try_iter().last().unwrap_or(seen[changes - 1]);
        server = repository.serve();
        let route = server.json(&["show", "risk"]);
        let found = route["arms"][1]["weight"].as_f64().unwrap();
        assert!(found == told || found == tried, "{found} is neither {told} nor {tried}");
        assert_eq!(route["arms"][0]["weight"].as_f64().unwrap(), 100.0 - found, "and whole");
        assert_eq!(route["fault"], "");
    }
}

#[test]
fn operators_may_use_json_instead() {
    let repository = Repository::new();
    let server = repository.serve();
    let arms = json!([{"model": "diabetes", "version": 1}, {"model": "diabetes", "version": 2}]);
    let route = server.post("/v1/admin/routes/safe", &json!({"policy": "fallback", "arms": arms}));
    expect![[r#"{"name":"safe","policy":"fallback","key":"header","salt":"safe","arms":[{"name":"diabetes@1","model":"diabetes","version":1,"label":"","weight":0.0,"serving_version":1},{"name":"diabetes@2","model":"diabetes","version":2,"label":"","weight":0.0,"serving_version":2}],"fault":"","shadows":[]}"#]].assert_eq(&route.to_string());
    assert_eq!(server.ask("safe", "x")[..2], ["diabetes@1", "diabetes:1"]);
    let (_, _, metrics) = server.get("/metrics");
    let counted = r#"gristmill_route_requests_total{route="safe",arm="diabetes@1",outcome="ok"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    let list: Value = serde_json::from_str(&server.get("/v1/admin/routes").2).unwrap();
    assert_eq!(list["routes"], json!([route]));
}

#[test]
fn a_shadow_is_set_shown_and_kept() {
    let repository = Repository::new();
    let server = repository.serve();
    let shadows =
        ["--shadow", "next=diabetes@2", "--shadow-tolerance", "0.5,0", "--shadow", "same=diabetes@1:12.5"];
    expect![[r#"
        route  arm      weight  goes to     serves
        risk   control   100 %  diabetes@1  version 1

        dealt by header, salt "risk"

        shadow  mirrors  goes to     serves     compared  mismatched  failed  shed
        next    100 %    diabetes@2  version 2  0         -           0       0
        same    12.5 %   diabetes@1  version 1  0         -           0       0
    "#]]
    .assert_eq(
        &server
            .routes(&[&["set", "risk", "--arm", "control=diabetes@1:100"], &shadows[..]].concat())
            .unwrap(),
    );
    expect![[r##"
        # Written by `gristmill routes`. What is edited here is taken over at once.

        [routes."risk"]
        policy = "split"
        key = "header"
        salt = "risk"
        arms = [
            { name = "control", model = "diabetes", version = 1, weight = 100 },
        ]
        shadows = [
            { name = "next", model = "diabetes", version = 2, percent = 100, absolute = 0.5, relative = 0.0 },
            { name = "same", model = "diabetes", version = 1, percent = 12.5, absolute = 0.5, relative = 0.0 },
        ]
    "##]]
    .assert_eq(&fs::read_to_string(repository.routes()).unwrap());
    expect![[r#"
        shadow next: 0 compared, - mismatched, 0 failed, 0 shed

        shadow same: 0 compared, - mismatched, 0 failed, 0 shed
    "#]]
    .assert_eq(&server.routes(&["mismatches", "risk"]).unwrap());
    check_fault(
        server.routes(&["set", "risk", "--arm", "control=diabetes@1:100", "--shadow", "next=iris"]),
        expect![
            "gristmill: route 'risk': shadow 'next' names the model 'iris', which is not in the repository"
        ],
    );
    check_fault(server.routes(&["mismatches", "none"]), expect!["gristmill: there is no route 'none'"]);
    let shown = server.json(&["show", "risk"]);
    assert_eq!(server.ask("risk", "1")[0], "control");
    // The shadow of the version that answers has nothing to compare; the other one has, or is shed.
    while server.json(&["show", "risk"])["shadows"][0]["counts"] == shown["shadows"][0]["counts"] {
        std::thread::yield_now();
    }
    assert_eq!(server.json(&["show", "risk"])["shadows"][1], shown["shadows"][1]);
    server.kill();
    let server = repository.serve();
    assert_eq!(server.json(&["show", "risk"]), shown);
}
