//! `/predictions` and what is beside it: TorchServe's inference API.

use expect_test::{Expect, expect};
use gristmill_engine::tensor::{BatchAxis, DType, Signature};
use gristmill_engine::testing::FakeBackend;

use crate::server::{Server, batched, by_row, fp32, int64, spec};

/// Two features; a label and its probabilities.
fn clouds() -> FakeBackend {
    let input = |name| spec(name, DType::Fp32, &[-1, 1], &[]);
    let signature = batched(
        vec![input("height"), input("width")],
        vec![spec("label", DType::Int64, &[-1], &[]), spec("p", DType::Fp32, &[-1, 2], &[])],
    );
    by_row(signature, |rows| {
        vec![
            int64(&[rows.len()], rows.iter().map(|row| (row[0] > row[1]).into())),
            fp32(&[rows.len(), 2], rows.iter().flat_map(|row| [row[0], row[1]])),
        ]
    })
}

fn ratio() -> FakeBackend {
    let signature =
        batched(vec![spec("x", DType::Fp32, &[-1, 2], &[])], vec![spec("y", DType::Fp32, &[-1, 1], &[])]);
    by_row(signature, |rows| vec![fp32(&[rows.len(), 1], rows.iter().map(|row| row[0] / row[1]))])
}

/// Without rows: as many bytes out as in.
fn whole() -> FakeBackend {
    let signature = Signature {
        inputs: vec![spec("x", DType::Uint8, &[-1], &[])],
        outputs: vec![spec("y", DType::Uint8, &[-1], &[])],
        batch: BatchAxis::None { reason: "axis 0 is not one of rows".into() },
    };
    FakeBackend::new(signature, |inputs| Ok(vec![gristmill_engine::testing::copy(&inputs[0])]))
}

async fn server() -> Server {
    Server::start([
        ("clouds", clouds()),
        ("ratio", ratio()),
        ("whole", whole()),
        ("text", FakeBackend::identity(DType::Bytes, &[])),
    ])
    .await
}

