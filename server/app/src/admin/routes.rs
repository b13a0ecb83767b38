//! What operators ask about routes, over gRPC and as JSON: the same names in both.

mod canary;

use std::sync::Arc;

use gristmill_engine::control::{Control, RouteDetails};
use gristmill_engine::engine::Engine;
use gristmill_engine::error::InferError;
use gristmill_engine::request::VersionSelector;
use gristmill_engine::routing::canary::Canary;
use gristmill_engine::routing::{Arm, KeySource, Policy, Route, Weight};
use gristmill_proto::admin as pb;
use gristmill_proto::admin::routes_server::Routes as RoutesService;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use super::shadows::{self, shadow_json};
use crate::repository_orders::{self, refused};
use crate::routes_file::bandit::RawBandit;
use crate::routes_file::parse_policy;
use crate::status::grpc_status;

/// What both dialects call.
#[derive(Clone)]
pub(crate) struct RoutesAdmin {
    engine: Arc<Engine>,
    control: Option<Control>,
}

// === impl RoutesAdmin ===

impl RoutesAdmin {
    pub(crate) fn new(engine: Arc<Engine>, control: Option<Control>) -> RoutesAdmin {
        RoutesAdmin { engine, control }
    }

    fn control(&self) -> Result<&Control, InferError> {
        self.control.as_ref().ok_or_else(repository_orders::nobody)
    }

    pub(crate) async fn list(&self) -> Result<Vec<pb::Route>, InferError> {
        let routes = self.control()?.routes().await.map_err(refused)?;
        Ok(routes.into_iter().map(message).collect())
    }

    pub(crate) async fn show(&self, route: &str) -> Result<pb::Route, InferError> {
        let mut routes = self.list().await?.into_iter();
        routes
            .find(|found| found.name == route)
            .ok_or_else(|| InferError::NotFound(format!("there is no route '{route}'")))
    }

    pub(crate) async fn set(&self, route: pb::Route) -> Result<pb::Route, InferError> {
        let route = read(route).map_err(InferError::InvalidInput)?;
        self.control()?.set_route(route).await.map(message).map_err(refused)
    }

    /// How a route's shadows fare, with the worst mismatches of each.
    pub(crate) fn mismatches(&self, route: &str) -> Result<pb::ListMismatchesResponse, InferError> {
        let reports = self.engine.shadows(route)?;
        Ok(pb::ListMismatchesResponse { shadows: reports.into_iter().map(shadows::mismatches).collect() })
    }

    /// Everything where `weight` is `None`; in percent.
    pub(crate) async fn promote(
        &self,
        route: &str,
        arm: &str,
        weight: Option<f64>,
    ) -> Result<pb::Route, InferError> {
        let weight = match weight {
            None => Weight::ALL,
            Some(percent) => Weight::from_percent(percent)
                .map_err(|why| InferError::InvalidInput(format!("weight {why}")))?,
        };
        self.control()?.promote(route, arm, weight).await.map(message).map_err(refused)
    }

    pub(crate) async fn abort(&self, route: &str) -> Result<pb::Route, InferError> {
        self.control()?.abort(route).await.map(message).map_err(refused)
    }
}

/// A route as an operator writes it.
fn read(route: pb::Route) -> Result<Route, String> {
    let pb::Route { name, policy, key, salt, arms, canary, shadows, bandit, .. } = route;
    let policy = if policy.is_empty() { Policy::Split } else { parse_policy(&policy)? };
    let (policy, rollout) = RawBandit::refine(policy, bandit.map(RawBandit::from_message))?;
    let arm = |arm: pb::Arm| {
        let pb::Arm { name, model, version, label, weight, .. } = arm;
        let version = match (version, label) {
            (0, label) if label.is_empty() => VersionSelector::Default,
            (0, label) => VersionSelector::Label(label),
            (version, label) if label.is_empty() => VersionSelector::Number(version),
            _ => return Err(format!("arm '{name}' has a version and a label: give one of the two")),
        };
        if policy == Policy::Canary && weight != 0.0 {
            return Err(format!(
                "weight of arm '{name}' is {weight}: with policy canary its steps say the weights, leave it out"
            ));
        }
        let weight = Weight::from_percent(weight).map_err(|why| format!("weight of arm '{name}' {why}"))?;
        let mut arm = Arm { name, model, version, weight };
        if arm.name.is_empty() {
            arm.name = arm.target();
        }
        Ok(arm)
    };
    let canary = match canary {
        Some(canary) => Some(canary::read(canary)?),
        None => (policy == Policy::Canary).then(Canary::default),
    };
    let route = Route {
        policy,
        key: if key.is_empty() { KeySource::Header } else { KeySource::parse(&key)? },
        salt: if salt.is_empty() { name.clone() } else { salt },
        arms: arms.into_iter().map(arm).collect::<Result<_, String>>()?,
        canary,
        rollout,
        shadows: shadows.into_iter().map(shadows::read).collect::<Result<_, String>>()?,
        name,
    };
    Ok(route.weighed_by_canary())
}

