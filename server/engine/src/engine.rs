//! The face of the crate: one async `infer`, and what there is to know about what is served.

use std::sync::Arc;

use crate::error::InferError;
use crate::request::{ModelInfo, Query, Response};
use crate::statistics::Statistics;

pub struct Engine {}

/// One version in the repository index, serving or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub model: String,
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

/// Whether the server as a whole may be sent traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    /// One entry for each thing that stands in the way.
    pub reasons: Vec<String>,
}

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

impl Engine {
    /// Answers one query with its own rows, exactly once. Dropping the future abandons the request.
    ///
    /// # Errors
    /// See [`InferError`].
    pub async fn infer(&self, query: Query) -> Result<Response, InferError> {
        todo!("{query:?}")
    }

    /// What serves under `name` (its default version when `version` is `None`).
    ///
    /// # Errors
    /// `NotFound` for a name or version that is not in the repository, `Unavailable` for one that
    /// is there and does not serve now.
    pub fn model(&self, name: &str, version: Option<u64>) -> Result<Arc<ModelInfo>, InferError> {
        todo!("{name} {version:?}")
    }

    /// All versions that serve, by name and then version.
    pub fn models(&self) -> Vec<Arc<ModelInfo>> {
        todo!()
    }

    /// All versions in the repository, serving or not, by name and then version. A model without
    /// any usable version has one entry with version 0.
    pub fn index(&self) -> Vec<IndexEntry> {
        todo!()
    }

    /// Statistics of one version (`name` and `version`), of all serving versions of a model, or of all.
    ///
    /// # Errors
    /// As [`Engine::model`].
    pub fn statistics(
        &self,
        name: Option<&str>,
        version: Option<u64>,
    ) -> Result<Vec<(Arc<ModelInfo>, Statistics)>, InferError> {
        todo!("{name:?} {version:?}")
    }

    /// Ready means: every model in the repository has a servable version, and no shutdown has begun.
    pub fn ready(&self) -> Readiness {
        todo!()
    }

    /// Bumped after every change of what [`Engine::models`] or [`Engine::ready`] answer.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }
}
