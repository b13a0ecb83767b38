//! What every dialect that reads JSON does alike: integers exactly, however they are written, and a byte order mark.

use std::fmt::Write as _;

use expect_test::expect;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::FakeBackend;

use crate::server::{Reply, Server};

/// A dialect's request for one row with one integer, which stands where `VALUE` does.
struct Dialect {
    name: &'static str,
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

const JSON: &str = "application/json";

const DIALECTS: [Dialect; 15] = [
    dialect(
        "open inference",
        "/v2/models/count/infer",
        r#"{"inputs":[{"name":"x","datatype":"INT64","shape":[1,1],"data":[VALUE]}]}"#,
    ),
    dialect("generate", "/v2/models/count/generate", r#"{"x":VALUE}"#),
    dialect("generate's parameters", "/v2/models/count/generate", r#"{"parameters":{"x":VALUE}}"#),
    dialect("tensorflow's rows", "/v1/models/count:predict", r#"{"instances":[[VALUE]]}"#),
    dialect("tensorflow's named rows", "/v1/models/count:predict", r#"{"instances":[{"x":[VALUE]}]}"#),
    dialect("tensorflow's columns", "/v1/models/count:predict", r#"{"inputs":[[VALUE]]}"#),
    dialect("mlflow's split", "/invocations", r#"{"dataframe_split":{"columns":["x"],"data":[[VALUE]]}}"#),
    dialect("mlflow's records", "/invocations", r#"{"dataframe_records":[{"x":VALUE}]}"#),
    dialect("mlflow's instances", "/invocations", r#"{"instances":[[VALUE]]}"#),
    dialect("mlflow's inputs", "/endpoints/count/invocations", r#"{"inputs":{"x":[[VALUE]]}}"#),
    Dialect { name: "csv", path: "/invocations", content_type: "text/csv", body: "x\nVALUE\n" },
    dialect("vertex", "/vertex", r#"{"instances":[[VALUE]]}"#),
    dialect("torchserve", "/predictions/count", "[[VALUE]]"),
    Dialect {
        name: "torchserve's unnamed type",
        path: "/predictions/count",
        content_type: "application/x-www-form-urlencoded",
        body: r#"{"instances":[[VALUE]]}"#,
    },
    dialect("predict", "/predict/count", r#"{"features":[VALUE]}"#),
];

const fn dialect(name: &'static str, path: &'static str, body: &'static str) -> Dialect {
    Dialect { name, path, content_type: JSON, body }
}

async fn server() -> Server {
    Server::start([("count", FakeBackend::identity(DType::Int64, &[1]))]).await
}

async fn ask(server: &Server, dialect: &Dialect, before: &str, value: &str) -> Reply {
    let body = format!("{before}{}", dialect.body.replace("VALUE", value));
    let headers = [("content-type", dialect.content_type)];
    server.send("POST", dialect.path, &headers, body.as_bytes()).await
}

#[tokio::test]
async fn integers_are_read_exactly() {
    let server = server().await;
    for (value, expected) in [
        ("3.0", "3"),
        ("1e3", "1000"),
        ("1.5e1", "15"),
        ("-0.0", "0"),
        ("9007199254740993.0", "9007199254740993"),
        ("9007199254740993e0", "9007199254740993"),
        ("90071992547409930E-1", "9007199254740993"),
        ("1234567890123456789.0", "1234567890123456789"),
        ("-9.223372036854775808e+18", "-9223372036854775808"),
        ("9223372036854775807.000", "9223372036854775807"),
    ] {
        for dialect in &DIALECTS {
            let reply = ask(&server, dialect, "", value).await;
            let is_told = reply
                .text()
                .split(|character: char| !matches!(character, '0'..='9' | '-'))
                .any(|number| number == expected);
            assert!(reply.status == 200 && is_told, "{}: {value}: {}", dialect.name, reply.line());
        }
    }
}

#[tokio::test]
async fn what_is_no_integer_of_its_type_is_refused_truthfully() {
    let server = server().await;
    for (value, expected) in [
        ("9007199254740992.5", "expected an integer"),
        ("1e-1", "expected an integer"),
        ("9223372036854775808.0", "out of range for INT64"),
        ("-9223372036854775809", "out of range for INT64"),
        ("1e400", "out of range for INT64"),
        ("1e99999999999999999999", "out of range for INT64"),
    ] {
        for dialect in &DIALECTS {
            let reply = ask(&server, dialect, "", value).await;
            let is_told = reply.text().contains(expected) && reply.text().contains(value);
            assert!(reply.status == 400 && is_told, "{}: {value}: {}", dialect.name, reply.line());
        }
    }
}

#[tokio::test]
async fn a_byte_order_mark_is_passed_over() {
    let server = server().await;
    for dialect in &DIALECTS {
        let reply = ask(&server, dialect, "\u{feff}", "7").await;
        assert!(reply.status == 200 && reply.text().contains('7'), "{}: {}", dialect.name, reply.line());
    }
    let form = "--b\r\ncontent-disposition: form-data; name=\"x\"\r\n\r\n\u{feff}[7]\r\n--b--\r\n";
    let headers = [("content-type", "multipart/form-data; boundary=b")];
    let reply = server.send("POST", "/predictions/count", &headers, form.as_bytes()).await;
    assert_eq!(reply.line(), "200 [7]");
    for body in ["\u{feff}{\"ready\": true}", "\u{feff}", "\u{feff} {}"] {
        assert_eq!(server.post("/v2/repository/index", body).await.status, 200, "{body:?}");
    }
}

#[tokio::test]
async fn messages_show_what_is_not_seen() {
    let server = server().await;
    let mut replies = String::new();
    for (path, body) in [
        ("/v2/models/count/infer", "\u{feff}\u{feff}{}"),
        ("/v2/models/count/infer", "{\"inputs\":\u{200b}[]}"),
        ("/v2/models/count%E2%80%8B/infer", r#"{"inputs":[]}"#),
        ("/v2/models/count/generate", "{\"x\":\"a\u{a0}\u{202e}é\"}"),
        ("/predictions/count", "{\"\u{200b}\":[1]}"),
    ] {
        writeln!(replies, "{}", server.post(path, body).await.line()).unwrap();
    }
    expect![[r#"
        400 {"error":"malformed JSON at byte 0 (line 1, column 1): expected a value, found \\u{feff}{"}
        400 {"error":"malformed JSON at byte 10 (line 1, column 11): expected a value, found \\u{200b}["}
        404 {"error":"model 'count\\u{200b}' is not in the repository: its index lists what is"}
        400 {"error":"feature 'x': expected an integer, got \"a\\u{a0}\\u{202e}é\""}
        400 {"code":400,"type":"BadRequestException","message":"the body has none of 'instances', 'data', 'body' and the model's features 'x'"}
    "#]]
    .assert_eq(&replies);
}
