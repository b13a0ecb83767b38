//! `ModelStreamInfer`: many requests over one stream, worked on side by side and answered in their order.

use std::time::Instant;

use futures_util::stream::{self, BoxStream, StreamExt};
use gristmill_proto::inference::infer_parameter::ParameterChoice;
use gristmill_proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};
use tonic::{Status, Streaming};

use super::{Inference, edge};

/// Requests of one stream that are worked on at the same time; more wait unread. A few full batches.
const REQUESTS_MAX: usize = 256;

/// The parameter by which Triton's clients learn that a request will not be answered again.
const FINAL: &str = "triton_final_response";

/// One answer for each request, in the order of the requests. A request that fails is answered with
/// its error and its id; only a message that cannot be read, or the server's end, ends the stream.
pub(super) fn answers(
    service: Inference,
    requests: Streaming<ModelInferRequest>,
    deadline: Option<Instant>,
) -> BoxStream<'static, Result<ModelStreamInferResponse, Status>> {
    let message_bytes_max = service.options.message_bytes_max;
    let stopping = service.stopping.clone();
    requests
        .take_until(stopping.clone().cancelled_owned())
        .map(move |request| {
            let service = service.clone();
            async move {
                match request {
                    Ok(request) => Ok(service.answer_in_stream(request, deadline).await),
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
        deadline: Option<Instant>,
    ) -> ModelStreamInferResponse {
        let id = request.id.clone();
        let model_name = request.model_name.clone();
        let model_version = request.model_version.clone();
        let (error_message, mut answer) = match self.answer(request, deadline).await {
            Ok(answer) => (String::new(), answer),
            Err(error) => {
                let answer = ModelInferResponse { id, model_name, model_version, ..Default::default() };
                (error.to_string(), answer)
            }
        };
        let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
        answer.parameters.insert(FINAL.to_owned(), last);
        ModelStreamInferResponse { error_message, infer_response: Some(answer) }
    }
}
