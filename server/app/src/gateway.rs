//! What every inference request passes between its dialect and the engine, whichever protocol it came by.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_engine::answer_limit::AnswerLimit;
use gristmill_engine::engine::{Engine, Submitted};
use gristmill_engine::error::InferError;
use gristmill_engine::prediction::Routed;
use gristmill_engine::request::{ModelInfo, NamedTensor, Query, Response, Timing, VersionSelector};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::feedback::Feedback;
use crate::limits::{Limits, Permit};
use crate::log_settings::Log;
use crate::routing_key::{ForwardPattern, Keys, Said};
use crate::shared_memory::SharedMemory;
use crate::telemetry::Exemplars;
use crate::trace_context::{TraceId, TraceParent};
use crate::traces::{Failure, Protocol, RequestSpan, Traces};

/// The engine, as front doors see it.
pub struct Gateway {
    engine: Arc<Engine>,
    limits: Option<Limits>,
    exemplars: Option<Exemplars>,
    traces: Option<Traces>,
    feedback: Option<Feedback>,
    log: Option<Log>,
    shared_memory: Option<SharedMemory>,
    forwarded: ForwardedHeaders,
    answer_limits: AnswerLimits,
}

/// How large answers may be; by default, as large as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnswerLimits {
    pub http: Option<AnswerLimit>,
    pub grpc: Option<AnswerLimit>,
}

/// Which headers of HTTP, and which metadata of gRPC, count as parameters; none by default.
#[derive(Clone, Debug, Default)]
pub struct ForwardedHeaders {
    pub http: Option<ForwardPattern>,
    pub grpc: Option<ForwardPattern>,
}

/// The model, and perhaps the version, that a request names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) model: String,
    pub(crate) version: VersionSelector,
}

/// One request on its way.
pub(crate) struct Call<'a> {
    gateway: &'a Gateway,
    headers: &'a HeaderMap,
    forwarded: Option<&'a ForwardPattern>,
    answer_limit: Option<AnswerLimit>,
    /// Held until the answer is written.
    permit: Option<Permit>,
    wants_timing: bool,
    timing: Option<Timing>,
    /// Who was asked and would have refused, as `NAME:VERSION`, where another one answered.
    degraded_from: Option<String>,
    /// Where a route was asked, what it chose and who answered.
    routed: Option<(Routed, Arc<ModelInfo>)>,
    /// The span that the caller made for it.
    parent: Option<TraceParent>,
    /// Where it is traced.
    span: Option<Box<RequestSpan>>,
    /// When the engine was asked, where it is traced.
    submitted: Option<Instant>,
}

/// With the value 1, asks for the timing of the answer.
const WANTS_TIMING: HeaderName = HeaderName::from_static("x-gristmill-timing");
/// Durations in milliseconds, to the microsecond, as browsers read them (W3C Server Timing).
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// In an answer of a cheaper model or version: who was asked, as `NAME:VERSION`.
const DEGRADED_FROM: HeaderName = HeaderName::from_static("x-gristmill-degraded-from");
/// In an answer of a route: its name, the arm, who answered, as `NAME:VERSION`, and the id of the prediction.
const ROUTED: [HeaderName; 4] = [
    HeaderName::from_static("x-gristmill-route"),
    HeaderName::from_static("x-gristmill-arm"),
    HeaderName::from_static("x-gristmill-version"),
    HeaderName::from_static("x-gristmill-prediction-id"),
];
const BATCH_ROWS: HeaderName = HeaderName::from_static("x-gristmill-batch-rows");

// === impl Gateway ===

impl Gateway {
    pub fn new(engine: Arc<Engine>) -> Gateway {
        Gateway {
            engine,
            limits: None,
            exemplars: None,
            traces: None,
            feedback: None,
            log: None,
            shared_memory: None,
            forwarded: ForwardedHeaders::default(),
            answer_limits: AnswerLimits::default(),
        }
    }

