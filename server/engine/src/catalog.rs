//! What is being served now: one immutable snapshot, replaced whole.

mod fallback;
mod routes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use self::fallback::Fallbacks;
pub(crate) use self::routes::RoutesReport;
use self::routes::ServedRoute;
use crate::deployment::Deployment;
use crate::error::InferError;
use crate::readiness::{Gate, Standing};
use crate::registry::PassedOver;
use crate::request::VersionSelector;
use crate::service_level::ServiceLevel;

/// One version in the repository, serving or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub model: String,
    /// 0 for a model without any version that could be named.
    pub version: u64,
    pub state: VersionState,
    /// Why the version is in that state; empty when it serves.
    pub reason: String,
}

/// Triton's names for what a version is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    Loading,
    Ready,
    Unavailable,
}

/// Everything that a request must see together.
#[derive(Default)]
pub(crate) struct Catalog {
    models: HashMap<String, Served>,
    fallbacks: Fallbacks,
    /// None has the name of a model.
    routes: BTreeMap<String, ServedRoute>,
    /// Of every model in the repository, serving or not.
    service_levels: BTreeMap<String, Arc<ServiceLevel>>,
    index: BTreeMap<(String, u64), (VersionState, String)>,
    /// What keeps the server from being ready.
    unready: Vec<String>,
    /// What ought to serve and does not, and does not keep the server from being ready.
    failing: Vec<String>,
    /// Models that have served and that nobody has taken away since; `None` before the server was ready for the
    /// first time.
    relied_on: Option<BTreeSet<String>>,
    passed_over: Arc<[PassedOver]>,
}

/// What the catalog shows of one model.
pub(crate) struct ModelReport {
    pub(crate) name: String,
    pub(crate) service_level: Arc<ServiceLevel>,
    /// Version 0 stands for the model as a whole.
    pub(crate) versions: BTreeMap<u64, (VersionState, String)>,
    pub(crate) served: Option<Served>,
    pub(crate) standing: Standing,
}

/// What the engine reads and the reconciler writes.
pub(crate) struct Published {
    /// The only shared mutable cell on the request path.
    pub(crate) catalog: ArcSwap<Catalog>,
    shutting_down: AtomicBool,
    changes: watch::Sender<u64>,
}

/// The versions of a model that serve, ascending and never empty.
pub(crate) struct Served {
    pub(crate) versions: Vec<Arc<Deployment>>,
    /// One of them.
    pub(crate) default: u64,
    pub(crate) labels: BTreeMap<String, u64>,
}

// === impl VersionState ===

impl VersionState {
    /// `LOADING`, `READY` or `UNAVAILABLE`.
    pub fn name(self) -> &'static str {
        match self {
            VersionState::Loading => "LOADING",
            VersionState::Ready => "READY",
            VersionState::Unavailable => "UNAVAILABLE",
        }
    }
}

// === impl Catalog ===

impl Catalog {
    /// While it is not known yet what there is: that is not an empty repository.
    pub(crate) fn unread() -> Catalog {
        Catalog { unready: vec!["the model repository has not been read yet".into()], ..Catalog::default() }
    }

    pub(crate) fn new(
        reports: impl Iterator<Item = ModelReport>,
        routes: RoutesReport,
        passed_over: Arc<[PassedOver]>,
        gate: &mut Gate,
    ) -> Catalog {
        let mut catalog = Catalog { passed_over, ..Catalog::default() };
        let mut standings = BTreeMap::new();
        for ModelReport { name, service_level, versions, served, standing } in reports {
            standings.insert(name.clone(), standing);
            catalog
                .index
                .extend(versions.into_iter().map(|(version, entry)| ((name.clone(), version), entry)));
            if let Some(served) = served {
                catalog.models.insert(name.clone(), served);
            }
            catalog.service_levels.insert(name, service_level);
        }
        catalog.fallbacks = Fallbacks::new(&catalog.models);
        catalog.add_routes(routes);
        let models = standings.iter().map(|(name, standing)| (name.as_str(), standing));
        let verdict = gate.judge(models, &catalog.unready);
        catalog.unready = verdict.reasons;
        // Models before routes.
        let of_routes = std::mem::replace(&mut catalog.failing, verdict.failing);
        catalog.failing.extend(of_routes);
        standings.retain(|_, standing| standing.has_served);
        catalog.relied_on = gate.has_started().then(|| standings.into_keys().collect());
        catalog
    }

    /// Who is asked instead where `deployment`, which serves from this catalog, would refuse for lack of time or room.
    /// Who asks for a version by its number gets that one or none.
    pub(crate) fn fallback(
        &self,
        deployment: &Deployment,
        version: &VersionSelector,
    ) -> Option<&Arc<Deployment>> {
        match (deployment.degrade_to(), version) {
            (None, _) | (_, VersionSelector::Number(_)) => None,
            (Some(_), VersionSelector::Default | VersionSelector::Label(_)) => {
                self.fallbacks.of(&deployment.info)
            }
        }
    }

    /// The deployment that answers for a model; a route is none.
    pub(crate) fn deployment(&self, name: &str, version: &VersionSelector) -> Option<&Arc<Deployment>> {
        let served = self.models.get(name)?;
        let version = match version {
            VersionSelector::Default => served.default,
            VersionSelector::Number(version) => *version,
            VersionSelector::Label(label) => *served.labels.get(label)?,
        };
        served.versions.iter().find(|deployment| deployment.info.version == version)
    }

