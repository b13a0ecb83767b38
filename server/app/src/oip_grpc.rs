//! The gRPC front door: the Open Inference Protocol v2 with Triton's extensions, health and reflection.

mod connection;
pub(crate) mod describe;
mod edge;
mod health;
mod repository;
mod serve;
mod settings;
mod shared_memory;
mod stream;
mod unary;

use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::BoxStream;
use gristmill_engine::control::Control;
use gristmill_engine::engine::{Engine, Submitted};
use gristmill_engine::error::InferError;
use gristmill_engine::request::{Response as EngineResponse, VersionSelector};
use gristmill_proto::inference as pb;
use gristmill_proto::inference::grpc_inference_service_server::GrpcInferenceService;
use http::{Extensions, HeaderMap};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::codec::classification::{WantedClasses, classify};
use crate::codec::proto::wire::{self, Encoded};
use crate::codec::proto::{self, Form, InferCall};
use crate::gateway::{Call, Gateway};
use crate::model_sources::ModelSources;
use crate::repository_orders;
use crate::shared_memory::{PlacedOutput, Reach, write_outputs};
use crate::status::{bounded_status, grpc_status};
use crate::traces::{Failure, Protocol};

pub(crate) use self::edge::deadline;
pub use self::serve::serve;
pub(crate) use self::stream::in_order;

/// What an operator may set about the gRPC door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcOptions {
    /// Longest message in either direction, uncompressed, without its five-byte frame header.
    pub message_bytes_max: usize,
    /// From where TorchServe's management API may register models, beside the repository.
    pub model_sources: ModelSources,
}

impl Default for GrpcOptions {
    fn default() -> GrpcOptions {
        GrpcOptions { message_bytes_max: 64 << 20, model_sources: ModelSources::default() }
    }
}

/// The inference service on an engine.
#[derive(Clone)]
struct Inference {
    gateway: Arc<Gateway>,
    engine: Arc<Engine>,
    /// `None` where nobody may change what is served.
    control: Option<Control>,
    options: GrpcOptions,
    /// Cancelled when the server has stopped accepting: streams end after what they have read.
    stopping: CancellationToken,
}

/// A message that was submitted, and what is to become of its answer.
struct Pending {
    submitted: Submitted,
    id: String,
    form: Form,
    classes: Vec<WantedClasses>,
    placed: Vec<PlacedOutput>,
}

/// Makes the message of an answer.
type Write<T> = fn(&Inference, EngineResponse, &mut Pending) -> Result<T, InferError>;

// === impl Inference ===

impl Inference {
    /// Submits what a message asks for, to be answered by `deadline` or as the message's own `timeout` says.
    fn submit(
        &self,
        message: pb::ModelInferRequest,
        deadline: Option<Instant>,
        call: &mut Call<'_>,
    ) -> Result<Pending, InferError> {
        let bytes_max = self.options.message_bytes_max;
        let mut reach = Reach::new(self.gateway.shared_memory(), bytes_max, "--grpc-message-bytes-max");
        let mut asked = proto::decode_within(message, &mut reach)?;
        let mut query = std::mem::take(&mut asked.query);
        query.deadline = deadline;
        query.timeout = asked.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let submitted = call.submit(query, &asked)?;
        let InferCall { id, form, classes, placed, .. } = asked;
        Ok(Pending { submitted, id, form, classes, placed })
    }

    /// What `write` makes of the answer. `pending` stays where it is, so that the future has no room for it again.
    async fn answer<T>(
        &self,
        pending: &mut Result<Pending, InferError>,
        call: &mut Call<'_>,
        write: Write<T>,
    ) -> Result<T, InferError> {
        let pending = pending.as_mut().map_err(|error| error.clone())?;
        let mut response = call.answered(&mut pending.submitted).await?;
        classify(&mut response, &pending.classes)?;
        write_outputs(&response, &pending.placed)?;
        write(self, response, pending)
    }

