//! The handler of `/v2/models/{model}/feedback`: feedback as JSON, with the names of `gristmill.v1.Feedback`.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use gristmill_proto::admin::SendFeedbackRequest;
use serde::Deserialize;

use super::Door;
use super::admin::read;
use super::reply::{self, Refusal};
use crate::feedback::{FeedbackService, ItemBody, response_json};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    feedback: Vec<ItemBody>,
}

pub(super) async fn send(
    State(door): State<Arc<Door>>,
    Path(route): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let expected = "{\"feedback\": [{\"prediction_id\": \"of the answer\", \"reward\": 1}]}";
    let Body { feedback } = read(&door, request, expected).await?;
    let service = FeedbackService { feedback: door.gateway.feedback().cloned() };
    let feedback = feedback.into_iter().map(ItemBody::message).collect();
    let response = service.send(SendFeedbackRequest { route, feedback }).await?;
    Ok(reply::json(StatusCode::OK, &response_json(&response)))
}
