//! What each fault of a client is told, and with which code.

use bytes::Bytes;
use expect_test::{Expect, expect};
use gristmill::oip_grpc::GrpcOptions;
use gristmill_engine::tensor::{DType, Dim, Tensor};
use gristmill_engine::testing::{FakeBackend, batched_signature};
use gristmill_proto::inference::ModelInferRequest;
use gristmill_proto::inference::model_infer_request::InferRequestedOutputTensor;
use prost::Message;
use tonic::codec::CompressionEncoding;

use super::server::{Client, Server, echo, frame, raw, text};

/// A model that answers each row of `[N, 2]` with 1024 values.
fn inflate() -> FakeBackend {
    let mut signature = batched_signature(DType::Fp32, &[2]);
    signature.outputs[0].shape = Some(vec![Dim::Dynamic(None), Dim::Fixed(1024)]);
    FakeBackend::new(signature, |inputs| {
        let rows = inputs[0].as_ref().unwrap().shape[0];
        Ok(vec![Tensor::new(DType::Fp32, [rows, 1024].as_slice(), vec![0; rows * 4096].into()).unwrap()])
    })
}

async fn check_fault(client: &mut Client, request: ModelInferRequest, expect: Expect) {
    let status = client.model_infer(request).await.unwrap_err();
    expect.assert_eq(&text(&status));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_have_codes_and_say_what_came() {
    let server = Server::start([("echo", echo())]).await;
    let mut client = server.client().await;
    let ok = || raw("echo", &[[1.0, 2.0]]);
    check_fault(
        &mut client,
        raw("nobody", &[[1.0, 2.0]]),
        expect!["NotFound: model 'nobody' is not in the repository: its index lists what is"],
    )
    .await;
    check_fault(
        &mut client,
        ModelInferRequest { model_version: "9".into(), ..ok() },
        expect!["NotFound: model 'echo' has no version 9: its versions are 1"],
    )
    .await;
    check_fault(
        &mut client,
        ModelInferRequest { model_version: "v1".into(), ..ok() },
        expect!["NotFound: model 'echo' has no version 'v1': expected a number or one of its labels (none)"],
    )
    .await;
    let mut wrong = ok();
    wrong.inputs[0].datatype = "INT64".into();
    wrong.raw_input_contents[0] = Bytes::from_static(&[0; 16]);
    check_fault(&mut client, wrong, expect!["InvalidArgument: input 'x': expected datatype FP32, got INT64"])
        .await;
    let mut wrong = ok();
    wrong.inputs[0].shape = vec![2, 1];
    check_fault(
        &mut client,
        wrong,
        expect!["InvalidArgument: input 'x': expected shape [-1, 2], got [2, 1]"],
    )
    .await;
    let mut wrong = ok();
    wrong.inputs[0].name = "z".into();
    check_fault(&mut client, wrong, expect!["InvalidArgument: unexpected input 'z': the model takes 'x'"])
        .await;
    let mut wrong = ok();
    wrong.raw_input_contents[0] = Bytes::from_static(&[0; 5]);
    check_fault(
        &mut client,
        wrong,
        expect!["InvalidArgument: input 'x': expected 8 bytes for FP32 [1, 2], got 5 bytes"],
    )
    .await;
    check_fault(
        &mut client,
        ModelInferRequest { inputs: vec![], raw_input_contents: vec![], ..ok() },
        expect!["InvalidArgument: missing input 'x' (FP32 [-1, 2]): the model takes 'x'"],
    )
    .await;
    let mut wrong = ok();
    wrong.outputs = vec![InferRequestedOutputTensor { name: "z".into(), ..Default::default() }];
    check_fault(&mut client, wrong, expect!["InvalidArgument: unexpected output 'z': the model gives 'y'"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_messages_name_the_limit_and_the_flag() {
    let options = GrpcOptions { message_bytes_max: 2000, ..GrpcOptions::default() };
    let server = Server::start_with([("echo", echo()), ("inflate", inflate())], options).await;
    let mut client = server.client().await;
    check_fault(&mut client, raw("echo", &[[0.0; 2]; 300]), expect!["ResourceExhausted: the request message has 2425 bytes, the limit is 2000: send fewer rows in a request, or raise --grpc-message-bytes-max"]).await;
    check_fault(&mut client, raw("inflate", &[[0.0; 2]]), expect!["ResourceExhausted: the response message has 4127 bytes, the limit is 2000: ask for fewer rows or outputs, or raise --grpc-message-bytes-max"]).await;
    let mut compressing = server.client().await.send_compressed(CompressionEncoding::Gzip);
    check_fault(&mut compressing, raw("echo", &[[0.0; 2]; 300]), expect!["ResourceExhausted: the request message has more than 2000 bytes when decompressed, which is the limit: send fewer rows in a request, or raise --grpc-message-bytes-max"]).await;
    assert!(client.model_infer(raw("echo", &[[0.0; 2]; 7])).await.is_ok(), "the connection lives on");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_calls_are_the_clients_fault() {
    let server = Server::start([("echo", echo())]).await;
    let message = raw("echo", &[[1.0, 2.0]]).encode_to_vec();
    let length = message.len() as u32;
    let unknown = server.raw_call_to("/inference.GRPCInferenceService/Guess", &[], vec![]).await.1;
    expect!["Unimplemented: the server has no such method; server reflection lists those that it has"]
        .assert_eq(&text(&unknown));
    let check = async |headers: &[(&str, &str)], body: Vec<u8>, expect: Expect| {
        let (_, status) = server.raw_call(headers, body).await;
        expect.assert_eq(&text(&status));
    };
    check(&[], frame(length, &message), expect!["Ok: "]).await;
    check(
        &[],
        frame(length + 1, &message),
        expect!["InvalidArgument: the request ends before its message does"],
    )
    .await;
    check(&[], frame(length - 1, &message[..message.len() - 1]), expect!["InvalidArgument: malformed request message: failed to decode Protobuf message: ModelInferRequest.raw_input_contents: buffer underflow"]).await;
    check(
        &[],
        frame(4, &[0xff; 4]),
        expect![
            "InvalidArgument: malformed request message: failed to decode Protobuf message: invalid varint"
        ],
    )
    .await;
    check(&[], vec![0, 0], expect!["InvalidArgument: the request ends before its message does"]).await;
    check(&[], vec![], expect!["InvalidArgument: the request has no message: expected one"]).await;
    check(&[], frame(u32::MAX, &message), expect!["ResourceExhausted: the request message has 4294967295 bytes, the limit is 67108864: send fewer rows in a request, or raise --grpc-message-bytes-max"]).await;
    check(&[], [&[1][..], &frame(length, &message)[1..]].concat(), expect!["InvalidArgument: malformed request: protocol error: received message with compressed-flag but no grpc-encoding was specified"]).await;
    check(&[], [&[7][..], &frame(length, &message)[1..]].concat(), expect!["InvalidArgument: malformed request: protocol error: received message with invalid compression flag: 7 (valid flags are 0 and 1), while sending request"]).await;
    let squeezed = [&[1][..], &frame(length, &message)[1..]].concat();
    check(&[("grpc-encoding", "gzip")], squeezed.clone(), expect!["InvalidArgument: malformed request: Error decompressing: invalid gzip header, while sending request"]).await;
    check(
        &[("grpc-encoding", "brotli")],
        squeezed,
        expect!["Unimplemented: Content is compressed with `brotli` which isn't supported"],
    )
    .await;
    check(&[("grpc-timeout", "soon")], frame(length, &message), expect![[r#"InvalidArgument: header grpc-timeout is "soon": expected one to eight digits and a unit of H, M, S, m, u or n"#]]).await;
}
