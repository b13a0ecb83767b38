//! A model with something beside it that lives as long as the model does.

use std::any::Any;
use std::sync::Arc;

use gristmill_engine::backend::{Device, Instance, Model, Placement, RowIndependence};
use gristmill_engine::companions::Companions;
use gristmill_engine::error::LoadError;
use gristmill_engine::tensor::Signature;

pub(crate) struct Accompanied {
    inner: Box<dyn Model>,
    companion: Arc<dyn Any + Send + Sync>,
    notes: Vec<String>,
}

// === impl Accompanied ===

impl Accompanied {
    pub(crate) fn new(inner: Box<dyn Model>, companion: Arc<dyn Any + Send + Sync>) -> Accompanied {
        Accompanied { inner, companion, notes: Vec::new() }
    }

    /// With these notes behind the model's own.
    #[must_use]
    pub(crate) fn noting(self, notes: Vec<String>) -> Accompanied {
        Accompanied { notes, ..self }
    }
}

impl Model for Accompanied {
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn platform(&self) -> &str {
        self.inner.platform()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.inner.notes();
        notes.extend_from_slice(&self.notes);
        notes
    }

    fn devices(&self) -> Vec<Device> {
        self.inner.devices()
    }

    fn is_parallel(&self) -> bool {
        self.inner.is_parallel()
    }

    fn companions(&self) -> Companions {
        self.inner.companions().with(Arc::clone(&self.companion))
    }

    fn row_independence(&self) -> RowIndependence {
        self.inner.row_independence()
    }

    fn instance(&self, placement: Placement) -> Result<Box<dyn Instance>, LoadError> {
        self.inner.instance(placement)
    }
}
