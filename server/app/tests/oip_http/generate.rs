//! Triton's generate extension: text in and out by name, at once and as events.

use expect_test::expect;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::{FakeBackend, copy};

use crate::server::{Server, batched, spec};

/// Gives both of its inputs back.
fn pair() -> FakeBackend {
    let tensors = |text: &str, number: &str| {
        vec![spec(text, DType::Bytes, &[-1, 1], &[]), spec(number, DType::Int64, &[-1, -1], &[])]
    };
    let signature = batched(tensors("text_input", "seed"), tensors("text_output", "seeds"));
    FakeBackend::new(signature, |inputs| Ok(vec![copy(&inputs[0]), copy(&inputs[1])]))
}

async fn server() -> Server {
    Server::start([
        ("pair", pair()),
        ("text", FakeBackend::identity(DType::Bytes, &[1])),
        ("words", FakeBackend::identity(DType::Bytes, &[2])),
    ])
    .await
}

#[tokio::test]
async fn members_are_inputs_by_name_and_answers_outputs() {
    let server = server().await;
    let body = r#"{"id":"7","text_input":"a \"b\"\nc","seed":3,"temperature":0.5,"stream":false}"#;
    expect![[
        r#"200 {"id":"7","model_name":"pair","model_version":"1","text_output":"a \"b\"\nc","seeds":3}"#
    ]]
    .assert_eq(&server.post("/v2/models/pair/generate", body).await.line());
    let within = r#"{"text_input":["hello"],"parameters":{"seed":[1,2,3],"top_k":5,"priority":1}}"#;
    expect![[r#"200 {"model_name":"pair","model_version":"1","text_output":"hello","seeds":[1,2,3]}"#]]
        .assert_eq(&server.post("/v2/models/pair/versions/1/generate", within).await.line());
    expect![[r#"200 {"model_name":"words","model_version":"1","y":["one","two"]}"#]].assert_eq(
        &server.post("/v2/models/words/generate", r#"{"x":["one","two"],"parameters":null}"#).await.line(),
    );
}

#[tokio::test]
async fn a_stream_is_one_event() {
    let server = server().await;
    let reply = server.post("/v2/models/text/generate_stream", r#"{"x":"two\nlines"}"#).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
    expect![[r#"
        data: {"model_name":"text","model_version":"1","y":"two\nlines"}

    "#]]
    .assert_eq(reply.text());
    let versioned = server.post("/v2/models/text/versions/1/generate_stream", r#"{"x":"t"}"#).await;
    assert_eq!(versioned.text(), "data: {\"model_name\":\"text\",\"model_version\":\"1\",\"y\":\"t\"}\n\n");
    let refused = server.post("/v2/models/text/generate_stream", "{}").await;
    assert_eq!((refused.status, refused.header("content-type")), (400, Some("application/json")));
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let server = server().await;
    let mut replies = String::new();
    for (model, body) in [
        ("pair", r#"{"text_input":"a"}"#),
        ("pair", r#"{"text_input":"a","seed":"b"}"#),
        ("pair", r#"{"text_input":"a","parameters":{"text_input":"b","seed":1}}"#),
        ("pair", r#"{"text_input":"a","seed":1,"parameters":3}"#),
        ("words", r#"{"x":"one"}"#),
        ("text", r#"{"x":"one""#),
        ("text", r#"["one"]"#),
        ("text", r#"{"x":"one","id":1}"#),
        ("nothing", r#"{"x":"one"}"#),
    ] {
        replies += &server.post(&format!("/v2/models/{model}/generate"), body).await.line();
        replies += "\n";
    }
    expect![[r#"
        400 {"error":"model 'pair': the row has no 'seed'"}
        400 {"error":"feature 'seed': expected an integer, got \"b\""}
        400 {"error":"the row: feature 'text_input' is given twice"}
        400 {"error":"'parameters' must be an object, got 3"}
        400 {"error":"model 'words': feature 'x': expected 2 values, got 1"}
        400 {"error":"malformed JSON at byte 10 (line 1, column 11): expected ',' or '}', found the end of the text"}
        400 {"error":"the request must be an object, got a list"}
        400 {"error":"'id' must be a string, got 1"}
        404 {"error":"model 'nothing' is not in the repository: its index lists what is"}
    "#]].assert_eq(&replies);
}
