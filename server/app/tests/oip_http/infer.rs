//! `POST /v2/models/{model}/infer`: JSON, binary tensors, compression, deadlines and refusals.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use expect_test::{Expect, expect};
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::{FakeBackend, Gate};
use gristmill_engine::tuning::{Fallback, Tuning};
use tokio::task::JoinSet;

use crate::server::{BODY_BYTES_MAX, Reply, Server, gated};

const PATH: &str = "/v2/models/identity/infer";
const REQUEST: &str =
    r#"{"id":"a1","inputs":[{"name":"x","shape":[2,3],"datatype":"FP32","data":[[1,2,0.1],[4,5,NaN]]}]}"#;

async fn identity() -> Server {
    let tuning = || Tuning { batch_rows_max: Some(8), ..Tuning::default() };
    Server::start_tuned([
        ("identity", 1, FakeBackend::identity(DType::Fp32, &[3]), tuning()),
        ("identity", 2, FakeBackend::identity(DType::Fp32, &[3]), tuning()),
        ("half", 1, FakeBackend::identity(DType::Fp16, &[2]), tuning()),
        ("text", 1, FakeBackend::identity(DType::Bytes, &[1]), tuning()),
        ("a/b c", 1, FakeBackend::identity(DType::Int64, &[1]), tuning()),
    ])
    .await
}

fn check(reply: &Reply, expected: Expect) {
    expected.assert_eq(&reply.line());
}

