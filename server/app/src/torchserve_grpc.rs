//! TorchServe's gRPC inference service: predictions alone and in streams, of the bodies that its REST API takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use gristmill_engine::error::InferError;
use gristmill_engine::request::VersionSelector;
use gristmill_proto::rpc;
use gristmill_proto::torchserve::inference as pb;
use gristmill_proto::torchserve::inference::inference_ap_is_service_server::InferenceApIsService;
use http::HeaderMap;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::codec::multipart::Field;
use crate::gateway::{Call, Gateway, Target};
use crate::handler::Handler;
use crate::oip_grpc::{deadline, end, in_order};
use crate::status::{bounded_status, grpc_status};
use crate::torchserve_http::{decode_fields, write_prediction};
use crate::traces::Protocol;

/// Its name in messages.
const DIALECT: &str = "TorchServe's inference API";

/// TorchServe answers INTERNAL to these; the class of its exception, in the last line, says which it was.
const MODEL_NOT_FOUND: &str = "org.pytorch.serve.archive.model.ModelNotFoundException";
const VERSION_NOT_FOUND: &str = "org.pytorch.serve.archive.model.ModelVersionNotFoundException";
const BAD_REQUEST: &str = "BadRequestException.()";

/// The service on an engine.
#[derive(Clone)]
pub(crate) struct TorchServe {
    pub(crate) gateway: Arc<Gateway>,
    /// Longest message in either direction.
    pub(crate) message_bytes_max: usize,
    /// Cancelled when the server has stopped accepting: streams end after what they have read.
    pub(crate) stopping: CancellationToken,
}

// === impl TorchServe ===

impl TorchServe {
    async fn answer(
        &self,
        message: pb::PredictionsRequest,
        deadline: Option<Instant>,
        call: &mut Call<'_>,
    ) -> Result<pb::PredictionResponse, Status> {
        let pb::PredictionsRequest { model_name, model_version, input, sequence_id } = message;
        if model_name.is_empty() {
            return Err(internal("model_name is missing: name a model", BAD_REQUEST));
        }
        let version =
            VersionSelector::parse(&model_version).map_err(|error| self.status(error, &model_name))?;
        let target = Target { model: model_name, version };
        let prediction = self.predict(&target, fields(input), deadline, call).await;
        let prediction = prediction.map_err(|error| self.status(error, &target.model))?;
        Ok(pb::PredictionResponse { prediction, sequence_id, status: None })
    }

    async fn predict(
        &self,
        target: &Target,
        fields: Vec<Field>,
        deadline: Option<Instant>,
        call: &mut Call<'_>,
    ) -> Result<Bytes, InferError> {
        let read = |model: &_| decode_fields(model, Handler::of(model), &fields);
        let (response, form) = call.ask(DIALECT, target, deadline, read).await?;
        let prediction = write_prediction(&response, Handler::of(&response.model), form)?;
        let (length, limit) = (prediction.len(), self.message_bytes_max);
        if length > limit {
            return Err(InferError::TooLarge(format!(
                "the prediction has {length} bytes, the limit is {limit}: ask for fewer rows, or raise \
                 --grpc-message-bytes-max"
            )));
        }
        Ok(prediction.into())
    }

    fn status(&self, error: InferError, model: &str) -> Status {
        match error {
            InferError::NotFound(text) => {
                let lacks_version = self.gateway.engine().model(model, &VersionSelector::Default).is_ok();
                internal(&text, if lacks_version { VERSION_NOT_FOUND } else { MODEL_NOT_FOUND })
            }
            error => grpc_status(error),
        }
    }

    /// One request of a call that has no other.
    async fn answer_alone(
        &self,
        request: Request<pb::PredictionsRequest>,
    ) -> Result<Response<pb::PredictionResponse>, Status> {
        let deadline = deadline(request.extensions());
        let (metadata, _extensions, message) = request.into_parts();
        let mut call = self.gateway.begin(metadata.as_ref(), Protocol::Grpc);
        let mut result = self.answer(message, deadline, &mut call).await.map(Response::new);
        end(&mut call, result.as_ref().err());
        call.annotate(match &mut result {
            Ok(response) => response.metadata_mut().as_mut(),
            Err(status) => status.metadata_mut().as_mut(),
        });
        result
    }