    /// With limits of tenants.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Gateway {
        Gateway { limits: Some(limits), ..self }
    }

    /// With examples for the metrics, of requests whose traces are sampled.
    #[must_use]
    pub fn with_exemplars(self, exemplars: Exemplars) -> Gateway {
        Gateway { exemplars: Some(exemplars), ..self }
    }

    /// With traces of requests.
    #[must_use]
    pub fn with_traces(self, traces: Traces) -> Gateway {
        Gateway { traces: Some(traces), ..self }
    }

    /// With somebody who keeps predictions of routes and what is told of them.
    #[must_use]
    pub fn with_feedback(self, feedback: Feedback) -> Gateway {
        Gateway { feedback: Some(feedback), ..self }
    }

    pub(crate) fn feedback(&self) -> Option<&Feedback> {
        self.feedback.as_ref()
    }

    /// With a log whose settings may be changed.
    #[must_use]
    pub fn with_log(self, log: Log) -> Gateway {
        Gateway { log: Some(log), ..self }
    }

    /// With files in memory that clients may register for tensors.
    #[must_use]
    pub fn with_shared_memory(self, memory: SharedMemory) -> Gateway {
        Gateway { shared_memory: Some(memory), ..self }
    }

    /// With headers that count as parameters.
    #[must_use]
    pub fn with_forwarded_headers(self, forwarded: ForwardedHeaders) -> Gateway {
        Gateway { forwarded, ..self }
    }

    /// With a bound on answers.
    #[must_use]
    pub fn with_answer_limits(self, answer_limits: AnswerLimits) -> Gateway {
        Gateway { answer_limits, ..self }
    }

    /// Nothing where it is switched off.
    pub(crate) fn shared_memory(&self) -> Option<&SharedMemory> {
        self.shared_memory.as_ref()
    }

    pub(crate) fn traces(&self) -> Option<&Traces> {
        self.traces.as_ref()
    }

    /// # Errors
    /// `Unavailable` where the log was not started with the server.
    pub(crate) fn log(&self) -> Result<&Log, InferError> {
        let nobody = || InferError::Unavailable("this server has no log of its own to set".into());
        self.log.as_ref().ok_or_else(nobody)
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// A request that came with these headers, or this metadata.
    pub(crate) fn begin<'a>(&'a self, headers: &'a HeaderMap, protocol: Protocol) -> Call<'a> {
        let parent = TraceParent::of(headers);
        let span = self.traces.as_ref().and_then(|traces| traces.begin(parent, headers, protocol));
        let (forwarded, answer_limit) = match protocol {
            Protocol::Grpc => (self.forwarded.grpc.as_ref(), self.answer_limits.grpc),
            Protocol::Http => (self.forwarded.http.as_ref(), self.answer_limits.http),
        };
        let wants_timing = headers.get(WANTS_TIMING).is_some_and(|value| value == "1");
        Call {
            gateway: self,
            headers,
            forwarded,
            answer_limit,
            permit: None,
            wants_timing,
            timing: None,
            degraded_from: None,
            routed: None,
            parent,
            span,
            submitted: None,
        }
    }
}

// === impl Call ===

