//! The routing table: which routes are in force, and why those that the repository says are not.

mod rollouts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use self::rollouts::Rollouts;
pub use self::rollouts::{CanaryDetails, CanaryEvent};
pub(crate) use self::rollouts::{JUDGED_EVERY, Turn};

use crate::catalog::RoutesReport;
use crate::compatibility;
use crate::error::ControlError;
use crate::journal::Journal;
use crate::managed::Managed;
use crate::mirror::Mirror;
pub use crate::mirror::ShadowCounts;
use crate::registry::{DesiredRoutes, check_name};
use crate::request::VersionSelector;
use crate::routing::{Arm, Route, Router, Shadow, Weight, check};

/// The table in force, beside what the repository says.
#[derive(Default)]
pub(crate) struct RouteTable {
    /// Of the ends of requests through all routes.
    pub(crate) journal: Arc<Journal>,
    routers: BTreeMap<String, Arc<Router>>,
    /// By route, in the order of its shadows.
    mirrors: BTreeMap<String, Vec<Arc<Mirror>>>,
    /// Routes of the first table that cannot be: there are no older ones to go on with. Each with why.
    unserved: BTreeMap<String, String>,
    /// Why what the repository says is not in force.
    fault: Option<String>,
    has_table: bool,
    is_changing: bool,
    rollouts: Rollouts,
    /// Candidates that were taken back, which the repository could not be told: each with the route that it says, and
    /// the one that is in force instead.
    unwritten: Vec<(Route, Route)>,
}

/// A route as operators see it.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteDetails {
    pub route: Route,
    /// In the route's order.
    pub arms: Vec<ArmDetails>,
    /// In the route's order.
    pub shadows: Vec<ShadowDetails>,
    /// Why the repository's routes, or this one of them, are not in force.
    pub fault: Option<String>,
    /// Where the policy is one.
    pub canary: Option<CanaryDetails>,
}

/// Where an arm leads now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArmDetails {
    /// The version that serves; `None` where none does.
    pub version: Option<u64>,
}

/// Where a shadow leads now, and what came of it since it is as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShadowDetails {
    /// The version that serves; `None` where none does.
    pub version: Option<u64>,
    pub counts: ShadowCounts,
}

type Models = BTreeMap<String, Managed>;

// === impl RouteTable ===

impl RouteTable {
    /// Takes over what the repository says, all of it or nothing; of the first table the routes that can be.
    pub(crate) fn observe(&mut self, desired: DesiredRoutes, models: &Models) {
        self.is_changing = false;
        let routes = match desired {
            DesiredRoutes::Read(routes) => self.with_unwritten(routes),
            DesiredRoutes::Changing => {
                self.is_changing = true;
                return;
            }
            DesiredRoutes::Faulty { reason } => return self.set_fault(Some(reason)),
        };
        if self.has_table && self.unserved.is_empty() && self.is_in_force(&routes) {
            return self.set_fault(None);
        }
        let faults = faults(&routes, models);
        if faults.is_empty() {
            return self.take(routes);
        }
        if self.has_table && self.unserved.is_empty() {
            return self.set_fault(Some(faults.into_values().collect::<Vec<_>>().join("; ")));
        }
        let sound: Vec<Route> =
            routes.into_iter().filter(|route| !faults.contains_key(&route.name)).collect();
        if !self.has_table || faults != self.unserved || !self.is_in_force(&sound) {
            for why in faults.values() {
                tracing::error!(why, "a route is not served");
            }
            self.take(sound);
            self.unserved = faults;
        }
    }

    /// Has these routes in force, which must be sound.
    pub(crate) fn take(&mut self, routes: Vec<Route>) {
        let mut before = std::mem::take(&mut self.routers);
        let mut mirrors = std::mem::take(&mut self.mirrors);
        for route in routes {
            let known = mirrors.remove(&route.name).unwrap_or_default();
            self.mirrors.insert(route.name.clone(), mirrors_of(&route, &known));
            let kept = before.remove(&route.name).filter(|router| router.route == route);
            let router = kept.unwrap_or_else(|| {
                tracing::info!(route = route.name, arms = describe(&route), "a route is in force");
                Arc::new(Router::new(route, Arc::clone(&self.journal)))
            });
            self.routers.insert(router.route.name.clone(), router);
        }
        for name in before.keys().filter(|name| !self.routers.contains_key(*name)) {
            tracing::info!(route = name, "a route is taken away");
        }
        self.unserved.clear();
        self.has_table = true;
        self.set_fault(None);
    }

