//! What operators ask about experiments, over gRPC and as JSON: the same names in both.

use gristmill_engine::error::InferError;
use gristmill_proto::admin as pb;
use gristmill_proto::admin::experiments_server::Experiments as ExperimentsRpc;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use crate::feedback::Feedback;
use crate::status::grpc_status;

/// What both dialects call.
#[derive(Clone)]
pub(crate) struct ExperimentsAdmin {
    /// `None` where a server keeps no feedback.
    pub(crate) feedback: Option<Feedback>,
}

// === impl ExperimentsAdmin ===

impl ExperimentsAdmin {
    pub(crate) async fn list(&self) -> Result<Vec<pb::Experiment>, InferError> {
        let nobody = || InferError::Unavailable("this server keeps no feedback".into());
        self.feedback.as_ref().ok_or_else(nobody)?.experiments().await
    }

    pub(crate) async fn show(&self, route: &str) -> Result<pb::Experiment, InferError> {
        let mut experiments = self.list().await?.into_iter();
        experiments
            .find(|found| found.route == route)
            .ok_or_else(|| InferError::NotFound(format!("there is no route '{route}'")))
    }
}

/// An experiment as JSON, with the names of the message.
pub(crate) fn experiment_json(experiment: &pb::Experiment) -> Value {
    let arm = |arm: &pb::ExperimentArm| {
        json!({
            "name": arm.name,
            "share": arm.share,
            "requests": arm.requests,
            "failed": arm.failed,
            "p50_ms": arm.p50_ms,
            "p90_ms": arm.p90_ms,
            "p99_ms": arm.p99_ms,
            "rewards": arm.rewards,
            "reward_mean": arm.reward_mean,
            "posterior_mean": arm.posterior_mean,
            "posterior_low": arm.posterior_low,
            "posterior_high": arm.posterior_high,
            "probability_best": arm.probability_best,
            "expected_loss": arm.expected_loss,
            "p_value": arm.p_value,
            "fault": arm.fault,
        })
    };
    let rollout = |rollout: &pb::WinnerRollout| {
        json!({
            "step": rollout.step,
            "steps": rollout.steps,
            "percent": rollout.percent,
            "state": rollout.state,
        })
    };
    json!({
        "route": experiment.route,
        "policy": experiment.policy,
        "winner": experiment.winner,
        "rollout": experiment.rollout.as_ref().map(rollout),
        "sample_ratio_p": experiment.sample_ratio_p,
        "arms": experiment.arms.iter().map(arm).collect::<Value>(),
    })
}

#[tonic::async_trait]
impl ExperimentsRpc for ExperimentsAdmin {
    async fn list_experiments(
        &self,
        _request: Request<pb::ListExperimentsRequest>,
    ) -> Result<Response<pb::ListExperimentsResponse>, Status> {
        let experiments = self.list().await.map_err(grpc_status)?;
        Ok(Response::new(pb::ListExperimentsResponse { experiments }))
    }

    async fn show_experiment(
        &self,
        request: Request<pb::ShowExperimentRequest>,
    ) -> Result<Response<pb::Experiment>, Status> {
        let pb::ShowExperimentRequest { route } = request.into_inner();
        self.show(&route).await.map(Response::new).map_err(grpc_status)
    }
}
