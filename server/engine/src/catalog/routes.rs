//! Routes as a catalog serves them: each arm with the deployment that it points at now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Catalog;
use crate::compatibility;
use crate::deployment::{Admitted, Deployment, Refused};
use crate::error::InferError;
use crate::mirror::{Mirror, Sampled, ShadowReport};
use crate::prediction::{ArmName, PredictionId};
use crate::request::{Query, VersionSelector};
use crate::routing::{Arm, Keyed, Passage, Policy, Route, Router, check_version};

/// What the catalog shows of routes.
#[derive(Default)]
pub(crate) struct RoutesReport {
    pub(crate) routes: Vec<Arc<Router>>,
    /// Of the routes' shadows.
    pub(crate) mirrors: BTreeMap<String, Vec<Arc<Mirror>>>,
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
        /// Of each shadow, with where it leads.
        mirrors: Vec<(Arc<Mirror>, Target)>,
    },
    /// It ought to serve and cannot; the reason names it.
    Faulty { reason: String },
}

// === impl Catalog ===

impl Catalog {
    pub(super) fn add_routes(&mut self, mut report: RoutesReport) {
        match report.has_table {
            true => self.failing.extend(report.fault),
            false => self.unready.extend(report.fault),
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
            let mirrors: Vec<(Arc<Mirror>, Target)> = report
                .mirrors
                .remove(&name)
                .into_iter()
                .flatten()
                .map(|mirror| {
                    let target = self.shadow_target(&mirror, &arms);
                    (mirror, target)
                })
                .collect();
            let faults = mirrors.iter().filter_map(|(mirror, target)| {
                let why = target.as_ref().err()?;
                Some(format!("route '{name}': shadow '{}': {why}", mirror.shadow.target.name))
            });
            self.failing.extend(faults);
            self.routes.insert(name, ServedRoute::Sound { router, arms, mirrors });
        }
        for (name, reason) in report.unserved {
            self.unready.push(reason.clone());
            self.routes.insert(name, ServedRoute::Faulty { reason });
        }
    }

    /// Has the routes' shadows lead where this catalog says.
    pub(crate) fn aim_mirrors(&self) {
        for route in self.routes.values() {
            if let ServedRoute::Sound { mirrors, .. } = route {
                for (mirror, target) in mirrors {
                    mirror.aim(target.as_ref().ok());
                }
            }
        }
    }

    pub(crate) fn routes_in_force(&self) -> Vec<Route> {
        let sound = self.routes.values().filter_map(|route| route.sound().ok());
        let mut routes: Vec<Route> = sound.map(|(router, _)| router.route.clone()).collect();
        routes.sort_by(|a, b| a.name.cmp(&b.name));
        routes
    }

    /// Gives the arms of a bandit other shares; whoever computed them may be told late that it is gone.
    pub(crate) fn deal(&self, route: &Route, shares: &[f64]) {
        if let Some(Ok((router, _))) = self.routes.get(&route.name).map(ServedRoute::sound)
            && router.route == *route
        {
            router.deal(shares);
        }
    }

    /// A prediction that an arm made when it led to this version was rewarded.
    pub(crate) fn rewarded(&self, name: &ArmName, version: u64, age: Duration, reward: f64) {
        let Some(Ok((router, targets))) = self.routes.get(&name.route).map(ServedRoute::sound) else {
            return;
        };
        let arm = router.route.arms.iter().position(|arm| arm.name == name.arm);
        let leads_there = |arm: &usize| matches!(&targets[*arm], Ok(found) if found.info.version == version);
        if let Some(arm) = arm.filter(leads_there) {
            router.rewarded(arm, age, reward);
        }
    }

    pub(crate) fn route(&self, name: &str) -> Option<&ServedRoute> {
        self.routes.get(name)
    }

    /// The deployment of a shadow, which must take what clients of the first arm that serves may send.
    fn shadow_target(&self, mirror: &Mirror, arms: &[Target]) -> Target {
        let Arm { model, version, .. } = &mirror.shadow.target;
        let found = self.deployment(model, version);
        let deployment = found.ok_or_else(|| self.missing(model, version).to_string())?;
        if let Some(control) = arms.iter().find_map(|arm| arm.as_ref().ok()) {
            compatibility::check_mirrored(&control.info.signature, &deployment.info.signature)
                .map_err(|why| format!("requests cannot be mirrored to it: {why}"))?;
        }
        Ok(Arc::clone(deployment))
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
    ) -> Result<(Admitted, Passage, Option<Sampled>), InferError> {
        let (router, arms) = self.sound()?;
        check_version(&router.route, &query.version).map_err(InferError::NotFound)?;
        let prediction_id = PredictionId::next();
        let sampled = self.sample(router, &query, request, prediction_id);
        let (admitted, passage) = Self::deal(router, arms, query, now, request, prediction_id)?;
        Ok((admitted, passage, sampled))
    }

    fn deal(
        router: &Router,
        arms: &[Target],
        query: Query,
        now: Instant,
        request: &dyn Keyed,
        prediction_id: PredictionId,
    ) -> Result<(Admitted, Passage), InferError> {
        let begin = |index: usize, key_hash| {
            let version = arms[index].as_ref().map_or(0, |deployment| deployment.info.version);
            router.pass(index, prediction_id, now).of(version, key_hash)
        };
        match router.route.policy {
            Policy::Split | Policy::Canary | Policy::Bandit(_) => {
                let (index, key_hash) = router.choose(request, prediction_id);
                let index = stand_in(&router.route, arms, index);
                let passage = begin(index, key_hash);
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
                        Ok(admitted) => return Ok((admitted, begin(index, None))),
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
                finish(Err(error), begin(index, None))
            }
        }
    }

    /// The shadows that a request is mirrored to.
    fn sample(
        &self,
        router: &Router,
        query: &Query,
        request: &dyn Keyed,
        prediction_id: PredictionId,
    ) -> Option<Sampled> {
        let ServedRoute::Sound { mirrors, .. } = self else { return None };
        if mirrors.is_empty() {
            return None;
        }
        let mirrors = mirrors.iter().map(|(mirror, _)| mirror);
        let id = prediction_id.bytes();
        Sampled::choose(mirrors, &query.inputs, &router.key(request, &id), prediction_id)
    }

    /// How the shadows fare, in the route's order.
    pub(crate) fn shadows(&self) -> Vec<ShadowReport> {
        match self {
            ServedRoute::Sound { mirrors, .. } => mirrors.iter().map(|(mirror, _)| mirror.report()).collect(),
            ServedRoute::Faulty { .. } => Vec::new(),
        }
    }

    fn sound(&self) -> Result<(&Router, &[Target]), InferError> {
        match self {
            ServedRoute::Sound { router, arms, .. } => Ok((&**router, arms.as_slice())),
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
