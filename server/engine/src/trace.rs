//! What a traced request carries through the engine, and who is told of the runs that it was part of.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::error::RunError;

/// One span of a trace, as the W3C names it. The engine only hands it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanRef {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
}

/// A request that somebody traces. Most are not, and carry nothing.
#[derive(Clone)]
pub struct Trace {
    /// The request's own span.
    pub span: SpanRef,
    pub tracer: Arc<dyn BatchTracer>,
    /// Spans of the batches that it was in: several for one that was cut, or whose batch failed.
    pub batches: Vec<SpanRef>,
}

/// Who makes spans of runs. Called by workers, so it must be quick and never wait.
pub trait BatchTracer: Send + Sync {
    /// Returns the span that stands for the batch.
    fn trace(&self, batch: &TracedBatch<'_>) -> SpanRef;
}

/// A run that traced requests were part of.
#[derive(Clone, Copy, Debug)]
pub struct TracedBatch<'a> {
    pub model: &'a str,
    pub version: u64,
    /// All requests of the batch, traced or not.
    pub requests: usize,
    pub rows: usize,
    /// The spans of those that are traced; one at least.
    pub members: &'a [SpanRef],
    /// When its inputs began to be gathered.
    pub began: Instant,
    /// When the model began to run; `None` when it did not or failed.
    pub run_began: Option<Instant>,
    pub ended: Instant,
    pub error: Option<&'a RunError>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("span", &self.span)
            .field("batches", &self.batches)
            .finish_non_exhaustive()
    }
}
