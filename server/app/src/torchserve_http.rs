//! TorchServe's inference API over REST, for models whose requests are plain tensors.

mod request;
mod texts;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{options, post};
use gristmill_engine::error::InferError;
use gristmill_engine::request::{Response as Answer, VersionSelector};
use serde_json::{Value, json};
use smallvec::smallvec;

pub(crate) use self::request::decode_fields;
pub use self::request::{Form, decode_prediction};
use crate::codec::json::Encoded;
use crate::codec::json::nested::Texts;
use crate::codec::json::outputs::Outputs;
use crate::gateway::Call;
use crate::handler::Handler;
use crate::oip_http::reply::{self, Refusal};
use crate::oip_http::v2::{deadline, header_timeout};
use crate::oip_http::{Door, Target, body, unknown_path};
use crate::traces::Protocol;

/// Its name in messages.
const DIALECT: &str = "TorchServe's inference API";

pub(crate) fn routes() -> Router<Arc<Door>> {
    // `curl -T` sends PUT.
    let predictions = post(predict).put(predict).fallback(wrong_method);
    let explanations = post(explain).fallback(wrong_method);
    Router::new()
        .route("/", options(describe).fallback(unknown_path))
        .route("/predictions/{model}", predictions.clone())
        .route("/predictions/{model}/{version}", predictions)
        .route("/explanations/{model}", explanations.clone())
        .route("/explanations/{model}/{version}", explanations)
}

async fn predict(State(door): State<Arc<Door>>, target: Target, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut call = door.gateway.begin(&parts.headers, Protocol::Http);
    let answer = answer(&door, &target, &parts, body, &mut call).await;
    let lacks_version = || door.engine.model(&target.model, &VersionSelector::Default).is_ok();
    let write = if answer.is_err() && lacks_version() { write_refusal_of_version } else { write_refusal };
    reply::annotated_as(answer, &mut call, write)
}

async fn answer(
    door: &Door,
    target: &Target,
    parts: &Parts,
    body: Body,
    call: &mut Call<'_>,
) -> Result<Response, Refusal> {
    let arrival = Instant::now();
    let deadline = deadline(arrival, header_timeout(&parts.headers)?);
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let body = body::read(&parts.headers, body, &door.options).await?;
    let read = |model: &_| decode_prediction(model, Handler::of(model), content_type, body.clone());
    let (response, form) = call.ask(DIALECT, target, deadline, read).await?;
    let json = write_prediction(&response, Handler::of(&response.model), form)?;
    Ok(reply::encoded(&parts.headers, Encoded { parts: smallvec![json.into()], header_length: None }))
}

/// The outputs as JSON, in the form of what came, or as the model's `[output]` says.
///
/// # Errors
/// `InvalidInput` for strings that are not UTF-8, and for outputs that have no rows where rows came.
pub(crate) fn write_prediction(
    response: &Answer,
    handler: Option<&Handler>,
    form: Form,
) -> Result<Vec<u8>, InferError> {
    let mut json = Vec::with_capacity(Outputs::estimate(response));
    if form == Form::Instances {
        json.extend_from_slice(b"{\"predictions\":");
    }
    match handler.and_then(|handler| handler.writer(response)) {
        Some(writer) if form == Form::One => writer.row(0, &mut json)?,
        Some(writer) => writer.rows(&mut json)?,
        None => {
            let only = handler.and_then(Handler::only_output);
            let is_wanted = |place| only.is_none_or(|only| only == place);
            let outputs = Outputs::which(response, is_wanted, |_| Texts::Strings);
            match form {
                Form::One if response.model.signature.is_batched() => outputs.of_one_row(&mut json)?,
                Form::One => outputs.whole(&mut json)?,
                Form::Rows | Form::Instances => outputs.rows(&mut json)?,
            }
        }
    }
    if form == Form::Instances {
        json.push(b'}');
    }
    Ok(json)
}

async fn explain(State(door): State<Arc<Door>>, target: Target) -> Response {
    let refusal: Refusal = match door.engine.model(&target.model, &target.version) {
        Err(error) => error.into(),
        Ok(model) => Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("model '{}' has no explainer: explanations are not supported", model.name),
        ),
    };
    refusal.respond(write_refusal)
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{method} is not allowed for '{}': send POST", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message).respond(write_refusal)
}

fn write_refusal(status: StatusCode, message: &str) -> Response {
    write_error(status, "ModelNotFoundException", message)
}

fn write_refusal_of_version(status: StatusCode, message: &str) -> Response {
    write_error(status, "ModelVersionNotFoundException", message)
}

/// TorchServe's error bodies: the class of its exception tells programs what is wrong.
fn write_error(status: StatusCode, not_found: &str, message: &str) -> Response {
    let (status, kind) = match status {
        StatusCode::NOT_FOUND => (status, not_found),
        StatusCode::METHOD_NOT_ALLOWED => (status, "MethodNotAllowedException"),
        StatusCode::PAYLOAD_TOO_LARGE => (status, "RequestEntityTooLargeException"),
        // A full queue is unavailability to TorchServe's clients.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException")
        }
        StatusCode::NOT_IMPLEMENTED => (status, "UnsupportedOperationException"),
        status if status.is_server_error() => (status, "InternalServerException"),
        status => (status, "BadRequestException"),
    };
    reply::json(status, &json!({"code": status.as_u16(), "type": kind, "message": message}))
}

/// What there is, as OpenAPI.
async fn describe() -> Response {
    let path =
        |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    let answers = |what: &str| {
        json!({
            "200": {"description": what, "content": {"application/json": {}}},
            "400": {"description": "The request is malformed"},
            "404": {"description": "The model or the version is not there"},
            "503": {"description": "The model does not serve, or its queue is full"},
        })
    };
    let predictions = |id: &str, parameters: Value| {
        json!({"post": {
            "operationId": id,
            "description": "A prediction for a row, or for each of a list of rows",
            "parameters": parameters,
            "requestBody": {"required": true, "content": {
                "application/json": {}, "application/octet-stream": {}, "multipart/form-data": {},
            }},
            "responses": answers("The outputs"),
        }})
    };
    let document = json!({
        "openapi": "3.0.1",
        "info": {"title": "Inference API of TorchServe, by Gristmill", "version": env!("CARGO_PKG_VERSION")},
        "paths": {
            "/": {"options": {
                "operationId": "apiDescription",
                "responses": {"200": {"description": "This document", "content": {"application/json": {}}}},
            }},
            "/ping": {"get": {
                "operationId": "ping",
                "responses": {"200": {"description": "Healthy"}, "503": {"description": "Unhealthy"}},
            }},
            "/predictions/{model_name}": predictions("predictions", json!([path("model_name")])),
            "/predictions/{model_name}/{model_version}":
                predictions("version_predictions", json!([path("model_name"), path("model_version")])),
        },
    });
    reply::json(StatusCode::OK, &document)
}
