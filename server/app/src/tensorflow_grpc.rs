//! TensorFlow Serving's gRPC services: predictions with TensorFlow's own tensors and examples, metadata, status, and
//! which models ought to serve.

mod classify;
mod reload;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use gristmill_engine::control::Control;
use gristmill_engine::engine::{Engine, VersionState};
use gristmill_engine::error::InferError;
use gristmill_engine::request::{self, ModelInfo, NamedTensor, Query, VersionSelector};
use gristmill_engine::tensor::TensorSpec;
use gristmill_proto::tensorflow::error::Code;
use gristmill_proto::tensorflow::serving as pb;
use gristmill_proto::tensorflow::serving::model_service_server::ModelService;
use gristmill_proto::tensorflow::serving::model_spec::VersionChoice;
use gristmill_proto::tensorflow::serving::model_version_status::State;
use gristmill_proto::tensorflow::serving::prediction_service_server::PredictionService;
use gristmill_proto::tensorflow::tensor_info::Encoding;
use gristmill_proto::tensorflow::{SignatureDef, TensorInfo, TensorShapeProto};
use prost::Message;
use prost_types::Any;
use tonic::{Request, Response, Status};

use crate::codec::proto::examples::decode_examples;
use crate::codec::proto::tensorflow::{data_type, decode_tensor, encode_tensor, shape_proto};
use crate::gateway::{Call, Gateway, check_carried};
use crate::oip_grpc::{deadline, end};
use crate::oip_http::Target;
use crate::status::grpc_status;
use crate::tensorflow_http::describe::entries;
use crate::tensorflow_http::{SIGNATURE, check_signature_name};
use crate::traces::Protocol;

/// Its name in messages.
const DIALECT: &str = "TensorFlow Serving's gRPC API";

/// The name of the metadata that there is.
const SIGNATURE_DEF: &str = "signature_def";
const SIGNATURE_DEF_TYPE: &str = "type.googleapis.com/tensorflow.serving.SignatureDefMap";

/// Both services on an engine.
#[derive(Clone)]
pub(crate) struct TensorFlowServing {
    pub(crate) gateway: Arc<Gateway>,
    /// `None` where nobody may change what is served.
    pub(crate) control: Option<Control>,
    /// Longest message in either direction.
    pub(crate) message_bytes_max: usize,
}

// === impl TensorFlowServing ===

impl TensorFlowServing {
    fn engine(&self) -> &Engine {
        self.gateway.engine()
    }

    async fn answer(
        &self,
        message: pb::PredictRequest,
        deadline: Option<Instant>,
        call: &mut Call<'_>,
    ) -> Result<pb::PredictResponse, InferError> {
        let target = read_spec(message.model_spec)?;
        let inputs = message.inputs.into_iter().map(|(name, tensor)| {
            let tensor = decode_tensor(&name, tensor, self.message_bytes_max)?;
            Ok(NamedTensor { name, tensor })
        });
        let query = Query {
            model: target.model,
            version: target.version,
            inputs: inputs.collect::<Result<_, InferError>>()?,
            outputs: message.output_filter,
            deadline,
            ..Query::default()
        };
        let response = call.infer(query).await?;
        check_carried(&response.model, DIALECT)?;
        let outputs = response.outputs.iter().map(|(index, tensor)| {
            (response.model.signature.outputs[*index].name.clone(), encode_tensor(tensor))
        });
        let answer = pb::PredictResponse {
            model_spec: Some(write_spec(&response.model)?),
            outputs: outputs.collect(),
        };
        self.bounded(answer)
    }

    /// The answer of `target` to examples.
    async fn ask(
        &self,
        target: &Target,
        input: Option<&pb::Input>,
        deadline: Option<Instant>,
        call: &mut Call<'_>,
    ) -> Result<request::Response, InferError> {
        let read = |model: &_| Ok((decode_examples(model, input, self.message_bytes_max)?, ()));
        let (response, ()) = call.ask(DIALECT, target, deadline, read).await?;
        Ok(response)
    }

    async fn classes(
        &self,
        message: pb::ClassificationRequest,
        deadline: Option<Instant>,
        call: &mut Call<'_>,
    ) -> Result<pb::ClassificationResponse, InferError> {
        let target = read_spec(message.model_spec)?;
        let response = self.ask(&target, message.input.as_ref(), deadline, call).await?;
        let result = Some(classify::classes(&response)?);
        self.bounded(pb::ClassificationResponse { model_spec: Some(write_spec(&response.model)?), result })
    }

