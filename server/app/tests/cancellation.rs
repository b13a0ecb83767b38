//! A storm of callers who hang up, in the queue and in the run: afterwards nothing of them is left.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use gristmill::gateway::Gateway;
use gristmill::oip_grpc::{self, GrpcOptions};
use gristmill::oip_http::{self, HttpOptions};
use gristmill::telemetry::Telemetry;
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::{FakeBackend, Gate, engine};
use gristmill_engine::tuning::Tuning;
use gristmill_proto::inference as pb;
use gristmill_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// A row of 32 KiB: what is kept of a few callers by mistake shows in the process's memory.
const WIDTH: usize = 8192;
const WORKERS: usize = 2;
const BATCH_ROWS_MAX: usize = 16;

const ROUNDS: usize = 20;
/// After so many rounds the allocator's caches are full.
const ROUNDS_FIRST: usize = 4;
const GRPC_CALLERS: usize = 300;
const GRPC_CONNECTIONS: usize = 6;
const HTTP_CALLERS: usize = 200;
const CALLERS: usize = GRPC_CALLERS + HTTP_CALLERS;

/// A quarter of what the callers of the rounds after the first ones send.
const GROWTH_BYTES_MAX: f64 = ((ROUNDS - ROUNDS_FIRST) * CALLERS * WIDTH) as f64;

/// An identity model behind both front doors. Its runs wait, and can be stopped, at a gate.
struct Served {
    reconciler: Reconciler,
    gate: Arc<Gate>,
    grpc: SocketAddr,
    http: SocketAddr,
    stop: CancellationToken,
}

// === impl Served ===

impl Served {
    async fn start() -> Served {
        let telemetry = Telemetry::install("a fake runtime").unwrap();
        let gate = Arc::new(Gate::default());
        let backend = FakeBackend::identity(DType::Int32, &[WIDTH]).held_at(&gate);
        let tuning =
            Tuning { instances: Some(WORKERS), batch_rows_max: Some(BATCH_ROWS_MAX), ..Tuning::default() };
        let (engine, reconciler) = engine([("m", 1, backend, tuning)]);
        let engine = Arc::new(engine);
        let stop = CancellationToken::new();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (grpc_address, http_address) = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
        let gateway = Arc::new(Gateway::new(Arc::clone(&engine)));
        let router = oip_http::router(Arc::clone(&gateway), None, HttpOptions::default())
            .merge(telemetry.router(Arc::clone(&engine)));
        let stopped = || stop.clone().cancelled_owned();
        tokio::spawn(oip_grpc::serve(grpc, gateway, None, GrpcOptions::default(), stopped()));
        tokio::spawn(oip_http::serve(http, router, stopped()));
        Served { reconciler, gate, grpc: grpc_address, http: http_address, stop }
    }

    async fn metrics(&self) -> String {
        let request = http::Request::get(format!("http://{}/metrics", self.http));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = Client::builder(TokioExecutor::new()).build_http().request(request).await.unwrap();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// Reads the metrics until the sum of one meets a condition.
    async fn wait_for(&self, metric: &str, is_met: impl Fn(f64) -> bool) {
        while !is_met(sum(&self.metrics().await, metric)) {
            tokio::task::yield_now().await;
        }
    }

    async fn wait_for_runs_at_gate(&self, runs: usize) {
        let gate = Arc::clone(&self.gate);
        let (done, waited) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            match runs {
                0 => gate.wait_for_none(),
                runs => gate.wait_for(runs),
            }
            done.send(()).unwrap();
        });
        waited.await.unwrap();
    }

    async fn connect(&self) -> GrpcInferenceServiceClient<Channel> {
        let endpoint = Channel::from_shared(format!("http://{}", self.grpc)).unwrap();
        GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap())
    }

    /// One round of callers who come and leave, and two who get their answers.
    async fn round(&self) {
        self.gate.close();
        let first = self.connect().await;
        let mut running = JoinSet::new();
        for run in 1..=WORKERS {
            let mut client = first.clone();
            running.spawn(async move { client.model_infer(request()).await });
            self.wait_for_runs_at_gate(run).await;
        }

        let mut waiting = JoinSet::new();
        let mut clients = Vec::new();
        for _ in 0..GRPC_CONNECTIONS {
            clients.push(self.connect().await);
        }
        for caller in 0..GRPC_CALLERS {
            let mut client = clients[caller % GRPC_CONNECTIONS].clone();
            waiting.spawn(async move { client.model_infer(request()).await });
        }
        let mut sockets = Vec::new();
        for _ in 0..HTTP_CALLERS {
            sockets.push(send_http(self.http).await);
        }
        self.wait_for("gristmill_queue_rows", |rows| rows == CALLERS as f64).await;

        // Those in the run leave, and others take their place.
        running.shutdown().await;
        self.wait_for("gristmill_queue_rows", |rows| rows < CALLERS as f64).await;
        self.wait_for_runs_at_gate(WORKERS).await;

        // Some hang up, some only take their call back, and then their connection goes as well.
        let later = sockets.split_off(HTTP_CALLERS / 2);
        drop(sockets);
        waiting.shutdown().await;
        drop((clients, later));
        self.wait_for("gristmill_queue_rows", |rows| rows == 0.0).await;
        self.wait_for_runs_at_gate(0).await;

        self.gate.open();
        let mut client = first;
        let answer = client.model_infer(request()).await.unwrap().into_inner();
        assert_eq!(answer.raw_output_contents[0].len(), 4 * WIDTH);
        let mut socket = send_http(self.http).await;
        let mut start = [0; 15];
        socket.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
    }
}

