//! The handlers of `/v2/logging` and `/v2/trace/setting`: Triton's log and trace settings as JSON.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use gristmill_engine::error::InferError;
use serde_json::{Map, Value};

use super::Door;
use super::admin::read;
use super::reply::{self, Refusal};
use crate::log_settings::{Log, LogValue};
use crate::traces::{self, Setting};

type Answer = Result<Response, Refusal>;

const LOG_EXPECTED: &str = "{\"log_verbose_level\": 1}";
const TRACE_EXPECTED: &str = "{\"trace_level\": [\"TIMESTAMPS\"], \"trace_rate\": \"100\"}";

pub(super) async fn log(State(door): State<Arc<Door>>) -> Answer {
    Ok(log_answer(door.gateway.log()?))
}

pub(super) async fn set_log(State(door): State<Arc<Door>>, request: Request) -> Answer {
    let log = door.gateway.log()?;
    let changes: Map<String, Value> = read(&door, request, LOG_EXPECTED).await?;
    let changes = changes.into_iter().map(log_value).collect::<Result<Vec<_>, _>>()?;
    log.update(changes)?;
    Ok(log_answer(log))
}

pub(super) async fn trace(State(door): State<Arc<Door>>) -> Answer {
    trace_answer(&door, "", &[])
}

pub(super) async fn set_trace(State(door): State<Arc<Door>>, request: Request) -> Answer {
    let changes = trace_changes(&door, request).await?;
    trace_answer(&door, "", &changes)
}

pub(super) async fn trace_of_model(State(door): State<Arc<Door>>, Path(model): Path<String>) -> Answer {
    trace_answer(&door, &model, &[])
}

pub(super) async fn set_trace_of_model(
    State(door): State<Arc<Door>>,
    Path(model): Path<String>,
    request: Request,
) -> Answer {
    let changes = trace_changes(&door, request).await?;
    trace_answer(&door, &model, &changes)
}

fn log_answer(log: &Log) -> Response {
    let value = |(name, value): (&str, LogValue)| {
        let value = match value {
            LogValue::Switch(value) => Value::from(value),
            LogValue::Number(value) => Value::from(value),
            LogValue::Text(value) => Value::from(value),
        };
        (name.to_owned(), value)
    };
    let settings: Value = log.settings().into_iter().map(value).collect();
    reply::json(StatusCode::OK, &settings)
}

fn log_value((name, value): (String, Value)) -> Result<(String, LogValue), InferError> {
    let value = match value {
        Value::Bool(value) => LogValue::Switch(value),
        Value::String(value) => LogValue::Text(value),
        value => {
            if let Some(number) = value.as_u64() {
                // What is more than everything is everything.
                return Ok((name, LogValue::Number(u32::try_from(number).unwrap_or(u32::MAX))));
            }
            return Err(InferError::InvalidInput(format!(
                "log setting '{name}' must be true or false, a whole number or text, got {value}"
            )));
        }
    };
    Ok((name, value))
}

async fn trace_changes(door: &Door, request: Request) -> Result<Vec<Setting>, Refusal> {
    let changes: Map<String, Value> = read(door, request, TRACE_EXPECTED).await?;
    Ok(changes.into_iter().map(trace_values).collect::<Result<_, _>>()?)
}

/// Text, a list of texts, or `null` to take back what was set.
fn trace_values((name, value): (String, Value)) -> Result<Setting, InferError> {
    let values = match &value {
        Value::Null => Some(Vec::new()),
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(values) if !values.is_empty() => {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    };
    match values {
        Some(values) => Ok((name, values)),
        None => Err(InferError::InvalidInput(format!(
            "trace setting '{name}' must be text, a list of texts or null, got {value}"
        ))),
    }
}

/// `trace_level` is a list, as Triton has it, and everything else text.
fn trace_answer(door: &Door, model: &str, changes: &[Setting]) -> Answer {
    let settings = traces::settings(&door.engine, door.gateway.traces(), model, changes)?;
    let value = |(name, values): Setting| {
        let value: Value = if name == "trace_level" { values.into() } else { values.concat().into() };
        (name, value)
    };
    let settings: Value = settings.into_iter().map(value).collect();
    Ok(reply::json(StatusCode::OK, &settings))
}
