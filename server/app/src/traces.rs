//! OpenTelemetry traces: which requests are traced, and how their spans leave the process without anybody waiting.

mod export;
mod sampling;
mod span;

use std::sync::Arc;

use http::HeaderMap;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};

use self::export::Exporter;
use self::sampling::Sampling;
pub(crate) use self::sampling::{Setting, settings};
pub(crate) use self::span::{Failure, RequestSpan};
use crate::trace_context::TraceParent;

/// Traces requests; those whose caller traces them, and a share of the others.
#[derive(Clone)]
pub struct Traces {
    exporter: Arc<Exporter>,
    sampling: Arc<Sampling>,
}

/// By which protocol a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Grpc,
    Http,
}

// === impl Traces ===

impl Traces {
    /// Sends spans to the OTLP receiver at `endpoint`, by gRPC. Traces that begin here are sampled at `ratio`, from
    /// 0 to 1; those of a caller as the caller says. Called on a runtime, on which the connection lives; it is made
    /// when there is something to send.
    ///
    /// # Errors
    /// The endpoint is not a URL that can be used.
    pub fn start(endpoint: &str, ratio: f64) -> anyhow::Result<Traces> {
        let exporter = Arc::new(Exporter::start(endpoint)?);
        Ok(Traces { exporter, sampling: Arc::new(Sampling::new(ratio)) })
    }

    /// The span of a request with these headers, or this metadata, if it is traced.
    pub(crate) fn begin(
        &self,
        parent: Option<TraceParent>,
        headers: &HeaderMap,
        protocol: Protocol,
    ) -> Option<Box<RequestSpan>> {
        if !self.sampling.is_on() {
            return None;
        }
        let threshold = self.sampling.threshold();
        let trace_id = match parent {
            Some(parent) if !parent.is_sampled => return None,
            Some(parent) => parent.trace_id.0,
            None if threshold == 0 => return None,
            None => {
                let trace_id = RandomIdGenerator::default().new_trace_id().to_bytes();
                let (_, low) = trace_id.split_at(8);
                let low = low.try_into().expect("half of sixteen bytes is eight; this is a bug");
                (u64::from_be_bytes(low) < threshold).then_some(trace_id)?
            }
        };
        Some(RequestSpan::begin(Arc::clone(&self.exporter), trace_id, parent, headers, protocol))
    }

    /// Waits until what has ended has left, or for five seconds. Blocks: called when nothing else is left to do.
    pub fn flush(&self) {
        self.exporter.flush();
    }
}

// === impl Protocol ===

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http",
        }
    }
}
