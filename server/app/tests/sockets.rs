//! Thousands of callers at once, through real sockets: each gets its own rows or its own error, once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use gristmill::gateway::Gateway;
use gristmill::oip_grpc::{self, GrpcOptions};
use gristmill::oip_http::{self, HttpOptions};
use gristmill_engine::engine::Engine;
use gristmill_engine::error::RunError;
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::request::VersionSelector;
use gristmill_engine::tensor::{DType, Dim};
use gristmill_engine::testing::{FakeBackend, batched_signature, copy, engine};
use gristmill_engine::tuning::Tuning;
use gristmill_proto::inference as pb;
use gristmill_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

const BATCH_ROWS_MAX: usize = 16;

/// Values from here on make the model refuse the row.
const POISON: i32 = 1_000_000;

/// One caller: its rows begin with values that no other caller has.
#[derive(Clone, Debug)]
struct Call {
    rows: usize,
    width: usize,
    manner: Manner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Grpc,
    Http,
    /// One of its rows is refused by the model.
    GrpcPoison,
    HttpPoison,
    /// Hangs up after that many turns of the scheduler.
    Cancelled(u8),
    /// Gives the server one microsecond.
    Hasty,
}

/// A served engine on its own ports.
struct Served {
    engine: Arc<Engine>,
    reconciler: Reconciler,
    grpc: SocketAddr,
    http: SocketAddr,
    stop: CancellationToken,
}

/// Gives back its rows, of any width; refuses a batch that has a poisonous value, and says which.
fn model() -> FakeBackend {
    let mut signature = batched_signature(DType::Int32, &[1]);
    for spec in signature.inputs.iter_mut().chain(&mut signature.outputs) {
        spec.shape = Some(vec![Dim::Dynamic(None), Dim::Dynamic(None)]);
    }
    FakeBackend::new(signature, |inputs| {
        let whole = copy(&inputs[0]);
        assert!(whole.shape()[0] <= BATCH_ROWS_MAX, "no batch exceeds its rows");
        let poison = integers(whole.data()).find(|&value| value >= POISON);
        match poison {
            Some(value) => Err(RunError::Input(format!("poison {value}"))),
            None => Ok(vec![whole]),
        }
    })
}

fn integers(data: &[u8]) -> impl Iterator<Item = i32> {
    data.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes))
}

async fn serve(backend: FakeBackend) -> Served {
    let tuning = Tuning { instances: Some(3), batch_rows_max: Some(BATCH_ROWS_MAX), ..Tuning::default() };
    let tuning = Tuning { queue_rows_max: Some(1 << 20), ..tuning };
    let (engine, reconciler) = engine([("m", 1, backend, tuning)]);
    let engine = Arc::new(engine);
    let gateway = Arc::new(Gateway::new(Arc::clone(&engine)));
    let stop = CancellationToken::new();
    let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (grpc_address, http_address) = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
    let router = oip_http::router(Arc::clone(&gateway), None, HttpOptions::default());
    let grpc_server =
        oip_grpc::serve(grpc, gateway, None, GrpcOptions::default(), stop.clone().cancelled_owned());
    tokio::spawn(grpc_server);
    tokio::spawn(oip_http::serve(http, router, stop.clone().cancelled_owned()));
    Served { engine, reconciler, grpc: grpc_address, http: http_address, stop }
}

/// The values of caller `index`: distinct from every other caller's.
fn rows_of(index: usize, call: &Call) -> Vec<i32> {
    let mut values: Vec<i32> =
        (0..call.rows * call.width).map(|cell| (index * 512 + cell) as i32 % POISON).collect();
    if matches!(call.manner, Manner::GrpcPoison | Manner::HttpPoison) {
        let place = index % values.len();
        values[place] = POISON + index as i32;
    }
    values
}

fn request(index: usize, call: &Call) -> pb::ModelInferRequest {
    let raw: Vec<u8> = rows_of(index, call).iter().flat_map(|value| value.to_le_bytes()).collect();
    let timeout =
        pb::InferParameter { parameter_choice: Some(pb::infer_parameter::ParameterChoice::Int64Param(1)) };
    let hasty = call.manner == Manner::Hasty;
    pb::ModelInferRequest {
        model_name: "m".into(),
        id: index.to_string(),
        parameters: hasty.then(|| ("timeout".to_owned(), timeout)).into_iter().collect(),
        inputs: vec![pb::model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: "INT32".into(),
            shape: vec![call.rows as i64, call.width as i64],
            ..Default::default()
        }],
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    }
}

fn check_answer(index: usize, call: &Call, answer: &pb::ModelInferResponse) {
    assert_eq!(answer.id, index.to_string());
    assert_eq!(answer.outputs[0].shape, [call.rows as i64, call.width as i64]);
    assert_eq!(
        integers(&answer.raw_output_contents[0]).collect::<Vec<_>>(),
        rows_of(index, call),
        "{call:?}"
    );
}