    /// One request of `StreamPredictions2`, whose errors are answers too.
    async fn answer_in_stream(
        &self,
        message: pb::PredictionsRequest,
        headers: &HeaderMap,
        deadline: Option<Instant>,
    ) -> pb::PredictionResponse {
        let sequence_id = message.sequence_id.clone();
        let mut call = self.gateway.begin(headers, Protocol::Grpc);
        let result = match sequence_id.as_deref().map(str::trim) {
            None | Some("") => Err(internal("sequence_id is missing: name a sequence", BAD_REQUEST)),
            Some(_) => self.answer(message, deadline, &mut call).await,
        };
        end(&mut call, result.as_ref().err());
        result.unwrap_or_else(|status| pb::PredictionResponse {
            prediction: Bytes::new(),
            sequence_id,
            status: Some(in_message(&status)),
        })
    }
}

/// The fields of a form, in an order that is the same each time.
fn fields(input: HashMap<String, Bytes>) -> Vec<Field> {
    let field = |(name, content)| Field { name, content_type: None, content };
    let mut fields: Vec<Field> = input.into_iter().map(field).collect();
    fields.sort_by(|one, other| one.name.cmp(&other.name));
    fields
}

fn internal(text: &str, class: &str) -> Status {
    bounded_status(Code::Internal, format!("{text}\n{class}"))
}

/// The status as a message; what it has for `grpc-status-details-bin` is such a message already.
fn in_message(status: &Status) -> rpc::Status {
    let plain = || rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    };
    match status.details() {
        [] => plain(),
        details => rpc::Status::decode(details).unwrap_or_else(|_| plain()),
    }
}

#[tonic::async_trait]
impl InferenceApIsService for TorchServe {
    type StreamPredictionsStream = BoxStream<'static, Result<pb::PredictionResponse, Status>>;
    type StreamPredictions2Stream = BoxStream<'static, Result<pb::PredictionResponse, Status>>;

    async fn ping(&self, _request: Request<()>) -> Result<Response<pb::TorchServeHealthResponse>, Status> {
        let status = if self.gateway.engine().ready().ready { "Healthy" } else { "Unhealthy" };
        let health = format!("{{\n  \"status\": \"{status}\"\n}}\n");
        Ok(Response::new(pb::TorchServeHealthResponse { health }))
    }

    async fn predictions(
        &self,
        request: Request<pb::PredictionsRequest>,
    ) -> Result<Response<pb::PredictionResponse>, Status> {
        self.answer_alone(request).await
    }

    /// The models here answer once, and so does the stream.
    async fn stream_predictions(
        &self,
        request: Request<pb::PredictionsRequest>,
    ) -> Result<Response<Self::StreamPredictionsStream>, Status> {
        let response = self.answer_alone(request).await?;
        Ok(response.map(|answer| stream::once(async move { Ok(answer) }).boxed()))
    }

    /// Answers in the order of the requests, which are worked on side by side.
    async fn stream_predictions2(
        &self,
        request: Request<Streaming<pb::PredictionsRequest>>,
    ) -> Result<Response<Self::StreamPredictions2Stream>, Status> {
        let deadline = deadline(request.extensions());
        let (metadata, _extensions, requests) = request.into_parts();
        let headers = Arc::new(metadata.into_headers());
        let service = self.clone();
        let answers = in_order(requests, self.stopping.clone(), self.message_bytes_max, move |request| {
            let (service, headers) = (service.clone(), Arc::clone(&headers));
            async move { service.answer_in_stream(request, &headers, deadline).await }
        });
        Ok(Response::new(answers))
    }
}
