//! A server for the load generator to talk to: gRPC and HTTP on ports of the system's choice, answers by
//! the name of the model, and a count of what was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use gristmill_proto::inference as oip;
use oip::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use oip::model_metadata_response::TensorMetadata;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

/// The answers of model `grumpy`, in turn, after a first right one for the generator's proof.
const GRUMPY: [Code; 7] = [
    Code::Ok,
    Code::ResourceExhausted,
    Code::DeadlineExceeded,
    Code::Unavailable,
    Code::InvalidArgument,
    Code::Internal,
    Code::Ok,
];

/// A running stub; it lives as long as the test's runtime.
pub(crate) struct Stub {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) seen: Arc<Seen>,
}

#[derive(Default)]
pub(crate) struct Seen {
    /// Requests by model.
    requests: Mutex<BTreeMap<String, usize>>,
    /// Distinct request bodies by model.
    bodies: Mutex<BTreeMap<String, BTreeSet<Vec<u8>>>>,
    /// Timeouts that requests carried.
    timeouts: Mutex<Vec<String>>,
    /// Requests in all.
    total: watch::Sender<usize>,
}

#[derive(Clone)]
struct Service(Arc<Seen>);

// === impl Stub ===

impl Stub {
    pub(crate) async fn start() -> Stub {
        let seen = Arc::new(Seen::default());
        let service = Service(Arc::clone(&seen));
        let grpc_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stub = Stub {
            grpc: grpc_listener.local_addr().unwrap(),
            http: http_listener.local_addr().unwrap(),
            seen,
        };
        let grpc = GrpcInferenceServiceServer::new(service.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(grpc)
                .serve_with_incoming(TcpListenerStream::new(grpc_listener)),
        );
        let router = Router::new()
            .route("/v2/models/{model}", get(http_metadata))
            .route("/v2/models/{model}/infer", post(http_infer))
            .route("/predict/{model}", post(http_predict))
            .with_state(service);
        tokio::spawn(async move { axum::serve(http_listener, router).await });
        stub
    }
}

// === impl Seen ===

impl Seen {
    pub(crate) fn requests(&self, model: &str) -> usize {
        self.requests.lock().unwrap().get(model).copied().unwrap_or(0)
    }

    pub(crate) fn distinct_bodies(&self, model: &str) -> usize {
        self.bodies.lock().unwrap().get(model).map_or(0, |bodies| bodies.len())
    }

    pub(crate) fn timeouts(&self) -> Vec<String> {
        self.timeouts.lock().unwrap().clone()
    }

    /// Waits until `total` requests have come.
    pub(crate) async fn wait_for(&self, total: usize) {
        self.total.subscribe().wait_for(|seen| *seen >= total).await.unwrap();
    }

