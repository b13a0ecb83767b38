//! The handlers of `/v1/admin/models` and of what else operators ask, as JSON.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use gristmill_engine::error::InferError;
use gristmill_proto::admin::Model;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::{self, Refusal};
use super::{Door, body};
use crate::admin::{Admin, slo_json, to_json};

type Answer = Result<Response, Refusal>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollBack {
    #[serde(default)]
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetLabel {
    #[serde(default)]
    label: String,
    #[serde(default)]
    version: u64,
}

pub(super) async fn list(State(door): State<Arc<Door>>) -> Answer {
    let models = admin(&door).list().await?;
    let models: Value = models.iter().map(to_json).collect();
    Ok(reply::json(StatusCode::OK, &json!({"models": models})))
}

pub(super) async fn show(State(door): State<Arc<Door>>, Path(model): Path<String>) -> Answer {
    answer(admin(&door).show(&model).await)
}

pub(super) async fn load(State(door): State<Arc<Door>>, Path(model): Path<String>) -> Answer {
    answer(admin(&door).load(&model).await)
}

pub(super) async fn unload(State(door): State<Arc<Door>>, Path(model): Path<String>) -> Answer {
    answer(admin(&door).unload(&model).await)
}

pub(super) async fn roll_back(
    State(door): State<Arc<Door>>,
    Path(model): Path<String>,
    request: Request,
) -> Answer {
    let RollBack { reason } = read(&door, request, "{\"reason\": \"why\"}").await?;
    answer(admin(&door).roll_back(&model, &reason).await)
}

pub(super) async fn set_label(
    State(door): State<Arc<Door>>,
    Path(model): Path<String>,
    request: Request,
) -> Answer {
    let expected = "{\"label\": \"stable\", \"version\": 3}, with version 0 to take the label away";
    let SetLabel { label, version } = read(&door, request, expected).await?;
    answer(admin(&door).set_label(&model, &label, version).await)
}

/// `/v2/models/{model}/slo`, where everything else about a model is.
pub(super) async fn slo(State(door): State<Arc<Door>>, Path(model): Path<String>) -> Answer {
    Ok(reply::json(StatusCode::OK, &slo_json(&admin(&door).slo(&model)?)))
}

fn admin(door: &Door) -> Admin {
    Admin::new(Arc::clone(&door.engine), door.control.clone())
}

fn answer(model: Result<Model, InferError>) -> Answer {
    Ok(reply::json(StatusCode::OK, &to_json(&model?)))
}

pub(super) async fn read<T: Default + for<'a> Deserialize<'a>>(
    door: &Door,
    request: Request,
    expected: &str,
) -> Result<T, Refusal> {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, &door.options).await?;
    Ok(body::parse_or_default(&body, expected)?)
}
