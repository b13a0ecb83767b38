//! Where finished spans go: a bounded queue, a thread of the OpenTelemetry SDK, and an OTLP receiver.

use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use gristmill_engine::trace::{BatchTracer, SpanRef, TracedBatch};
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanLinks,
    SpanProcessor as _,
};

/// Takes finished spans. Handing one over never waits: a full queue drops it, and the SDK says so in the log.
#[derive(Debug)]
pub(super) struct Exporter {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

/// One moment on both clocks: spans that share it keep their order to the nanosecond.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    wall: SystemTime,
}

/// A span that has ended.
pub(super) struct Finished {
    pub(super) name: &'static str,
    pub(super) kind: SpanKind,
    pub(super) span: SpanRef,
    pub(super) parent: Option<Parent>,
    pub(super) trace_state: TraceState,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) links: Vec<SpanRef>,
    /// What went wrong, where that is the server's doing.
    pub(super) error: Option<String>,
}

#[derive(Clone, Copy)]
pub(super) struct Parent {
    pub(super) span_id: [u8; 8],
    pub(super) is_remote: bool,
}

// === impl Moment ===

impl Moment {
    pub(super) fn now() -> Moment {
        Moment { instant: Instant::now(), wall: SystemTime::now() }
    }

    fn wall_at(self, instant: Instant) -> SystemTime {
        match instant.checked_duration_since(self.instant) {
            Some(later) => self.wall + later,
            None => self.wall - self.instant.saturating_duration_since(instant),
        }
    }
}

// === impl Exporter ===

impl Exporter {
    pub(super) fn start(endpoint: &str) -> anyhow::Result<Exporter> {
        let exporter =
            opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.with_context(|| {
            format!(
                "--otlp-endpoint: \"{endpoint}\" cannot be used; expected for example http://127.0.0.1:4317"
            )
        })?;
        // Its queue, the size of what is sent at once and the pause between are the SDK's defaults (2048 spans, 512,
        // five seconds), or what OpenTelemetry's variables (OTEL_BSP_*) say.
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource());
        let scope =
            InstrumentationScope::builder("gristmill").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Exporter { processor, scope })
    }

    pub(super) fn export(&self, finished: Finished, moment: Moment) {
        let Finished { span, parent, trace_state, links, error, .. } = finished;
        let mut span_links = SpanLinks::default();
        span_links.links =
            links.into_iter().map(|link| Link::with_context(context(link, TraceState::NONE))).collect();
        self.processor.on_end(SpanData {
            span_context: context(span, trace_state),
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.span_id)),
            parent_span_is_remote: parent.is_some_and(|parent| parent.is_remote),
            span_kind: finished.kind,
            name: finished.name.into(),
            start_time: moment.wall_at(finished.began),
            end_time: moment.wall_at(finished.ended),
            attributes: finished.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: span_links,
            status: error.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        });
    }

    pub(super) fn flush(&self) {
        if let Err(error) = self.processor.force_flush() {
            tracing::warn!(%error, "the last spans were not all delivered");
        }
    }
}

impl BatchTracer for Exporter {
    /// The batch is a child of its first traced request, so that this one's trace shows it in place, and linked to
    /// all of them.
    fn trace(&self, batch: &TracedBatch<'_>) -> SpanRef {
        let moment = Moment::now();
        let first = batch.members[0];
        let span = SpanRef { trace_id: first.trace_id, span_id: new_span_id() };
        let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let finished = |name, span, parent: SpanRef, began| Finished {
            name,
            kind: SpanKind::Internal,
            span,
            parent: Some(Parent { span_id: parent.span_id, is_remote: false }),
            trace_state: TraceState::NONE,
            began,
            ended: batch.ended,
            attributes: Vec::new(),
            links: Vec::new(),
            error: None,
        };
        if let Some(run_began) = batch.run_began {
            let run = SpanRef { span_id: new_span_id(), ..span };
            self.export(finished("run", run, span, run_began), moment);
        }
        let own = Finished {
            attributes: vec![
                KeyValue::new("gristmill.model", batch.model.to_owned()),
                KeyValue::new("gristmill.version", batch.version.to_string()),
                KeyValue::new("gristmill.batch.requests", count(batch.requests)),
                KeyValue::new("gristmill.batch.rows", count(batch.rows)),
            ],
            links: batch.members.to_vec(),
            error: batch.error.map(ToString::to_string),
            ..finished("batch", span, first, batch.began)
        };
        self.export(own, moment);
        span
    }
}

pub(super) fn new_span_id() -> [u8; 8] {
    RandomIdGenerator::default().new_span_id().to_bytes()
}

fn context(span: SpanRef, trace_state: TraceState) -> SpanContext {
    let (trace_id, span_id) = (TraceId::from_bytes(span.trace_id), SpanId::from_bytes(span.span_id));
    SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, trace_state)
}

/// Who sends the spans: what OpenTelemetry's variables say, and our name where they say none.
fn resource() -> Resource {
    let detected = Resource::builder().build();
    let name = detected.get(&Key::from_static_str("service.name"));
    let is_named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let builder =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if is_named { builder.build() } else { builder.with_service_name("gristmill").build() }
}