    fn count(&self, model: &str, body: &[u8]) -> usize {
        self.bodies.lock().unwrap().entry(model.to_owned()).or_default().insert(body.to_vec());
        self.total.send_modify(|total| *total += 1);
        let mut requests = self.requests.lock().unwrap();
        let count = requests.entry(model.to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}

// === impl Service ===

impl Service {
    /// The status with which the `index`-th request to `model` ends.
    async fn judge(&self, model: &str, index: usize) -> Result<(), Status> {
        let code = match model {
            "echo" | "twin" => Code::Ok,
            "grumpy" => GRUMPY[index % GRUMPY.len()],
            "stuck" if index > 0 => std::future::pending().await,
            "stuck" => Code::Ok,
            _ => Code::NotFound,
        };
        match code {
            Code::Ok => Ok(()),
            code => Err(Status::new(code, format!("{model} says no"))),
        }
    }
}

/// All models take `x` FP32 [rows, 3] and `word` BYTES [rows, any].
fn inputs() -> Vec<TensorMetadata> {
    let tensor = |name: &str, datatype: &str, shape: Vec<i64>| TensorMetadata {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape,
    };
    vec![tensor("x", "FP32", vec![-1, 3]), tensor("word", "BYTES", vec![-1, -1])]
}

/// Holds a request to the shapes of its tensors.
fn check(request: &oip::ModelInferRequest) -> Result<(), String> {
    let [x, word] = &request.inputs[..] else { return Err("expected two inputs".to_owned()) };
    let (x_elements, word_elements) =
        (x.shape.iter().product::<i64>() as usize, word.shape.iter().product::<i64>() as usize);
    if (x.name.as_str(), word.name.as_str()) != ("x", "word")
        || x.shape[0] != word.shape[0]
        || x.shape[1] != 3
    {
        return Err(format!("wrong inputs: {:?}", request.inputs));
    }
    let (x_found, word_found) = match &request.raw_input_contents[..] {
        [] => {
            let contents =
                |input: &oip::model_infer_request::InferInputTensor| input.contents.clone().unwrap();
            (contents(x).fp32_contents.len(), contents(word).bytes_contents.len())
        }
        [x, word] => (x.len() / 4, words(word)),
        other => return Err(format!("{} raw inputs", other.len())),
    };
    match (x_found, word_found) == (x_elements, word_elements) {
        true => Ok(()),
        false => Err(format!("expected {x_elements} and {word_elements} elements: {x_found}, {word_found}")),
    }
}

fn words(mut data: &[u8]) -> usize {
    let mut count = 0;
    while !data.is_empty() {
        let length = u32::from_le_bytes(data[..4].try_into().unwrap()) as usize;
        data = &data[4 + length..];
        count += 1;
    }
    count
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn model_infer(
        &self,
        request: Request<oip::ModelInferRequest>,
    ) -> Result<Response<oip::ModelInferResponse>, Status> {
        if let Some(timeout) = request.metadata().get("grpc-timeout") {
            self.0.timeouts.lock().unwrap().push(timeout.to_str().unwrap().to_owned());
        }
        let message = request.into_inner();
        let index = self.0.count(&message.model_name, &message.raw_input_contents.concat());
        check(&message).map_err(Status::invalid_argument)?;
        self.judge(&message.model_name, index).await?;
        Ok(Response::new(oip::ModelInferResponse { model_name: message.model_name, ..Default::default() }))
    }

    async fn model_metadata(
        &self,
        request: Request<oip::ModelMetadataRequest>,
    ) -> Result<Response<oip::ModelMetadataResponse>, Status> {
        let name = request.into_inner().name;
        if name == "absent" {
            return Err(Status::not_found("there is no model `absent`"));
        }
        Ok(Response::new(oip::ModelMetadataResponse { name, inputs: inputs(), ..Default::default() }))
    }

    async fn server_live(
        &self,
        _request: Request<oip::ServerLiveRequest>,
    ) -> Result<Response<oip::ServerLiveResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn server_ready(
        &self,
        _request: Request<oip::ServerReadyRequest>,
    ) -> Result<Response<oip::ServerReadyResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn model_ready(
        &self,
        _request: Request<oip::ModelReadyRequest>,
    ) -> Result<Response<oip::ModelReadyResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn server_metadata(
        &self,
        _request: Request<oip::ServerMetadataRequest>,
    ) -> Result<Response<oip::ServerMetadataResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    type ModelStreamInferStream = tokio_stream::Empty<Result<oip::ModelStreamInferResponse, Status>>;

    async fn model_stream_infer(
        &self,
        _request: Request<tonic::Streaming<oip::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn model_config(
        &self,
        _request: Request<oip::ModelConfigRequest>,
    ) -> Result<Response<oip::ModelConfigResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn model_statistics(
        &self,
        _request: Request<oip::ModelStatisticsRequest>,
    ) -> Result<Response<oip::ModelStatisticsResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn repository_index(
        &self,
        _request: Request<oip::RepositoryIndexRequest>,
    ) -> Result<Response<oip::RepositoryIndexResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn repository_model_load(
        &self,
        _request: Request<oip::RepositoryModelLoadRequest>,
    ) -> Result<Response<oip::RepositoryModelLoadResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn repository_model_unload(
        &self,
        _request: Request<oip::RepositoryModelUnloadRequest>,
    ) -> Result<Response<oip::RepositoryModelUnloadResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn system_shared_memory_status(
        &self,
        _request: Request<oip::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<oip::SystemSharedMemoryStatusResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn system_shared_memory_register(
        &self,
        _request: Request<oip::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<oip::SystemSharedMemoryRegisterResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn system_shared_memory_unregister(
        &self,
        _request: Request<oip::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<oip::SystemSharedMemoryUnregisterResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn cuda_shared_memory_status(
        &self,
        _request: Request<oip::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<oip::CudaSharedMemoryStatusResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn cuda_shared_memory_register(
        &self,
        _request: Request<oip::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<oip::CudaSharedMemoryRegisterResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _request: Request<oip::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<oip::CudaSharedMemoryUnregisterResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn trace_setting(
        &self,
        _request: Request<oip::TraceSettingRequest>,
    ) -> Result<Response<oip::TraceSettingResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }

    async fn log_settings(
        &self,
        _request: Request<oip::LogSettingsRequest>,
    ) -> Result<Response<oip::LogSettingsResponse>, Status> {
        Err(Status::unimplemented("not asked by the generator"))
    }
}

async fn http_metadata(Path(model): Path<String>) -> String {
    let inputs = inputs().into_iter().map(
        |input| serde_json::json!({ "name": input.name, "datatype": input.datatype, "shape": input.shape }),
    );
    serde_json::json!({ "name": model, "inputs": inputs.collect::<Vec<_>>() }).to_string()
}

async fn http_infer(
    State(service): State<Service>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    if let Some(timeout) = headers.get("x-request-timeout") {
        service.0.timeouts.lock().unwrap().push(timeout.to_str().unwrap().to_owned());
    }
    let index = service.0.count(&model, &body);
    if let Err(why) = check(&decode(&headers, &body)) {
        return (StatusCode::BAD_REQUEST, why);
    }
    answer(service.judge(&model, index).await)
}

async fn http_predict(
    State(service): State<Service>,
    Path(model): Path<String>,
    body: Bytes,
) -> (StatusCode, String) {
    let index = service.0.count(&model, &body);
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
    for row in value["features"].as_array().unwrap() {
        // Three numbers of `x`, then one word.
        let row = row.as_array().unwrap();
        if row.len() != 4 || !row[..3].iter().all(|number| number.is_f64()) || !row[3].is_string() {
            return (StatusCode::BAD_REQUEST, format!("{row:?}"));
        }
    }
    answer(service.judge(&model, index).await)
}

fn answer(judged: Result<(), Status>) -> (StatusCode, String) {
    match judged {
        Ok(()) => (StatusCode::OK, "{}".to_owned()),
        Err(status) => {
            let code = match status.code() {
                Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
                Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
                Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                Code::InvalidArgument | Code::NotFound => StatusCode::BAD_REQUEST,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (code, status.message().to_owned())
        }
    }
}

/// An HTTP request as the gRPC message that means the same.
fn decode(headers: &HeaderMap, body: &[u8]) -> oip::ModelInferRequest {
    let json_length = headers.get("inference-header-content-length");
    let json_length = json_length.map_or(body.len(), |length| length.to_str().unwrap().parse().unwrap());
    let (json, mut binary) = body.split_at(json_length);
    let json: serde_json::Value = serde_json::from_slice(json).unwrap();
    let mut message = oip::ModelInferRequest::default();
    for input in json["inputs"].as_array().unwrap() {
        let shape = input["shape"].as_array().unwrap().iter().map(|size| size.as_i64().unwrap());
        let mut tensor = oip::model_infer_request::InferInputTensor {
            name: input["name"].as_str().unwrap().to_owned(),
            datatype: input["datatype"].as_str().unwrap().to_owned(),
            shape: shape.collect(),
            ..Default::default()
        };
        match input["parameters"]["binary_data_size"].as_u64() {
            Some(size) => {
                let (data, rest) = binary.split_at(size as usize);
                message.raw_input_contents.push(Bytes::copy_from_slice(data));
                binary = rest;
            }
            None => {
                let mut contents = oip::InferTensorContents::default();
                for value in input["data"].as_array().unwrap() {
                    match value.as_str() {
                        Some(text) => {
                            contents.bytes_contents.push(Bytes::copy_from_slice(text.as_bytes()));
                        }
                        None => contents.fp32_contents.push(value.as_f64().unwrap() as f32),
                    }
                }
                tensor.contents = Some(contents);
            }
        }
        message.inputs.push(tensor);
    }
    assert!(binary.is_empty(), "{} bytes belong to no input", binary.len());
    message
}
