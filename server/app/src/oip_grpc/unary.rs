//! The short way of a unary call: a message that came in one frame and not compressed is decoded where it lies, one of
//! several frames after one copy.
//!
//! tonic copies each message into a buffer of its own, which it first has to grow. For tensors of some kilobytes
//! that was a quarter of what an I/O thread did for a request.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::StdError;

use super::edge::{ENCODING, STATUS};
use crate::codec::proto::wire::Encoded;

/// A message's header: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// So many empty frames after a message are passed over.
const EMPTY_FRAMES_MAX: usize = 2;

/// A body of which frames have been read already.
pub(super) struct Reread<B: HttpBody> {
    read: std::vec::IntoIter<Result<Frame<Bytes>, B::Error>>,
    rest: B,
}

/// Frames of a body, and perhaps its error.
type Frames<B> = Vec<Result<Frame<Bytes>, <B as HttpBody>::Error>>;

/// The message of a call, or else the frames that were read of its body, for tonic: it knows compression, several
/// messages, and what to say of the ones that are wrong.
pub(super) async fn read<M, B>(headers: &HeaderMap, body: &mut B, bytes_max: usize) -> Result<M, Frames<B>>
where
    M: Message + Default,
    B: HttpBody<Data = Bytes> + Unpin,
{
    if headers.get(ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Vec::new());
    }
    let Some(first) = body.frame().await else { return Err(Vec::new()) };
    let length = first.as_ref().ok().and_then(Frame::data_ref).and_then(|data| whole_length(data, bytes_max));
    let whole = match (length, first) {
        (Some(length), Ok(first)) => {
            let first = first.into_data().expect("it has a length; this is a bug");
            gather(first, length, body).await?
        }
        (_, first) => return Err(vec![first]),
    };
    // Clients that learn only afterwards that a message was the last one, such as tonic's, end with an empty frame.
    let mut empty = 0;
    while !body.is_end_stream() {
        match body.frame().await {
            None => break,
            Some(Ok(after)) if empty < EMPTY_FRAMES_MAX && is_empty(&after) => empty += 1,
            Some(after) => return Err(vec![Ok(Frame::data(whole)), after]),
        }
    }
    M::decode(whole.slice(PREFIX_BYTES..)).map_err(|_told_by_tonic| vec![Ok(Frame::data(whole))])
}

/// The first `length` bytes of a body that begins with `first`: as they lie where those are all, else in one copy.
async fn gather<B>(first: Bytes, length: usize, body: &mut B) -> Result<Bytes, Frames<B>>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    if first.len() == length {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(length);
    whole.extend_from_slice(&first);
    drop(first);
    while whole.len() < length {
        let next = body.frame().await;
        let data = next.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
        match data.filter(|data| whole.len() + data.len() <= length) {
            Some(data) => whole.extend_from_slice(data),
            None => {
                let read = std::iter::once(Ok(Frame::data(whole.freeze())));
                return Err(read.chain(next).collect());
            }
        }
    }
    Ok(whole.freeze())
}

fn is_empty(frame: &Frame<Bytes>) -> bool {
    frame.data_ref().is_some_and(Bytes::is_empty)
}

/// How long a body is that begins so, with the header, if it is one message, not compressed and not too long.
fn whole_length(first: &Bytes, bytes_max: usize) -> Option<usize> {
    let mut header = first.get(..PREFIX_BYTES)?;
    if header.get_u8() != 0 {
        return None;
    }
    let message = header.get_u32() as usize;
    (message <= bytes_max && first.len() <= PREFIX_BYTES + message).then_some(PREFIX_BYTES + message)
}

/// What stands before a message of this length that is not compressed.
pub(super) fn prefix(length: usize) -> [u8; PREFIX_BYTES] {
    // One that is longer is refused before it is sent.
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}

/// The answer to such a call, made with [`prefix`].
pub(super) fn respond(response: tonic::Response<Encoded>) -> http::Response<Body> {
    let (metadata, message, extensions) = response.into_parts();
    let body = Reply { segments: message.segments.into_iter(), is_over: false };
    let mut response = http::Response::new(Body::new(body));
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    *response.extensions_mut() = extensions;
    response
}

/// A message, and the status that it went well. Its length is not told: HTTP/2 would give it a header of its own, for
/// which no client of gRPC has a use.
struct Reply {
    segments: smallvec::IntoIter<[Bytes; 1]>,
    is_over: bool,
}

