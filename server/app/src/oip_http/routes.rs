//! The handlers of `/v1/admin/routes`: routes as JSON, with the names of `gristmill.v1.Routes`.

mod canary;

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use gristmill_engine::error::InferError;
use gristmill_proto::admin::{Arm, Route, Shadow};
use serde::Deserialize;
use serde_json::{Value, json};

use self::canary::SetCanary;
use super::Door;
use super::admin::read;
use super::reply::{self, Refusal};
use crate::admin::routes::{RoutesAdmin, route_json};
use crate::admin::shadows::mismatches_json;
use crate::routes_file::bandit::RawBandit;

type Answer = Result<Response, Refusal>;

/// A route without its name, which the path has.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetRoute {
    #[serde(default)]
    policy: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    salt: String,
    #[serde(default)]
    arms: Vec<SetArm>,
    canary: Option<SetCanary>,
    #[serde(default)]
    shadows: Vec<SetShadow>,
    bandit: Option<RawBandit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetArm {
    #[serde(default)]
    name: String,
    model: String,
    #[serde(default)]
    version: u64,
    #[serde(default)]
    label: String,
    #[serde(default)]
    weight: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetShadow {
    #[serde(default)]
    name: String,
    model: String,
    #[serde(default)]
    version: u64,
    #[serde(default)]
    label: String,
    percent: Option<f64>,
    absolute: Option<f64>,
    relative: Option<f64>,
    #[serde(default)]
    keep_inputs: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Promote {
    #[serde(default)]
    arm: String,
    weight: Option<f64>,
}

pub(super) async fn list(State(door): State<Arc<Door>>) -> Answer {
    let routes = admin(&door).list().await?;
    let routes: Value = routes.iter().map(route_json).collect();
    Ok(reply::json(StatusCode::OK, &json!({"routes": routes})))
}

pub(super) async fn show(State(door): State<Arc<Door>>, Path(route): Path<String>) -> Answer {
    answer(admin(&door).show(&route).await)
}

pub(super) async fn set(State(door): State<Arc<Door>>, Path(name): Path<String>, request: Request) -> Answer {
    let expected =
        "{\"arms\": [{\"name\": \"control\", \"model\": \"digits\", \"version\": 1, \"weight\": 100}]}";
    let SetRoute { policy, key, salt, arms, canary, shadows, bandit } =
        read(&door, request, expected).await?;
    let arm = |arm: SetArm| {
        let SetArm { name, model, version, label, weight } = arm;
        Arm { name, model, version, label, weight, ..Arm::default() }
    };
    let arms = arms.into_iter().map(arm).collect();
    let (canary, bandit) = (canary.map(SetCanary::message), bandit.map(RawBandit::message));
    let shadow = |shadow: SetShadow| {
        let SetShadow { name, model, version, label, percent, absolute, relative, keep_inputs } = shadow;
        Shadow { name, model, version, label, percent, absolute, relative, keep_inputs, ..Shadow::default() }
    };
    let shadows = shadows.into_iter().map(shadow).collect();
    let route = Route { name, policy, key, salt, arms, canary, shadows, bandit, ..Route::default() };
    answer(admin(&door).set(route).await)
}

pub(super) async fn promote(
    State(door): State<Arc<Door>>,
    Path(route): Path<String>,
    request: Request,
) -> Answer {
    let expected = "{\"arm\": \"candidate\", \"weight\": 10}, without weight for everything";
    let Promote { arm, weight } = read(&door, request, expected).await?;
    answer(admin(&door).promote(&route, &arm, weight).await)
}

pub(super) async fn abort(State(door): State<Arc<Door>>, Path(route): Path<String>) -> Answer {
    answer(admin(&door).abort(&route).await)
}

pub(super) async fn mismatches(State(door): State<Arc<Door>>, Path(route): Path<String>) -> Answer {
    Ok(reply::json(StatusCode::OK, &mismatches_json(&admin(&door).mismatches(&route)?)))
}

fn admin(door: &Door) -> RoutesAdmin {
    RoutesAdmin::new(Arc::clone(&door.engine), door.control.clone())
}

fn answer(route: Result<Route, InferError>) -> Answer {
    Ok(reply::json(StatusCode::OK, &route_json(&route?)))
}