    async fn values(
        &self,
        message: pb::RegressionRequest,
        deadline: Option<Instant>,
        call: &mut Call<'_>,
    ) -> Result<pb::RegressionResponse, InferError> {
        let target = read_spec(message.model_spec)?;
        let response = self.ask(&target, message.input.as_ref(), deadline, call).await?;
        let result = Some(classify::regressions(&response)?);
        self.bounded(pb::RegressionResponse { model_spec: Some(write_spec(&response.model)?), result })
    }

    /// All tasks are of one model, which runs once.
    async fn results(
        &self,
        message: pb::MultiInferenceRequest,
        deadline: Option<Instant>,
        call: &mut Call<'_>,
    ) -> Result<pb::MultiInferenceResponse, InferError> {
        let (target, methods) = classify::read_tasks(message.tasks)?;
        let response = self.ask(&target, message.input.as_ref(), deadline, call).await?;
        self.bounded(classify::results(&methods, &response)?)
    }

    fn bounded<M: Message>(&self, answer: M) -> Result<M, InferError> {
        let (length, limit) = (answer.encoded_len(), self.message_bytes_max);
        if length > limit {
            return Err(InferError::TooLarge(format!(
                "the response message has {length} bytes, the limit is {limit}: ask for fewer rows or outputs, or \
                 raise --grpc-message-bytes-max"
            )));
        }
        Ok(answer)
    }
}

/// The answer to a call, with what its client asked to be told beside it.
fn finish<M>(answer: Result<M, InferError>, call: &mut Call<'_>) -> Result<Response<M>, Status> {
    let mut result = answer.map(Response::new).map_err(grpc_status);
    end(call, result.as_ref().err());
    call.annotate(match &mut result {
        Ok(response) => response.metadata_mut().as_mut(),
        Err(status) => status.metadata_mut().as_mut(),
    });
    result
}

#[tonic::async_trait]
impl PredictionService for TensorFlowServing {
    async fn predict(
        &self,
        request: Request<pb::PredictRequest>,
    ) -> Result<Response<pb::PredictResponse>, Status> {
        let deadline = deadline(request.extensions());
        let (metadata, _extensions, message) = request.into_parts();
        let mut call = self.gateway.begin(metadata.as_ref(), Protocol::Grpc);
        let answer = self.answer(message, deadline, &mut call).await;
        finish(answer, &mut call)
    }

    async fn classify(
        &self,
        request: Request<pb::ClassificationRequest>,
    ) -> Result<Response<pb::ClassificationResponse>, Status> {
        let deadline = deadline(request.extensions());
        let (metadata, _extensions, message) = request.into_parts();
        let mut call = self.gateway.begin(metadata.as_ref(), Protocol::Grpc);
        let answer = self.classes(message, deadline, &mut call).await;
        finish(answer, &mut call)
    }

    async fn regress(
        &self,
        request: Request<pb::RegressionRequest>,
    ) -> Result<Response<pb::RegressionResponse>, Status> {
        let deadline = deadline(request.extensions());
        let (metadata, _extensions, message) = request.into_parts();
        let mut call = self.gateway.begin(metadata.as_ref(), Protocol::Grpc);
        let answer = self.values(message, deadline, &mut call).await;
        finish(answer, &mut call)
    }

    async fn multi_inference(
        &self,
        request: Request<pb::MultiInferenceRequest>,
    ) -> Result<Response<pb::MultiInferenceResponse>, Status> {
        let deadline = deadline(request.extensions());
        let (metadata, _extensions, message) = request.into_parts();
        let mut call = self.gateway.begin(metadata.as_ref(), Protocol::Grpc);
        let answer = self.results(message, deadline, &mut call).await;
        finish(answer, &mut call)
    }

    async fn get_model_metadata(
        &self,
        request: Request<pb::GetModelMetadataRequest>,
    ) -> Result<Response<pb::GetModelMetadataResponse>, Status> {
        let pb::GetModelMetadataRequest { model_spec, metadata_field } = request.into_inner();
        let answer = || {
            let target = read_spec(model_spec)?;
            if metadata_field.is_empty() || metadata_field.iter().any(|field| field != SIGNATURE_DEF) {
                return Err(InferError::InvalidInput(format!(
                    "metadata_field is {metadata_field:?}: expected [\"{SIGNATURE_DEF}\"], which is all that there is"
                )));
            }
            let model = self.engine().model(&target.model, &target.version)?;
            let signatures = pb::SignatureDefMap {
                signature_def: HashMap::from([(SIGNATURE.to_owned(), signature(&model))]),
            };
            let signatures =
                Any { type_url: SIGNATURE_DEF_TYPE.to_owned(), value: signatures.encode_to_vec() };
            Ok(pb::GetModelMetadataResponse {
                model_spec: Some(write_spec(&model)?),
                metadata: HashMap::from([(SIGNATURE_DEF.to_owned(), signatures)]),
            })
        };
        answer().map(Response::new).map_err(grpc_status)
    }
}

