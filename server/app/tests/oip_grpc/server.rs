//! A real server on a port of its own over made-up models, a client of it, and calls of raw bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use gristmill::gateway::Gateway;
use gristmill::oip_grpc::{GrpcOptions, serve};
use gristmill_engine::engine::Engine;
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::{self, FakeBackend, Gate};
use gristmill_engine::tuning::Tuning;
use gristmill_proto::inference::ModelInferRequest;
use gristmill_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use gristmill_proto::inference::model_infer_request::InferInputTensor;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Arc<Engine>,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<std::io::Result<()>>,
    /// Ends its workers when it is dropped.
    _reconciler: Reconciler,
}

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

impl Server {
    pub(crate) async fn start(models: impl IntoIterator<Item = (&'static str, FakeBackend)>) -> Server {
        Server::start_with(models, GrpcOptions::default()).await
    }

    pub(crate) async fn start_with(
        models: impl IntoIterator<Item = (&'static str, FakeBackend)>,
        options: GrpcOptions,
    ) -> Server {
        let tuning =
            || Tuning { instances: Some(1), threads: Some(1), batch_rows_max: Some(8), ..Tuning::default() };
        let models = models.into_iter().map(|(name, backend)| (name, 1, backend, tuning()));
        Server::start_tuned(models, options).await
    }

    pub(crate) async fn start_tuned(
        models: impl IntoIterator<Item = (&'static str, u64, FakeBackend, Tuning)>,
        options: GrpcOptions,
    ) -> Server {
        Server::start_as(models, options, |gateway| gateway).await
    }

    /// With what else is done to the gateway.
    pub(crate) async fn start_as(
        models: impl IntoIterator<Item = (&'static str, u64, FakeBackend, Tuning)>,
        options: GrpcOptions,
        extend: impl FnOnce(Gateway) -> Gateway,
    ) -> Server {
        let (engine, reconciler) = testing::engine(models);
        let engine = Arc::new(engine);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let gateway = Arc::new(extend(Gateway::new(Arc::clone(&engine))));
        let served = tokio::spawn(serve(listener, gateway, None, options, stop.clone().cancelled_owned()));
        Server { address, engine, stop, served, _reconciler: reconciler }
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::new(self.channel().await)
    }

    /// Calls ModelInfer with `body` as it is and returns the response's headers and its status.
    pub(crate) async fn raw_call(
        &self,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (http::HeaderMap, Status) {
        self.raw_call_to("/inference.GRPCInferenceService/ModelInfer", headers, body).await
    }

    pub(crate) async fn raw_call_to(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (http::HeaderMap, Status) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("http://{}{path}", self.address);
        let mut request = http::Request::post(uri).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned();
        let status = Status::from_header_map(&head.headers)
            .or_else(|| Status::from_header_map(&trailers.unwrap_or_default()))
            .expect("every answer has a status");
        (head.headers, status)
    }
}

/// A frame of gRPC: not compressed, with a length that need not be true.
pub(crate) fn frame(length: u32, message: &[u8]) -> Vec<u8> {
    [&[0][..], &length.to_be_bytes(), message].concat()
}

pub(crate) fn text(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

pub(crate) fn raw(model: &str, rows: &[[f32; 2]]) -> ModelInferRequest {
    let data: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![rows.len() as i64, 2],
            ..Default::default()
        }],
        raw_input_contents: vec![data.into()],
        ..Default::default()
    }
}

pub(crate) fn echo() -> FakeBackend {
    FakeBackend::identity(DType::Fp32, &[2])
}

/// An identity model whose runs wait while `gate` is closed.
pub(crate) fn gated(gate: &Arc<Gate>) -> FakeBackend {
    let gate = Arc::clone(gate);
    FakeBackend::checked_identity(DType::Fp32, &[2], move |_| {
        gate.pass();
        Ok(())
    })
}
