//! The gRPC door through real sockets: answers and deadlines here, the rest in the files beside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod about;
mod faults;
mod readme;
mod server;
mod shared_memory;
mod streams;
mod tensorflow;
mod tensorflow_examples;

use std::sync::Arc;

use gristmill_engine::testing::Gate;
use gristmill_proto::inference::infer_parameter::ParameterChoice;
use gristmill_proto::inference::{InferParameter, InferTensorContents, ModelInferRequest};
use prost::Message;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use server::{Server, echo, frame, gated, raw, text};

fn typed(model: &str, values: &[f32]) -> ModelInferRequest {
    let mut request = raw(model, &[]);
    request.raw_input_contents.clear();
    request.inputs[0].shape = vec![values.len() as i64 / 2, 2];
    request.inputs[0].contents =
        Some(InferTensorContents { fp32_contents: values.into(), ..Default::default() });
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_requests_get_raw_answers() {
    let server = Server::start([("echo", echo())]).await;
    let request = ModelInferRequest { id: "7".into(), ..raw("echo", &[[1.0, 2.0]]) };
    let answer = server.client().await.model_infer(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents, request.raw_input_contents);
    assert_eq!((answer.model_name.as_str(), answer.model_version.as_str()), ("echo", "1"));
    assert_eq!(answer.id, "7");
    let output = &answer.outputs[0];
    assert_eq!((output.name.as_str(), output.datatype.as_str()), ("y", "FP32"));
    assert_eq!((output.shape.as_slice(), &output.contents), ([1, 2].as_slice(), &None));
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_requests_get_typed_answers() {
    let server = Server::start([("echo", echo())]).await;
    let request = typed("echo", &[1.0, 2.0, 3.0, 4.0]);
    let answer = server.client().await.model_infer(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.outputs[0].contents, request.inputs[0].contents);
    assert!(answer.raw_output_contents.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_deadline_wins() {
    let gate = Arc::new(Gate::default());
    // One for each call: behind a run that goes on the next one would be refused.
    let server = Server::start([("slow", gated(&gate)), ("slower", gated(&gate))]).await;
    gate.close();
    let message = raw("slow", &[[1.0, 2.0]]).encode_to_vec();
    let body = frame(message.len() as u32, &message);
    let (_, status) = server.raw_call(&[("grpc-timeout", "20m")], body).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().starts_with("deadline exceeded while the request was in"), "{}", text(&status));

    let timeout = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(20_000)) };
    let mut request = raw("slower", &[[1.0, 2.0]]);
    request.parameters.insert("timeout".into(), timeout.clone());
    let status = server.client().await.model_infer(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);

    // The run goes on, so there comes a time from which the same request cannot be in time any more.
    let refused = loop {
        let status = server.client().await.model_infer(request.clone()).await.unwrap_err();
        if status.code() != Code::DeadlineExceeded {
            break status;
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("model 'slower' would answer "), "{}", text(&refused));
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"), "{refused:?}");
    assert!(!refused.details().is_empty(), "RetryInfo");
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_as_their_requests_were() {
    let server = Server::start([("echo", echo())]).await;
    let message = raw("echo", &[[1.0, 2.0]]).encode_to_vec();
    let body = frame(message.len() as u32, &message);
    let (headers, status) =
        server.raw_call(&[("grpc-accept-encoding", "identity, deflate, gzip")], body.clone()).await;
    assert_eq!((status.code(), headers.get("grpc-encoding")), (Code::Ok, None));
    let (headers, status) =
        server.raw_call(&[("grpc-encoding", "gzip"), ("grpc-accept-encoding", "identity, gzip")], body).await;
    assert_eq!(status.code(), Code::Ok);
    assert_eq!(headers["grpc-encoding"], "gzip");

    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate, CompressionEncoding::Zstd] {
        let mut client = server.client().await.send_compressed(encoding).accept_compressed(encoding);
        let request = raw("echo", &[[1.0; 2]; 500]);
        let answer = client.model_infer(request.clone()).await.unwrap();
        assert_eq!(answer.metadata().get("grpc-encoding").unwrap().to_str().unwrap(), encoding.to_string());
        assert_eq!(answer.into_inner().raw_output_contents, request.raw_input_contents);
    }
}
