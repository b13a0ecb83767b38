//! Routes as a catalog serves them: each arm with the deployment that it points at now.

use std::sync::Arc;
use std::time::Instant;

use super::Catalog;
use crate::compatibility;
use crate::deployment::{Admitted, Deployment, Refused};
use crate::error::InferError;
use crate::prediction::PredictionId;
use crate::request::{Query, VersionSelector};
use crate::routing::{Arm, Keyed, Passage, Policy, Route, Router, check_version};

/// What the catalog shows of routes.
#[derive(Default)]
pub(crate) struct RoutesReport {
    pub(crate) routes: Vec<Arc<Router>>,
    /// Routes that ought to serve and cannot, each with why.
    pub(crate) unserved: Vec<(String, String)>,
    /// Why what the repository says is not in force ...
    pub(crate) fault: Option<String>,
    /// ... but an older table, or else nothing.
    pub(crate) has_table: bool,
}

/// Where an arm leads, or why nowhere.
type Target = Result<Arc<Deployment>, String>;

/// A route in one catalog.
pub(crate) enum ServedRoute {
    Sound {
        router: Arc<Router>,
        /// Of each arm.
        arms: Vec<Target>,
    },
    /// It ought to serve and cannot; the reason names it.
    Faulty { reason: String },
}

// === impl Catalog ===

impl Catalog {
    pub(super) fn add_routes(&mut self, report: RoutesReport) {
        match report.has_table {
            true => self.failing.extend(report.fault),
            false => self.unserved.extend(report.fault),
        }
        for router in report.routes {
            let name = router.route.name.clone();
            // A model of this name came later, and goes first.
            if self.service_levels.contains_key(&name) {
                let why = "a model of the repository has its name now, and gets its requests: rename one";
                self.failing.push(format!("route '{name}': {why}"));
                continue;
            }
            let arms = self.arms(&router);
            let faults = router.route.arms.iter().zip(&arms).filter_map(|(arm, found)| {
                let why = found.as_ref().err()?;
                Some(format!("route '{name}': arm '{}': {why}", arm.name))
            });
            self.failing.extend(faults);
            self.routes.insert(name, ServedRoute::Sound { router, arms });
        }
        for (name, reason) in report.unserved {
            self.unserved.push(reason.clone());
            self.routes.insert(name, ServedRoute::Faulty { reason });
        }
    }

    pub(crate) fn route(&self, name: &str) -> Option<&ServedRoute> {
        self.routes.get(name)
    }

    /// The deployments of a route's arms. Clients know the route by the first that serves, so all others must be
    /// usable in its place.
    fn arms(&self, router: &Router) -> Vec<Target> {
        let mut control: Option<Arc<Deployment>> = None;
        let arm = |arm: &Arm| {
            let found = self.deployment(&arm.model, &arm.version);
            let deployment = found.ok_or_else(|| self.missing(&arm.model, &arm.version).to_string())?;
            let control = control.get_or_insert_with(|| Arc::clone(deployment));
            match compatibility::check(&control.info.signature, &deployment.info.signature) {
                Ok(()) => Ok(Arc::clone(deployment)),
                Err(why) => Err(format!(
                    "clients of '{}' version {} could not use '{}' version {} instead: {why}",
                    control.info.name, control.info.version, deployment.info.name, deployment.info.version
                )),
            }
        };
        router.route.arms.iter().map(arm).collect()
    }
}

// === impl ServedRoute ===

impl ServedRoute {
    /// The deployment whose signature clients of the route may rely on.
    pub(super) fn known_by(&self, version: &VersionSelector) -> Result<&Arc<Deployment>, InferError> {
        let (router, arms) = self.sound()?;
        check_version(&router.route, version).map_err(InferError::NotFound)?;
        arms.iter().find_map(|arm| arm.as_ref().ok()).ok_or_else(|| unserved(router, 0, &arms[0]))
    }

    /// Has one of the arms take a query that arrives now. Never blocks.
    pub(crate) fn submit(
        &self,
        query: Query,
        now: Instant,
        request: &dyn Keyed,
    ) -> Result<(Admitted, Passage), InferError> {
        let (router, arms) = self.sound()?;
        check_version(&router.route, &query.version).map_err(InferError::NotFound)?;
        let prediction_id = PredictionId::next();
        let begin = |index: usize| Passage::begin(router.arm(index), prediction_id, now);
        match router.route.policy {
            Policy::Split | Policy::Canary => {
                let index = stand_in(&router.route, arms, router.choose(request, prediction_id));
                let passage = begin(index);
                let admitted = match &arms[index] {
                    Ok(deployment) => deployment.submit(query, now, None),
                    why => Err(unserved(router, index, why)),
                };
                finish(admitted, passage)
            }
            Policy::Fallback => {
                let mut refusal = None;
                for (index, arm) in arms.iter().enumerate() {
                    let Ok(deployment) = arm else { continue };
                    match deployment.admit(query.clone(), now) {
                        Ok(admitted) => return Ok((admitted, begin(index))),
                        Err(refused) => {
                            // What is wrong with the request is wrong everywhere.
                            let is_final = matches!(refused, Refused::Error(_));
                            // Who would have been asked had there been no other.
                            refusal.get_or_insert((index, deployment, refused));
                            if is_final {
                                break;
                            }
                        }
                    }
                }
                let refused = refusal.map(|(index, deployment, refused)| (index, deployment.refuse(refused)));
                let (index, error) = refused.unwrap_or_else(|| (0, unserved(router, 0, &arms[0])));
                finish(Err(error), begin(index))
            }
        }
    }

    fn sound(&self) -> Result<(&Router, &[Target]), InferError> {
        match self {
            ServedRoute::Sound { router, arms } => Ok((&**router, arms.as_slice())),
            ServedRoute::Faulty { reason } => Err(InferError::Unavailable(reason.clone())),
        }
    }
}

/// Who takes what an arm is to get: while the candidate of a canary does not serve, the control.
fn stand_in(route: &Route, arms: &[Target], index: usize) -> usize {
    let is_spared = route.policy == Policy::Canary && arms[index].is_err() && arms[0].is_ok();
    if is_spared { 0 } else { index }
}

fn finish(
    admitted: Result<Admitted, InferError>,
    passage: Passage,
) -> Result<(Admitted, Passage), InferError> {
    match admitted {
        Ok(admitted) => Ok((admitted, passage)),
        Err(error) => {
            passage.failed(&error);
            Err(error)
        }
    }
}

fn unserved(router: &Router, index: usize, arm: &Target) -> InferError {
    let why = arm.as_ref().err().map_or("", String::as_str);
    let route = &router.route;
    InferError::Unavailable(format!("route '{}': arm '{}': {why}", route.name, route.arms[index].name))
}