// === impl Reply ===

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(segment) = self.segments.next() {
            return Poll::Ready(Some(Ok(Frame::data(segment))));
        }
        if std::mem::replace(&mut self.is_over, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

// === impl Reread ===

impl<B: HttpBody> Reread<B> {
    /// `rest`, after the frames that were `read` of it.
    pub(super) fn new(read: Vec<Result<Frame<Bytes>, B::Error>>, rest: B) -> Reread<B> {
        Reread { read: read.into_iter(), rest }
    }
}

impl<B> HttpBody for Reread<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<StdError> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.read.next() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.as_slice().is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.read.as_slice() {
            [] => self.rest.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use gristmill_proto::inference::ServerLiveResponse as Live;
    use http_body_util::StreamBody;

    use super::*;

    /// What becomes of a body of these frames, where a message may have eight bytes.
    async fn check(headers: &[(&'static str, &'static str)], frames: &[&[u8]]) -> String {
        let headers =
            headers.iter().map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let headers = HeaderMap::from_iter(headers);
        let frames: Vec<Result<_, Infallible>> =
            frames.iter().map(|frame| Ok(Frame::data(Bytes::copy_from_slice(frame)))).collect();
        let mut body = StreamBody::new(tokio_stream::iter(frames));
        match read::<Live, _>(&headers, &mut body, 8).await {
            Ok(message) => format!("read, live: {}", message.live),
            Err(read) => {
                let body = Reread::new(read, body).collect().await.unwrap();
                format!("for tonic: {:?}", body.to_bytes())
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_one_whole_message_is_left_as_it_came() {
        let whole: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
        assert_eq!(check(&[], &[whole]).await, "read, live: true");
        assert_eq!(check(&[("grpc-encoding", "identity")], &[whole]).await, "read, live: true");
        assert_eq!(check(&[], &[&[0, 0, 0, 0, 0]]).await, "read, live: false");
        let left = r#"for tonic: b"\0\0\0\0\x02\x08\x01""#;
        assert_eq!(check(&[("grpc-encoding", "gzip")], &[whole]).await, left);
        assert_eq!(check(&[], &[&whole[..3], &whole[3..]]).await, left, "its length is not told at once");
        assert_eq!(check(&[], &[&whole[..6], &whole[6..]]).await, "read, live: true");
        assert_eq!(check(&[], &[&whole[..5], &[], &whole[5..6], &whole[6..], &[]]).await, "read, live: true");
        let cut = r#"for tonic: b"\0\0\0\0\x02\x08""#;
        assert_eq!(check(&[], &[&whole[..5], &whole[5..6]]).await, cut, "it ends too early");
        let two = r#"for tonic: b"\0\0\0\0\x02\x08\x01\0\0\0\0\0""#;
        assert_eq!(check(&[], &[&whole[..6], &[1, 0, 0, 0, 0, 0]]).await, two, "another message follows");
        assert_eq!(check(&[], &[whole, &[]]).await, "read, live: true", "as tonic's clients end");
        let many: [&[u8]; 4] = [whole, &[], &[], &[]];
        assert_eq!(check(&[], &many).await, left, "more empty frames than any client has a use for");
        assert_eq!(check(&[], &[&[1, 0, 0, 0, 1, 8]]).await, r#"for tonic: b"\x01\0\0\0\x01\x08""#);
        assert_eq!(
            check(&[], &[&[0, 0, 0, 0, 1, 8]]).await,
            r#"for tonic: b"\0\0\0\0\x01\x08""#,
            "malformed"
        );
        let long: &[u8] = &[0, 0, 0, 0, 9, 8, 1, 8, 1, 8, 1, 8, 1, 0];
        assert_eq!(
            check(&[], &[long]).await,
            format!("for tonic: {:?}", Bytes::from_static(long)),
            "too long"
        );
        assert_eq!(check(&[], &[]).await, r#"for tonic: b"""#);
    }

    #[tokio::test]
    async fn an_answer_is_its_segments_and_a_status() {
        assert_eq!(prefix(0x0102_0304), [0, 1, 2, 3, 4]);
        let segments = [&[0, 0, 0, 0, 2, 8], &[1][..]].map(Bytes::from_static).into_iter().collect();
        let response = respond(tonic::Response::new(Encoded { length: 2, segments }));
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(&body.to_bytes()[..], &[0, 0, 0, 0, 2, 8, 1]);
    }
}
