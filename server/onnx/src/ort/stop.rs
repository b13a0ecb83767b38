//! Stops a run from another thread: ONNX Runtime reads a flag of the run's options before each operator.

use std::sync::atomic::{AtomicBool, Ordering};

use gristmill_engine::backend::Stop;
use ort::session::RunOptions;

/// The options of every run of one session, and whether their flag is set, which the interface does not tell.
pub(crate) struct RunStop {
    options: RunOptions,
    /// The same for a run that gives memory back when it ends.
    shrinking: RunOptions,
    is_set: AtomicBool,
}

// === impl RunStop ===

impl RunStop {
    /// # Errors
    /// What the runtime reports.
    pub(crate) fn new() -> Result<RunStop, ort::Error> {
        let mut shrinking = RunOptions::new()?;
        shrinking.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
        Ok(RunStop { options: RunOptions::new()?, shrinking, is_set: AtomicBool::new(false) })
    }

    pub(crate) fn options(&self, shrinks: bool) -> &RunOptions {
        if shrinks { &self.shrinking } else { &self.options }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }
}

impl Stop for RunStop {
    fn stop(&self) {
        self.is_set.store(true, Ordering::Release);
        if let Err(error) = self.options.terminate().and_then(|()| self.shrinking.terminate()) {
            tracing::error!(%error, "ONNX Runtime refused to stop a run");
        }
    }

    fn rearm(&self) {
        if let Err(error) = self.options.unterminate().and_then(|()| self.shrinking.unterminate()) {
            tracing::error!(%error, "ONNX Runtime refused to let runs begin again");
        }
        self.is_set.store(false, Ordering::Release);
    }
}
