//! The gRPC listener: connections, the HTTP/2 settings that matter to tensors, and an orderly end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::control::Control;
use gristmill_proto::admin::admin_server::AdminServer;
use gristmill_proto::admin::experiments_server::ExperimentsServer;
use gristmill_proto::admin::feedback_server::FeedbackServer;
use gristmill_proto::admin::latency_server::LatencyServer;
use gristmill_proto::admin::routes_server::RoutesServer;
use gristmill_proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use gristmill_proto::tensorflow::serving::model_service_server::ModelServiceServer;
use gristmill_proto::tensorflow::serving::prediction_service_server::PredictionServiceServer;
use gristmill_proto::torchserve::inference::inference_ap_is_service_server::InferenceApIsServiceServer;
use gristmill_proto::torchserve::management::management_ap_is_service_server::ManagementApIsServiceServer;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tracing::{debug, warn};

use super::connection::{AfterCalls, OpenCalls};
use super::edge::Edge;
use super::health::EngineHealth;
use super::{GrpcOptions, Inference};
use crate::admin::Admin;
use crate::admin::experiments::ExperimentsAdmin;
use crate::admin::routes::RoutesAdmin;
use crate::feedback::FeedbackService;
use crate::gateway::Gateway;
use crate::latency::Latency;
use crate::tensorflow_grpc::TensorFlowServing;
use crate::torchserve_grpc::TorchServe;
use crate::torchserve_management::Management;

/// Calls that one connection may have open at the same time; more wait at the client.
const CONNECTION_CALLS_MAX: u32 = 1024;
/// Bytes of one call that may be on the way before they are read: a batch of images fits.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all calls of a connection together; bounds what a slow server holds for it.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest frame that a client may send. The protocol's default of 16 KiB cuts a tensor into dozens.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Answer bytes of one call that are held ready for a slow client.
const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Calls that a client may reset before they were looked at. Clients with short deadlines reset many
/// at once under load; more than this is taken for an attack (CVE-2023-44487) and closes the connection.
const PENDING_RESETS_MAX: usize = 1024;
/// A connection that was silent for this long is asked for a sign of life ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// ... and closed when it gives none within this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const COMPRESSIONS: [CompressionEncoding; 3] =
    [CompressionEncoding::Gzip, CompressionEncoding::Zstd, CompressionEncoding::Deflate];
/// Pause after the system refused a connection, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` completes, then stops accepting, tells every client to go elsewhere,
/// finishes the calls that have begun and returns.
///
/// # Errors
/// `listener` is not bound.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    control: Option<Control>,
    options: GrpcOptions,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    debug!(%address, "grpc listening");
    let stopping = CancellationToken::new();
    let edge = Arc::new(edge(gateway, control, options, &stopping));
    let http = http2_settings();
    let connections = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            stream = accept(&listener) => stream,
        };
        let (edge, http, watcher) = (Arc::clone(&edge), http.clone(), connections.watcher());
        let stopping = stopping.clone();
        tokio::spawn(async move {
            if !has_spoken(&stream, &stopping).await {
                return;
            }
            let calls = OpenCalls::default();
            let service = {
                let calls = calls.clone();
                service_fn(move |request| {
                    let open = calls.begin();
                    let answer = Arc::clone(&edge).call(request);
                    async move {
                        let _open = open;
                        answer.await
                    }
                })
            };
            let connection = pin!(watcher.watch(http.serve_connection(TokioIo::new(stream), service)));
            if let Err(error) = AfterCalls::new(connection, calls).await {
                debug!(%error, "grpc connection ended");
            }
        });
    }
    drop(listener);
    stopping.cancel();
    connections.shutdown().await;
    Ok(())
}

fn edge(
    gateway: Arc<Gateway>,
    control: Option<Control>,
    options: GrpcOptions,
    stopping: &CancellationToken,
) -> Edge {
    let engine = Arc::clone(gateway.engine());
    let health = EngineHealth { engine: Arc::clone(&engine), stopping: stopping.clone() };
    let admin = Admin::new(Arc::clone(&engine), control.clone());
    let routes = RoutesAdmin::new(Arc::clone(&engine), control.clone());
    let experiments = ExperimentsAdmin { feedback: gateway.feedback().cloned() };
    let feedback = FeedbackService { feedback: gateway.feedback().cloned() };
    let latency = Latency { engine: Arc::clone(&engine) };
    let tensorflow = TensorFlowServing {
        gateway: Arc::clone(&gateway),
        control: control.clone(),
        message_bytes_max: options.message_bytes_max,
    };
    let torchserve = TorchServe {
        gateway: Arc::clone(&gateway),
        message_bytes_max: options.message_bytes_max,
        stopping: stopping.clone(),
    };
    let mut torchserve = InferenceApIsServiceServer::new(torchserve)
        .max_decoding_message_size(options.message_bytes_max)
        .max_encoding_message_size(usize::MAX);
    for encoding in COMPRESSIONS {
        torchserve = torchserve.accept_compressed(encoding).send_compressed(encoding);
    }
    let management = Management::new(Arc::clone(&engine), control.clone(), options.model_sources.clone());
    let mut predictions = PredictionServiceServer::new(tensorflow.clone())
        .max_decoding_message_size(options.message_bytes_max)
        .max_encoding_message_size(usize::MAX);
    for encoding in COMPRESSIONS {
        predictions = predictions.accept_compressed(encoding).send_compressed(encoding);
    }
    let message_bytes_max = options.message_bytes_max;
    let handler = Arc::new(Inference { gateway, engine, control, options, stopping: stopping.clone() });
    let mut inference = GrpcInferenceServiceServer::from_arc(Arc::clone(&handler))
        .max_decoding_message_size(message_bytes_max)
        // The handlers check their answers themselves, with a better text.
        .max_encoding_message_size(usize::MAX);
    for encoding in COMPRESSIONS {
        inference = inference.accept_compressed(encoding).send_compressed(encoding);
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(gristmill_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let bug = "the descriptors were written by our own build; this is a bug";
    let others = Routes::new(HealthServer::new(health))
        .add_service(AdminServer::new(admin))
        .add_service(RoutesServer::new(routes))
        .add_service(ExperimentsServer::new(experiments))
        .add_service(FeedbackServer::new(feedback))
        .add_service(LatencyServer::new(latency))
        .add_service(predictions)
        .add_service(ModelServiceServer::new(tensorflow))
        .add_service(torchserve)
        .add_service(ManagementApIsServiceServer::new(management))
        .add_service(reflection().build_v1().expect(bug))
        .add_service(reflection().build_v1alpha().expect(bug));
    Edge { handler, inference, others: others.prepare(), message_bytes_max }
}

fn http2_settings() -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .adaptive_window(false)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(CONNECTION_CALLS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(PENDING_RESETS_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .auto_date_header(false);
    http
}

/// Waits for a client's first byte. One that connects and says nothing would outlast the end of the
/// server: HTTP/2 has no way to send it away before it has greeted.
async fn has_spoken(stream: &TcpStream, stopping: &CancellationToken) -> bool {
    let mut first = [0];
    tokio::select! {
        () = stopping.cancelled() => false,
        peeked = tokio::time::timeout(KEEPALIVE_TIMEOUT, stream.peek(&mut first)) => matches!(peeked, Ok(Ok(1))),
    }
}

/// The next connection, with small writes sent at once.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "grpc connection was gone when it was accepted");
                    continue;
                }
                return stream;
            }
            Err(error) => {
                warn!(%error, "cannot accept a grpc connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
