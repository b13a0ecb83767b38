//! What has happened to a model, for operators and the log.

use std::time::SystemTime;

use super::Managed;

/// Something that happened to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: SystemTime,
    pub version: u64,
    pub kind: EventKind,
    /// Why, or how long it took; for people.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Loaded,
    LoadFailed,
    Retired,
    Default,
    RolledBack,
    Label,
}

/// Events of a model that are remembered.
const HISTORY_MAX: usize = 100;
// === impl EventKind ===

impl EventKind {
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Loaded => "loaded",
            EventKind::LoadFailed => "load_failed",
            EventKind::Retired => "retired",
            EventKind::Default => "default",
            EventKind::RolledBack => "rolled_back",
            EventKind::Label => "label",
        }
    }
}

// === impl Managed ===

impl Managed {
    pub(super) fn record(&mut self, version: u64, kind: EventKind, detail: String) {
        let (model, what) = (&self.name, kind.name());
        match kind {
            EventKind::LoadFailed => tracing::error!(model, version, detail, what),
            EventKind::RolledBack => tracing::warn!(model, version, detail, what),
            _ => tracing::info!(model, version, detail, what),
        }
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Event { at: SystemTime::now(), version, kind, detail });
    }
}