fn request() -> pb::ModelInferRequest {
    pb::ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![pb::model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: "INT32".into(),
            shape: vec![1, WIDTH as i64],
            ..Default::default()
        }],
        raw_input_contents: vec![vec![7; 4 * WIDTH].into()],
        ..Default::default()
    }
}

/// Sends a request, with a binary tensor, and does not wait for the answer.
async fn send_http(address: SocketAddr) -> TcpStream {
    let json = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"INT32","shape":[1,{WIDTH}],"parameters":{{"binary_data_size":{}}}}}]}}"#,
        4 * WIDTH
    );
    let head = format!(
        "POST /v2/models/m/infer HTTP/1.1\r\nHost: m\r\nInference-Header-Content-Length: {}\r\n\
         Content-Length: {}\r\n\r\n",
        json.len(),
        json.len() + 4 * WIDTH
    );
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(&[head.as_bytes(), json.as_bytes(), &[7; 4 * WIDTH]].concat()).await.unwrap();
    socket
}

/// The sum over all series of `metrics` that begin with `start`.
fn sum(metrics: &str, start: &str) -> f64 {
    let values = metrics.lines().filter(|line| line.starts_with(start));
    values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_callers_who_leave_leave_nothing_behind() {
    let served = Served::start().await;
    let mut resident_bytes = 0.0;
    for round in 0..ROUNDS {
        if round == ROUNDS_FIRST {
            resident_bytes = sum(&served.metrics().await, "process_resident_memory_bytes ");
        }
        served.round().await;
    }
    // A worker gives its slot back after it has answered.
    served.wait_for("gristmill_run_slots_in_use{", |slots| slots == 0.0).await;
    let metrics = served.metrics().await;
    let of = |start: &str| sum(&metrics, start);
    assert_eq!(of("gristmill_queue_rows"), 0.0);
    assert_eq!(of("gristmill_queue_bytes"), 0.0);
    assert_eq!(of("gristmill_instances{"), WORKERS as f64);
    assert_eq!(of("gristmill_instance_replacements_total"), 0.0);
    assert_eq!(of("gristmill_workers_left_behind"), 0.0);
    // Whoever was admitted is counted once.
    let outcome =
        |name: &str| of(&format!(r#"gristmill_requests_total{{model="m",version="1",outcome="{name}"}}"#));
    assert_eq!(outcome("ok"), (2 * ROUNDS) as f64);
    let left = (ROUNDS * (CALLERS + WORKERS)) as f64;
    assert!(left >= 10_000.0);
    assert_eq!(outcome("cancelled"), left, "{metrics}");
    assert_eq!(of("gristmill_requests_total"), left + (2 * ROUNDS) as f64);
    // In each round those of the first runs, and those of at least one batch that followed.
    let stopped = of(r#"gristmill_runs_stopped_total{model="m",version="1",reason="abandoned"}"#);
    assert!(stopped >= (ROUNDS * (WORKERS + 1)) as f64, "{stopped} runs were stopped");
    let growth = of("process_resident_memory_bytes ") - resident_bytes;
    assert!(growth < GROWTH_BYTES_MAX, "{growth} bytes more than after the first rounds");

    served.stop.cancel();
    let (done, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        served.reconciler.shut_down();
        done.send(()).unwrap();
    });
    ended.await.unwrap();
}
