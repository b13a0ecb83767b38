//! The plain dialect: `/predict` takes rows of features and answers what was predicted, `/health` says how it goes.

pub(crate) mod rule;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use gristmill_engine::engine::VersionState;
use gristmill_engine::error::InferError;
use gristmill_engine::request::{ModelInfo, NamedTensor, Response as Answer};
use serde::Serialize;
use smallvec::smallvec;

use self::rule::Rule;
use crate::codec::json::Encoded;
use crate::codec::json::scan::{JsonError, Scanner};
use crate::codec::json::values::Values;
use crate::codec::json::write::{NonFinite, write_float, write_integer, write_string};
use crate::codec::rows;
use crate::features::{Features, Reader};
use crate::gateway::Call;
use crate::oip_http::reply::{self, Refusal};
use crate::oip_http::v2::{deadline, header_timeout};
use crate::oip_http::{Door, Target, body};
use crate::traces::Protocol;

/// Its name in messages.
const DIALECT: &str = "/predict";

/// Answers `{"prediction", "probability", "model", "model_version", "latency_ms"}`.
///
/// `{"features": …}` is one row (a flat list, or an object of named values) or many (a list of those);
/// `{"instances": […]}` is always many. One row is answered with single values, many with lists in
/// the same order. [`Rule`] says which output is the prediction and what its probability is.
pub(crate) async fn predict(State(door): State<Arc<Door>>, target: Target, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut call = door.gateway.begin(&parts.headers, Protocol::Http);
    let answer = answer(&door, &target, &parts, body, &mut call).await;
    reply::annotated(answer, &mut call)
}

async fn answer(
    door: &Door,
    target: &Target,
    parts: &Parts,
    body: Body,
    call: &mut Call<'_>,
) -> Result<Response, Refusal> {
    let arrival = Instant::now();
    let patience = header_timeout(&parts.headers)?;
    let body = body::read(&parts.headers, body, &door.options).await?;
    let deadline = deadline(arrival, patience);
    let read = |model: &_| decode_features(model, &body);
    let (response, listed) = call.ask(DIALECT, target, deadline, read).await?;
    let json = encode_features(&response, listed, arrival.elapsed())?;
    Ok(reply::encoded(&parts.headers, Encoded { parts: smallvec![json.into()], header_length: None }))
}

/// Decodes `{"features": …}` or `{"instances": …}` for `model`; true if the answer is to be lists.
///
/// # Errors
/// `InvalidInput` that says what is malformed and where, or which feature is wrong and how.
pub fn decode_features(model: &ModelInfo, body: &[u8]) -> Result<(Vec<NamedTensor>, bool), InferError> {
    let text = Scanner::check_text(body)?;
    let Features { inputs, listed } = read(model, text).map_err(|error| error.into_infer_error(text))?;
    Ok((inputs, listed))
}

/// `{"prediction": …, "probability": …, …}`, with a list of each where they are `listed`.
///
/// # Errors
/// `InvalidInput` for an output of texts that are not UTF-8, and where rows are `listed`, for one that has another
/// number of them.
pub fn encode_features(response: &Answer, listed: bool, latency: Duration) -> Result<Vec<u8>, InferError> {
    let signature = &response.model.signature;
    let (rule, by_row) = match signature.is_batched() {
        true if listed => {
            for (index, tensor) in &response.outputs {
                rows::check(response.rows, &signature.outputs[*index].name, tensor.shape())?;
            }
            (Rule::of(signature), true)
        }
        // A model may give any number of rows for one: all that it gave is the prediction.
        true if response.outputs.iter().any(|(_, tensor)| tensor.shape().first() != Some(&1)) => {
            let rule = if signature.outputs.len() == 1 { Rule::Values { output: 0 } } else { Rule::Named };
            (rule, false)
        }
        is_batched => (Rule::of(signature), is_batched),
    };
    let (predictions, probabilities) = rule.apply(response, by_row)?;
    let mut json = Vec::with_capacity(128 + 24 * predictions.len());
    json.extend_from_slice(b"{\"prediction\":");
    write_rows(&predictions, listed, &mut json);
    json.extend_from_slice(b",\"probability\":");
    match probabilities {
        Some(probabilities) => write_rows(&probabilities, listed, &mut json),
        None => json.extend_from_slice(b"null"),
    }
    json.extend_from_slice(b",\"model\":");
    write_string(&response.model.name, &mut json);
    json.extend_from_slice(b",\"model_version\":\"");
    write_integer(response.model.version, &mut json);
    json.extend_from_slice(b"\",\"latency_ms\":");
    write_float(latency.as_micros() as f64 / 1000.0, NonFinite::Null, &mut json);
    json.push(b'}');
    Ok(json)
}

/// Reads `features` or `instances` for `model`.
fn read(model: &ModelInfo, text: &str) -> Result<Features, JsonError> {
    let mut features = None;
    let mut scanner = Scanner::new(text);
    scanner.object("the request", |scanner, key| match key {
        "features" | "instances" if features.is_some() => {
            Err(JsonError::meaning("the request has more than one of 'features' and 'instances'"))
        }
        "features" | "instances" => {
            features = Some(Reader::new(model, Values::Plain).rows(scanner, key, key == "instances")?);
            Ok(())
        }
        _ => scanner.skip(),
    })?;
    scanner.end()?;
    features.ok_or_else(|| {
        JsonError::meaning(
            "the request has neither 'features' (one row or a list of rows) nor 'instances' (a list)",
        )
    })
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    models: BTreeMap<String, ModelHealth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

#[derive(Default, Serialize)]
struct ModelHealth {
    ready: bool,
    /// Versions that serve.
    versions: Vec<String>,
    /// Why the others do not, by version.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unavailable: BTreeMap<String, String>,
}

/// `{"status": "healthy", "models": {…}}`, or 503 and `"unhealthy"` with reasons while not ready.
pub(crate) async fn health(State(door): State<Arc<Door>>) -> Response {
    let readiness = door.engine.ready();
    let mut models: BTreeMap<String, ModelHealth> = BTreeMap::new();
    for entry in door.engine.index() {
        let model = models.entry(entry.model).or_default();
        if entry.state == VersionState::Ready {
            model.ready = true;
            model.versions.push(entry.version.to_string());
        } else {
            model.unavailable.insert(entry.version.to_string(), entry.reason);
        }
    }
    let (status, word) = match readiness.ready {
        true => (StatusCode::OK, "healthy"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
    };
    reply::json(status, &Health { status: word, models, reasons: readiness.reasons })
}

fn write_rows(rows: &[Vec<u8>], listed: bool, json: &mut Vec<u8>) {
    if listed {
        json.push(b'[');
    }
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(row);
    }
    if listed {
        json.push(b']');
    }
}
