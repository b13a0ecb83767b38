//! `grpc.health.v1`: the server ("") and each model by its name, always read from the engine itself.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};
use gristmill_engine::engine::Engine;
use gristmill_engine::error::InferError;
use gristmill_engine::request::VersionSelector;
use gristmill_proto::inference::grpc_inference_service_server::SERVICE_NAME;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::status::bounded_status;

/// Health of the server, of the inference service (the same) and of every model.
pub(super) struct EngineHealth {
    pub(super) engine: Arc<Engine>,
    /// Cancelled when the server has stopped accepting: watches end.
    pub(super) stopping: CancellationToken,
}

/// What `service` is doing; `ServiceUnknown` for a name that is not in the repository.
fn status(engine: &Engine, service: &str) -> ServingStatus {
    let serving = match service {
        "" | SERVICE_NAME => engine.ready().ready,
        model => match engine.model(model, &VersionSelector::Default) {
            Ok(_) => !engine.is_shutting_down(),
            Err(InferError::NotFound(_)) => return ServingStatus::ServiceUnknown,
            Err(_) => false,
        },
    };
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}

// === impl EngineHealth ===

#[tonic::async_trait]
impl Health for EngineHealth {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match status(&self.engine, &service) {
            ServingStatus::ServiceUnknown => {
                Err(bounded_status(Code::NotFound, format!("no model '{service}' in the repository")))
            }
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    /// The status now and after each change of it. A name that is not known yet may become known.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let engine = Arc::clone(&self.engine);
        let mut changes = engine.changes();
        changes.mark_changed();
        let statuses = stream::unfold((changes, None), move |(mut changes, sent)| {
            let (engine, service) = (Arc::clone(&engine), service.clone());
            async move {
                loop {
                    // An error means that the engine is gone, and with it everything to report.
                    changes.changed().await.ok()?;
                    let status = status(&engine, &service);
                    if sent != Some(status) {
                        let response = HealthCheckResponse { status: status.into() };
                        return Some((Ok(response), (changes, Some(status))));
                    }
                }
            }
        });
        Ok(Response::new(statuses.take_until(self.stopping.clone().cancelled_owned()).boxed()))
    }
}
