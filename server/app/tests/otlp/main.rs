//! Traces as a real OTLP receiver gets them: which requests, which spans, how they hang together.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod process;
mod receiver;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use gristmill::gateway::Gateway;
use gristmill::oip_grpc::{self, GrpcOptions};
use gristmill::oip_http::{self, HttpOptions};
use gristmill::telemetry::Telemetry;
use gristmill::traces::Traces;
use gristmill_engine::engine::Engine;
use gristmill_engine::error::RunError;
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::{self, FakeBackend, Gate};
use gristmill_engine::tuning::Tuning;
use gristmill_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use gristmill_proto::inference::model_infer_request::InferInputTensor;
use gristmill_proto::inference::trace_setting_request::SettingValue;
use gristmill_proto::inference::{ModelInferRequest, ModelInferResponse, TraceSettingRequest};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Response, Status};

use crate::receiver::{Received, Receiver, attribute};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// For which the model fails.
const BROKEN: f32 = 13.0;

pub(crate) struct Server {
    model: &'static str,
    engine: Arc<Engine>,
    receiver: Receiver,
    traces: Traces,
    grpc: SocketAddr,
    http: SocketAddr,
    gate: Arc<Gate>,
    _reconciler: Reconciler,
}

impl Server {
    async fn start(ratio: f64) -> Server {
        Server::start_with("m", ratio).await
    }

    /// One worker, whose runs wait while the gate is closed.
    async fn start_with(model: &'static str, ratio: f64) -> Server {
        let receiver = Receiver::start().await;
        let server = Server::start_at(receiver.endpoint.clone(), model, ratio).await;
        Server { receiver, ..server }
    }

    async fn start_at(endpoint: String, model: &'static str, ratio: f64) -> Server {
        let gate = Arc::new(Gate::default());
        let passed = Arc::clone(&gate);
        let backend = FakeBackend::checked_identity(DType::Fp32, &[1], move |input| {
            passed.pass();
            match input.data.first_chunk().map(|bytes| f32::from_le_bytes(*bytes)) {
                Some(BROKEN) => Err(RunError::Failed("it broke".into())),
                _ => Ok(()),
            }
        });
        let tuning = Tuning { instances: Some(1), batch_rows_max: Some(8), ..Tuning::default() };
        let (engine, reconciler) = testing::engine([(model, 1, backend, tuning)]);
        let traces = Traces::start(&endpoint, ratio).unwrap();
        let engine = Arc::new(engine);
        let gateway = Arc::new(Gateway::new(Arc::clone(&engine)).with_traces(traces.clone()));
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (grpc_address, http_address) = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
        let router = oip_http::router(Arc::clone(&gateway), None, HttpOptions::default());
        tokio::spawn(oip_http::serve(http, router, std::future::pending()));
        tokio::spawn(oip_grpc::serve(grpc, gateway, None, GrpcOptions::default(), std::future::pending()));
        let (grpc, http) = (grpc_address, http_address);
        Server {
            model,
            engine,
            receiver: Receiver::default(),
            traces,
            grpc,
            http,
            gate,
            _reconciler: reconciler,
        }
    }

    async fn grpc(&self, value: f32, context: Option<&str>) -> Result<Response<ModelInferResponse>, Status> {
        let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", self.grpc)).await.unwrap();
        let mut request = tonic::Request::new(ModelInferRequest {
            model_name: self.model.into(),
            inputs: vec![InferInputTensor {
                name: "x".into(),
                datatype: "FP32".into(),
                shape: vec![1, 1],
                ..Default::default()
            }],
            raw_input_contents: vec![value.to_le_bytes().to_vec().into()],
            ..Default::default()
        });
        if let Some(context) = context {
            request.metadata_mut().insert("traceparent", context.parse().unwrap());
            request.metadata_mut().insert("tracestate", "vendor=opaque".parse().unwrap());
        }
        client.model_infer(request).await
    }

    /// The whole response.
    async fn http(&self, path: &str, context: Option<&str>) -> String {
        let body = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1.0]}]}"#;
        let context = context.map(|context| format!("traceparent: {context}\r\n")).unwrap_or_default();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{context}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    /// Everything that was sent until now.
    fn flushed(&self) -> Received {
        self.traces.flush();
        self.receiver.received()
    }
}

