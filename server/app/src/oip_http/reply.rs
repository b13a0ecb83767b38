//! How answers and refusals become HTTP responses.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use gristmill_engine::error::InferError;
use http_body::{Frame, SizeHint};
use serde::Serialize;

use crate::codec::binary::HEADER_LENGTH;
use crate::codec::json::Encoded;
use crate::gateway::Call;
use crate::status;
use crate::traces::Failure;

/// Answers shorter than this are not worth compressing.
const COMPRESSED_BYTES_MIN: usize = 4096;

/// Longest error text: a client's names, which it may repeat, can be of any length.
const ERROR_BYTES_MAX: usize = 4096;

/// A request that gets `{"error": "..."}`.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    retry_after_s: Option<u64>,
}

/// A content coding that clients may ask for; `Deflate` is the zlib format, as HTTP has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
}

/// How a dialect answers a refused request; the text is bounded.
pub(crate) type WriteRefusal = fn(StatusCode, &str) -> Response;

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
}

// === impl Refusal ===

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { status, message: status::visible(message.into()), retry_after_s: None }
    }

    /// The response to a refused request, as a dialect writes it.
    pub(crate) fn respond(&self, write: WriteRefusal) -> Response {
        let end = self.message.floor_char_boundary(ERROR_BYTES_MAX);
        let mut response = write(self.status, &self.message[..end]);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }

    fn failure(&self) -> Failure<'_> {
        Failure {
            kind: self.status.as_str(),
            message: &self.message,
            is_servers: self.status.is_server_error(),
        }
    }
}

impl From<InferError> for Refusal {
    fn from(error: InferError) -> Refusal {
        Refusal {
            status: status::http_status(&error),
            message: status::visible(error.to_string()),
            retry_after_s: status::retry_after(&error).map(status::retry_after_s),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.respond(|status, error| json(status, &ErrorBody { error }))
    }
}

/// The response to a call, with what its client asked to be told beside it.
pub(crate) fn annotated(answer: Result<Response, Refusal>, call: &mut Call<'_>) -> Response {
    annotated_as(answer, call, |status, error| json(status, &ErrorBody { error }))
}

/// The same, where the dialect has error bodies of its own.
pub(crate) fn annotated_as(
    answer: Result<Response, Refusal>,
    call: &mut Call<'_>,
    write: WriteRefusal,
) -> Response {
    let answer = answer.and_then(|response| within_limit(response, call));
    call.end(answer.as_ref().err().map(Refusal::failure).as_ref());
    let mut response = answer.unwrap_or_else(|refusal| refusal.respond(write));
    call.annotate(response.headers_mut());
    response
}

/// # Errors
/// The body is larger than allowed: binary tensors, or text that was not measured while it was written.
fn within_limit(response: Response, call: &Call<'_>) -> Result<Response, Refusal> {
    if let (Some(limit), Some(bytes)) =
        (call.answer_limit(), http_body::Body::size_hint(response.body()).exact())
    {
        limit.check(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    }
    Ok(response)
}

/// A response whose body is `value`.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("our own types serialise; this is a bug");
    json_bytes(status, body)
}

/// A response whose body is JSON text.
pub(crate) fn json_bytes(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response to a client that sent `request` headers: compressed if it asked and the body is long enough.
pub(crate) fn encoded(request: &HeaderMap, body: Encoded) -> Response {
    let Encoded { mut parts, header_length } = body;
    let coding = Coding::accepted(request)
        .filter(|_| parts.iter().map(Bytes::len).sum::<usize>() >= COMPRESSED_BYTES_MIN);
    let body = match coding {
        Some(coding) => Body::from(coding.compress(&parts)),
        None if parts.len() == 1 => Body::from(parts.remove(0)),
        None => Body::new(Parts {
            remaining: parts.iter().map(|part| part.len() as u64).sum(),
            parts: parts.into_iter().collect(),
        }),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let content_type = match header_length {
        Some(length) => {
            headers.insert(HEADER_LENGTH, length.into());
            "application/octet-stream"
        }
        None => "application/json",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    response
}

/// A body of several buffers, sent from where they are. Its length is known.
struct Parts {
    parts: VecDeque<Bytes>,
    remaining: u64,
}

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.parts.pop_front();
        if let Some(part) = &part {
            self.remaining -= part.len() as u64;
        }
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

// === impl Coding ===

impl Coding {
    pub(crate) fn parse(name: &str) -> Option<Coding> {
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
                Some(Coding::Gzip)
            }
            name if name.eq_ignore_ascii_case("deflate") => Some(Coding::Deflate),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
        }
    }

    /// The first coding of ours in `Accept-Encoding` that is not ruled out by `q=0`.
    fn accepted(headers: &HeaderMap) -> Option<Coding> {
        let offers = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        offers.flat_map(|value| value.split(',')).find_map(|offer| {
            let (name, parameters) = offer.split_once(';').unwrap_or((offer, ""));
            let quality = parameters.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
            Coding::parse(name).filter(|_| quality.is_ok_and(|quality| quality > 0.0))
        })
    }

    /// Compresses fast rather than small: the client waits.
    fn compress(self, parts: &[Bytes]) -> Vec<u8> {
        let level = Compression::fast();
        let written = match self {
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                parts.iter().try_for_each(|part| encoder.write_all(part)).and_then(|()| encoder.finish())
            }
            Coding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                parts.iter().try_for_each(|part| encoder.write_all(part)).and_then(|()| encoder.finish())
            }
        };
        written.expect("compressing into memory does not fail; this is a bug")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_encoding_is_honoured() {
        let accepted = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            Coding::accepted(&headers)
        };
        assert_eq!(accepted("gzip, deflate, br"), Some(Coding::Gzip));
        assert_eq!(accepted("br;q=1.0, deflate;q=0.5"), Some(Coding::Deflate));
        assert_eq!(accepted("gzip;q=0, deflate"), Some(Coding::Deflate));
        assert_eq!(accepted("identity"), None);
        assert_eq!(accepted("gzip;q=high"), None);
    }
}
