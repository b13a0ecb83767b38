//! Hides gRPC: connections that tonic's client runs on, and requests whose bytes are ready-made.
//!
//! Requests go through tonic with a codec that passes encoded bytes through, and straight onto an HTTP/2
//! connection: no channel task in between, no message built or parsed per request.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use gristmill_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use gristmill_proto::inference::{ModelMetadataRequest, ModelMetadataResponse};
use http::Uri;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request, Status};

use crate::body::Payload;
use crate::error::{Error, Result};
use crate::model::{InputMetadata, Metadata};
use crate::record::{Answer, Outcome};
use crate::transmit::{ModelName, Transmit, give_up};

const MODEL_INFER: PathAndQuery = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
/// Answers of up to 64 MiB, Gristmill's own default limit.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Large enough that flow control never holds up a small answer.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// A few connections to one server, used in turn.
#[derive(Clone)]
pub(crate) struct GrpcSender {
    lines: Arc<[Line]>,
    next: Arc<AtomicUsize>,
}

/// Metadata sent with each request, and the timeout in it.
#[derive(Clone)]
pub(crate) struct GrpcHead {
    metadata: MetadataMap,
    timeout: Option<Duration>,
}

/// One HTTP/2 connection, made again when it was lost.
#[derive(Clone)]
struct Line {
    address: Arc<str>,
    origin: Uri,
    stream: Arc<Mutex<Option<http2::SendRequest<Body>>>>,
    connecting: Arc<tokio::sync::Mutex<()>>,
}

/// Lets tonic's client call hyper's connection.
struct Connection(http2::SendRequest<Body>);

/// Passes encoded messages through; answers are counted, not parsed.
#[derive(Clone, Copy, Default)]
struct Passthrough;

// === impl GrpcSender ===

impl GrpcSender {
    /// Connects `connections` times to `address` (`host:port`).
    pub(crate) async fn connect(address: &str, connections: usize) -> Result<GrpcSender> {
        let origin = Uri::builder().scheme("http").authority(address).path_and_query("/").build();
        let origin = origin.map_err(|error| Error::Connect {
            address: address.to_owned(),
            protocol: "gRPC",
            why: format!("expected host:port: {error}"),
        })?;
        let mut lines = Vec::new();
        for _ in 0..connections {
            let line = Line {
                address: address.into(),
                origin: origin.clone(),
                stream: Arc::default(),
                connecting: Arc::default(),
            };
            line.open().await.map_err(|why| Error::Connect {
                address: address.to_owned(),
                protocol: "gRPC",
                why,
            })?;
            lines.push(line);
        }
        Ok(GrpcSender { lines: lines.into(), next: Arc::default() })
    }

    fn line(&self) -> &Line {
        &self.lines[self.next.fetch_add(1, Ordering::Relaxed) % self.lines.len()]
    }
}

impl Transmit for GrpcSender {
    type Head = GrpcHead;

    fn head(&self, _model: &ModelName, timeout: Option<Duration>) -> Result<GrpcHead> {
        let mut request = Request::new(());
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        Ok(GrpcHead { metadata: request.into_parts().0, timeout })
    }

    async fn metadata(&self, model: &ModelName) -> Result<Metadata> {
        let line = self.line();
        let error = |why: String| Error::Metadata {
            model: model.name.clone(),
            address: line.address.to_string(),
            why,
        };
        let stream = line.open().await.map_err(error)?;
        let request = ModelMetadataRequest { name: model.name.clone(), version: model.version.clone() };
        let response = GrpcInferenceServiceClient::with_origin(Connection(stream), line.origin.clone())
            .model_metadata(request)
            .await
            .map_err(|status| error(format!("{}: {}", status.code(), status.message())))?;
        Ok(metadata(response.into_inner()))
    }

    async fn transmit(&self, head: &GrpcHead, payload: &Payload) -> Answer {
        give_up(head.timeout, self.line().infer(head, payload.body.clone())).await
    }
}

fn metadata(response: ModelMetadataResponse) -> Metadata {
    let inputs = response.inputs.into_iter();
    Metadata {
        name: response.name,
        inputs: inputs
            .map(|input| InputMetadata { name: input.name, datatype: input.datatype, shape: input.shape })
            .collect(),
    }
}

// === impl Line ===

impl Line {
    async fn infer(&self, head: &GrpcHead, message: Bytes) -> Answer {
        let stream = match self.current() {
            Some(stream) => stream,
            None => match self.open().await {
                Ok(stream) => stream,
                Err(why) => return Answer::failed(Outcome::Transport, why),
            },
        };
        let request = Request::from_parts(head.metadata.clone(), Extensions::default(), message);
        let mut client = Grpc::with_origin(Connection(stream), self.origin.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        match client.unary(request, MODEL_INFER, Passthrough).await {
            Ok(_response) => Answer::OK,
            Err(status) => Answer::failed(outcome(&status), text(&status)),
        }
    }

    fn current(&self) -> Option<http2::SendRequest<Body>> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.as_ref().filter(|stream| !stream.is_closed()).cloned()
    }

    /// The connection, made first where there is none; those who ask meanwhile wait for the same one.
    async fn open(&self) -> Result<http2::SendRequest<Body>, String> {
        let _connecting = self.connecting.lock().await;
        if let Some(stream) = self.current() {
            return Ok(stream);
        }
        let socket = TcpStream::connect(&*self.address).await.map_err(|error| error.to_string())?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let (stream, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|error| error.to_string())?;
        // The requests in flight report how the connection ended, so its own result says nothing more.
        tokio::spawn(async move { drop(connection.await) });
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream.clone());
        Ok(stream)
    }
}

fn outcome(status: &Status) -> Outcome {
    if std::error::Error::source(status).is_some() {
        return Outcome::Transport;
    }
    match status.code() {
        Code::Ok => Outcome::Ok,
        Code::ResourceExhausted => Outcome::Overloaded,
        // tonic servers report an elapsed `grpc-timeout` as CANCELLED unless their service answers first.
        Code::DeadlineExceeded | Code::Cancelled => Outcome::Deadline,
        Code::Unavailable => Outcome::Unavailable,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented => Outcome::Invalid,
        Code::Unknown | Code::Aborted | Code::Internal | Code::DataLoss => Outcome::Internal,
    }
}

fn text(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => format!("{source}"),
        None => format!("{}: {}", status.code(), status.message()),
    }
}

// === impl Connection ===

impl GrpcService<Body> for Connection {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<http::Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        // The connection queues what the server's limit of streams does not let out yet.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

// === impl Passthrough ===

impl Codec for Passthrough {
    type Encode = Bytes;
    type Decode = usize;
    type Encoder = Passthrough;
    type Decoder = Passthrough;

    fn encoder(&mut self) -> Passthrough {
        Passthrough
    }

    fn decoder(&mut self) -> Passthrough {
        Passthrough
    }
}

impl Encoder for Passthrough {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Passthrough {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let length = buffer.remaining();
        buffer.advance(length);
        Ok(Some(length))
    }
}