    /// The deployment that answers for `name`, or by which a route of this name is known: its first arm that serves.
    pub(crate) fn find(&self, name: &str, version: &VersionSelector) -> Result<&Arc<Deployment>, InferError> {
        if let Some(deployment) = self.deployment(name, version) {
            return Ok(deployment);
        }
        match self.route(name) {
            Some(route) => route.known_by(version),
            None => Err(self.missing(name, version)),
        }
    }

    /// All versions of `name` that serve, ascending.
    pub(crate) fn versions(&self, name: &str) -> Result<&[Arc<Deployment>], InferError> {
        match self.models.get(name) {
            Some(served) => Ok(&served.versions),
            None => Err(self.missing(name, &VersionSelector::Default)),
        }
    }

    /// All deployments, by name and version.
    pub(crate) fn deployments(&self) -> Vec<&Arc<Deployment>> {
        let mut all: Vec<_> = self.models.values().flat_map(|served| &served.versions).collect();
        all.sort_by(|a, b| (&a.info.name, a.info.version).cmp(&(&b.info.name, b.info.version)));
        all
    }

    /// The promises of `name`.
    pub(crate) fn service_level(&self, name: &str) -> Result<&ServiceLevel, InferError> {
        match self.service_levels.get(name) {
            Some(service_level) => Ok(service_level),
            None => Err(self.missing(name, &VersionSelector::Default)),
        }
    }

    pub(crate) fn service_levels(&self) -> impl Iterator<Item = &ServiceLevel> {
        self.service_levels.values().map(|service_level| &**service_level)
    }

    pub(crate) fn index(&self) -> Vec<IndexEntry> {
        self.index
            .iter()
            .map(|((model, version), (state, reason))| IndexEntry {
                model: model.clone(),
                version: *version,
                state: *state,
                reason: self.reason(model, *version, reason),
            })
            .collect()
    }

    /// What is to be said of a version: of one that serves without a flaw, why its requests run alone, if they do.
    fn reason(&self, model: &str, version: u64, reason: &str) -> String {
        if !reason.is_empty() {
            return reason.to_owned();
        }
        let deployment = self.deployment(model, &VersionSelector::Number(version));
        deployment.and_then(|deployment| deployment.merging.obstacle()).unwrap_or_default()
    }

    /// Versions that serve, and of which requests have shown that their rows must not share runs.
    pub(crate) fn refuted(&self) -> impl Iterator<Item = String> {
        self.models.values().flat_map(|served| &served.versions).filter_map(|deployment| {
            let why = deployment.merging.refutation()?;
            Some(format!("model '{}': version {}: {why}", deployment.info.name, deployment.info.version))
        })
    }

    pub(crate) fn unready(&self) -> &[String] {
        &self.unready
    }

    /// With what is wrong with the repository as a whole.
    #[must_use]
    pub(crate) fn failing_also(mut self, fault: Option<&str>) -> Catalog {
        self.failing.extend(fault.map(str::to_owned));
        self
    }

    pub(crate) fn passed_over(&self) -> &Arc<[PassedOver]> {
        &self.passed_over
    }

    pub(crate) fn relied_on(&self) -> Option<&BTreeSet<String>> {
        self.relied_on.as_ref()
    }

    pub(crate) fn failing(&self) -> &[String] {
        &self.failing
    }

    /// Why there is nothing that answers for `name`.
    pub(crate) fn missing(&self, name: &str, version: &VersionSelector) -> InferError {
        let range = || self.index.range((name.to_owned(), 0)..=(name.to_owned(), u64::MAX));
        if range().next().is_none() {
            return InferError::NotFound(format!(
                "model '{name}' is not in the repository: its index lists what is"
            ));
        }
        let labels = self.models.get(name).map(|served| &served.labels);
        let wanted = match version {
            // What a request without a version would have got at best.
            VersionSelector::Default => range().next_back().map(|((_, version), _)| *version),
            VersionSelector::Number(version) => Some(*version),
            VersionSelector::Label(label) => match labels.and_then(|labels| labels.get(label)) {
                Some(version) => Some(*version),
                None => {
                    let known: Vec<&str> =
                        labels.into_iter().flatten().map(|(label, _)| label.as_str()).collect();
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    return InferError::NotFound(format!(
                        "model '{name}' has no version '{label}': expected a number or one of its labels ({known})"
                    ));
                }
            },
        };
        let entry = range().find(|((_, version), _)| Some(*version) == wanted);
        match (entry, wanted) {
            (Some(((_, 0), (_, reason))), _) => {
                InferError::Unavailable(format!("model '{name}' is unavailable: {reason}"))
            }
            (Some(((_, version), (state, reason))), _) => InferError::Unavailable(format!(
                "model '{name}' version {version} is {}: {reason}",
                state.name().to_lowercase()
            )),
            (None, wanted) => {
                let versions: Vec<String> = range()
                    .filter(|((_, version), _)| *version > 0)
                    .map(|((_, version), _)| version.to_string())
                    .collect();
                InferError::NotFound(format!(
                    "model '{name}' has no version {}: its versions are {}",
                    wanted.unwrap_or_default(),
                    versions.join(", ")
                ))
            }
        }
    }
}

// === impl Published ===

impl Default for Published {
    fn default() -> Published {
        Published {
            catalog: ArcSwap::from_pointee(Catalog::unread()),
            shutting_down: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        }
    }
}

impl Published {
    /// Replaces the catalog, and returns the one before: requests may still be looking at it.
    pub(crate) fn publish(&self, next: Catalog) -> Arc<Catalog> {
        let before = self.catalog.swap(Arc::new(next));
        self.announce();
        before
    }

    pub(crate) fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::Release);
        self.announce();
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn announce(&self) {
        self.changes.send_modify(|version| *version += 1);
    }
}