fn context(span: u8, is_sampled: bool) -> String {
    format!("00-{TRACE}-{CALLER}-{:02x}", u8::from(is_sampled)).replacen(
        &TRACE[..2],
        &format!("{span:02x}"),
        1,
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until a run waits at the closed gate.
async fn at_gate(gate: Arc<Gate>) {
    let (done, waited) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        gate.wait_for(1);
        // Nobody listens where the test has failed already.
        let _heard = done.send(());
    });
    waited.await.unwrap();
}

fn is_inside(inner: &Span, outer: &Span) -> bool {
    outer.start_time_unix_nano <= inner.start_time_unix_nano
        && inner.end_time_unix_nano <= outer.end_time_unix_nano
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traced_call_has_spans_for_itself_its_queue_its_batch_and_its_run() {
    let server = Server::start(0.0).await;
    let response = server.grpc(1.0, Some(&format!("00-{TRACE}-{CALLER}-01"))).await.unwrap();
    let returned = response.metadata().get("traceparent").unwrap().to_str().unwrap().to_owned();
    assert_eq!(response.metadata().get("tracestate").unwrap(), "vendor=opaque");
    let received = server.flushed();
    assert!(received.services.iter().all(|name| name == "gristmill"), "{:?}", received.services);
    assert_eq!(received.spans.len(), 4);
    assert!(received.spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    let [request, queue, batch, run] =
        ["request", "queue", "batch", "run"].map(|name| received.named(name)[0]);

    assert_eq!(hex(&request.parent_span_id), CALLER);
    assert_eq!((request.kind(), request.trace_state.as_str()), (SpanKind::Server, "vendor=opaque"));
    assert_eq!(returned, format!("00-{TRACE}-{}-01", hex(&request.span_id)));
    assert_eq!(queue.parent_span_id, request.span_id);
    assert_eq!(batch.parent_span_id, request.span_id);
    assert_eq!(run.parent_span_id, batch.span_id);
    assert_eq!(batch.links.iter().map(|link| &link.span_id).collect::<Vec<_>>(), [&request.span_id]);
    assert_eq!(request.links.iter().map(|link| &link.span_id).collect::<Vec<_>>(), [&batch.span_id]);
    assert!(is_inside(run, batch) && is_inside(queue, request));
    assert_eq!(attribute(request, "gristmill.model"), "m");
    assert_eq!(attribute(request, "gristmill.version"), "1");
    assert_eq!(attribute(request, "gristmill.protocol"), "grpc");
    assert_eq!(attribute(batch, "gristmill.batch.rows"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_and_its_requests_refer_to_each_other() {
    let telemetry = Telemetry::install("a fake runtime").unwrap();
    let server = Server::start_with("together", 0.0).await;
    server.gate.close();
    let occupied = server.grpc(0.0, None);
    let members = async {
        let gate = Arc::clone(&server.gate);
        at_gate(gate).await;
        let (first, second) = (context(1, true), context(2, true));
        let traced = [server.grpc(1.0, Some(&first)), server.grpc(2.0, Some(&second))];
        let untraced = server.grpc(3.0, None);
        let queued = async {
            let waiting = "gristmill_queue_rows{model=\"together\",version=\"1\"} 3.0\n";
            while !telemetry.text(&server.engine, Instant::now()).contains(waiting) {
                tokio::task::yield_now().await;
            }
            server.gate.open();
        };
        let [one, two] = traced;
        let (one, two, three, ()) = tokio::join!(one, two, untraced, queued);
        one.unwrap();
        two.unwrap();
        three.unwrap();
    };
    let (occupied, ()) = tokio::join!(occupied, members);
    occupied.unwrap();
    let received = server.flushed();
    let (requests, batches) = (received.named("request"), received.named("batch"));
    assert_eq!((requests.len(), batches.len()), (2, 1), "nobody traces the batch of the untraced request");
    let batch = batches[0];
    assert_eq!(attribute(batch, "gristmill.batch.requests"), "3");
    let mut linked: Vec<_> = batch.links.iter().map(|link| (&link.trace_id, &link.span_id)).collect();
    let mut own: Vec<_> = requests.iter().map(|span| (&span.trace_id, &span.span_id)).collect();
    linked.sort();
    own.sort();
    assert_eq!(linked, own);
    for request in &requests {
        let links: Vec<_> = request.links.iter().map(|link| (&link.trace_id, &link.span_id)).collect();
        assert_eq!(links, [(&batch.trace_id, &batch.span_id)]);
    }
    let parent = requests.iter().find(|request| request.span_id == batch.parent_span_id).unwrap();
    assert_eq!(parent.trace_id, batch.trace_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_word_goes_before_the_ratio() {
    let all = Server::start(1.0).await;
    assert!(!all.http("/v2/models/m/infer", Some(&context(1, false))).await.contains("traceparent: "));
    assert!(all.http("/v2/models/m/infer", None).await.contains("\r\ntraceparent: 00-"));
    assert!(all.http("/v2/models/m/infer", Some("00-nonsense-01")).await.contains("\r\ntraceparent: 00-"));
    let received = all.flushed();
    assert_eq!(received.named("request").len(), 2, "one of three was declined");
    assert!(received.named("request").iter().all(|span| span.parent_span_id.is_empty()));
    assert_eq!(attribute(received.named("request")[0], "gristmill.protocol"), "http");

    let none = Server::start(0.0).await;
    assert!(!none.http("/v2/models/m/infer", None).await.contains("traceparent: "));
    assert!(
        none.http("/v2/models/m/infer", Some(&context(1, true))).await.contains("\r\ntraceparent: 00-01")
    );
    assert_eq!(none.flushed().named("request").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_traced_can_be_changed_while_it_serves() {
    let server = Server::start(0.0).await;
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", server.grpc)).await.unwrap();
    let mut set = async |name: &str, value: &str| {
        let value = SettingValue { value: vec![value.to_owned()] };
        let settings = [(name.to_owned(), value)].into();
        client.trace_setting(TraceSettingRequest { settings, ..Default::default() }).await.unwrap();
    };
    let path = "/v2/models/m/infer";
    assert!(!server.http(path, None).await.contains("traceparent: "));
    set("trace_rate", "1").await;
    assert!(server.http(path, None).await.contains("traceparent: "));
    set("trace_level", "OFF").await;
    assert!(!server.http(path, None).await.contains("traceparent: "));
    assert!(!server.http(path, Some(&context(1, true))).await.contains("traceparent: "));
    set("trace_level", "TIMESTAMPS").await;
    assert!(server.http(path, Some(&context(1, true))).await.contains("traceparent: "));
    set("trace_rate", "0").await;
    assert!(!server.http(path, None).await.contains("traceparent: "));
    assert_eq!(server.flushed().named("request").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_what_they_are_and_whose() {
    let server = Server::start(1.0).await;
    server.grpc(BROKEN, None).await.unwrap_err();
    assert!(server.http("/v2/models/nothing/infer", None).await.starts_with("HTTP/1.1 404"));
    let received = server.flushed();
    let status = |span: &Span| span.status.clone().unwrap_or_default();
    let [broken, missing] = ["Internal", "404"].map(|kind| {
        let mut requests = received.named("request").into_iter();
        requests.find(|span| attribute(span, "error.type") == kind).unwrap()
    });
    assert_eq!((status(broken).code, status(broken).message.as_str()), (2, "it broke"));
    assert_eq!(status(missing).code, 0, "a client's mistake is no error of the server");
    let batch = received.named("batch")[0];
    assert_eq!((status(batch).code, status(batch).message.as_str()), (2, "it broke"));
    assert!(received.named("run").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_leaves_ends_its_span() {
    let server = Server::start(1.0).await;
    server.gate.close();
    let gate = Arc::clone(&server.gate);
    {
        let call = server.grpc(1.0, None);
        tokio::select! {
            _answered = call => panic!("the gate is closed"),
            () = at_gate(gate) => {}
        }
    }
    // The server learns of it by the reset of the stream.
    let received = loop {
        let received = server.flushed();
        if !received.spans.is_empty() {
            break received;
        }
        tokio::task::yield_now().await;
    };
    server.gate.open();
    assert_eq!(attribute(received.named("request")[0], "error.type"), "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_not_there_holds_nobody_up() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let server = Server::start_at(gone, "m", 1.0).await;
    for _ in 0..10 {
        server.grpc(1.0, None).await.unwrap();
    }
    assert!(Traces::start("no address", 1.0).is_err());
}
