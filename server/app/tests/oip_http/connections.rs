//! Connections: reuse, pipelining, HTTP/2, bodies that end early, and the end of the server.

use std::sync::Arc;

use bytes::Bytes;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::{FakeBackend, Gate};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::{Reply, Server, gated, request};

const PATH: &str = "/v2/models/identity/infer";

fn body(value: usize) -> String {
    format!(r#"{{"inputs":[{{"name":"x","shape":[1,1],"datatype":"INT32","data":[{value}]}}]}}"#)
}

async fn identity() -> Server {
    Server::start([("identity", FakeBackend::identity(DType::Int32, &[1]))]).await
}

fn keep_alive(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = identity().await;
    let mut requests: String = (0..20).map(|value| keep_alive(PATH, &body(value))).collect();
    requests += &String::from_utf8(request("POST", PATH, &[], body(20).as_bytes())).unwrap();
    let replies = server.exchange(requests.as_bytes()).await;
    let mut rest = replies.as_slice();
    for value in 0..=20 {
        let (reply, after) = Reply::parse_first(rest);
        assert_eq!(reply.json()["outputs"][0]["data"][0], value);
        rest = after;
    }
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_refusal_keeps_the_connection() {
    let server = identity().await;
    let requests = [
        keep_alive(PATH, "{"),
        keep_alive("/nowhere", &body(1)),
        keep_alive("/v2/models/identity", &body(1)),
        String::from_utf8(request("POST", PATH, &[], body(7).as_bytes())).unwrap(),
    ];
    let replies = server.exchange(requests.concat().as_bytes()).await;
    let mut rest = replies.as_slice();
    let mut statuses = Vec::new();
    while !rest.is_empty() {
        let (reply, after) = Reply::parse_first(rest);
        statuses.push(reply.status);
        rest = after;
    }
    assert_eq!(statuses, [400, 404, 405, 200]);
}

#[tokio::test]
async fn http2_on_the_same_port() {
    let server = identity().await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let calls = (0..10).map(|value| {
        let mut sender = sender.clone();
        let request = http::Request::post(format!("http://{}{PATH}", server.address));
        let request = request.body(Full::new(Bytes::from(body(value)))).unwrap();
        tokio::spawn(async move {
            let reply = sender.send_request(request).await.unwrap();
            assert_eq!(reply.status(), 200);
            let body = reply.into_body().collect().await.unwrap().to_bytes();
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json["outputs"][0]["data"][0], value);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn bodies_that_end_early() {
    let server = identity().await;
    let mut stream = server.connect().await;
    let whole = body(1);
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", whole.len() + 10);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(whole.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
    let text = String::from_utf8_lossy(&reply);
    assert!(reply.is_empty() || text.starts_with("HTTP/1.1 400"), "{text}");

    // A length that is too short cuts the JSON; what follows is not a request and ends the connection.
    let short = format!("POST {PATH} HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n{whole}");
    let replies = server.exchange(short.as_bytes()).await;
    let (first, _) = Reply::parse_first(&replies);
    assert_eq!(first.status, 400);
    assert!(first.text().contains("malformed JSON at byte 10"), "{}", first.text());

    for nonsense in ["\0\0\0\0\r\n\r\n", "POST / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n"] {
        let reply = server.exchange(nonsense.as_bytes()).await;
        assert!(reply.starts_with(b"HTTP/1.1 400") || reply.is_empty(), "{nonsense:?}");
    }
    let reply = server.post(PATH, &whole).await;
    assert_eq!(reply.status, 200, "the server goes on");
}

#[tokio::test]
async fn shutdown_answers_what_was_sent() {
    let gate = Arc::new(Gate::default());
    let server = Server::start([("gated", gated(&gate))]).await;
    gate.close();
    let mut busy = server.connect().await;
    let json = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[3]}]}"#;
    busy.write_all(keep_alive("/v2/models/gated/infer", json).as_bytes()).await.unwrap();
    let idle = server.connect().await;
    let waiting = Arc::clone(&gate);
    let blocked = std::thread::spawn(move || waiting.wait_for(1));
    while !blocked.is_finished() {
        tokio::task::yield_now().await;
    }

    server.stop.cancel();
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.open();
    let mut reply = Vec::new();
    busy.read_to_end(&mut reply).await.unwrap();
    let reply = Reply::parse(&reply);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["outputs"][0]["data"][0], 3.0);
    drop(idle);
    server.served.await.unwrap().unwrap();
}