    /// Has a candidate taken back although the repository goes on saying something else.
    pub(crate) fn take_unwritten(&mut self, route: Route) {
        let Some(router) = self.routers.get(&route.name) else { return };
        self.unwritten.push((router.route.clone(), route.clone()));
        let mut routes: Vec<Route> = self.routers.values().map(|router| router.route.clone()).collect();
        routes.iter_mut().filter(|other| other.name == route.name).for_each(|other| *other = route.clone());
        let (fault, unserved) = (self.fault.take(), std::mem::take(&mut self.unserved));
        self.take(routes);
        (self.fault, self.unserved) = (fault, unserved);
    }

    /// A route that the repository has yet to be told.
    pub(crate) fn unwritten(&self) -> Option<Route> {
        self.unwritten.first().map(|(_, route)| route.clone())
    }

    /// The repository says what is in force.
    pub(crate) fn all_written(&mut self) {
        self.unwritten.clear();
    }

    fn with_unwritten(&mut self, mut routes: Vec<Route>) -> Vec<Route> {
        self.unwritten.retain(|(said, _)| routes.contains(said));
        for route in &mut routes {
            if let Some((_, instead)) = self.unwritten.iter().find(|(said, _)| said == route) {
                *route = instead.clone();
            }
        }
        routes
    }

    /// The routes in force with this one among them.
    ///
    /// # Errors
    /// It cannot be, or the repository says something that would be lost.
    pub(crate) fn with(&self, route: Route, models: &Models) -> Result<Vec<Route>, ControlError> {
        let refused = |text: String| Err(ControlError::Refused(text));
        if self.is_changing {
            return refused(
                "the repository's routes were written to a moment ago: try again when they are in force"
                    .into(),
            );
        }
        if let Some(fault) = self.fault.iter().chain(self.unserved.values()).next() {
            return refused(format!("the repository's routes are not in force: mend them first: {fault}"));
        }
        let mut table: BTreeMap<String, Route> =
            self.routers.iter().map(|(name, router)| (name.clone(), router.route.clone())).collect();
        table.insert(route.name.clone(), route);
        let table: Vec<Route> = table.into_values().collect();
        let faults = faults(&table, models);
        if faults.is_empty() {
            return Ok(table);
        }
        refused(faults.into_values().collect::<Vec<_>>().join("; "))
    }

    /// A route in force with another weight of one of its arms; of the first if it is not said which.
    ///
    /// # Errors
    /// The route or the arm is unknown, or has no weights.
    pub(crate) fn weigh(
        &self,
        route: &str,
        arm: Option<&str>,
        weight: Weight,
    ) -> Result<Route, ControlError> {
        let Some(router) = self.routers.get(route) else {
            return Err(ControlError::NotFound(format!("there is no route '{route}'")));
        };
        let route = &router.route;
        let arm = arm.unwrap_or_else(|| &route.arms[0].name);
        route.with_weight(arm, weight).map_err(ControlError::Refused)
    }

    /// Routes may be half written: worth another look soon.
    pub(crate) fn is_changing(&self) -> bool {
        self.is_changing
    }

    /// Versions of a model that arms name by number.
    pub(crate) fn versions_of(&self, model: &str) -> BTreeSet<u64> {
        let routes = || self.routers.values().map(|router| &router.route);
        let shadows = routes().flat_map(|route| &route.shadows).map(|shadow| &shadow.target);
        let arms = routes().flat_map(|route| &route.arms).chain(shadows);
        let versions = arms.filter(|arm| arm.model == model).filter_map(|arm| match arm.version {
            VersionSelector::Number(version) => Some(version),
            VersionSelector::Default | VersionSelector::Label(_) => None,
        });
        versions.collect()
    }

    pub(crate) fn report(&self) -> RoutesReport {
        RoutesReport {
            routes: self.routers.values().cloned().collect(),
            mirrors: self.mirrors.clone(),
            unserved: self.unserved.clone().into_iter().collect(),
            fault: self.fault.clone(),
            has_table: self.has_table,
        }
    }

    pub(crate) fn details(&self, models: &Models, now: Instant) -> Vec<RouteDetails> {
        let version = |arm: &Arm| {
            let serving = models.get(&arm.model).and_then(|managed| managed.serving(&arm.version));
            serving.map(|deployment| deployment.info.version)
        };
        let arm = |arm: &Arm| ArmDetails { version: version(arm) };
        let shadow = |mirror: &Arc<Mirror>| ShadowDetails {
            version: version(&mirror.shadow.target),
            counts: mirror.counts(),
        };
        let details = |router: &Arc<Router>| RouteDetails {
            arms: router.route.arms.iter().map(arm).collect(),
            shadows: self.mirrors.get(&router.route.name).into_iter().flatten().map(shadow).collect(),
            route: router.route.clone(),
            fault: self.fault.clone(),
            canary: self.canary_details(router, now),
        };
        self.routers.values().map(details).collect()
    }