macro_rules! check {
    ($server:expr, $model:expr, $content_type:expr, $body:expr, $expected:expr) => {{
        let expected: Expect = $expected;
        let content_type: Option<&str> = $content_type;
        let headers: Vec<_> = content_type.map(|value| ("content-type", value)).into_iter().collect();
        let body = Vec::from($body);
        expected.assert_eq(
            &$server.send("POST", &format!("/predictions/{}", $model), &headers, &body).await.line(),
        );
    }};
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[tokio::test]
async fn rows_in_json() {
    let server = server().await;
    let json = Some("application/json");
    check!(server, "ratio", json, "[1, 10]", expect!["200 [0.1]"]);
    check!(server, "ratio/1", json, "[[1, 10], [1, 4]]", expect!["200 [[0.1],[0.25]]"]);
    check!(server, "ratio", None, r#" {"x": [1, 10]}"#, expect!["200 [0.1]"]);
    check!(
        server,
        "ratio",
        Some("application/x-www-form-urlencoded"),
        r#"{"data": [1, 10]}"#,
        expect!["200 [0.1]"]
    );
    check!(server, "ratio", json, r#"{"body": [[1, 10]]}"#, expect!["200 [[0.1]]"]);
    check!(
        server,
        "ratio",
        json,
        r#"{"id": 7, "instances": [[1, 10], [1, 4]]}"#,
        expect![[r#"200 {"predictions":[[0.1],[0.25]]}"#]]
    );
    check!(
        server,
        "clouds",
        json,
        r#"{"height": 2, "width": 1}"#,
        expect![[r#"200 {"label":1,"p":[2.0,1.0]}"#]]
    );
    check!(
        server,
        "clouds",
        json,
        r#"[{"height": 2, "width": 1}, {"width": 2, "height": 1}]"#,
        expect![[r#"200 [{"label":1,"p":[2.0,1.0]},{"label":0,"p":[1.0,2.0]}]"#]]
    );
    check!(server, "clouds", json, "[[2, 1]]", expect![[r#"200 [{"label":1,"p":[2.0,1.0]}]"#]]);
    check!(server, "whole", json, "[1, 2, 255]", expect!["200 [1,2,255]"]);
    check!(
        server,
        "text",
        json,
        r#"["a", "b"]"#,
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"model 'text' takes 1 feature per row, got 2"}"#
        ]]
    );
    check!(server, "text", json, r#"{"data": {"b64": "w6k="}}"#, expect![[r#"200 "é""#]]);
}

#[tokio::test]
async fn raw_bytes() {
    let server = server().await;
    let raw = Some("application/octet-stream");
    check!(server, "ratio", raw, floats(&[1.0, 10.0]), expect!["200 [0.1]"]);
    check!(server, "ratio", None, floats(&[1.0, 10.0]), expect!["200 [0.1]"]);
    check!(server, "whole", raw, "[1]", expect!["200 [91,49,93]"]);
    check!(
        server,
        "ratio",
        raw,
        floats(&[1.0]),
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"input 'x': expected 8 bytes for FP32 [1, 2], got 4 bytes"}"#
        ]]
    );
    check!(
        server,
        "clouds",
        raw,
        floats(&[1.0]),
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"the body is not JSON, and bytes can only be a row of a model with one input: model 'clouds' takes 'height', 'width'"}"#
        ]]
    );
}

#[tokio::test]
async fn forms() {
    let server = server().await;
    let form = Some("multipart/form-data; boundary=b");
    let field = |name: &str, content_type: &str, content: &[u8]| {
        let head = format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n{content_type}\r\n");
        [head.as_bytes(), content, b"\r\n"].concat()
    };
    let end = b"--b--\r\n".as_slice();
    let one = |content_type: &str, content: &[u8]| [&field("data", content_type, content), end].concat();
    check!(server, "ratio", form, one("", b"[1, 10]"), expect!["200 [0.1]"]);
    check!(
        server,
        "ratio",
        form,
        one("Content-Type: application/json\r\n", b"[[1, 10]]"),
        expect!["200 [[0.1]]"]
    );
    check!(
        server,
        "ratio",
        form,
        one("Content-Type: application/octet-stream\r\n", &floats(&[1.0, 10.0])),
        expect!["200 [0.1]"]
    );
    let two = [field("width", "", b"1"), field("height", "", b"[2]"), end.to_vec()].concat();
    check!(server, "clouds", form, two, expect![[r#"200 {"label":1,"p":[2.0,1.0]}"#]]);
    let two = [field("width", "", b"1"), field("height", "", b"tall"), end.to_vec()].concat();
    check!(
        server,
        "clouds",
        form,
        two,
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"the field 'height' of the form is not JSON: of several fields each must be"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        form,
        end,
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"the form has no fields: expected one called 'data'"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        form,
        "no form",
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"malformed multipart/form-data: its boundary is nowhere in the body"}"#
        ]]
    );
}

#[tokio::test]
async fn what_is_refused() {
    let server = server().await;
    let json = Some("application/json");
    check!(
        server,
        "nope",
        json,
        "[1, 10]",
        expect![[
            r#"404 {"code":404,"type":"ModelNotFoundException","message":"model 'nope' is not in the repository: its index lists what is"}"#
        ]]
    );
    check!(
        server,
        "ratio/7",
        json,
        "[1, 10]",
        expect![[
            r#"404 {"code":404,"type":"ModelVersionNotFoundException","message":"model 'ratio' has no version 7: its versions are 1"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        json,
        "[1, 10, 100]",
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"model 'ratio' takes 2 features per row, got 3"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        json,
        "[1,",
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"malformed JSON at byte 3 (line 1, column 4): expected a value, found the end of the text"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        json,
        r#"{"z": 1}"#,
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"the body has none of 'instances', 'data', 'body' and the model's features 'x'"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        json,
        r#"{"data": [1, 2], "body": [1, 2]}"#,
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"the body has 'body' besides another key with features"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        json,
        "[1, 10] []",
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"malformed JSON at byte 8 (line 1, column 9): expected the end of the text, found a list"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        json,
        "",
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"malformed JSON at byte 0 (line 1, column 1): expected a value, found the end of the text"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        None,
        "",
        expect![[
            r#"400 {"code":400,"type":"BadRequestException","message":"input 'x': expected 8 bytes for FP32 [1, 2], got 0 bytes"}"#
        ]]
    );
    let too_large = " ".repeat(crate::server::BODY_BYTES_MAX + 1);
    check!(
        server,
        "ratio",
        json,
        too_large,
        expect![[
            r#"413 {"code":413,"type":"RequestEntityTooLargeException","message":"the request's body has 100001 bytes, the limit is 100000 bytes: send less, or raise --http-body-bytes-max"}"#
        ]]
    );
    expect![[r#"405 {"code":405,"type":"MethodNotAllowedException","message":"GET is not allowed for '/predictions/ratio': send POST"}"#]].assert_eq(&server.get("/predictions/ratio").await.line());
    expect![[r#"501 {"code":501,"type":"UnsupportedOperationException","message":"model 'ratio' has no explainer: explanations are not supported"}"#]].assert_eq(&server.post("/explanations/ratio", "[1, 10]").await.line());
    expect![[r#"404 {"code":404,"type":"ModelNotFoundException","message":"model 'nope' is not in the repository: its index lists what is"}"#]].assert_eq(&server.post("/explanations/nope", "[1, 10]").await.line());
}

#[tokio::test]
async fn what_else_there_is() {
    let server = server().await;
    let put = server.send("PUT", "/predictions/ratio", &[], b"[1, 10]").await;
    assert_eq!(put.line(), "200 [0.1]", "as curl -T sends it");
    assert_eq!(server.post("/", "").await.status, 404);
    let api = server.send("OPTIONS", "/", &[], b"").await;
    assert_eq!(api.status, 200);
    let api = api.json();
    assert_eq!(api["openapi"], "3.0.1");
    let paths: Vec<&str> = api["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    expect!["/ /ping /predictions/{model_name} /predictions/{model_name}/{model_version}"]
        .assert_eq(&paths.join(" "));
}
