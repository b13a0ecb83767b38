//! Feedback over gRPC and as JSON: the same names in both.

use gristmill_engine::error::InferError;
use gristmill_proto::admin as pb;
use gristmill_proto::admin::feedback_server::Feedback as FeedbackRpc;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use super::{Fate, Feedback, ITEMS_MAX, Item, TRUTH_BYTES_MAX, Taken, Told};
use crate::status::grpc_status;

/// What both dialects call.
#[derive(Clone)]
pub(crate) struct FeedbackService {
    /// `None` where a server keeps none.
    pub(crate) feedback: Option<Feedback>,
}

/// An item as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemBody {
    prediction_id: String,
    reward: Option<f64>,
    truth: Option<Value>,
}

/// Longer lists would be answered at length with what nobody reads.
const PROBLEMS_MAX: usize = 100;

// === impl FeedbackService ===

impl FeedbackService {
    pub(crate) async fn send(
        &self,
        request: pb::SendFeedbackRequest,
    ) -> Result<pb::SendFeedbackResponse, InferError> {
        let pb::SendFeedbackRequest { route, feedback } = request;
        let nobody = || InferError::Unavailable("this server keeps no feedback".into());
        let keeper = self.feedback.as_ref().ok_or_else(nobody)?;
        let ids: Vec<String> = feedback.iter().map(|item| item.prediction_id.clone()).collect();
        let items = read_items(feedback)?;
        Ok(response(&ids, keeper.tell(&route, items).await?))
    }
}

// === impl ItemBody ===

impl ItemBody {
    pub(crate) fn message(self) -> pb::FeedbackItem {
        let ItemBody { prediction_id, reward, truth } = self;
        pb::FeedbackItem { prediction_id, reward, truth: truth.map(|truth| truth.to_string()) }
    }
}

/// What is told, checked as far as that goes without knowing the predictions.
///
/// # Errors
/// `InvalidInput` that names the item, and says what was expected and what came.
pub fn read_items(feedback: Vec<pb::FeedbackItem>) -> Result<Vec<Item>, InferError> {
    if feedback.is_empty() || feedback.len() > ITEMS_MAX {
        let count = feedback.len();
        return Err(InferError::InvalidInput(format!(
            "feedback has {count} items: expected 1 to {ITEMS_MAX}"
        )));
    }
    let mut items = Vec::with_capacity(feedback.len());
    for (index, item) in feedback.into_iter().enumerate() {
        let of_item = |why: String| InferError::InvalidInput(format!("feedback[{index}]: {why}"));
        let prediction_id = item.prediction_id.parse().map_err(of_item)?;
        let told = match (item.reward, item.truth) {
            (Some(reward), None) => Told::Reward(reward),
            (None, Some(truth)) if truth.len() <= TRUTH_BYTES_MAX => Told::Truth(truth),
            (None, Some(truth)) => {
                let bytes = truth.len();
                return Err(of_item(format!("truth has {bytes} bytes: expected at most {TRUTH_BYTES_MAX}")));
            }
            _ => return Err(of_item("expected a reward or a truth, one of the two".into())),
        };
        items.push(Item { prediction_id, told });
    }
    Ok(items)
}

fn response(ids: &[String], taken: Taken) -> pb::SendFeedbackResponse {
    let mut response = pb::SendFeedbackResponse { durable: taken.is_durable, ..Default::default() };
    for (index, fate) in taken.fates.into_iter().enumerate() {
        let (count, problem) = match fate {
            Fate::Accepted => (&mut response.accepted, None),
            Fate::Duplicate => (&mut response.duplicates, None),
            Fate::Conflict { kept } => {
                (&mut response.conflicts, Some(("conflict", format!("{kept} was told before, and stays"))))
            }
            Fate::Unknown => {
                let why = "no such prediction of this route is outstanding";
                (&mut response.unknown, Some(("unknown", why.to_owned())))
            }
            Fate::Invalid(why) => (&mut response.invalid, Some(("invalid", why))),
        };
        *count += 1;
        if let Some((kind, detail)) = problem
            && response.problems.len() < PROBLEMS_MAX
        {
            let kind = kind.to_owned();
            let prediction_id = ids[index].clone();
            response.problems.push(pb::FeedbackProblem { index: index as u32, prediction_id, kind, detail });
        }
    }
    response
}

/// With the names of the message.
pub(crate) fn response_json(response: &pb::SendFeedbackResponse) -> Value {
    let problem = |problem: &pb::FeedbackProblem| {
        json!({
            "index": problem.index,
            "prediction_id": problem.prediction_id,
            "kind": problem.kind,
            "detail": problem.detail,
        })
    };
    json!({
        "accepted": response.accepted,
        "duplicates": response.duplicates,
        "conflicts": response.conflicts,
        "unknown": response.unknown,
        "invalid": response.invalid,
        "durable": response.durable,
        "problems": response.problems.iter().map(problem).collect::<Value>(),
    })
}

#[tonic::async_trait]
impl FeedbackRpc for FeedbackService {
    async fn send_feedback(
        &self,
        request: Request<pb::SendFeedbackRequest>,
    ) -> Result<Response<pb::SendFeedbackResponse>, Status> {
        self.send(request.into_inner()).await.map(Response::new).map_err(grpc_status)
    }
}
