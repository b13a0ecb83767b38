//! The handlers of `/v1/admin/experiments`: experiments as JSON, with the names of `gristmill.v1.Experiments`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::Door;
use super::reply::{self, Refusal};
use crate::admin::experiments::{ExperimentsAdmin, experiment_json};

pub(super) async fn list(State(door): State<Arc<Door>>) -> Result<Response, Refusal> {
    let experiments = admin(&door).list().await?;
    let experiments: Value = experiments.iter().map(experiment_json).collect();
    Ok(reply::json(StatusCode::OK, &json!({"experiments": experiments})))
}

pub(super) async fn show(
    State(door): State<Arc<Door>>,
    Path(route): Path<String>,
) -> Result<Response, Refusal> {
    let experiment = admin(&door).show(&route).await?;
    Ok(reply::json(StatusCode::OK, &experiment_json(&experiment)))
}

fn admin(door: &Door) -> ExperimentsAdmin {
    ExperimentsAdmin { feedback: door.gateway.feedback().cloned() }
}
