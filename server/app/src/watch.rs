//! Tells the reconciler when the system says that the repository has changed.

use std::path::Path;

use gristmill_engine::control::Control;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// Watches `repository` as long as the result is held. Where the system refuses, polling alone goes on, and the
/// log says so.
pub(crate) fn start(repository: &Path, control: &Control) -> Option<RecommendedWatcher> {
    let control = control.clone();
    let report = move |event: notify::Result<notify::Event>| match event {
        // Reading a model is no change.
        Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
        Ok(_) => control.look(),
        Err(error) => {
            tracing::warn!(%error, "a notification about the repository was lost");
            control.look();
        }
    };
    let watcher = notify::recommended_watcher(report).and_then(|mut watcher| {
        watcher.watch(repository, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "the repository cannot be watched: it is read every --poll-interval instead");
            None
        }
    }
}