fn message(details: RouteDetails) -> pb::Route {
    let RouteDetails { route, arms, shadows, fault, canary: details } = details;
    let bandit = match route.policy {
        Policy::Bandit(settings) => Some(RawBandit::of(&settings, &route).message()),
        Policy::Split | Policy::Canary | Policy::Fallback => None,
    };
    let arm = |(arm, serving): (Arm, gristmill_engine::control::ArmDetails)| {
        let (version, label) = match arm.version {
            VersionSelector::Default => (0, String::new()),
            VersionSelector::Number(version) => (version, String::new()),
            VersionSelector::Label(label) => (0, label),
        };
        pb::Arm {
            name: arm.name,
            model: arm.model,
            version,
            label,
            weight: arm.weight.percent(),
            serving_version: serving.version.unwrap_or(0),
        }
    };
    pb::Route {
        name: route.name,
        policy: route.policy.name().to_owned(),
        key: route.key.to_string(),
        salt: route.salt,
        arms: route.arms.into_iter().zip(arms).map(arm).collect(),
        fault: fault.unwrap_or_default(),
        canary: route.canary.map(|canary| canary::message(canary, details)),
        shadows: route.shadows.into_iter().zip(shadows).map(shadows::message).collect(),
        bandit,
    }
}

/// A route as JSON, with the names of the message.
pub(crate) fn route_json(route: &pb::Route) -> Value {
    let arm = |arm: &pb::Arm| {
        json!({
            "name": arm.name,
            "model": arm.model,
            "version": arm.version,
            "label": arm.label,
            "weight": arm.weight,
            "serving_version": arm.serving_version,
        })
    };
    let mut json = json!({
        "name": route.name,
        "policy": route.policy,
        "key": route.key,
        "salt": route.salt,
        "arms": route.arms.iter().map(arm).collect::<Value>(),
        "fault": route.fault,
        "shadows": route.shadows.iter().map(shadow_json).collect::<Value>(),
    });
    if let Some(canary) = &route.canary {
        json["canary"] = canary::to_json(canary);
    }
    if let Some(bandit) = &route.bandit {
        json["bandit"] = json!(RawBandit::from_message(bandit.clone()));
    }
    json
}

#[tonic::async_trait]
impl RoutesService for RoutesAdmin {
    async fn list_routes(
        &self,
        _request: Request<pb::ListRoutesRequest>,
    ) -> Result<Response<pb::ListRoutesResponse>, Status> {
        let routes = self.list().await.map_err(grpc_status)?;
        Ok(Response::new(pb::ListRoutesResponse { routes }))
    }

    async fn show_route(
        &self,
        request: Request<pb::ShowRouteRequest>,
    ) -> Result<Response<pb::Route>, Status> {
        let pb::ShowRouteRequest { route } = request.into_inner();
        self.show(&route).await.map(Response::new).map_err(grpc_status)
    }

    async fn set_route(&self, request: Request<pb::SetRouteRequest>) -> Result<Response<pb::Route>, Status> {
        let route = request.into_inner().route.unwrap_or_default();
        self.set(route).await.map(Response::new).map_err(grpc_status)
    }

    async fn promote_arm(
        &self,
        request: Request<pb::PromoteArmRequest>,
    ) -> Result<Response<pb::Route>, Status> {
        let pb::PromoteArmRequest { route, arm, weight } = request.into_inner();
        self.promote(&route, &arm, weight).await.map(Response::new).map_err(grpc_status)
    }

    async fn abort_route(
        &self,
        request: Request<pb::AbortRouteRequest>,
    ) -> Result<Response<pb::Route>, Status> {
        let pb::AbortRouteRequest { route } = request.into_inner();
        self.abort(&route).await.map(Response::new).map_err(grpc_status)
    }

    async fn list_mismatches(
        &self,
        request: Request<pb::ListMismatchesRequest>,
    ) -> Result<Response<pb::ListMismatchesResponse>, Status> {
        let pb::ListMismatchesRequest { route } = request.into_inner();
        self.mismatches(&route).map(Response::new).map_err(grpc_status)
    }
}