    /// Ends the shadows' threads, whose sessions are freed with them.
    pub(crate) fn end(&self) {
        self.mirrors.values().flatten().for_each(|mirror| mirror.begin_end());
        for mirror in self.mirrors.values().flatten() {
            if !mirror.has_ended() {
                let shadow = &mirror.shadow.target.name;
                tracing::warn!(shadow, "a run of a shadow does not end: its session is left behind");
            }
        }
    }

    fn is_in_force(&self, routes: &[Route]) -> bool {
        let router =
            |route: &Route| self.routers.get(&route.name).is_some_and(|router| router.route == *route);
        routes.len() == self.routers.len() && routes.iter().all(router)
    }

    fn set_fault(&mut self, fault: Option<String>) {
        if let Some(fault) = fault.as_ref().filter(|fault| self.fault.as_ref() != Some(*fault)) {
            tracing::error!(fault, "the repository's routes are not taken over: those in force stay");
        }
        self.fault = fault;
    }
}

/// Those of a route's shadows: of those that are `known` what goes on as it is.
fn mirrors_of(route: &Route, known: &[Arc<Mirror>]) -> Vec<Arc<Mirror>> {
    let mirror = |shadow: &Shadow| {
        let same = known.iter().find(|mirror| mirror.is_of(route, shadow));
        same.map_or_else(|| Mirror::start(route, shadow), Arc::clone)
    };
    route.shadows.iter().map(mirror).collect()
}

/// What is wrong, by route.
fn faults(routes: &[Route], models: &Models) -> BTreeMap<String, String> {
    let is_route = |name: &str| routes.iter().any(|route| route.name == name);
    let is_model = |name: &str| models.get(name).is_some_and(Managed::is_in_repository);
    let fault = |route: &Route| {
        let name = || check_name(&route.name);
        name()
            .and_then(|()| check(route, &is_route, &is_model, &|arm| is_known(arm, models)))
            .and_then(|()| check_signatures(route, models))
            .err()
            .map(|why| (route.name.clone(), why))
    };
    routes.iter().filter_map(fault).collect()
}

/// Whether the repository has what an arm names.
fn is_known(arm: &Arm, models: &Models) -> Result<(), String> {
    let Some(managed) = models.get(&arm.model).filter(|managed| managed.is_in_repository()) else {
        return Err(format!("names the model '{}', which is not in the repository", arm.model));
    };
    match (managed.has(&arm.version), &arm.version) {
        (Some(false), VersionSelector::Number(version)) => {
            Err(format!("names version {version} of model '{}', which has no such version", arm.model))
        }
        (Some(false), VersionSelector::Label(label)) => {
            Err(format!("names label '{label}' of model '{}', which has no such label", arm.model))
        }
        _ => Ok(()),
    }
}

/// Compares what serves now; what serves later is compared when a catalog is made.
fn check_signatures(route: &Route, models: &Models) -> Result<(), String> {
    let serving = |arm: &Arm| models.get(&arm.model).and_then(|managed| managed.serving(&arm.version));
    let mut arms = route.arms.iter().filter_map(|arm| Some((arm, serving(arm)?)));
    let Some((first, control)) = arms.next() else { return Ok(()) };
    for (arm, deployment) in arms {
        compatibility::check(&control.info.signature, &deployment.info.signature).map_err(|why| {
            format!(
                "route '{}': clients of arm '{}' ({}) could not use arm '{}' ({}) instead: {why}",
                route.name,
                first.name,
                first.target(),
                arm.name,
                arm.target()
            )
        })?;
    }
    for Shadow { target, .. } in &route.shadows {
        let Some(deployment) = serving(target) else { continue };
        compatibility::check_mirrored(&control.info.signature, &deployment.info.signature).map_err(
            |why| {
                format!(
                    "route '{}': requests for arm '{}' ({}) cannot be mirrored to shadow '{}' ({}): {why}",
                    route.name,
                    first.name,
                    first.target(),
                    target.name,
                    target.target()
                )
            },
        )?;
    }
    Ok(())
}

/// For the log.
fn describe(route: &Route) -> String {
    let arm = |arm: &Arm| format!("{} ({}) {}", arm.name, arm.target(), arm.weight);
    route.arms.iter().map(arm).collect::<Vec<_>>().join(", ")
}