    /// Answers a call of one message.
    ///
    /// Submits it before it gives the future, which has no room for the message then: there is one in memory for each
    /// request in the server, and each is moved.
    fn infer<'a, T: 'a>(
        &'a self,
        headers: &'a HeaderMap,
        extensions: &Extensions,
        message: pb::ModelInferRequest,
        write: Write<T>,
    ) -> impl Future<Output = Result<Response<T>, Status>> {
        let mut call = self.gateway.begin(headers, Protocol::Grpc);
        let mut pending = self.submit(message, edge::deadline(extensions), &mut call);
        async move {
            let answer = self.answer(&mut pending, &mut call, write).await;
            let mut result = answer.map(Response::new).map_err(grpc_status);
            end(&mut call, result.as_ref().err());
            call.annotate(match &mut result {
                Ok(response) => response.metadata_mut().as_mut(),
                Err(status) => status.metadata_mut().as_mut(),
            });
            result
        }
    }

    /// An answer as its message.
    fn message(
        &self,
        response: EngineResponse,
        pending: &mut Pending,
    ) -> Result<pb::ModelInferResponse, InferError> {
        let id = std::mem::take(&mut pending.id);
        let answer = proto::encode_without(response, id, pending.form, &pending.placed);
        self.check_length(answer.encoded_len())?;
        Ok(answer)
    }

    /// The same as bytes, after the header of gRPC.
    fn encoded(&self, response: EngineResponse, pending: &mut Pending) -> Result<Encoded, InferError> {
        let id = std::mem::take(&mut pending.id);
        let answer = wire::encode(response, id, pending.form, &pending.placed, unary::prefix);
        self.check_length(answer.length)?;
        Ok(answer)
    }

    fn control(&self) -> Result<&Control, InferError> {
        self.control.as_ref().ok_or_else(repository_orders::nobody)
    }

    fn check_length(&self, length: usize) -> Result<(), InferError> {
        let limit = self.options.message_bytes_max;
        if length <= limit {
            return Ok(());
        }
        Err(InferError::TooLarge(format!(
            "the response message has {length} bytes, the limit is {limit}: \
             ask for fewer rows or outputs, or raise --grpc-message-bytes-max"
        )))
    }
}

/// Says how a call ended, and which codes are the server's own faults.
pub(crate) fn end(call: &mut Call<'_>, status: Option<&Status>) {
    let kind = status.map(|status| format!("{:?}", status.code()));
    let failure = status.zip(kind.as_deref()).map(|(status, kind)| Failure {
        kind,
        message: status.message(),
        is_servers: matches!(
            status.code(),
            Code::Unknown | Code::DeadlineExceeded | Code::Internal | Code::Unavailable | Code::DataLoss
        ),
    });
    call.end(failure.as_ref());
}

