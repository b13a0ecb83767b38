//! The server's end under load: not one admitted request is lost, and the second signal does not wait.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gristmill_proto::inference as pb;
use gristmill_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// The real program on free ports, ended with the test.
struct Server {
    child: Child,
    log: BufReader<ChildStderr>,
    grpc: String,
}

impl Server {
    fn start(lame_duck: &str) -> Server {
        let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models");
        let ready_file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let mut child = Command::new(env!("CARGO_BIN_EXE_gristmill"))
            .args(["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .args(["--lame-duck", lame_duck, "--repository"])
            .arg(repository)
            .arg("--ready-file")
            .arg(&*ready_file)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        wait_for(&mut log, "ready in");
        let grpc = read_grpc_address(&ready_file, &mut child);
        Server { child, log, grpc: format!("http://{grpc}") }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    fn wait(mut self) -> ExitStatus {
        // An unread pipe would block the server's last words.
        std::io::copy(&mut self.log, &mut std::io::sink()).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended when the test went well.
        let _ended = self.child.kill();
    }
}

/// The file is written just after the summary: its directory entry appears whole, by a rename.
fn read_grpc_address(ready_file: &Path, child: &mut Child) -> String {
    loop {
        let text = std::fs::read_to_string(ready_file).unwrap_or_default();
        if let Ok(addresses) = serde_json::from_str::<serde_json::Value>(&text) {
            return addresses["grpc"].as_str().unwrap().to_owned();
        }
        assert!(child.try_wait().unwrap().is_none(), "the server ended before it was ready");
        std::thread::yield_now();
    }
}

fn wait_for(log: &mut impl BufRead, text: &str) {
    let mut seen = String::new();
    while !seen.contains(text) {
        assert_ne!(log.read_line(&mut seen).unwrap(), 0, "the server ended; it said:\n{seen}");
    }
}

fn request() -> pb::ModelInferRequest {
    pb::ModelInferRequest {
        model_name: "diabetes".into(),
        inputs: vec![pb::model_infer_request::InferInputTensor {
            name: "measurements".into(),
            datatype: "FP32".into(),
            shape: vec![1, 10],
            ..Default::default()
        }],
        raw_input_contents: vec![vec![0; 40].into()],
        ..Default::default()
    }
}

async fn connect(server: &Server) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::connect(server.grpc.clone()).await.unwrap()
}

/// The call was not begun, and may be sent to another replica. tonic's client has no one code for this: the
/// connection ended while the call was still in the client (cancelled), or it was on its way when the server
/// said which calls were the last that it had begun (internal).
fn was_not_begun(status: &Status) -> bool {
    let is_one = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
            || error.downcast_ref::<h2::Error>().is_some_and(|error| {
                error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
            })
    };
    std::iter::successors(std::error::Error::source(status), |error| error.source()).any(is_one)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_heed_readiness_lose_nothing() {
    let server = Server::start("300ms");
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let mut client = connect(&server).await;
        let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
        callers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                client.model_infer(request()).await.unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut probe = connect(&server).await;
    while answered.load(Ordering::Relaxed) < 1000 {
        assert!(probe.server_ready(pb::ServerReadyRequest {}).await.unwrap().into_inner().ready);
    }
    server.signal("TERM");
    while probe.server_ready(pb::ServerReadyRequest {}).await.unwrap().into_inner().ready {}
    let before = answered.load(Ordering::Relaxed);
    // The lame duck still serves.
    while answered.load(Ordering::Relaxed) < before + 100 {
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_do_not_are_answered_or_refused_before_admission() {
    let server = Server::start("0s");
    let answered = Arc::new(AtomicUsize::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let mut client = connect(&server).await;
        let answered = Arc::clone(&answered);
        callers.spawn(async move {
            loop {
                match client.model_infer(request()).await {
                    Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
                    // What a client sees of a listener that is gone: it may try another replica.
                    Err(status) => return status,
                };
            }
        });
    }
    while answered.load(Ordering::Relaxed) < 1000 {
        tokio::task::yield_now().await;
    }
    server.signal("INT");
    while let Some(caller) = callers.join_next().await {
        let status = caller.unwrap();
        assert!(status.code() == Code::Unavailable || was_not_begun(&status), "{status:?}");
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut server = Server::start("1h");
    server.signal("TERM");
    wait_for(&mut server.log, "lame-duck");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(1));
}
