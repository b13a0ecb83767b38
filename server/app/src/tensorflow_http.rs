//! TensorFlow Serving's REST API and KServe's V1 protocol, which share their paths and agree where they meet.
//!
//! `GET /v1/models/{model}` is TensorFlow Serving's list of versions and states, with KServe's `name` and `ready`
//! beside it; like KServe's it is 503 while nothing serves. The paths of one version are TensorFlow Serving's alone
//! and answer 200 with the state.

pub(crate) mod answer;
pub(crate) mod describe;
mod request;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::get;
use gristmill_engine::error::InferError;
use gristmill_engine::request::VersionSelector;
use serde::Deserialize;
use serde_json::json;
use smallvec::smallvec;

pub use self::answer::encode_predictions;
pub use self::request::{Format, decode_examples, decode_predict};
pub(crate) use self::request::{SIGNATURE, check_signature_name};
use crate::codec::json::Encoded;
use crate::gateway::Call;
use crate::oip_http::reply::{self, Refusal};
use crate::oip_http::v2::{deadline, header_timeout};
use crate::oip_http::{Door, Target, body};
use crate::traces::Protocol;

/// Its name in messages.
const DIALECT: &str = "TensorFlow Serving's REST API";

/// What a path names, and what is asked of it behind the colon.
struct Asked {
    target: Target,
    verb: Option<String>,
}

pub(crate) fn routes() -> Router<Arc<Door>> {
    let model = get(status).post(infer);
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", model.clone())
        .route("/v1/models/{model}/metadata", get(metadata))
        .route("/v1/models/{model}/versions/{version}", model.clone())
        .route("/v1/models/{model}/versions/{version}/metadata", get(metadata))
        .route("/v1/models/{model}/labels/{label}", model)
        .route("/v1/models/{model}/labels/{label}/metadata", get(metadata))
}

async fn models(State(door): State<Arc<Door>>) -> Response {
    let mut names: Vec<String> = door.engine.models().iter().map(|model| model.name.clone()).collect();
    names.dedup();
    reply::json(StatusCode::OK, &json!({"models": names}))
}

async fn status(State(door): State<Arc<Door>>, asked: Asked) -> Result<Response, Refusal> {
    if let Some(verb) = &asked.verb {
        let message = format!("GET is not allowed for ':{verb}': it takes a POST");
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message));
    }
    let target = asked.target;
    let versions = describe::versions(&door.engine, &target)?;
    if target.version != VersionSelector::Default {
        return Ok(reply::json(StatusCode::OK, &json!({"model_version_status": versions})));
    }
    let mut answer = json!({"name": target.model, "ready": true, "model_version_status": versions});
    match door.engine.model(&target.model, &target.version) {
        Ok(_) => Ok(reply::json(StatusCode::OK, &answer)),
        Err(error) => {
            answer["ready"] = false.into();
            answer["error"] = error.to_string().into();
            Ok(reply::json(StatusCode::SERVICE_UNAVAILABLE, &answer))
        }
    }
}

async fn metadata(State(door): State<Arc<Door>>, asked: Asked) -> Result<Response, Refusal> {
    let model = door.engine.model(&asked.target.model, &asked.target.version)?;
    Ok(reply::json(StatusCode::OK, &describe::metadata(&model)))
}

async fn infer(State(door): State<Arc<Door>>, asked: Asked, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut call = door.gateway.begin(&parts.headers, Protocol::Http);
    let answer = answer(&door, &asked, &parts, body, &mut call).await;
    reply::annotated(answer, &mut call)
}

async fn answer(
    door: &Door,
    asked: &Asked,
    parts: &Parts,
    body: Body,
    call: &mut Call<'_>,
) -> Result<Response, Refusal> {
    let arrival = Instant::now();
    let target = &asked.target;
    let deadline = deadline(arrival, header_timeout(&parts.headers)?);
    let body = body::read(&parts.headers, body, &door.options).await?;
    let json = match asked.verb.as_deref() {
        Some("predict") => {
            let read = |model: &_| decode_predict(model, &body);
            let (response, format) = call.ask(DIALECT, target, deadline, read).await?;
            encode_predictions(format, &response)?
        }
        Some(verb @ ("classify" | "regress")) => {
            let read = |model: &_| Ok((decode_examples(model, &body)?, ()));
            let (response, ()) = call.ask(DIALECT, target, deadline, read).await?;
            match verb {
                "classify" => answer::encode_classes(&response)?,
                _ => answer::encode_values(&response)?,
            }
        }
        Some("explain") => {
            let model = door.engine.model(&target.model, &target.version)?;
            let message = format!("model '{}' has no explainer: explanations are not supported", model.name);
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, message));
        }
        verb => {
            let got = verb.map_or_else(|| "nothing".into(), |verb| format!("':{verb}'"));
            let message = format!(
                "malformed request: expected ':predict', ':classify', ':regress' or ':explain' at the end of the \
                 path, got {got}"
            );
            return Err(InferError::InvalidInput(message).into());
        }
    };
    Ok(reply::encoded(&parts.headers, Encoded { parts: smallvec![json.into()], header_length: None }))
}

// === impl Asked ===

#[derive(Deserialize)]
struct Segments {
    model: String,
    version: Option<String>,
    label: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Asked, Refusal> {
        let Path(mut segments) = Path::<Segments>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))?;
        let last = match (&mut segments.version, &mut segments.label) {
            (Some(last), _) | (None, Some(last)) => last,
            (None, None) => &mut segments.model,
        };
        let verb = last.rsplit_once(':').map(|(name, verb)| (name.to_owned(), verb.to_owned()));
        let verb = verb.map(|(name, verb)| {
            *last = name;
            verb
        });
        let version = match (segments.version, segments.label) {
            (Some(version), _) => match VersionSelector::parse(&version)? {
                version @ VersionSelector::Number(_) => version,
                _ => {
                    return Err(InferError::InvalidInput(format!(
                        "version '{version}' is not a number: labels are asked for at /labels/{version}"
                    ))
                    .into());
                }
            },
            (None, Some(label)) => VersionSelector::Label(label),
            (None, None) => VersionSelector::Default,
        };
        Ok(Asked { target: Target { model: segments.model, version }, verb })
    }
}
