//! The face of the crate: one async `infer`, and what there is to know about what is served.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::metrics::Gauge;
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::answer::{Answer, Outcome};
use crate::attainment::Attainment;
use crate::capacity::LatencyModel;
use crate::catalog::Published;
pub use crate::catalog::{IndexEntry, VersionState};
use crate::cores::Cores;
use crate::deployment::Admitted;
use crate::error::{InferError, Stage};
use crate::journal::Journal;
use crate::metrics;
use crate::mirror::Sampled;
pub use crate::mirror::{Mismatch, ShadowReport, TensorMismatch};
use crate::prediction::ArmName;
use crate::reconcile::{Options, Reconciler};
use crate::registry::PassedOver;
use crate::request::{ModelInfo, Query, Response, VersionSelector};
use crate::routing::{Keyed, Passage, Route, Unkeyed};
use crate::statistics::Statistics;

/// What front doors call. Cheap to share; holds no thread of its own.
pub struct Engine {
    published: Arc<Published>,
    cores: Arc<Cores>,
    journal: Arc<Journal>,
    is_ready: Gauge,
    /// No caller is waited for longer.
    deadline_max: Option<Duration>,
}

/// Whether the server as a whole may be sent traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    /// One entry for each thing that stands in the way.
    pub reasons: Vec<String>,
    /// One entry for each model that ought to serve, or has a version that ought to, and does not, and for each arm of
    /// a route that does not serve, where that does not stand in the way.
    pub failing: Vec<String>,
}

/// A query that was admitted and waits for its answer. Dropping it abandons the request.
pub struct Submitted {
    admitted: Admitted,
    on_route: Option<OnRoute>,
}

/// A request's way through a route, and the shadows that it is mirrored to.
type OnRoute = (Passage, Option<Sampled>);

// === impl Engine ===

impl Engine {
    /// An engine that serves nothing yet, and the reconciler that will change that. With `allow_empty` it is ready
    /// though there is no model at the start.
    pub fn new(allow_empty: bool, options: Options) -> (Engine, Reconciler) {
        let published = Arc::new(Published::default());
        let reconciler = Reconciler::new(Arc::clone(&published), options, allow_empty);
        let cores = Arc::clone(&reconciler.machine.cores);
        let journal = Arc::clone(&reconciler.routes.journal);
        (
            Engine { published, cores, journal, is_ready: metrics::server_ready(), deadline_max: None },
            reconciler,
        )
    }

    /// Gives every query a deadline so long after its arrival, if it has no earlier one.
    #[must_use]
    pub fn with_deadline_max(self, deadline_max: Option<Duration>) -> Engine {
        Engine { deadline_max, ..self }
    }

    /// Answers one query with its own rows, exactly once. Dropping the future abandons the request.
    ///
    /// # Errors
    /// See [`InferError`].
    pub async fn infer(&self, query: Query) -> Result<Response, InferError> {
        self.infer_keyed(query, &Unkeyed).await
    }

    /// The same, where a route may ask `request` for its key. Nobody else does.
    ///
    /// # Errors
    /// See [`InferError`].
    pub async fn infer_keyed(&self, query: Query, request: &dyn Keyed) -> Result<Response, InferError> {
        let mut submitted = self.submit(query, request)?;
        submitted.answer().await
    }

    /// The first half of [`Engine::infer_keyed`], which waits for nothing. Who keeps many requests in memory waits with
    /// [`Submitted::answer`], which is smaller than a future that still has room for the query.
    ///
    /// # Errors
    /// Where the query is refused; see [`InferError`].
    pub fn submit(&self, query: Query, request: &dyn Keyed) -> Result<Submitted, InferError> {
        let (admitted, on_route) = self.admit(query, request)?;
        Ok(Submitted { admitted, on_route })
    }

    /// The catalog guard lives in here only: nothing of it is held while the caller waits.
    fn admit(
        &self,
        mut query: Query,
        request: &dyn Keyed,
    ) -> Result<(Admitted, Option<OnRoute>), InferError> {
        let now = Instant::now();
        query.deadline =
            query.deadline.into_iter().chain(self.deadline_max.and_then(|max| now.checked_add(max))).min();
        let catalog = self.published.catalog.load();
        if let Some(deployment) = catalog.deployment(&query.model, &query.version) {
            let fallback = catalog.fallback(deployment, &query.version);
            return deployment.submit(query, now, fallback).map(|admitted| (admitted, None));
        }
        if let Some(route) = catalog.route(&query.model) {
            let (admitted, passage, sampled) = route.submit(query, now, request)?;
            return Ok((admitted, Some((passage, sampled))));
        }
        let error = catalog.missing(&query.model, &query.version);
        // Nobody else counts what finds nothing that serves.
        if let Ok(service_level) = catalog.service_level(&query.model) {
            service_level.count(metrics::Outcome::of(&error), now);
        }
        Err(error)
    }

