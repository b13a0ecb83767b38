//! Checks a model's sections against its signature when a version is loaded, and keeps its handler while it is.

use std::path::PathBuf;
use std::sync::Arc;

use gristmill_engine::backend::{Artifact, Backend, Device, Instance, Model, Placement};
use gristmill_engine::error::LoadError;
use gristmill_engine::tensor::Signature;

use super::{Handler, Handlers, Sections};

/// Loads models on another backend; those whose sections do not fit are refused.
pub(crate) struct HandledBackend {
    inner: Arc<dyn Backend>,
    sections: Sections,
    /// The model's.
    directory: PathBuf,
    handlers: Handlers,
}

struct HandledModel {
    inner: Box<dyn Model>,
    name: String,
    version: u64,
    handler: Arc<Handler>,
    handlers: Handlers,
}

// === impl HandledBackend ===

impl HandledBackend {
    pub(crate) fn new(
        inner: Arc<dyn Backend>,
        sections: Sections,
        directory: PathBuf,
        handlers: Handlers,
    ) -> HandledBackend {
        HandledBackend { inner, sections, directory, handlers }
    }
}

impl Backend for HandledBackend {
    fn load(&self, artifact: &Artifact) -> Result<Box<dyn Model>, LoadError> {
        let inner = self.inner.load(artifact)?;
        let handler = self.sections.bind(inner.signature(), &self.directory);
        let handler = Arc::new(handler.map_err(|why| LoadError(format!("model.toml: {why}")))?);
        let (name, version) = (artifact.model.clone(), artifact.version);
        self.handlers.insert(&name, version, Arc::clone(&handler));
        Ok(Box::new(HandledModel { inner, name, version, handler, handlers: self.handlers.clone() }))
    }
}

// === impl HandledModel ===

impl Drop for HandledModel {
    fn drop(&mut self) {
        self.handlers.remove(&self.name, self.version, &self.handler);
    }
}

impl Model for HandledModel {
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn platform(&self) -> &str {
        self.inner.platform()
    }

    fn notes(&self) -> Vec<String> {
        self.inner.notes()
    }

    fn devices(&self) -> Vec<Device> {
        self.inner.devices()
    }

    fn is_parallel(&self) -> bool {
        self.inner.is_parallel()
    }

    fn instance(&self, placement: Placement) -> Result<Box<dyn Instance>, LoadError> {
        self.inner.instance(placement)
    }
}
