//! MLflow's scoring protocol, and SageMaker's contract with containers, which shares its paths.

mod answer;
mod request;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use gristmill_engine::request::VersionSelector;
use serde_json::json;
use smallvec::smallvec;

pub use self::answer::encode_scoring;
pub use self::request::{MediaType, decode_scoring};
use crate::codec::json::Encoded;
use crate::gateway::Call;
use crate::oip_http::reply::{self, Refusal};
use crate::oip_http::v2::{deadline, header_timeout};
use crate::oip_http::{Door, Target, body};
use crate::traces::Protocol;

/// Its name in messages.
const DIALECT: &str = "MLflow's scoring protocol";

/// Where SageMaker's clients name one of several models.
const TARGET_MODEL: &str = "x-amzn-sagemaker-target-model";
/// What SageMaker's model archives end with.
const ARCHIVE_SUFFIX: &str = ".tar.gz";

pub(crate) fn routes() -> Router<Arc<Door>> {
    Router::new()
        .route("/ping", get(ping))
        .route("/version", get(version))
        .route("/invocations", post(invoke))
        .route("/endpoints/{model}/invocations", post(invoke_endpoint))
        .route("/models/{model}/invoke", post(invoke_model))
}

/// 200 where the server is ready, as MLflow's, SageMaker's, TorchServe's and Vertex AI's probes want it; the body is
/// TorchServe's.
pub(crate) async fn ping(State(door): State<Arc<Door>>) -> Response {
    match door.engine.ready().ready {
        true => reply::json(StatusCode::OK, &json!({"status": "Healthy"})),
        false => reply::json(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "Unhealthy"})),
    }
}

async fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

async fn invoke(State(door): State<Arc<Door>>, request: Request) -> Response {
    respond(&door, None, request).await
}

/// MLflow's deployments client names a model here. AWS's clients name an endpoint, and in the header the model, if the
/// endpoint has several.
async fn invoke_endpoint(
    State(door): State<Arc<Door>>,
    Path(model): Path<String>,
    request: Request,
) -> Response {
    let named = Target { model, version: VersionSelector::Default };
    let target = target_of_header(request.headers()).unwrap_or(named);
    respond(&door, Some(target), request).await
}

async fn invoke_model(
    State(door): State<Arc<Door>>,
    Path(model): Path<String>,
    request: Request,
) -> Response {
    respond(&door, Some(Target { model, version: VersionSelector::Default }), request).await
}

async fn respond(door: &Door, target: Option<Target>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut call = door.gateway.begin(&parts.headers, Protocol::Http);
    let answer = answer(door, target, &parts, body, &mut call).await;
    reply::annotated_as(answer, &mut call, write_refusal)
}

async fn answer(
    door: &Door,
    target: Option<Target>,
    parts: &Parts,
    body: Body,
    call: &mut Call<'_>,
) -> Result<Response, Refusal> {
    let arrival = Instant::now();
    let deadline = deadline(arrival, header_timeout(&parts.headers)?);
    let media_type = MediaType::of(&parts.headers)?;
    let body = body::read(&parts.headers, body, &door.options).await?;
    let target = match target {
        Some(target) => target,
        None => match target_of_header(&parts.headers) {
            Some(target) => target,
            None => door.default_target(
                "name one in the path (/endpoints/{model}/invocations) or in the header \
                 X-Amzn-SageMaker-Target-Model",
            )?,
        },
    };
    let read = |model: &_| Ok((decode_scoring(model, media_type, &body)?, ()));
    let (response, ()) = call.ask(DIALECT, &target, deadline, read).await?;
    let json = encode_scoring(&response)?;
    Ok(reply::encoded(&parts.headers, Encoded { parts: smallvec![json.into()], header_length: None }))
}

fn target_of_header(headers: &HeaderMap) -> Option<Target> {
    let name = headers.get(TARGET_MODEL)?.to_str().ok()?.trim_start_matches('/');
    let model = name.strip_suffix(ARCHIVE_SUFFIX).unwrap_or(name).to_owned();
    Some(Target { model, version: VersionSelector::Default })
}

/// Errors in MLflow's form, with its names for them; content types that are not taken are refused in plain text.
fn write_refusal(status: StatusCode, message: &str) -> Response {
    let error_code = match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            let mut response = Response::new(Body::from(message.to_owned()));
            *response.status_mut() = status;
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            return response;
        }
        StatusCode::NOT_FOUND => "RESOURCE_DOES_NOT_EXIST",
        StatusCode::TOO_MANY_REQUESTS => "REQUEST_LIMIT_EXCEEDED",
        StatusCode::SERVICE_UNAVAILABLE => "TEMPORARILY_UNAVAILABLE",
        StatusCode::GATEWAY_TIMEOUT => "DEADLINE_EXCEEDED",
        status if status.is_server_error() => "INTERNAL_ERROR",
        _ => "BAD_REQUEST",
    };
    reply::json(status, &json!({"error_code": error_code, "message": message}))
}

// === impl MediaType ===

impl MediaType {
    /// What `Content-Type` says; JSON where it says nothing.
    fn of(headers: &HeaderMap) -> Result<MediaType, Refusal> {
        let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(MediaType::Json) };
        let text = value.to_str().unwrap_or("?");
        MediaType::parse(text).ok_or_else(|| {
            let message = format!(
                "Content-Type '{text}' is not supported: send application/json or text/csv, in UTF-8; \
                 'text/csv; header=absent' for lines without a header"
            );
            Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
        })
    }
}
