//! The plain dialect: `/predict` takes rows of features and answers what was predicted, `/health` says how it goes.

mod features;
mod nest;
mod rows;
mod rule;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use gristmill_engine::engine::VersionState;
use gristmill_engine::error::InferError;
use gristmill_engine::request::{Query, VersionSelector};
use serde::Serialize;
use smallvec::smallvec;

use self::features::Features;
use self::rule::Rule;
use crate::codec::json::Encoded;
use crate::codec::json::scan::Scanner;
use crate::codec::json::write::{NonFinite, write_float, write_integer, write_string};
use crate::gateway::Call;
use crate::oip_http::reply::{self, Refusal};
use crate::oip_http::v2::{deadline, header_timeout};
use crate::oip_http::{Door, Target, body};
use crate::traces::Protocol;

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
    let body = body::read(&parts.headers, body, door.options).await?;
    let deadline = deadline(arrival, patience);
    let (response, listed) = loop {
        let model = door.engine.model(&target.model, &target.version)?;
        let Features { inputs, listed } = {
            let text = Scanner::check_text(&body)?;
            features::read(&model, text).map_err(|error| error.into_infer_error(text))?
        };
        let query = Query {
            model: target.model.clone(),
            // The version whose signature the features were read for, even if another one takes over now.
            version: VersionSelector::Number(model.version),
            inputs,
            outputs: Vec::new(),
            deadline,
            ..Query::default()
        };
        match call.infer(query).await {
            // It was retired meanwhile, after its successor began to serve.
            Err(InferError::NotFound(_) | InferError::Unavailable(_)) if door.has_changed(target, &model) => {
            }
            result => break (result?, listed),
        }
    };

    let (predictions, probabilities) = Rule::of(&response.model.signature).apply(&response)?;
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
    let latency_ms = arrival.elapsed().as_micros() as f64 / 1000.0;
    write_float(latency_ms, NonFinite::Null, &mut json);
    json.push(b'}');
    Ok(reply::encoded(&parts.headers, Encoded { parts: smallvec![json.into()], header_length: None }))
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
