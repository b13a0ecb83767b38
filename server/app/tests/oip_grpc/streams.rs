//! `ModelStreamInfer`: order, faults inside and of the stream, and the end of the server.

use std::sync::Arc;

use expect_test::expect;
use gristmill::oip_grpc::GrpcOptions;
use gristmill_engine::request::VersionSelector;
use gristmill_engine::testing::Gate;
use gristmill_engine::tuning::{Fallback, Tuning};
use gristmill_proto::inference::infer_parameter::ParameterChoice;
use gristmill_proto::inference::{InferParameter, ModelInferRequest};
use tokio::net::TcpStream;
use tonic::Code;

use super::server::{Server, echo, gated, raw, text};

#[tokio::test(flavor = "multi_thread")]
async fn streams_answer_in_order_and_outlive_faults() {
    let server = Server::start([("echo", echo())]).await;
    let requests: Vec<_> = (0..600)
        .map(|number| {
            let model = if number % 100 == 7 { "nobody" } else { "echo" };
            ModelInferRequest { id: number.to_string(), ..raw(model, &[[number as f32, 0.0]]) }
        })
        .collect();
    let mut answers =
        server.client().await.model_stream_infer(tokio_stream::iter(requests)).await.unwrap().into_inner();
    for number in 0..600 {
        let answer = answers.message().await.unwrap().unwrap();
        let response = answer.infer_response.unwrap();
        assert_eq!(response.id, number.to_string());
        let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
        assert_eq!(response.parameters["triton_final_response"], last);
        if number % 100 == 7 {
            assert!(answer.error_message.contains("nobody"), "{}", answer.error_message);
            assert!(response.raw_output_contents.is_empty());
        } else {
            assert_eq!(answer.error_message, "");
            assert_eq!(response.raw_output_contents[0][..4], (number as f32).to_le_bytes());
        }
    }
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_over_long_message_ends_its_stream_with_the_limits_text() {
    let server = Server::start_with(
        [("echo", echo())],
        GrpcOptions { message_bytes_max: 1000, ..GrpcOptions::default() },
    )
    .await;
    let requests = [raw("echo", &[[1.0, 2.0]]), raw("echo", &[[0.0; 2]; 300])];
    let mut answers =
        server.client().await.model_stream_infer(tokio_stream::iter(requests)).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().error_message, "");
    let status = answers.message().await.unwrap_err();
    expect!["ResourceExhausted: the request message has 2425 bytes, the limit is 1000: send fewer rows in a request, or raise --grpc-message-bytes-max"].assert_eq(&text(&status));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_finishes_what_has_begun() {
    let gate = Arc::new(Gate::default());
    let server = Server::start([("slow", gated(&gate))]).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    let mut client = server.client().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = client.model_stream_infer(requests).await.unwrap().into_inner();
    gate.close();
    let call = tokio::spawn(async move { client.model_infer(raw("slow", &[[1.0, 2.0]])).await });
    gate.wait_for(1);
    server.stop.cancel();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Unavailable);
    drop(sender);
    gate.open();
    assert!(call.await.unwrap().is_ok());
    server.served.await.unwrap().unwrap();
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_a_stream_carry_their_timing_when_it_asks() {
    let server = Server::start([("echo", echo())]).await;
    for (asked, count) in [("1", 4), ("0", 0)] {
        let rows = [[1.0, 2.0], [3.0, 4.0]];
        let mut request = tonic::Request::new(tokio_stream::once(raw("echo", &rows)));
        request.metadata_mut().insert("x-gristmill-timing", asked.parse().unwrap());
        let mut answers = server.client().await.model_stream_infer(request).await.unwrap().into_inner();
        let parameters = answers.message().await.unwrap().unwrap().infer_response.unwrap().parameters;
        let number = |name: &str| match parameters[name].parameter_choice {
            Some(ParameterChoice::Int64Param(number)) => number,
            ref other => panic!("{name}: {other:?}"),
        };
        assert_eq!(parameters.keys().filter(|name| name.starts_with("gristmill_")).count(), count);
        if count > 0 {
            assert_eq!(number("gristmill_batch_rows"), 2);
            assert!(
                number("gristmill_total_us") >= number("gristmill_queue_us") + number("gristmill_run_us")
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_a_cheaper_model_say_so() {
    let gate = Arc::new(Gate::default());
    let tuning = || Tuning { instances: Some(1), batch_rows_max: Some(1), ..Tuning::default() };
    let full =
        Tuning { queue_rows_max: Some(1), degrade_to: Some(Fallback::Name("small".into())), ..tuning() };
    let models = [("slow", 1, gated(&gate), full), ("small", 3, echo(), tuning())];
    let server = Server::start_tuned(models, GrpcOptions::default()).await;
    gate.close();
    let requests = tokio_stream::iter((0..8).map(|_| raw("slow", &[[1.0, 2.0]])));
    let mut client = server.client().await;
    let mut answers = client.model_stream_infer(requests).await.unwrap().into_inner();
    // At most one runs and one waits; the others are not held up by them.
    let answered = || {
        let statistics = server.engine.statistics(Some("small"), &VersionSelector::Default).unwrap();
        statistics[0].1.inference_count
    };
    while answered() < 6 {
        tokio::task::yield_now().await;
    }
    gate.open();
    let mut degraded = 0;
    for _ in 0..8 {
        let answer = answers.message().await.unwrap().unwrap().infer_response.unwrap();
        let asked =
            answer.parameters.get("gristmill_degraded_from").map(|asked| asked.parameter_choice.clone());
        match answer.model_name.as_str() {
            "small" => {
                degraded += 1;
                assert_eq!(answer.model_version, "3");
                assert_eq!(asked, Some(Some(ParameterChoice::StringParam("slow:1".into()))));
            }
            own => assert_eq!((own, asked), ("slow", None)),
        }
    }
    assert!((6..8).contains(&degraded), "{degraded}");
}
