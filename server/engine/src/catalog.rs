//! What is being served now: one immutable snapshot, replaced whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::deployment::Deployment;
use crate::error::InferError;

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
#[derive(Clone, Default)]
pub(crate) struct Catalog {
    models: HashMap<String, Served>,
    index: BTreeMap<(String, u64), (VersionState, String)>,
}

/// What the engine reads and the reconciler writes.
pub(crate) struct Published {
    /// The only shared mutable cell on the request path.
    pub(crate) catalog: ArcSwap<Catalog>,
    /// Whether the repository has been read, so that an empty catalog means an empty repository.
    pub(crate) listed: AtomicBool,
    shutting_down: AtomicBool,
    changes: watch::Sender<u64>,
}

/// The versions of a model that serve, ascending and never empty.
#[derive(Clone)]
struct Served {
    versions: Vec<Arc<Deployment>>,
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
    /// The deployment that answers for `name`: the newest version unless one is asked for.
    pub(crate) fn find(&self, name: &str, version: Option<u64>) -> Result<&Arc<Deployment>, InferError> {
        let found = self.models.get(name).and_then(|served| match version {
            None => served.versions.last(),
            Some(version) => served.versions.iter().find(|deployment| deployment.info.version == version),
        });
        found.ok_or_else(|| self.missing(name, version))
    }

    /// All versions of `name` that serve, ascending.
    pub(crate) fn versions(&self, name: &str) -> Result<&[Arc<Deployment>], InferError> {
        match self.models.get(name) {
            Some(served) => Ok(&served.versions),
            None => Err(self.missing(name, None)),
        }
    }

    /// All deployments, by name and version.
    pub(crate) fn deployments(&self) -> Vec<&Arc<Deployment>> {
        let mut all: Vec<_> = self.models.values().flat_map(|served| &served.versions).collect();
        all.sort_by(|a, b| (&a.info.name, a.info.version).cmp(&(&b.info.name, b.info.version)));
        all
    }

    pub(crate) fn index(&self) -> Vec<IndexEntry> {
        self.index
            .iter()
            .map(|((model, version), (state, reason))| IndexEntry {
                model: model.clone(),
                version: *version,
                state: *state,
                reason: reason.clone(),
            })
            .collect()
    }

    /// What keeps each model in the repository from being served, one entry a model; empty when all serve.
    pub(crate) fn unserved(&self) -> Vec<String> {
        let mut reasons: Vec<String> = Vec::new();
        let mut reported: Option<&str> = None;
        for ((model, version), (state, reason)) in &self.index {
            if self.models.contains_key(model) || reported == Some(model) {
                continue;
            }
            reported = Some(model);
            let state = state.name().to_lowercase();
            reasons.push(match version {
                0 => format!("model '{model}' is {state}: {reason}"),
                _ => format!("model '{model}' version {version} is {state}: {reason}"),
            });
        }
        reasons
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The same with `deployment` serving.
    pub(crate) fn with(&self, deployment: Arc<Deployment>) -> Catalog {
        let mut next = self.clone();
        let info = &deployment.info;
        next.index.insert((info.name.clone(), info.version), (VersionState::Ready, String::new()));
        let served = next.models.entry(info.name.clone()).or_insert_with(|| Served { versions: Vec::new() });
        served.versions.retain(|old| old.info.version != info.version);
        let position = served.versions.partition_point(|old| old.info.version < info.version);
        served.versions.insert(position, deployment);
        next
    }

    /// The same with a version in a state in which it does not serve.
    pub(crate) fn with_state(
        &self,
        model: &str,
        version: u64,
        state: VersionState,
        reason: String,
    ) -> Catalog {
        let mut next = self.clone();
        next.index.insert((model.to_owned(), version), (state, reason));
        next
    }

    fn missing(&self, name: &str, version: Option<u64>) -> InferError {
        let mut known = self.index.range((name.to_owned(), 0)..=(name.to_owned(), u64::MAX)).peekable();
        if known.peek().is_none() {
            return InferError::NotFound(format!(
                "model '{name}' is not in the repository: GET /v2/models lists what is"
            ));
        }
        let entry = match version {
            // The newest is what a request without a version would have got.
            None => known.next_back(),
            Some(version) => known.find(|((_, known), _)| *known == version),
        };
        match entry {
            Some(((_, version), (state, reason))) => InferError::Unavailable(format!(
                "model '{name}' version {version} is {}: {reason}",
                state.name().to_lowercase()
            )),
            None => {
                let versions: Vec<String> = self
                    .index
                    .range((name.to_owned(), 0)..=(name.to_owned(), u64::MAX))
                    .map(|((_, version), _)| version.to_string())
                    .collect();
                InferError::NotFound(format!(
                    "model '{name}' has no version {}: its versions are {}",
                    version.unwrap_or_default(),
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
            catalog: ArcSwap::from_pointee(Catalog::default()),
            listed: AtomicBool::new(false),
            shutting_down: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        }
    }
}

impl Published {
    pub(crate) fn publish(&self, next: Catalog) {
        self.catalog.store(Arc::new(next));
        self.announce();
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