async fn call_grpc(client: &GrpcInferenceServiceClient<Channel>, index: usize, call: &Call) {
    let mut client = client.clone();
    match client.model_infer(request(index, call)).await {
        Ok(answer) => {
            assert_ne!(call.manner, Manner::GrpcPoison, "poison was answered");
            check_answer(index, call, answer.get_ref());
        }
        Err(status) if call.manner == Manner::Hasty => {
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}")
        }
        Err(status) => {
            assert_eq!(call.manner, Manner::GrpcPoison, "{call:?} got {status}");
            let own = format!("poison {}", POISON as usize + index);
            assert_eq!((status.code(), status.message()), (Code::InvalidArgument, own.as_str()));
        }
    }
}

async fn call_http(address: SocketAddr, index: usize, call: &Call) {
    let rows = rows_of(index, call);
    let nested: Vec<&[i32]> = rows.chunks(call.width).collect();
    let input = serde_json::json!({"name": "x", "datatype": "INT32", "shape": [call.rows, call.width], "data": nested});
    let body = serde_json::json!({"id": index.to_string(), "inputs": [input]}).to_string();
    let request = http::Request::post(format!("http://{address}/v2/models/m/infer"))
        .body(Full::<Bytes>::from(body))
        .unwrap();
    let response = Client::builder(TokioExecutor::new()).build_http().request(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    if call.manner == Manner::HttpPoison {
        let own = serde_json::json!({"error": format!("poison {}", POISON as usize + index)});
        assert_eq!((status, answer), (http::StatusCode::BAD_REQUEST, own));
    } else {
        assert_eq!(status, http::StatusCode::OK, "{answer}");
        assert_eq!(answer["id"], index.to_string());
        assert_eq!(answer["outputs"][0]["data"], serde_json::json!(rows));
    }
}

/// Runs all calls side by side and checks each one's answer.
async fn storm(calls: Vec<Call>) {
    let served = serve(model()).await;
    let endpoint = Channel::from_shared(format!("http://{}", served.grpc)).unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap()));
    }
    let sure = calls.iter().filter(|call| matches!(call.manner, Manner::Grpc | Manner::Http)).count();
    let mut tasks = tokio::task::JoinSet::new();
    for (index, call) in calls.into_iter().enumerate() {
        let client = clients[index % clients.len()].clone();
        let http = served.http;
        tasks.spawn(async move {
            match call.manner {
                Manner::Http | Manner::HttpPoison => call_http(http, index, &call).await,
                Manner::Cancelled(turns) => {
                    let request = tokio::spawn({
                        let (client, call) = (client.clone(), Call { manner: Manner::Grpc, ..call });
                        async move { call_grpc(&client, index, &call).await }
                    });
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                    request.abort();
                    // It may have been answered first; a wrong answer is a panic, which is not a cancellation.
                    assert!(request.await.err().is_none_or(|error| error.is_cancelled()));
                }
                _ => call_grpc(&client, index, &call).await,
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let statistics = served.engine.statistics(Some("m"), &VersionSelector::Default).unwrap().remove(0).1;
    assert!(statistics.success.count as usize >= sure, "{} of {sure} were counted", statistics.success.count);
    served.stop.cancel();
    let (done, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        served.reconciler.shut_down();
        done.send(()).unwrap();
    });
    ended.await.unwrap();
}

fn any_call() -> impl Strategy<Value = Call> {
    let manner = prop_oneof![
        8 => Just(Manner::Grpc),
        2 => Just(Manner::Http),
        1 => Just(Manner::GrpcPoison),
        1 => Just(Manner::HttpPoison),
        2 => any::<u8>().prop_map(Manner::Cancelled),
        1 => Just(Manner::Hasty),
    ];
    // Up to five times the largest batch, so that requests are split and joined as well.
    let rows = prop_oneof![6 => 1..5usize, 1 => 5..(5 * BATCH_ROWS_MAX)];
    (rows, 1..4usize, manner).prop_map(|(rows, width, manner)| Call { rows, width, manner })
}

#[test]
fn everybody_gets_their_own_rows_or_their_own_error() {
    let config = Config { cases: 4, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let storms = prop::collection::vec(any_call(), 1500);
    TestRunner::new(config)
        .run(&storms, |calls| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.unwrap().block_on(storm(calls));
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_stream_answers_each_of_its_requests_once() {
    let served = serve(model()).await;
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", served.grpc)).await.unwrap();
    let calls: Vec<Call> = (0..2000)
        .map(|n| Call {
            rows: 1 + n % 7,
            width: 1 + n % 3,
            manner: if n % 11 == 0 { Manner::GrpcPoison } else { Manner::Grpc },
        })
        .collect();
    let requests: Vec<_> = calls.iter().enumerate().map(|(index, call)| request(index, call)).collect();
    let mut answers = client.model_stream_infer(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut seen = HashMap::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let response = answer.infer_response.unwrap();
        let index: usize = response.id.parse().unwrap();
        if calls[index].manner == Manner::GrpcPoison {
            assert_eq!(answer.error_message, format!("poison {}", POISON as usize + index));
        } else {
            assert_eq!(answer.error_message, "");
            check_answer(index, &calls[index], &response);
        }
        *seen.entry(index).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), calls.len());
    assert!(seen.values().all(|&times| times == 1));
    served.stop.cancel();
}
