//! Limits of tenants over gRPC and HTTP together, and what is counted of them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use gristmill::gateway::Gateway;
use gristmill::limits::Limits;
use gristmill::oip_grpc::{self, GrpcOptions};
use gristmill::oip_http::{self, HttpOptions};
use gristmill::telemetry::Telemetry;
use gristmill_engine::engine::Engine;
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::{self, FakeBackend, Gate};
use gristmill_engine::tuning::Tuning;
use gristmill_proto::inference::ModelInferRequest;
use gristmill_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use gristmill_proto::inference::model_infer_request::InferInputTensor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code, Status};

/// So slow that a token never comes back while a test runs.
const FILE: &str = r#"
    header = "x-tenant"
    [default]
    requests_per_second = 0.001
    burst = 1
    [tenants.acme]
    requests_per_second = 0.001
    burst = 3
    [tenants.narrow]
    concurrent_max = 1
"#;

struct Server {
    grpc: SocketAddr,
    http: SocketAddr,
    engine: Arc<Engine>,
    gate: Arc<Gate>,
    _reconciler: Reconciler,
}

impl Server {
    async fn start() -> Server {
        let gate = Arc::new(Gate::default());
        let passed = Arc::clone(&gate);
        let backend = FakeBackend::checked_identity(DType::Fp32, &[1], move |_| {
            passed.pass();
            Ok(())
        });
        let tuning = Tuning { instances: Some(1), batch_rows_max: Some(1), ..Tuning::default() };
        let (engine, reconciler) = testing::engine([("m", 1, backend, tuning)]);
        let engine = Arc::new(engine);
        let limits = Limits::parse(FILE, Instant::now()).unwrap();
        let gateway = Arc::new(Gateway::new(Arc::clone(&engine)).with_limits(limits));
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (grpc_address, http_address) = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
        let router = oip_http::router(Arc::clone(&gateway), None, HttpOptions::default());
        tokio::spawn(oip_http::serve(http, router, std::future::pending()));
        tokio::spawn(oip_grpc::serve(grpc, gateway, None, GrpcOptions::default(), std::future::pending()));
        Server { grpc: grpc_address, http: http_address, engine, gate, _reconciler: reconciler }
    }

    async fn grpc(&self, tenant: &str) -> Result<(), Status> {
        let mut client = GrpcInferenceServiceClient::connect(format!("http://{}", self.grpc)).await.unwrap();
        let mut request = tonic::Request::new(ModelInferRequest {
            model_name: "m".into(),
            inputs: vec![InferInputTensor {
                name: "x".into(),
                datatype: "FP32".into(),
                shape: vec![1, 1],
                ..Default::default()
            }],
            raw_input_contents: vec![vec![0; 4].into()],
            ..Default::default()
        });
        request.metadata_mut().insert("x-tenant", tenant.parse().unwrap());
        client.model_infer(request).await.map(drop)
    }

    /// The whole response.
    async fn http(&self, tenant: Option<&str>) -> String {
        let body = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1.0]}]}"#;
        let name = tenant.map(|tenant| format!("x-tenant: {tenant}\r\n")).unwrap_or_default();
        let request = format!(
            "POST /v2/models/m/infer HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{name}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_limited_over_both_protocols_together() {
    let telemetry = Telemetry::install("a fake runtime").unwrap();
    let server = Server::start().await;

    // Three tokens, whichever way they are spent.
    server.grpc("acme").await.unwrap();
    assert!(server.http(Some("acme")).await.starts_with("HTTP/1.1 200"));
    server.grpc("acme").await.unwrap();
    let status = server.grpc("acme").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("tenant 'acme' has used up its rate of requests: retry in "));
    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
    let refused = server.http(Some("acme")).await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("\r\nretry-after: 1000\r\n"), "{refused}");

    // Others have their own, and those who name nobody are one.
    server.grpc("somebody").await.unwrap();
    server.grpc("somebody").await.unwrap_err();
    server.grpc("somebody else").await.unwrap();
    assert!(server.http(None).await.starts_with("HTTP/1.1 200"));
    assert!(server.http(None).await.starts_with("HTTP/1.1 429"));

    // One open request at a time, until it is answered.
    server.gate.close();
    let held = server.grpc("narrow");
    let probe = async {
        let gate = Arc::clone(&server.gate);
        let (done, waited) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            gate.wait_for(1);
            done.send(()).unwrap();
        });
        waited.await.unwrap();
        let refused = server.http(Some("narrow")).await;
        assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
        assert!(refused.contains("has 1 open requests, which is its limit"), "{refused}");
        server.gate.open();
    };
    let (held, ()) = tokio::join!(held, probe);
    held.unwrap();
    server.grpc("narrow").await.unwrap();

    let text = telemetry.text(&server.engine, Instant::now());
    let counted = |tenant: &str, outcome: &str| {
        let name = format!("gristmill_tenant_requests_total{{tenant=\"{tenant}\",outcome=\"{outcome}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(name.as_str()));
        line.unwrap_or_else(|| panic!("{name}")).parse::<u64>().unwrap()
    };
    assert_eq!((counted("acme", "admitted"), counted("acme", "rate")), (3, 2));
    assert_eq!((counted("narrow", "admitted"), counted("narrow", "concurrency")), (2, 1));
    assert_eq!((counted("other", "admitted"), counted("other", "rate")), (3, 2));
    assert!(!text.contains("somebody"), "names of clients' choice are not labels");
    let slo = server.engine.attainment("m").unwrap();
    assert_eq!(slo.windows[0].tally.bad, 0, "a tenant beyond its limit is not the model's fault");
}
