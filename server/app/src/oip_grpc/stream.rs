//! `ModelStreamInfer`: many requests over one stream, worked on side by side and answered in their order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, BoxStream, StreamExt};
use gristmill_engine::request::Timing;
use gristmill_proto::inference::infer_parameter::ParameterChoice;
use gristmill_proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};
use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{Inference, edge, end};
use crate::status::grpc_status;
use crate::traces::Protocol;

/// Requests of one stream that are worked on at the same time; more wait unread. A few full batches.
const REQUESTS_MAX: usize = 256;

/// The parameter by which Triton's clients learn that a request will not be answered again.
const FINAL: &str = "triton_final_response";

/// One answer for each request, in the order of the requests. A request that fails is answered with
/// its error and its id; only a message that cannot be read, or the server's end, ends the stream.
pub(super) fn answers(
    service: Inference,
    requests: Streaming<ModelInferRequest>,
    headers: HeaderMap,
    deadline: Option<Instant>,
) -> BoxStream<'static, Result<ModelStreamInferResponse, Status>> {
    let message_bytes_max = service.options.message_bytes_max;
    let stopping = service.stopping.clone();
    let headers = Arc::new(headers);
    in_order(requests, stopping, message_bytes_max, move |request| {
        let (service, headers) = (service.clone(), Arc::clone(&headers));
        async move { service.answer_in_stream(request, &headers, deadline).await }
    })
}

/// What `answer` makes of each request, worked on side by side and answered in their order. Only a message that
/// cannot be read, or the server's end, ends the stream.
pub(crate) fn in_order<M, A, F>(
    requests: Streaming<M>,
    stopping: CancellationToken,
    message_bytes_max: usize,
    answer: impl Fn(M) -> F + Send + 'static,
) -> BoxStream<'static, Result<A, Status>>
where
    M: Send + 'static,
    A: Send + 'static,
    F: Future<Output = A> + Send + 'static,
{
    requests
        .take_until(stopping.clone().cancelled_owned())
        .map(move |request| {
            let answer = request.map(&answer);
            async move {
                match answer {
                    Ok(answer) => Ok(answer.await),
                    Err(status) => Err(edge::reword(&status, message_bytes_max).unwrap_or(status)),
                }
            }
        })
        .buffered(REQUESTS_MAX)
        .chain(stream::once(async move { stopping.is_cancelled() }).filter_map(|is_stopping| async move {
            is_stopping.then(|| {
                Err(Status::unavailable("the server is shutting down: send the rest to another one"))
            })
        }))
        .boxed()
}

impl Inference {
    async fn answer_in_stream(
        &self,
        request: ModelInferRequest,
        headers: &HeaderMap,
        deadline: Option<Instant>,
    ) -> ModelStreamInferResponse {
        let id = request.id.clone();
        let model_name = request.model_name.clone();
        let model_version = request.model_version.clone();
        let mut call = self.gateway.begin(headers, Protocol::Grpc);
        let mut pending = self.submit(request, deadline, &mut call);
        let (error_message, mut answer) = match self.answer(&mut pending, &mut call, Inference::message).await
        {
            Ok(answer) => {
                end(&mut call, None);
                (String::new(), answer)
            }
            Err(error) => {
                end(&mut call, Some(&grpc_status(error.clone())));
                let answer = ModelInferResponse { id, model_name, model_version, ..Default::default() };
                (error.to_string(), answer)
            }
        };
        let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
        answer.parameters.insert(FINAL.to_owned(), last);
        if let Some(asked) = call.degraded_from() {
            let parameter_choice = Some(ParameterChoice::StringParam(asked.to_owned()));
            answer
                .parameters
                .insert("gristmill_degraded_from".to_owned(), InferParameter { parameter_choice });
        }
        if let Some(timing) = call.timing() {
            answer.parameters.extend(timing_parameters(timing));
        }
        ModelStreamInferResponse { error_message, infer_response: Some(answer) }
    }
}

/// The answers of a stream share its metadata, so each carries its timing itself.
fn timing_parameters(timing: Timing) -> [(String, InferParameter); 4] {
    let microseconds = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let values = [
        ("gristmill_queue_us", microseconds(timing.queue)),
        ("gristmill_run_us", microseconds(timing.run)),
        ("gristmill_total_us", microseconds(timing.total)),
        ("gristmill_batch_rows", i64::try_from(timing.batch_rows).unwrap_or(i64::MAX)),
    ];
    values.map(|(name, value)| {
        let parameter_choice = Some(ParameterChoice::Int64Param(value));
        (name.to_owned(), InferParameter { parameter_choice })
    })
}