fn one_repository(name: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Ok(());
    }
    let text = format!("the server has one model repository: leave repository_name empty, got '{name}'");
    Err(bounded_status(Code::Unimplemented, text))
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    type ModelStreamInferStream = BoxStream<'static, Result<pb::ModelStreamInferResponse, Status>>;

    async fn server_live(
        &self,
        _request: Request<pb::ServerLiveRequest>,
    ) -> Result<Response<pb::ServerLiveResponse>, Status> {
        Ok(Response::new(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _request: Request<pb::ServerReadyRequest>,
    ) -> Result<Response<pb::ServerReadyResponse>, Status> {
        Ok(Response::new(pb::ServerReadyResponse { ready: self.engine.ready().ready }))
    }

    async fn model_ready(
        &self,
        request: Request<pb::ModelReadyRequest>,
    ) -> Result<Response<pb::ModelReadyResponse>, Status> {
        let pb::ModelReadyRequest { name, version } = request.into_inner();
        let version = VersionSelector::parse(&version).map_err(grpc_status)?;
        Ok(Response::new(pb::ModelReadyResponse { ready: self.engine.model(&name, &version).is_ok() }))
    }

    async fn server_metadata(
        &self,
        _request: Request<pb::ServerMetadataRequest>,
    ) -> Result<Response<pb::ServerMetadataResponse>, Status> {
        Ok(Response::new(describe::server(&self.gateway)))
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Result<Response<pb::ModelMetadataResponse>, Status> {
        let pb::ModelMetadataRequest { name, version } = request.into_inner();
        describe::metadata(&self.engine, &name, &version).map(Response::new).map_err(grpc_status)
    }

    async fn model_infer(
        &self,
        request: Request<pb::ModelInferRequest>,
    ) -> Result<Response<pb::ModelInferResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        self.infer(metadata.as_ref(), &extensions, message, Inference::message).await
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let deadline = edge::deadline(request.extensions());
        let (metadata, _extensions, requests) = request.into_parts();
        Ok(Response::new(stream::answers(self.clone(), requests, metadata.into_headers(), deadline)))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Result<Response<pb::ModelConfigResponse>, Status> {
        let pb::ModelConfigRequest { name, version } = request.into_inner();
        let config = describe::config(&self.engine, &name, &version).map_err(grpc_status)?;
        Ok(Response::new(pb::ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Result<Response<pb::ModelStatisticsResponse>, Status> {
        let pb::ModelStatisticsRequest { name, version } = request.into_inner();
        describe::statistics(&self.engine, &name, &version).map(Response::new).map_err(grpc_status)
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Result<Response<pb::RepositoryIndexResponse>, Status> {
        let pb::RepositoryIndexRequest { repository_name, ready } = request.into_inner();
        one_repository(&repository_name)?;
        Ok(Response::new(describe::index(&self.engine, ready)))
    }

    async fn repository_model_load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Result<Response<pb::RepositoryModelLoadResponse>, Status> {
        let request = request.into_inner();
        one_repository(&request.repository_name)?;
        let order = repository::read_load(request.parameters).map_err(grpc_status)?;
        let control = self.control().map_err(grpc_status)?;
        repository_orders::load(control, &request.model_name, order).await.map_err(grpc_status)?;
        Ok(Response::new(pb::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Result<Response<pb::RepositoryModelUnloadResponse>, Status> {
        let request = request.into_inner();
        one_repository(&request.repository_name)?;
        repository::check_unload(&request.parameters).map_err(grpc_status)?;
        let control = self.control().map_err(grpc_status)?;
        repository_orders::unload(control, &request.model_name).await.map_err(grpc_status)?;
        Ok(Response::new(pb::RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryStatusResponse>, Status> {
        shared_memory::status(&self.gateway, &request.into_inner().name).map(Response::new)
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryRegisterResponse>, Status> {
        shared_memory::register(&self.gateway, &request.into_inner()).map(Response::new)
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryUnregisterResponse>, Status> {
        shared_memory::unregister(&self.gateway, &request.into_inner().name).map(Response::new)
    }

    async fn cuda_shared_memory_status(
        &self,
        request: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryStatusResponse>, Status> {
        shared_memory::cuda_status(&self.gateway, &request.into_inner().name).map(Response::new)
    }

    async fn cuda_shared_memory_register(
        &self,
        request: Request<pb::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryRegisterResponse>, Status> {
        shared_memory::register_cuda(&self.gateway, &request.into_inner()).map(Response::new)
    }

    async fn cuda_shared_memory_unregister(
        &self,
        request: Request<pb::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryUnregisterResponse>, Status> {
        Ok(Response::new(shared_memory::unregister_cuda(&self.gateway, &request.into_inner().name)))
    }

    async fn trace_setting(
        &self,
        request: Request<pb::TraceSettingRequest>,
    ) -> Result<Response<pb::TraceSettingResponse>, Status> {
        settings::trace(&self.gateway, request.into_inner()).map(Response::new).map_err(grpc_status)
    }

    async fn log_settings(
        &self,
        request: Request<pb::LogSettingsRequest>,
    ) -> Result<Response<pb::LogSettingsResponse>, Status> {
        settings::log(&self.gateway, request.into_inner()).map(Response::new).map_err(grpc_status)
    }
}

#[cfg(test)]
mod tests {
    use gristmill_engine::reconcile::Options;

    use super::*;

    /// There is one such future for each request in the server.
    #[test]
    fn a_request_that_waits_has_no_room_for_its_message() {
        let (engine, _reconciler) = Engine::new(true, Options::default());
        let engine = Arc::new(engine);
        let gateway = Arc::new(Gateway::new(Arc::clone(&engine)));
        let options = GrpcOptions::default();
        let inference =
            Inference { gateway, engine, control: None, options, stopping: CancellationToken::new() };
        let (headers, extensions) = (HeaderMap::new(), Extensions::new());
        let message = pb::ModelInferRequest::default();
        let waiting = inference.infer(&headers, &extensions, message, Inference::encoded);
        let bytes = size_of_val(&waiting);
        assert!(bytes <= 1024, "{bytes} bytes");
    }
}