    /// What serves under `name`.
    ///
    /// # Errors
    /// `NotFound` for a name or version that is not in the repository, `Unavailable` for one that
    /// is there and does not serve now.
    pub fn model(&self, name: &str, version: &VersionSelector) -> Result<Arc<ModelInfo>, InferError> {
        self.published.catalog.load().find(name, version).map(|deployment| Arc::clone(&deployment.info))
    }

    /// All versions that serve, by name and then version.
    pub fn models(&self) -> Vec<Arc<ModelInfo>> {
        let catalog = self.published.catalog.load();
        catalog.deployments().into_iter().map(|deployment| Arc::clone(&deployment.info)).collect()
    }

    /// All versions in the repository, serving or not, by name and then version. A model without
    /// any usable version has one entry with version 0.
    pub fn index(&self) -> Vec<IndexEntry> {
        self.published.catalog.load().index()
    }

    /// What lies in the repository and is neither a model nor a version.
    pub fn passed_over(&self) -> Arc<[PassedOver]> {
        Arc::clone(self.published.catalog.load().passed_over())
    }

    /// What the scheduler knows of how long a version's batches take.
    ///
    /// # Errors
    /// As [`Engine::model`].
    pub fn latency_model(
        &self,
        name: &str,
        version: &VersionSelector,
    ) -> Result<(Arc<ModelInfo>, LatencyModel), InferError> {
        let catalog = self.published.catalog.load();
        let deployment = catalog.find(name, version)?;
        Ok((Arc::clone(&deployment.info), deployment.latency_model()))
    }

    /// Statistics of one version (`name` and `version`), of all serving versions of a model, or of all.
    ///
    /// # Errors
    /// As [`Engine::model`].
    pub fn statistics(
        &self,
        name: Option<&str>,
        version: &VersionSelector,
    ) -> Result<Vec<(Arc<ModelInfo>, Statistics)>, InferError> {
        let catalog = self.published.catalog.load();
        let deployments = match (name, version) {
            (None, _) => catalog.deployments(),
            (Some(name), VersionSelector::Default) => catalog.versions(name)?.iter().collect(),
            (Some(name), version) => vec![catalog.find(name, version)?],
        };
        let pairs =
            deployments.into_iter().map(|deployment| (Arc::clone(&deployment.info), deployment.statistics()));
        Ok(pairs.collect())
    }

    /// How the model called `name` keeps its promises, whichever of its versions were asked.
    ///
    /// # Errors
    /// `NotFound` for a name that is not in the repository.
    pub fn attainment(&self, name: &str) -> Result<Attainment, InferError> {
        let catalog = self.published.catalog.load();
        Ok(catalog.service_level(name)?.read(std::time::Instant::now()))
    }

    /// How the shadows of a route fare, with the worst of their mismatches.
    ///
    /// # Errors
    /// `NotFound` for what is no route in force.
    pub fn shadows(&self, route: &str) -> Result<Vec<ShadowReport>, InferError> {
        let catalog = self.published.catalog.load();
        let found = catalog.route(route);
        let found = found.ok_or_else(|| InferError::NotFound(format!("there is no route '{route}'")))?;
        Ok(found.shadows())
    }

    /// Ready means: at the start, that every model has been tried and those that served before do; after that, that
    /// whatever has served still does, unless it was taken away. A strict server wants every model to serve, always.
    /// None is ready once a shutdown has begun.
    pub fn ready(&self) -> Readiness {
        let catalog = self.published.catalog.load();
        let mut reasons = catalog.unready().to_vec();
        if self.published.is_shutting_down() {
            reasons.push("the server is shutting down".into());
        }
        let failing = catalog.failing().iter().cloned().chain(catalog.refuted()).collect();
        Readiness { ready: reasons.is_empty(), reasons, failing }
    }

