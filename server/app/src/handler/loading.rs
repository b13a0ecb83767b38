//! Checks a model's sections against its signature when a version is loaded, and gives the version its handler.

use std::path::PathBuf;
use std::sync::Arc;

use gristmill_engine::backend::{Artifact, Backend, Model};
use gristmill_engine::error::LoadError;

use super::Sections;
use crate::accompanied::Accompanied;

/// Loads models on another backend; those whose sections do not fit are refused.
pub(crate) struct HandledBackend {
    inner: Arc<dyn Backend>,
    sections: Sections,
    /// The model's.
    directory: PathBuf,
}

// === impl HandledBackend ===

impl HandledBackend {
    pub(crate) fn new(inner: Arc<dyn Backend>, sections: Sections, directory: PathBuf) -> HandledBackend {
        HandledBackend { inner, sections, directory }
    }
}

impl Backend for HandledBackend {
    fn load(&self, artifact: &Artifact) -> Result<Box<dyn Model>, LoadError> {
        let inner = self.inner.load(artifact)?;
        // The model file stands in the directory of its version.
        let version_directory = artifact.path.parent().unwrap_or(&self.directory);
        let handler = self.sections.bind(inner.signature(), version_directory, &self.directory);
        let handler = handler.map_err(|why| LoadError::permanent(format!("model.toml: {why}")))?;
        let notes = handler.notes();
        Ok(Box::new(Accompanied::new(inner, Arc::new(handler)).noting(notes)))
    }
}
