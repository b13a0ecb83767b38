//! The handlers of `/v2`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use gristmill_engine::error::InferError;
use gristmill_engine::request::{Query, VersionSelector};
use serde_json::json;
use smallvec::SmallVec;

use super::reply::{self, Refusal};
use super::{Door, Target, body, describe};
use crate::codec::binary::HEADER_LENGTH;
use crate::codec::classification::{WantedClasses, classify};
use crate::codec::json::{decode_infer_within, decode_raw, encode_infer};
use crate::gateway::Call;
use crate::latency;
use crate::oip_grpc::describe as messages;
use crate::shared_memory::{Reach, write_outputs};
use crate::traces::Protocol;

/// Milliseconds after which the caller stops waiting, counted from the arrival of the header; 0 is never.
const TIMEOUT_HEADER: &str = "x-request-timeout";

type Answer = Result<Response, Refusal>;

pub(super) async fn live() -> Response {
    reply::json(StatusCode::OK, &json!({"live": true}))
}

pub(super) async fn ready(State(door): State<Arc<Door>>) -> Response {
    let readiness = door.engine.ready();
    let (status, mut answer) = match readiness.ready {
        true => (StatusCode::OK, json!({"ready": true})),
        false => (StatusCode::SERVICE_UNAVAILABLE, json!({"ready": false, "reasons": readiness.reasons})),
    };
    if !readiness.failing.is_empty() {
        answer["failing"] = readiness.failing.into();
    }
    reply::json(status, &answer)
}

pub(super) async fn server(State(door): State<Arc<Door>>) -> Response {
    reply::json(StatusCode::OK, &describe::server(&messages::server(&door.gateway)))
}

pub(super) async fn models(State(door): State<Arc<Door>>) -> Response {
    let mut names: Vec<String> = door.engine.models().iter().map(|model| model.name.clone()).collect();
    names.dedup();
    reply::json(StatusCode::OK, &json!({"models": names}))
}

pub(super) async fn model(State(door): State<Arc<Door>>, target: Target) -> Answer {
    let message = messages::metadata(&door.engine, &target.model, &target.version_text())?;
    Ok(reply::json(StatusCode::OK, &describe::metadata(&message)))
}

/// A model that is in the repository and does not serve answers 503 with `"ready": false`.
pub(super) async fn model_ready(State(door): State<Arc<Door>>, target: Target) -> Answer {
    match door.engine.model(&target.model, &target.version) {
        Ok(_) => Ok(reply::json(StatusCode::OK, &json!({"name": target.model, "ready": true}))),
        Err(InferError::Unavailable(reason)) => Ok(reply::json(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"name": target.model, "ready": false, "error": reason}),
        )),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn model_config(State(door): State<Arc<Door>>, target: Target) -> Answer {
    let message = messages::config(&door.engine, &target.model, &target.version_text())?;
    Ok(reply::json(StatusCode::OK, &describe::config(&message)))
}

pub(super) async fn latency_model(State(door): State<Arc<Door>>, target: Target) -> Answer {
    let message = latency::describe(&door.engine, &target.model, &target.version)?;
    Ok(reply::json(StatusCode::OK, &latency::to_json(&message)))
}

pub(super) async fn statistics(State(door): State<Arc<Door>>, target: Target) -> Answer {
    let message = messages::statistics(&door.engine, &target.model, &target.version_text())?;
    Ok(reply::json(StatusCode::OK, &describe::statistics(&message)))
}

pub(super) async fn all_statistics(State(door): State<Arc<Door>>) -> Answer {
    let message = messages::statistics(&door.engine, "", "")?;
    Ok(reply::json(StatusCode::OK, &describe::statistics(&message)))
}

pub(super) async fn infer(State(door): State<Arc<Door>>, target: Target, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut call = door.gateway.begin(&parts.headers, Protocol::Http);
    let answer = answer(&door, target, &parts, body, &mut call).await;
    reply::annotated(answer, &mut call)
}

async fn answer(door: &Door, target: Target, parts: &Parts, body: Body, call: &mut Call<'_>) -> Answer {
    let arrival = Instant::now();
    let header_length = header_number(&parts.headers, HEADER_LENGTH)?
        .map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    let patience = header_timeout(&parts.headers)?;
    let body = body::read(&parts.headers, body, &door.options).await?;
    let mut wanted = if header_length == Some(0) {
        let model = door.engine.model(&target.model, &target.version)?;
        decode_raw(&model.signature, body)?
    } else {
        let bytes_max = door.options.body_bytes_max;
        let mut reach = Reach::new(door.gateway.shared_memory(), bytes_max, "--http-body-bytes-max");
        decode_infer_within(body, header_length, &mut reach)?
    };
    let query = Query {
        model: target.model,
        version: target.version,
        inputs: std::mem::take(&mut wanted.inputs),
        outputs: wanted.outputs.iter().map(|output| output.name.clone()).collect(),
        deadline: deadline(arrival, patience),
        timeout: deadline(arrival, wanted.timeout),
        priority: wanted.priority,
        ..Query::default()
    };
    let mut response = call.infer_said(query, &wanted).await?;
    let classes = wanted.outputs.iter().enumerate().filter(|(_, output)| output.classes > 0);
    let classes: SmallVec<[WantedClasses; 1]> =
        classes.map(|(output, wanted)| WantedClasses { output, count: wanted.classes }).collect();
    classify(&mut response, &classes)?;
    write_outputs(&response, &wanted.placed)?;
    Ok(reply::encoded(&parts.headers, encode_infer(&wanted, &response)?))
}

/// The caller's patience by header, where it says one.
///
/// # Errors
/// `InvalidInput` if the header is not a whole number.
pub(crate) fn header_timeout(headers: &HeaderMap) -> Result<Option<Duration>, InferError> {
    let milliseconds = header_number(headers, TIMEOUT_HEADER)?;
    Ok(milliseconds.filter(|&milliseconds| milliseconds > 0).map(Duration::from_millis))
}

/// The end of `patience`. One that ends beyond what the clock can count is none.
pub(crate) fn deadline(arrival: Instant, patience: Option<Duration>) -> Option<Instant> {
    patience.and_then(|patience| arrival.checked_add(patience))
}

fn header_number(headers: &HeaderMap, name: &str) -> Result<Option<u64>, InferError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| {
        InferError::InvalidInput(format!("header {name} must be a whole number, got {value:?}"))
    })
}

// === impl Target ===

impl Target {
    /// As messages have it: empty for the default version.
    fn version_text(&self) -> String {
        match &self.version {
            VersionSelector::Default => String::new(),
            VersionSelector::Number(version) => version.to_string(),
            VersionSelector::Label(label) => label.clone(),
        }
    }
}
