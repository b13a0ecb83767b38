//! What operators ask of a running server, over gRPC and as JSON: the same names in both.

pub(crate) mod experiments;
pub(crate) mod routes;
pub(crate) mod shadows;

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use gristmill_engine::attainment::WindowAttainment;
use gristmill_engine::control::Control;
use gristmill_engine::engine::Engine;
use gristmill_engine::error::InferError;
use gristmill_engine::managed::{self, ModelDetails};
use gristmill_proto::admin as pb;
use gristmill_proto::admin::admin_server::Admin as AdminService;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use crate::repository_orders::{self, refused};
use crate::status::grpc_status;

/// What both dialects call.
#[derive(Clone)]
pub(crate) struct Admin {
    engine: Arc<Engine>,
    control: Option<Control>,
}

// === impl Admin ===

impl Admin {
    pub(crate) fn new(engine: Arc<Engine>, control: Option<Control>) -> Admin {
        Admin { engine, control }
    }

    fn control(&self) -> Result<&Control, InferError> {
        self.control.as_ref().ok_or_else(repository_orders::nobody)
    }

    pub(crate) async fn list(&self) -> Result<Vec<pb::Model>, InferError> {
        let mut names: Vec<String> = self.engine.index().into_iter().map(|entry| entry.model).collect();
        names.dedup();
        let mut models = Vec::with_capacity(names.len());
        for name in names {
            let mut model = self.show(&name).await?;
            model.history.clear();
            models.push(model);
        }
        Ok(models)
    }

    pub(crate) async fn show(&self, model: &str) -> Result<pb::Model, InferError> {
        let details = self.control()?.describe(model).await.map_err(refused)?;
        Ok(self.message(details))
    }

    pub(crate) async fn load(&self, model: &str) -> Result<pb::Model, InferError> {
        self.control()?.load(model, None).await.map_err(refused)?;
        self.show(model).await
    }

    pub(crate) async fn unload(&self, model: &str) -> Result<pb::Model, InferError> {
        self.control()?.unload(model).await.map_err(refused)?;
        self.show(model).await
    }

    pub(crate) async fn roll_back(&self, model: &str, reason: &str) -> Result<pb::Model, InferError> {
        let reason = if reason.is_empty() { "an operator asked for it" } else { reason };
        self.control()?.roll_back(model, reason).await.map_err(refused)?;
        self.show(model).await
    }

    /// `version` 0 takes the label away.
    pub(crate) async fn set_label(
        &self,
        model: &str,
        label: &str,
        version: u64,
    ) -> Result<pb::Model, InferError> {
        let version = (version > 0).then_some(version);
        self.control()?.set_label(model, label, version).await.map_err(refused)?;
        self.show(model).await
    }

    pub(crate) fn slo(&self, model: &str) -> Result<pb::Slo, InferError> {
        let attainment = self.engine.attainment(model)?;
        let window = |of: WindowAttainment| pb::SloWindow {
            window: of.window.name.to_owned(),
            seconds: of.window.length.as_secs(),
            good: of.tally.good,
            bad: of.tally.bad,
            goodput_per_second: of.goodput_per_second,
            attainment: of.attainment,
            burn_rate: of.burn_rate,
        };
        Ok(pb::Slo {
            model: model.to_owned(),
            objective: attainment.objective,
            windows: attainment.windows.map(window).into(),
        })
    }

    fn message(&self, details: ModelDetails) -> pb::Model {
        let version = |entry: gristmill_engine::engine::IndexEntry| pb::Version {
            version: entry.version,
            state: entry.state.name().to_owned(),
            reason: entry.reason,
        };
        let event = |event: managed::Event| pb::Event {
            at_ms: event
                .at
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            version: event.version,
            kind: event.kind.name().to_owned(),
            detail: event.detail,
        };
        let index = self.engine.index().into_iter();
        pb::Model {
            versions: index.filter(|entry| entry.model == details.name).map(version).collect(),
            name: details.name,
            default_version: details.default.unwrap_or(0),
            previous_version: details.previous.unwrap_or(0),
            version_policy: details.policy.unwrap_or_default(),
            labels: details.labels.into_iter().collect(),
            history: details.history.into_iter().map(event).collect(),
        }
    }
}

/// A model as JSON, with the names of the message.
pub(crate) fn to_json(model: &pb::Model) -> Value {
    let version = |version: &pb::Version| json!({"version": version.version, "state": version.state, "reason": version.reason});
    let event = |event: &pb::Event| json!({"at_ms": event.at_ms, "version": event.version, "kind": event.kind, "detail": event.detail});
    json!({
        "name": model.name,
        "default_version": model.default_version,
        "previous_version": model.previous_version,
        "version_policy": model.version_policy,
        "labels": model.labels,
        "versions": model.versions.iter().map(version).collect::<Value>(),
        "history": model.history.iter().map(event).collect::<Value>(),
    })
}

/// A model's promises as JSON, with the names of the message.
pub(crate) fn slo_json(slo: &pb::Slo) -> Value {
    let window = |window: &pb::SloWindow| {
        json!({
            "window": window.window,
            "seconds": window.seconds,
            "good": window.good,
            "bad": window.bad,
            "goodput_per_second": window.goodput_per_second,
            "attainment": window.attainment,
            "burn_rate": window.burn_rate,
        })
    };
    json!({
        "model": slo.model,
        "objective": slo.objective,
        "windows": slo.windows.iter().map(window).collect::<Value>(),
    })
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn list_models(
        &self,
        _request: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        let models = self.list().await.map_err(grpc_status)?;
        Ok(Response::new(pb::ListModelsResponse { models }))
    }

    async fn show_model(
        &self,
        request: Request<pb::ShowModelRequest>,
    ) -> Result<Response<pb::Model>, Status> {
        let pb::ShowModelRequest { model } = request.into_inner();
        self.show(&model).await.map(Response::new).map_err(grpc_status)
    }

    async fn load_model(
        &self,
        request: Request<pb::LoadModelRequest>,
    ) -> Result<Response<pb::Model>, Status> {
        let pb::LoadModelRequest { model } = request.into_inner();
        self.load(&model).await.map(Response::new).map_err(grpc_status)
    }

    async fn unload_model(
        &self,
        request: Request<pb::UnloadModelRequest>,
    ) -> Result<Response<pb::Model>, Status> {
        let pb::UnloadModelRequest { model } = request.into_inner();
        self.unload(&model).await.map(Response::new).map_err(grpc_status)
    }

    async fn roll_back_model(
        &self,
        request: Request<pb::RollBackModelRequest>,
    ) -> Result<Response<pb::Model>, Status> {
        let pb::RollBackModelRequest { model, reason } = request.into_inner();
        self.roll_back(&model, &reason).await.map(Response::new).map_err(grpc_status)
    }

    async fn set_label(&self, request: Request<pb::SetLabelRequest>) -> Result<Response<pb::Model>, Status> {
        let pb::SetLabelRequest { model, label, version } = request.into_inner();
        self.set_label(&model, &label, version).await.map(Response::new).map_err(grpc_status)
    }

    async fn show_slo(&self, request: Request<pb::ShowSloRequest>) -> Result<Response<pb::Slo>, Status> {
        let pb::ShowSloRequest { model } = request.into_inner();
        self.slo(&model).map(Response::new).map_err(grpc_status)
    }
}
