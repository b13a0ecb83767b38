//! The real program on free ports over a repository, and an HTTP client for it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::files::Repository;
use crate::onnx::COLUMNS;

/// Ended with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) http: String,
    pub(crate) grpc: String,
    log_file: PathBuf,
}

/// Longest that anything is waited for: machines of tests are slow at times.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// A line of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) state: String,
    pub(crate) reason: String,
}

impl Server {
    /// Serves `repository` on tract alone, and returns when each of its models is served.
    /// Files count as copied when they have not changed for `settle_time`.
    pub(crate) fn start(repository: &Repository, settle_time: &str) -> Server {
        let server = Server::launch(repository, &["--settle-time", settle_time]);
        // Files that were written a moment ago are loaded a moment later.
        server.wait_for(|server| (server.readiness()["ready"] == true).then_some(()));
        server
    }

    /// The same with other flags, and returns when the first loads have ended, however they did.
    pub(crate) fn launch(repository: &Repository, flags: &[&str]) -> Server {
        let ready_file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let log_file = repository.beside("log");
        let mut child = command(repository, flags)
            .arg("--ready-file")
            .arg(&*ready_file)
            .stderr(std::fs::File::create(&log_file).unwrap())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let text = std::fs::read_to_string(&ready_file).unwrap_or_default();
            if let Ok(addresses) = serde_json::from_str::<Value>(&text) {
                let address = |door: &str| addresses[door].as_str().unwrap().to_owned();
                let grpc = format!("http://{}", address("grpc"));
                return Server { child, http: address("http"), grpc, log_file };
            }
            assert!(child.try_wait().unwrap().is_none(), "the server ended before it was ready");
            assert!(Instant::now() < deadline, "the server has not started within {WAIT_MAX:?}");
            std::thread::yield_now();
        }
    }

    /// Ends it as an operator would.
    pub(crate) fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    /// What it has logged so far, at WARN and ERROR.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log_file).unwrap()
    }

    /// The status and the body of an answer.
    pub(crate) fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.exchange(method, path, &body.to_string());
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The same of an answer that is no JSON.
    pub(crate) fn text(&self, path: &str) -> (u16, String) {
        self.exchange("GET", path, "")
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    pub(crate) fn index(&self) -> Vec<Entry> {
        let (status, index) = self.call("POST", "/v2/repository/index", &json!({}));
        assert_eq!(status, 200, "{index}");
        let entry = |entry: &Value| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            Entry {
                model: text("name"),
                version: text("version"),
                state: text("state"),
                reason: text("reason"),
            }
        };
        index.as_array().unwrap().iter().map(entry).collect()
    }

    pub(crate) fn entry(&self, model: &str, version: u64) -> Option<Entry> {
        let version = version.to_string();
        self.index().into_iter().find(|entry| entry.model == model && entry.version == version)
    }

    /// Asks until `look` says something.
    pub(crate) fn wait_for<T>(&self, mut look: impl FnMut(&Server) -> Option<T>) -> T {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "not within {WAIT_MAX:?}; the log:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// What the server says of its readiness.
    pub(crate) fn readiness(&self) -> Value {
        self.call("GET", "/v2/health/ready", &Value::Null).1
    }

    /// The version that answers zeros, and what it adds to them.
    pub(crate) fn infer(&self, model: &str) -> (String, f64) {
        let input = json!({"name": "x", "datatype": "FP32", "shape": [1, COLUMNS], "data": [0.0, 0.0, 0.0]});
        let path = format!("/v2/models/{model}/infer");
        let (status, answer) = self.call("POST", &path, &json!({"inputs": [input]}));
        assert_eq!(status, 200, "{answer}");
        let version = answer["model_version"].as_str().unwrap().to_owned();
        (version, answer["outputs"][0]["data"][0].as_f64().unwrap())
    }
}

/// The program as tests run it, over `repository`.
pub(crate) fn command(repository: &Repository, flags: &[&str]) -> Command {
    let mut command = program("serve", repository);
    command
        .args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
        .args(["--lame-duck", "0s", "--poll-interval", "1s"])
        .args(flags);
    command
}

/// Whether `gristmill check` finds the repository in order, and what it says.
pub(crate) fn check(repository: &Repository) -> (bool, String) {
    let output = program("check", repository).output().unwrap();
    (output.status.success(), repository.anonymous(&String::from_utf8(output.stdout).unwrap()))
}

fn program(command_name: &str, repository: &Repository) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GRISTMILL_") {
            command.env_remove(name);
        }
    }
    command
        .args([command_name, "--backend", "tract", "--log", "warn", "--repository"])
        .arg(repository.root())
        .stdin(Stdio::null());
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended when it has failed.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
