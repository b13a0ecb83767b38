//! The span of one request: begun when its headers are read, ended when its answer is written or its caller has left.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Instant;

use gristmill_engine::request::Response;
use gristmill_engine::trace::{SpanRef, Trace};
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanKind, TraceState};

use super::Protocol;
use super::export::{Exporter, Finished, Moment, Parent, new_span_id};
use crate::trace_context::{TRACEPARENT, TraceId, TraceParent};

pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

pub(crate) struct RequestSpan {
    exporter: Arc<Exporter>,
    span: SpanRef,
    parent: Option<Parent>,
    trace_state: TraceState,
    began: Moment,
    attributes: Vec<KeyValue>,
    batches: Vec<SpanRef>,
    end: End,
}

/// How a request ended otherwise than well.
pub(crate) struct Failure<'a> {
    /// A name of few, such as a code.
    pub(crate) kind: &'a str,
    pub(crate) message: &'a str,
    /// A client's mistake is no error of ours.
    pub(crate) is_servers: bool,
}

enum End {
    /// Nobody has said yet; if nobody does, the caller left.
    Open,
    Well,
    Failed {
        message: String,
        is_servers: bool,
    },
}

// === impl RequestSpan ===

impl RequestSpan {
    pub(super) fn begin(
        exporter: Arc<Exporter>,
        trace_id: [u8; 16],
        parent: Option<TraceParent>,
        headers: &HeaderMap,
        protocol: Protocol,
    ) -> Box<RequestSpan> {
        // Without a valid parent, its state means nothing.
        let state = parent.and_then(|_| headers.get(TRACESTATE)?.to_str().ok());
        Box::new(RequestSpan {
            exporter,
            span: SpanRef { trace_id, span_id: new_span_id() },
            parent: parent.map(|parent| Parent { span_id: parent.span_id, is_remote: true }),
            // One that is malformed is dropped, as the specification has it.
            trace_state: state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default(),
            began: Moment::now(),
            attributes: vec![KeyValue::new("gristmill.protocol", protocol.name())],
            batches: Vec::new(),
            end: End::Open,
        })
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        TraceId(self.span.trace_id)
    }

    /// For the engine, which tells of the request's batches.
    pub(crate) fn for_engine(&self) -> Box<Trace> {
        let tracer = Arc::clone(&self.exporter);
        Box::new(Trace { span: self.span, tracer, batches: Vec::new() })
    }

    pub(crate) fn asks_for(&mut self, model: &str) {
        // A call that is tried with a second version asks for the same model.
        if self.attributes.len() == 1 {
            self.attributes.push(KeyValue::new("gristmill.model", model.to_owned()));
        }
    }

    /// The engine's answer to a request that it was given at `submitted`.
    pub(crate) fn answered(&mut self, submitted: Instant, response: &Response) {
        let rows = i64::try_from(response.timing.batch_rows).unwrap_or(i64::MAX);
        self.attributes.push(KeyValue::new("gristmill.version", response.model.version.to_string()));
        self.attributes.push(KeyValue::new("gristmill.batch.rows", rows));
        self.batches.clone_from(&response.batches);
        let queue = Finished {
            name: "queue",
            kind: SpanKind::Internal,
            span: SpanRef { span_id: new_span_id(), ..self.span },
            parent: Some(Parent { span_id: self.span.span_id, is_remote: false }),
            trace_state: TraceState::NONE,
            began: submitted,
            ended: submitted + response.timing.queue,
            attributes: Vec::new(),
            links: Vec::new(),
            error: None,
        };
        self.exporter.export(queue, self.began);
    }

    /// The answer is about to be written.
    pub(crate) fn end(&mut self, failure: Option<&Failure<'_>>) {
        self.end = match failure {
            None => End::Well,
            Some(failure) => {
                self.attributes.push(KeyValue::new("error.type", failure.kind.to_owned()));
                End::Failed { message: failure.message.to_owned(), is_servers: failure.is_servers }
            }
        };
    }

    /// Says in the answer's headers, or its metadata, where its trace is.
    pub(crate) fn annotate(&self, headers: &mut HeaderMap) {
        let SpanRef { trace_id, span_id } = self.span;
        let context = TraceParent { trace_id: TraceId(trace_id), span_id, is_sampled: true };
        let value = HeaderValue::try_from(context.to_string());
        headers.insert(TRACEPARENT, value.expect("digits are a header's value; this is a bug"));
        let state = self.trace_state.header();
        if !state.is_empty()
            && let Ok(state) = HeaderValue::try_from(state)
        {
            headers.insert(TRACESTATE, state);
        }
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        let (error, left) = match std::mem::replace(&mut self.end, End::Well) {
            End::Well => (None, false),
            End::Open => (None, true),
            End::Failed { message, is_servers } => (is_servers.then_some(message), false),
        };
        if left {
            self.attributes.push(KeyValue::new("error.type", "cancelled"));
        }
        let request = Finished {
            name: "request",
            kind: SpanKind::Server,
            span: self.span,
            parent: self.parent,
            trace_state: std::mem::take(&mut self.trace_state),
            began: self.began.instant,
            ended: Instant::now(),
            attributes: std::mem::take(&mut self.attributes),
            links: std::mem::take(&mut self.batches),
            error,
        };
        self.exporter.export(request, self.began);
    }
}
