//! The program itself: configured by its flags, and leaving no span behind when it ends.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::receiver::{Receiver, attribute};
use crate::{CALLER, TRACE, hex};

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_last_spans_leave_before_the_program_does() {
    let receiver = Receiver::start().await;
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let ready_file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let mut child = Command::new(env!("CARGO_BIN_EXE_gristmill"))
        .args(["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
        .args(["--backend", "tract", "--lame-duck", "0s", "--trace-sample-ratio", "0"])
        .args(["--otlp-endpoint", &receiver.endpoint, "--repository"])
        .arg(repository)
        .arg("--ready-file")
        .arg(&*ready_file)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("ready in") {
        assert_ne!(log.read_line(&mut seen).unwrap(), 0, "the server ended; it said:\n{seen}");
    }
    let address = loop {
        let text = std::fs::read_to_string(&ready_file).unwrap_or_default();
        if let Ok(addresses) = serde_json::from_str::<serde_json::Value>(&text) {
            break addresses["http"].as_str().unwrap().to_owned();
        }
        std::thread::yield_now();
    };

    let body = r#"{"features": [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]}"#;
    let request = format!(
        "POST /predict/diabetes HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
         traceparent: 00-{TRACE}-{CALLER}-01\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");

    let terminate = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &terminate]).status().unwrap().success());
    // An unread pipe would block the server's last words.
    std::io::copy(&mut log, &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
    let received = receiver.received();
    assert_eq!(received.spans.len(), 4, "{:?}", received.spans);
    let request = received.named("request")[0];
    assert_eq!((hex(&request.trace_id).as_str(), hex(&request.parent_span_id).as_str()), (TRACE, CALLER));
    assert_eq!(attribute(request, "gristmill.model"), "diabetes");
}