#[tokio::test]
async fn json_in_and_out() {
    let server = identity().await;
    let reply = server.post(PATH, REQUEST).await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    check(
        &reply,
        expect![[
            r#"200 {"id":"a1","model_name":"identity","model_version":"2","outputs":[{"name":"y","datatype":"FP32","shape":[2,3],"data":[1.0,2.0,0.1,4.0,5.0,NaN]}]}"#
        ]],
    );
    let reply = server.post("/v2/models/identity/versions/1/infer", REQUEST).await;
    assert!(reply.text().contains(r#""model_version":"1""#), "{}", reply.text());

    // As KServe's client sends it.
    let kserve = r#"{"model_name":"text","id":null,"parameters":null,"inputs":[{"name":"x","shape":[1,1],"datatype":"BYTES","parameters":null,"data":["é\n"]}],"outputs":null}"#;
    check(
        &server.post("/v2/models/text/infer", kserve).await,
        expect![[
            r#"200 {"model_name":"text","model_version":"1","outputs":[{"name":"y","datatype":"BYTES","shape":[1,1],"data":["é\n"]}]}"#
        ]],
    );

    let exact = r#"{"inputs":[{"name":"x","shape":[2,1],"datatype":"INT64","data":[9007199254740993,-9223372036854775808]}]}"#;
    check(
        &server.post("/v2/models/a%2Fb%20c/infer", exact).await,
        expect![[
            r#"200 {"model_name":"a/b c","model_version":"1","outputs":[{"name":"y","datatype":"INT64","shape":[2,1],"data":[9007199254740993,-9223372036854775808]}]}"#
        ]],
    );
}

#[tokio::test]
async fn binary_in_and_out() {
    let server = identity().await;
    let json = r#"{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[1,2],"datatype":"FP16","parameters":{"binary_data_size":4}}]}"#;
    let length = json.len().to_string();
    let body = [json.as_bytes(), &[0, 60, 0, 64]].concat();
    // tritonclient sends no Content-Type.
    let reply = server
        .send("POST", "/v2/models/half/infer", &[("Inference-Header-Content-Length", &length)], &body)
        .await;
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let header: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
    expect![[r#"{"model_name":"half","model_version":"1","outputs":[{"name":"y","datatype":"FP16","shape":[1,2],"parameters":{"binary_data_size":4}}]}"#]]
        .assert_eq(std::str::from_utf8(&reply.body[..header]).unwrap());
    assert_eq!(reply.body[header..], [0, 60, 0, 64]);

    let raw = server
        .send("POST", "/v2/models/half/infer", &[("Inference-Header-Content-Length", "0")], &[0, 60, 0, 64])
        .await;
    assert_eq!(raw.body, reply.body, "a raw request");
}

#[tokio::test]
async fn large_binary_outputs_are_whole() {
    let server = identity().await;
    let rows = 3000;
    let json = format!(
        r#"{{"outputs":[{{"name":"y","parameters":{{"binary_data":true}}}}],"inputs":[{{"name":"x","shape":[{rows},3],"datatype":"FP32","parameters":{{"binary_data_size":{}}}}}]}}"#,
        rows * 12
    );
    let length = json.len().to_string();
    let data: Vec<u8> = (0..rows * 3).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let body = [json.as_bytes(), &data].concat();
    let reply = server.send("POST", PATH, &[("Inference-Header-Content-Length", &length)], &body).await;
    let header: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
    assert!(reply.body[header..] == data, "the same rows come back");
}

#[tokio::test]
async fn outputs_that_json_cannot_carry() {
    let server = identity().await;
    let json =
        r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP16","parameters":{"binary_data_size":4}}]}"#;
    let length = json.len().to_string();
    let body = [json.as_bytes(), &[0, 60, 0, 64]].concat();
    let reply = server
        .send("POST", "/v2/models/half/infer", &[("Inference-Header-Content-Length", &length)], &body)
        .await;
    check(
        &reply,
        expect![[
            r#"400 {"error":"output 'y' is FP16, which JSON does not carry: ask for it with the parameter \"binary_data\": true"}"#
        ]],
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_request() {
    let server = identity().await;
    let input = |input: &str| format!(r#"{{"inputs":[{input}]}}"#);
    let x = r#"{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}"#;
    check(
        &server.post("/v2/models/nope/infer", REQUEST).await,
        expect![[r#"404 {"error":"model 'nope' is not in the repository: its index lists what is"}"#]],
    );
    check(
        &server.post("/v2/models/identity/versions/7/infer", REQUEST).await,
        expect![[r#"404 {"error":"model 'identity' has no version 7: its versions are 1, 2"}"#]],
    );
    check(
        &server.post("/v2/models/identity/versions/one/infer", REQUEST).await,
        expect![[
            r#"404 {"error":"model 'identity' has no version 'one': expected a number or one of its labels (none)"}"#
        ]],
    );
    check(
        &server.post(PATH, &input(&x.replace("\"x\"", "\"z\""))).await,
        expect![[r#"400 {"error":"unexpected input 'z': the model takes 'x'"}"#]],
    );
    check(
        &server.post(PATH, &input("")).await,
        expect![[r#"400 {"error":"missing input 'x' (FP32 [-1, 3]): the model takes 'x'"}"#]],
    );
    check(
        &server.post(PATH, &input(&x.replace("FP32", "FP64"))).await,
        expect![[r#"400 {"error":"input 'x': expected datatype FP32, got FP64"}"#]],
    );
    check(
        &server.post(PATH, &input(&x.replace("[1,3]", "[3,1]"))).await,
        expect![[r#"400 {"error":"input 'x': expected shape [-1, 3], got [3, 1]"}"#]],
    );
    check(
        &server.post(PATH, &input(&format!("{x},{x}"))).await,
        expect![[r#"400 {"error":"input 'x' is given twice"}"#]],
    );
    check(
        &server.post(PATH, "{\"inputs\":[\n  x").await,
        expect![[
            r#"400 {"error":"malformed JSON at byte 14 (line 2, column 3): expected a value, found x"}"#
        ]],
    );
    check(
        &server.post(PATH, &format!("{}1", "[".repeat(90_000))).await,
        expect![[
            r#"400 {"error":"malformed JSON at byte 64 (line 1, column 65): lists and objects nest deeper than 64"}"#
        ]],
    );
    let unknown_output = format!(r#"{{"inputs":[{x}],"outputs":[{{"name":"q"}}]}}"#);
    check(
        &server.post(PATH, &unknown_output).await,
        expect![[r#"400 {"error":"unexpected output 'q': the model gives 'y'"}"#]],
    );
    let long = server.post(PATH, &input(&x.replace("\"x\"", &format!("\"{}\"", "é".repeat(40_000))))).await;
    assert_eq!((long.status, long.body.len() < 5000), (400, true), "a long name is not sent back whole");
    let reply = server.send("POST", PATH, &[("Inference-Header-Content-Length", "many")], b"").await;
    check(
        &reply,
        expect![[
            r#"400 {"error":"header inference-header-content-length must be a whole number, got \"many\""}"#
        ]],
    );
    let reply = server.send("POST", PATH, &[], b"{\"id\":\"\xff\"}").await;
    check(&reply, expect![[r#"400 {"error":"malformed JSON at byte 7: the text is not valid UTF-8"}"#]]);
    let reply = server.send("POST", PATH, &[("Inference-Header-Content-Length", "0")], &[0; 13]).await;
    check(&reply, expect![[r#"400 {"error":"input 'x': expected 12 bytes for FP32 [1, 3], got 13 bytes"}"#]]);
}

#[tokio::test]
async fn bodies_over_the_limit() {
    let server = identity().await;
    let body = vec![b' '; BODY_BYTES_MAX + 1];
    let reply = server.send("POST", PATH, &[], &body).await;
    check(
        &reply,
        expect![[
            r#"413 {"error":"the request's body has 100001 bytes, the limit is 100000 bytes: send less, or raise --http-body-bytes-max"}"#
        ]],
    );

    let mut chunked = format!(
        "POST {PATH} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    chunked += &format!("{:x}\r\n{}\r\n0\r\n\r\n", body.len(), " ".repeat(body.len()));
    let reply = Reply::parse(&server.exchange(chunked.as_bytes()).await);
    check(
        &reply,
        expect![[
            r#"413 {"error":"the request's body has more than 100000 bytes, the limit is 100000 bytes: send less, or raise --http-body-bytes-max"}"#
        ]],
    );

    let asks = format!(
        "POST {PATH} HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5000000\r\n\r\n"
    );
    let reply = Reply::parse(&server.exchange(asks.as_bytes()).await);
    assert_eq!(reply.status, 413, "refused without a byte of the body");

    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![b' '; 50_000_000]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < BODY_BYTES_MAX);
    let reply = server.send("POST", PATH, &[("Content-Encoding", "gzip")], &bomb).await;
    check(
        &reply,
        expect![[
            r#"413 {"error":"the request's body has more than 100000 bytes after decompression, the limit is 100000 bytes: send less, or raise --http-body-bytes-max"}"#
        ]],
    );
}

#[tokio::test]
async fn compressed_both_ways() {
    let server = identity().await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zlib = |bytes: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let plain = server.post(PATH, REQUEST).await;
    for (name, body) in [("gzip", gzip(REQUEST.as_bytes())), ("deflate", zlib(REQUEST.as_bytes()))] {
        let headers = [("Content-Encoding", name), ("Accept-Encoding", name)];
        let reply = server.send("POST", PATH, &headers, &body).await;
        assert_eq!(reply.header("content-encoding"), None, "a short answer is not worth it");
        assert_eq!(reply.body, plain.body);
    }

    let rows = 2000;
    let data = vec!["0.5"; rows * 3].join(",");
    let long =
        format!(r#"{{"inputs":[{{"name":"x","shape":[{rows},3],"datatype":"FP32","data":[{data}]}}]}}"#);
    let plain = server.post(PATH, &long).await;
    for name in ["gzip", "deflate"] {
        let reply = server.send("POST", PATH, &[("Accept-Encoding", name)], long.as_bytes()).await;
        assert_eq!(reply.header("content-encoding"), Some(name));
        assert!(reply.body.len() < plain.body.len() / 10);
        let mut unpacked = Vec::new();
        match name {
            "gzip" => GzDecoder::new(reply.body.as_slice()).read_to_end(&mut unpacked).unwrap(),
            _ => ZlibDecoder::new(reply.body.as_slice()).read_to_end(&mut unpacked).unwrap(),
        };
        assert!(unpacked == plain.body);
    }

    let reply = server.send("POST", PATH, &[("Content-Encoding", "br")], b"x").await;
    check(
        &reply,
        expect![[r#"415 {"error":"Content-Encoding 'br' is not supported: send gzip, deflate or none"}"#]],
    );
    let reply = server.send("POST", PATH, &[("Content-Encoding", "gzip")], b"no gzip").await;
    assert!(
        reply.line().starts_with(r#"400 {"error":"the request's body does not decompress"#),
        "{}",
        reply.line()
    );
}

#[tokio::test]
async fn deadlines_come_by_header_and_by_parameter() {
    let gate = Arc::new(Gate::default());
    // One for each request: behind a run that goes on the next one would be refused.
    let server = Server::start([("gated", gated(&gate)), ("other", gated(&gate))]).await;
    gate.close();
    let path = "/v2/models/gated/infer";
    let other = "/v2/models/other/infer";
    let request = r#"{"parameters":{"timeout":TIMEOUT},"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}]}"#;
    let reply = server.post(path, &request.replace("TIMEOUT", "5000")).await;
    assert_eq!(reply.status, 504);
    assert!(reply.text().starts_with(r#"{"error":"deadline exceeded while"#), "{}", reply.text());
    let patient = request.replace("TIMEOUT", "0");
    let reply = server.send("POST", other, &[("X-Request-Timeout", "5")], patient.as_bytes()).await;
    assert_eq!(reply.status, 504);
    let refused = loop {
        let reply = server.send("POST", other, &[("X-Request-Timeout", "5")], patient.as_bytes()).await;
        if reply.status != 504 {
            break reply;
        }
    };
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    let reply = server.send("POST", path, &[("X-Request-Timeout", "soon")], patient.as_bytes()).await;
    check(
        &reply,
        expect![[r#"400 {"error":"header x-request-timeout must be a whole number, got \"soon\""}"#]],
    );
    gate.open();
    let forever = request.replace("TIMEOUT", &u64::MAX.to_string());
    assert_eq!(server.post(path, &forever).await.status, 200, "a deadline beyond the clock is none");
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let gate = Arc::new(Gate::default());
    let tuning =
        Tuning { instances: Some(1), batch_rows_max: Some(1), queue_rows_max: Some(1), ..Tuning::default() };
    let server = Arc::new(Server::start_tuned([("gated", 1, gated(&gate), tuning)]).await);
    gate.close();
    let path = "/v2/models/gated/infer";
    let request = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}]}"#;
    let mut replies = JoinSet::new();
    for _ in 0..8 {
        let server = Arc::clone(&server);
        replies.spawn(async move { server.post(path, request).await });
    }
    // One runs and one waits; while the gate is closed only refusals come back.
    for _ in 0..6 {
        let refused = replies.join_next().await.unwrap().unwrap();
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    gate.open();
    let last: Vec<u16> = replies.join_all().await.iter().map(|reply| reply.status).collect();
    assert!(last.contains(&200), "{last:?}");
}

#[tokio::test]
async fn an_answer_of_a_cheaper_model_says_so() {
    let gate = Arc::new(Gate::default());
    let tuning = || Tuning { instances: Some(1), batch_rows_max: Some(1), ..Tuning::default() };
    let full =
        Tuning { queue_rows_max: Some(1), degrade_to: Some(Fallback::Name("small".into())), ..tuning() };
    let small = FakeBackend::identity(DType::Fp32, &[1]);
    let server = Server::start_tuned([("gated", 1, gated(&gate), full), ("small", 3, small, tuning())]).await;
    let server = Arc::new(server);
    gate.close();
    let request = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}]}"#;
    let mut replies = JoinSet::new();
    for _ in 0..8 {
        let server = Arc::clone(&server);
        replies.spawn(async move { server.post("/v2/models/gated/infer", request).await });
    }
    // One runs and one waits; while the gate is closed only the others come back.
    for _ in 0..6 {
        let reply = replies.join_next().await.unwrap().unwrap();
        assert_eq!(reply.header("x-gristmill-degraded-from"), Some("gated:1"), "{}", reply.text());
        assert!(reply.text().contains(r#""model_name":"small","model_version":"3""#), "{}", reply.text());
    }
    gate.open();
    let last = replies.join_all().await;
    let own = last.iter().find(|reply| reply.header("x-gristmill-degraded-from").is_none());
    assert!(own.unwrap().text().contains(r#""model_name":"gated""#));
}