#[tonic::async_trait]
impl ModelService for TensorFlowServing {
    async fn get_model_status(
        &self,
        request: Request<pb::GetModelStatusRequest>,
    ) -> Result<Response<pb::GetModelStatusResponse>, Status> {
        let target = read_spec(request.into_inner().model_spec).map_err(grpc_status)?;
        let entries = entries(self.engine(), &target).map_err(grpc_status)?;
        let status = |entry: &gristmill_engine::engine::IndexEntry| {
            let (state, code) = match entry.state {
                VersionState::Loading => (State::Loading, Code::Ok),
                VersionState::Ready => (State::Available, Code::Ok),
                VersionState::Unavailable => (State::End, Code::Unavailable),
            };
            Ok(pb::ModelVersionStatus {
                version: write_version(&entry.model, entry.version)?,
                state: state.into(),
                status: Some(pb::StatusProto {
                    error_code: code.into(),
                    error_message: entry.reason.clone(),
                }),
            })
        };
        let model_version_status =
            entries.iter().map(status).collect::<Result<_, InferError>>().map_err(grpc_status)?;
        Ok(Response::new(pb::GetModelStatusResponse { model_version_status }))
    }

    async fn handle_reload_config_request(
        &self,
        request: Request<pb::ReloadConfigRequest>,
    ) -> Result<Response<pb::ReloadConfigResponse>, Status> {
        let config = request.into_inner().config;
        reload::reload(self.engine(), self.control.as_ref(), config).await.map_err(grpc_status)?;
        let done = pb::StatusProto { error_code: Code::Ok.into(), error_message: String::new() };
        Ok(Response::new(pb::ReloadConfigResponse { status: Some(done) }))
    }
}

fn read_spec(spec: Option<pb::ModelSpec>) -> Result<Target, InferError> {
    let spec = spec.filter(|spec| !spec.name.is_empty());
    let Some(pb::ModelSpec { name, signature_name, version_choice }) = spec else {
        return Err(InferError::InvalidInput("model_spec.name is missing: name a model".into()));
    };
    check_signature_name(&signature_name)?;
    let version = match version_choice {
        None => VersionSelector::Default,
        Some(VersionChoice::VersionLabel(label)) => VersionSelector::Label(label),
        Some(VersionChoice::Version(version)) => match u64::try_from(version) {
            Ok(version) => VersionSelector::Number(version),
            Err(_negative) => {
                return Err(InferError::InvalidInput(format!(
                    "model_spec.version is {version}: expected 0 or more"
                )));
            }
        },
    };
    Ok(Target { model: name, version })
}

fn write_spec(model: &ModelInfo) -> Result<pb::ModelSpec, InferError> {
    Ok(pb::ModelSpec {
        name: model.name.clone(),
        signature_name: SIGNATURE.to_owned(),
        version_choice: Some(VersionChoice::Version(write_version(&model.name, model.version)?)),
    })
}

/// # Errors
/// `InvalidInput` for a version that the message cannot carry.
fn write_version(model: &str, version: u64) -> Result<i64, InferError> {
    i64::try_from(version).map_err(|_beyond| {
        InferError::InvalidInput(format!(
            "version {version} of model '{model}' cannot be told in TensorFlow Serving's messages, which have INT64: \
             expected at most {}; ask by the Open Inference Protocol, or give the version a smaller number",
            i64::MAX
        ))
    })
}

fn signature(model: &ModelInfo) -> SignatureDef {
    let tensors = |specs: &[TensorSpec]| specs.iter().map(|spec| (spec.name.clone(), tensor(spec))).collect();
    SignatureDef {
        inputs: tensors(&model.signature.inputs),
        outputs: tensors(&model.signature.outputs),
        method_name: "tensorflow/serving/predict".to_owned(),
    }
}

fn tensor(spec: &TensorSpec) -> TensorInfo {
    let unknown = TensorShapeProto { unknown_rank: true, ..TensorShapeProto::default() };
    TensorInfo {
        dtype: data_type(spec.dtype).into(),
        tensor_shape: Some(spec.shape.as_ref().map_or(unknown, |_| shape_proto(spec.protocol_shape()))),
        encoding: Some(Encoding::Name(spec.name.clone())),
    }
}
