//! The handlers of `/v2/repository`: Triton's model repository extension.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gristmill_engine::control::Control;
use gristmill_engine::error::InferError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::{self, Refusal};
use super::{Door, body, describe};
use crate::oip_grpc::describe as messages;
use crate::repository_orders::{self, FILE_PREFIX, LoadOrder};

type Answer = Result<Response, Refusal>;

#[derive(Default, Deserialize)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

pub(super) async fn index(State(door): State<Arc<Door>>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, &door.options).await?;
    let wanted: IndexRequest = body::parse_or_default(&body, "{\"ready\": true}")?;
    Ok(reply::json(StatusCode::OK, &describe::index(&messages::index(&door.engine, wanted.ready))))
}

/// What Triton's clients send with a load or an unload.
#[derive(Default, Deserialize)]
struct OrderRequest {
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
}

pub(super) async fn load(
    State(door): State<Arc<Door>>,
    Path(model): Path<String>,
    request: Request,
) -> Answer {
    let control = control(&door)?;
    let order = order(&door, request).await?;
    let order = read_load(order.parameters)?;
    repository_orders::load(control, &model, order).await?;
    Ok(reply::json(StatusCode::OK, &json!({})))
}

pub(super) async fn unload(
    State(door): State<Arc<Door>>,
    Path(model): Path<String>,
    request: Request,
) -> Answer {
    let control = control(&door)?;
    let order = order(&door, request).await?;
    if let Some(name) = order.parameters.keys().find(|name| *name != "unload_dependents") {
        return Err(unknown_parameter(name, "unload_dependents").into());
    }
    repository_orders::unload(control, &model).await?;
    Ok(reply::json(StatusCode::OK, &json!({})))
}

fn control(door: &Door) -> Result<&Control, InferError> {
    door.control.as_ref().ok_or_else(repository_orders::nobody)
}

async fn order(door: &Door, request: Request) -> Result<OrderRequest, Refusal> {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, &door.options).await?;
    Ok(body::parse_or_default(&body, "{\"parameters\": {}}")?)
}

/// `config` is JSON text; each `file:<version>/<name>` is base64.
fn read_load(parameters: BTreeMap<String, Value>) -> Result<LoadOrder, InferError> {
    let mut order = LoadOrder::default();
    for (name, value) in parameters {
        let Value::String(text) = value else {
            return Err(InferError::InvalidInput(format!(
                "parameter '{name}' must be a string, got {value}"
            )));
        };
        if name == "config" {
            order.config = Some(text);
        } else if let Some(path) = name.strip_prefix(FILE_PREFIX) {
            let contents = STANDARD.decode(text.as_bytes()).map_err(|error| {
                InferError::InvalidInput(format!("parameter '{name}' must be base64: {error}"))
            })?;
            order.files.insert(path.to_owned(), contents.into());
        } else {
            return Err(unknown_parameter(&name, "config or file:<version>/<name>"));
        }
    }
    Ok(order)
}

fn unknown_parameter(name: &str, expected: &str) -> InferError {
    InferError::InvalidInput(format!("unknown parameter '{name}': expected {expected}"))
}
