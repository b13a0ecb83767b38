//! What happens to a call before and after its handler: deadline, compression, and tonic's own errors in our words.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_proto::inference::grpc_inference_service_server::{GrpcInferenceServiceServer, SERVICE_NAME};
use http::header::HeaderMap;
use http::request::Parts;
use http::{Extensions, HeaderName, Request, Response, Uri};
use http_body::Body as HttpBody;
use tonic::body::Body;
use tonic::codegen::{Service, StdError};
use tonic::service::Routes;
use tonic::{Code, Status};

use super::Inference;
use super::unary::{self, Reread};
use crate::status::bounded_status;

/// The services behind one listener, called for each request of each connection.
pub(super) struct Edge {
    /// For calls that take the short way.
    pub(super) handler: Arc<Inference>,
    pub(super) inference: GrpcInferenceServiceServer<Inference>,
    /// Health and reflection.
    pub(super) others: Routes,
    pub(super) message_bytes_max: usize,
}

/// When the client stops waiting, by its `grpc-timeout` header.
///
/// tonic's own server would drop the handler at that moment and answer CANCELLED; the engine
/// answers DEADLINE_EXCEEDED and says where the request was.
#[derive(Clone, Copy)]
struct Deadline(Instant);

pub(crate) fn deadline(extensions: &Extensions) -> Option<Instant> {
    extensions.get().map(|Deadline(instant)| *instant)
}

/// A call on its way.
pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

const MODEL_INFER: &str = "ModelInfer";
/// TorchServe's name for the same service; its messages have the same numbers.
const TORCHSERVE_NAME: &str = "org.pytorch.serve.grpc.openinference.GRPCInferenceService";
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub(super) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
pub(super) const STATUS: HeaderName = HeaderName::from_static("grpc-status");

// === impl Edge ===

impl Edge {
    /// Answers one HTTP/2 request.
    ///
    /// The future is in a box: hyper and the runtime move what they are given half a dozen times.
    pub(super) fn call<B>(self: Arc<Edge>, request: Request<B>) -> Answering
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<StdError> + Send + Unpin + 'static,
    {
        let (mut parts, body) = request.into_parts();
        match timeout(&parts.headers) {
            Ok(None) => {}
            Ok(Some(timeout)) => {
                if let Some(instant) = Instant::now().checked_add(timeout) {
                    parts.extensions.insert(Deadline(instant));
                }
            }
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        }
        mirror_encoding(&mut parts.headers);
        if let Some(method) = method_of(TORCHSERVE_NAME, parts.uri.path()) {
            let path = format!("/{SERVICE_NAME}/{method}");
            parts.uri = Uri::try_from(path).expect("it was a path of a URI before; this is a bug");
        }
        match method_of(SERVICE_NAME, parts.uri.path()) {
            Some(MODEL_INFER) => Box::pin(self.infer(parts, body)),
            _ => Box::pin(self.delegate(Request::from_parts(parts, body))),
        }
    }

    /// The short way, where a call can take it.
    async fn infer<B>(self: Arc<Edge>, parts: Parts, mut body: B) -> Result<Response<Body>, Infallible>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<StdError> + Send + Unpin + 'static,
    {
        match unary::read(&parts.headers, &mut body, self.message_bytes_max).await {
            Ok(message) => {
                let answer =
                    self.handler.infer(&parts.headers, &parts.extensions, message, Inference::encoded);
                let result = answer.await;
                let response = result.map_or_else(Status::into_http, unary::respond);
                Ok(reword_response(response, self.message_bytes_max))
            }
            Err(read) => {
                let request = Request::from_parts(parts, Reread::new(read, body));
                self.delegate(request).await
            }
        }
    }

    /// Has tonic answer.
    async fn delegate<B>(self: Arc<Edge>, request: Request<B>) -> Result<Response<Body>, Infallible>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<StdError> + Send + Unpin + 'static,
    {
        let answer: Answering = match method_of(SERVICE_NAME, request.uri().path()) {
            Some(_) => self.inference.clone().call(request),
            None => Box::pin(self.others.clone().call(request.map(Body::new))),
        };
        Ok(reword_response(answer.await?, self.message_bytes_max))
    }
}

/// The method of the service that is called, if one is.
fn method_of<'a>(service: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix('/')?.strip_prefix(service)?.strip_prefix('/')
}

/// The duration in `grpc-timeout`: at most eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    parse_timeout(value.as_bytes()).map(Some).ok_or_else(|| {
        let text = format!(
            "header grpc-timeout is {value:?}: expected one to eight digits and a unit of H, M, S, m, u or n"
        );
        bounded_status(Code::InvalidArgument, text)
    })
}

fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0u64, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Lets tonic compress an answer only as its request was compressed.
///
/// Clients built on gRPC's C core list every encoding that they can read in every call, and tonic
/// takes that for a wish. Compressing tensors that nobody asked to have compressed costs far more
/// than a local network saves.
fn mirror_encoding(headers: &mut HeaderMap) {
    let encoding = headers.get(ENCODING).filter(|encoding| *encoding != "identity").cloned();
    let Some(accepted) = headers.remove(ACCEPT_ENCODING) else { return };
    let Some(encoding) = encoding else { return };
    let is_accepted = |accepted: &str| accepted.split(',').any(|name| *name.trim() == encoding);
    if accepted.to_str().is_ok_and(is_accepted) {
        headers.insert(ACCEPT_ENCODING, encoding);
    }
}

/// Rewords an answer that consists of an error alone. Answers of handlers carry their status in the
/// trailers, so the way of a good answer is one look for a header.
fn reword_response(response: Response<Body>, message_bytes_max: usize) -> Response<Body> {
    if !response.headers().contains_key(STATUS) {
        return response;
    }
    match Status::from_header_map(response.headers()).and_then(|status| reword(&status, message_bytes_max)) {
        Some(status) => status.into_http(),
        None => response,
    }
}

/// The status for an error that tonic made before a handler saw the message, or `None` for any
/// other. tonic tells these apart by their text alone.
pub(super) fn reword(status: &Status, message_bytes_max: usize) -> Option<Status> {
    let text = status.message();
    let limit = message_bytes_max;
    let advice = "send fewer rows in a request, or raise --grpc-message-bytes-max";
    match status.code() {
        Code::OutOfRange => {
            let length =
                text.strip_prefix("Error, decoded message length too large: found ")?.split(' ').next()?;
            Some(Status::resource_exhausted(format!(
                "the request message has {length} bytes, the limit is {limit}: {advice}"
            )))
        }
        Code::ResourceExhausted if text.starts_with("Error decompressing: size limit") => {
            Some(Status::resource_exhausted(format!(
                "the request message has more than {limit} bytes when decompressed, which is the limit: {advice}"
            )))
        }
        Code::Internal if text.starts_with("failed to decode Protobuf message") => {
            Some(Status::invalid_argument(format!("malformed request message: {text}")))
        }
        Code::Internal if text == "Unexpected EOF decoding stream." => {
            Some(Status::invalid_argument("the request ends before its message does"))
        }
        Code::Internal if text == "Missing request message." => {
            Some(Status::invalid_argument("the request has no message: expected one"))
        }
        Code::Internal
            if text.starts_with("protocol error: ") || text.starts_with("Error decompressing: ") =>
        {
            Some(Status::invalid_argument(format!("malformed request: {text}")))
        }
        Code::Unimplemented if text.is_empty() => Some(Status::unimplemented(
            "the server has no such method; server reflection lists those that it has",
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn timeouts_have_a_unit() {
        let parse = |value: &str| parse_timeout(value.as_bytes());
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse("1M"), Some(Duration::from_secs(60)));
        assert_eq!(parse("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("7u"), Some(Duration::from_micros(7)));
        assert_eq!(parse("0n"), Some(Duration::ZERO));
        for bad in ["", "S", "5", "123456789S", "-1S", "1 S", "1s"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn answers_are_compressed_as_their_requests_were() {
        let check = |encoding: Option<&'static str>, accepted: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            encoding.map(|value| headers.insert(ENCODING, HeaderValue::from_static(value)));
            accepted.map(|value| headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value)));
            mirror_encoding(&mut headers);
            headers.get(ACCEPT_ENCODING).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(check(None, Some("identity, deflate, gzip")), None);
        assert_eq!(check(Some("identity"), Some("gzip")), None);
        assert_eq!(check(Some("gzip"), Some("identity, deflate, gzip")), Some("gzip".into()));
        assert_eq!(check(Some("zstd"), Some("gzip")), None);
        assert_eq!(check(Some("gzip"), None), None);
    }

    #[test]
    fn only_the_inference_service_takes_the_short_way() {
        let method = |path| method_of(SERVICE_NAME, path);
        assert_eq!(method("/inference.GRPCInferenceService/ModelInfer"), Some(MODEL_INFER));
        assert_eq!(method("/inference.GRPCInferenceService"), None);
        assert_eq!(method("/inference.GRPCInferenceServiceToo/ModelInfer"), None);
        assert_eq!(method("/grpc.health.v1.Health/Check"), None);
    }
}