    /// Models that have served and that nobody has unloaded or removed since; `None` before the server was ready for
    /// the first time. The next server is told them by [`Reconciler::remember`].
    pub fn relied_on(&self) -> Option<BTreeSet<String>> {
        self.published.catalog.load().relied_on().cloned()
    }

    /// Reports not ready from now on. Requests are still served until the reconciler shuts down.
    pub fn begin_shutdown(&self) {
        self.published.begin_shutdown();
    }

    /// Where the ends of requests to routes are told.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The routes in force, by name.
    pub fn routes(&self) -> Vec<Route> {
        self.published.catalog.load().routes_in_force()
    }

    /// Gives the arms of a bandit other shares of the requests, in their order. Passed over where the route in force
    /// is another one meanwhile.
    pub fn deal(&self, route: &Route, shares: &[f64]) {
        self.published.catalog.load().deal(route, shares);
    }

    /// A prediction of this age, which an arm made when it led to this version, was rewarded. A running canary takes
    /// note where the prediction is of its present step; nobody else does.
    pub fn rewarded(&self, arm: &ArmName, version: u64, age: Duration, reward: f64) {
        self.published.catalog.load().rewarded(arm, version, age, reward);
    }

    /// True once [`Engine::begin_shutdown`] was called.
    pub fn is_shutting_down(&self) -> bool {
        self.published.is_shutting_down()
    }

    /// Bumped after every change of what [`Engine::models`] or [`Engine::ready`] answer.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Sets the gauges that describe a moment. Called before each scrape.
    pub fn refresh_gauges(&self) {
        let catalog = self.published.catalog.load();
        for service_level in catalog.service_levels() {
            service_level.refresh_gauges(std::time::Instant::now());
        }
        for deployment in catalog.deployments() {
            deployment.refresh_gauges();
        }
        self.cores.refresh_gauges();
        self.is_ready.set(if self.ready().ready { 1.0 } else { 0.0 });
    }
}

// === impl Submitted ===

impl Submitted {
    /// The answer, exactly once: nobody asks again.
    ///
    /// # Errors
    /// See [`InferError`].
    pub async fn answer(&mut self) -> Result<Response, InferError> {
        let answered = answered(&mut self.admitted).await;
        let Some((passage, sampled)) = self.on_route.take() else { return answered };
        if let Some(sampled) = sampled {
            sampled.offer(&answered);
        }
        match answered {
            Ok(response) => Ok(Response { routed: Some(passage.answered()), ..response }),
            Err(error) => {
                passage.failed(&error);
                Err(error)
            }
        }
    }
}

/// What became of an admitted request.
async fn answered(admitted: &mut Admitted) -> Result<Response, InferError> {
    let answer = await_answer(admitted).await?;
    admitted.settle(answer.is_ok());
    let Answer { outputs, timing, batches } = answer?;
    let answer_limit = admitted.answer_limit;
    if let Some(limit) = answer_limit {
        limit.check_tensors(outputs.iter().map(|(_, tensor)| tensor))?;
    }
    let degraded_from = admitted.degraded_from().map(Arc::clone);
    let model = Arc::clone(admitted.info());
    let rows = admitted.rows;
    Ok(Response { model, degraded_from, routed: None, rows, outputs, timing, batches, answer_limit })
}

/// Waits for the answer, until the request's time is over.
///
/// # Errors
/// `DeadlineExceeded` that says where the request was, and `Backend` if its worker went away.
async fn await_answer(admitted: &mut Admitted) -> Result<Outcome, InferError> {
    if let Some(start_by) = admitted.start_by() {
        match timeout_at(start_by.into(), &mut admitted.ticket).await {
            Ok(answer) => return answer.map_err(|_dropped| worker_ended()),
            Err(_elapsed) if admitted.expire() => {
                return Err(InferError::DeadlineExceeded { stage: Stage::Queue });
            }
            // A worker has taken it in time.
            Err(_elapsed) => {}
        }
    }
    let Some(deadline) = admitted.deadline() else {
        return (&mut admitted.ticket).await.map_err(|_dropped| worker_ended());
    };
    match timeout_at(deadline.into(), &mut admitted.ticket).await {
        Ok(answer) => answer.map_err(|_dropped| worker_ended()),
        Err(_elapsed) => {
            let stage = if admitted.expire() { Stage::Queue } else { Stage::Run };
            Err(InferError::DeadlineExceeded { stage })
        }
    }
}

fn worker_ended() -> InferError {
    InferError::Backend("the worker of this request ended without an answer".into())
}
