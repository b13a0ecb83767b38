//! The handler of `/v2/models/{model}/feedback`: feedback as JSON, with the names of `gristmill.v1.Feedback`.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use gristmill_engine::error::InferError;
use gristmill_proto::admin::{FeedbackItem, SendFeedbackRequest};
use serde::Deserialize;

use super::reply::{self, Refusal};
use super::{Door, body};
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
    let (parts, body) = request.into_parts();
    let feedback = decode(&body::read(&parts.headers, body, &door.options).await?)?;
    let service = FeedbackService { feedback: door.gateway.feedback().cloned() };
    let response = service.send(SendFeedbackRequest { route, feedback }).await?;
    Ok(reply::json(StatusCode::OK, &response_json(&response)))
}

/// Reads `{"feedback": […]}`.
///
/// # Errors
/// `InvalidInput` that says what was expected.
pub fn decode(body: &[u8]) -> Result<Vec<FeedbackItem>, InferError> {
    let expected = "{\"feedback\": [{\"prediction_id\": \"of the answer\", \"reward\": 1}]}";
    let Body { feedback } = body::parse_or_default(body, expected)?;
    Ok(feedback.into_iter().map(ItemBody::message).collect())
}