impl Call<'_> {
    /// See [`Engine::infer`]; refuses what is beyond its tenant's limits. A call may be asked again, for another
    /// version, and counts once.
    pub(crate) async fn infer(&mut self, query: Query) -> Result<Response, InferError> {
        self.infer_said(query, &()).await
    }

    /// The same for a message that says more of its request than its tensors.
    pub(crate) async fn infer_said(&mut self, query: Query, said: &dyn Said) -> Result<Response, InferError> {
        let mut submitted = self.submit(query, said)?;
        self.answered(&mut submitted).await
    }

    /// The first half of [`Call::infer_said`], which waits for nothing; [`Call::answered`] is the second.
    pub(crate) fn submit(&mut self, mut query: Query, said: &dyn Said) -> Result<Submitted, InferError> {
        if let Some(span) = &mut self.span {
            span.asks_for(&query.model);
            query.trace = Some(span.for_engine());
        }
        if let Some(limits) = &self.gateway.limits
            && self.permit.is_none()
        {
            self.permit = Some(limits.admit(self.headers, &query.model, Instant::now())?);
        }
        self.submitted = self.span.is_some().then(Instant::now);
        query.answer_limit = self.answer_limit.filter(|_| said.gets_whole_outputs());
        let keys = Keys { headers: self.headers, said, forwarded: self.forwarded };
        self.gateway.engine.submit(query, &keys)
    }

    pub(crate) async fn answered(&mut self, submitted: &mut Submitted) -> Result<Response, InferError> {
        let response = submitted.answer().await?;
        self.routed = response.routed.clone().map(|routed| (routed, Arc::clone(&response.model)));
        if let (Some(span), Some(submitted)) = (&mut self.span, self.submitted) {
            span.answered(submitted, &response);
        }
        self.timing = self.wants_timing.then_some(response.timing);
        let asked = response.degraded_from.as_ref();
        self.degraded_from = asked.map(|asked| format!("{}:{}", asked.name, asked.version));
        if let (Some(exemplars), Some(trace_id)) = (&self.gateway.exemplars, self.sampled_trace()) {
            exemplars.keep(trace_id, &response);
        }
        Ok(response)
    }

    /// Asks for a prediction with the inputs that `read` makes for the version that serves now, and again if another
    /// takes over meanwhile.
    ///
    /// # Errors
    /// Those of `read`, and as [`Engine::infer`].
    pub(crate) async fn ask<T>(
        &mut self,
        dialect: &str,
        target: &Target,
        deadline: Option<Instant>,
        mut read: impl FnMut(&ModelInfo) -> Result<(Vec<NamedTensor>, T), InferError>,
    ) -> Result<(Response, T), InferError> {
        let gateway = self.gateway;
        let serving = || gateway.engine.model(&target.model, &target.version);
        loop {
            let model = serving()?;
            check_carried(&model, dialect)?;
            let (inputs, rest) = read(&model)?;
            let query = Query {
                model: target.model.clone(),
                version: match model.name == target.model {
                    // The version whose signature the inputs were read for, even if another one takes over now.
                    true => VersionSelector::Number(model.version),
                    // A route: each of its arms takes what was read for this one.
                    false => target.version.clone(),
                },
                inputs,
                deadline,
                ..Query::default()
            };
            match self.infer(query).await {
                // It was retired meanwhile, after its successor began to serve.
                Err(InferError::NotFound(_) | InferError::Unavailable(_))
                    if serving().is_ok_and(|now| now.version != model.version) => {}
                result => return Ok((result?, rest)),
            }
        }
    }

    /// The trace in which somebody can look at this request.
    fn sampled_trace(&self) -> Option<TraceId> {
        let of_caller = || self.parent.filter(|parent| parent.is_sampled).map(|parent| parent.trace_id);
        self.span.as_ref().map(|span| span.trace_id()).or_else(of_caller)
    }

    /// How large the body of its answer may be.
    pub(crate) fn answer_limit(&self) -> Option<AnswerLimit> {
        self.answer_limit
    }

    /// Where the time of the answer went, if the client asked.
    pub(crate) fn timing(&self) -> Option<Timing> {
        self.timing
    }

    /// Who was asked and would have refused, where another one answered.
    pub(crate) fn degraded_from(&self) -> Option<&str> {
        self.degraded_from.as_deref()
    }

    /// How it ended. A call of which nobody says so is one whose caller left.
    pub(crate) fn end(&mut self, failure: Option<&Failure<'_>>) {
        if let Some(span) = &mut self.span {
            span.end(failure);
        }
    }

    /// Adds to the headers, or the metadata, of the response what the client asked for.
    pub(crate) fn annotate(&self, headers: &mut HeaderMap) {
        if let Some(span) = &self.span {
            span.annotate(headers);
        }
        if let Some(asked) = self.degraded_from() {
            // A name that a header cannot carry; the answer names who gave it all the same.
            let value = HeaderValue::try_from(asked).unwrap_or(HeaderValue::from_static("?"));
            headers.insert(DEGRADED_FROM, value);
        }
        if let Some((routed, model)) = &self.routed {
            let version = format!("{}:{}", model.name, model.version);
            let values = [&routed.arm.route, &routed.arm.arm, &version, &routed.prediction_id.to_string()];
            for (name, value) in ROUTED.into_iter().zip(values) {
                let value = HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("?"));
                headers.insert(name, value);
            }
        }
        if let Some(timing) = self.timing {
            let value = HeaderValue::try_from(server_timing(timing));
            headers.insert(SERVER_TIMING, value.expect("digits are a header's value; this is a bug"));
            headers.insert(BATCH_ROWS, timing.batch_rows.into());
        }
    }
}

fn server_timing(timing: Timing) -> String {
    let milliseconds = |duration: Duration| duration.as_micros() as f64 / 1000.0;
    format!(
        "queue;dur={:.3}, run;dur={:.3}, total;dur={:.3}",
        milliseconds(timing.queue),
        milliseconds(timing.run),
        milliseconds(timing.total)
    )
}

/// # Errors
/// `InvalidInput` where a tensor of `model` is of a type that only raw bytes carry, which `dialect` has no place for.
pub(crate) fn check_carried(model: &ModelInfo, dialect: &str) -> Result<(), InferError> {
    let specs = model.signature.inputs.iter().chain(&model.signature.outputs);
    match specs.into_iter().find(|spec| spec.dtype.is_narrow()) {
        None => Ok(()),
        Some(spec) => Err(InferError::InvalidInput(format!(
            "'{}' of model '{}' is {}, which {dialect} does not carry: ask by the Open Inference Protocol, with binary \
             data over HTTP or raw contents over gRPC",
            spec.name, model.name, spec.dtype
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_milliseconds_to_the_microsecond() {
        let timing = Timing {
            queue: Duration::from_nanos(12_900),
            run: Duration::from_micros(1_234),
            total: Duration::from_secs(2),
            batch_rows: 8,
        };
        assert_eq!(server_timing(timing), "queue;dur=0.012, run;dur=1.234, total;dur=2000.000");
    }
}
