//! Reads a request's body: bounded in bytes before and after decompression, and in the time between pieces.

use std::io::Read;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use gristmill_engine::error::InferError;
use http_body_util::BodyExt as _;
use serde::Deserialize;

use super::HttpOptions;
use super::reply::{Coding, Refusal};
use crate::codec::byte_order_mark::without_byte_order_mark;

/// Longest silence inside a body before the client is given up.
const BODY_SILENCE_MAX: Duration = Duration::from_secs(30);

/// Most memory set aside on the word of a `Content-Length`.
const RESERVED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A body over the limit is read on and thrown away up to this many times the limit: a client that
/// is still sending does not see the answer before it is done.
const DISCARDED_TIMES_MAX: usize = 4;

/// The whole body that came with `headers`, decompressed.
///
/// # Errors
/// 413 over the limit, 415 for an unknown `Content-Encoding`, 408 for a client that stops sending,
/// 400 for a body that is cut off or does not decompress.
pub(crate) async fn read(headers: &HeaderMap, body: Body, options: &HttpOptions) -> Result<Bytes, Refusal> {
    let coding = content_coding(headers)?;
    let body = collect(headers, body, options.body_bytes_max).await?;
    match coding {
        None => Ok(body),
        Some(coding) => decompress(coding, &body, options.body_bytes_max),
    }
}

async fn collect(headers: &HeaderMap, mut body: Body, bytes_max: usize) -> Result<Bytes, Refusal> {
    let declared: Option<usize> = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    if let Some(length) = declared.filter(|&length| length > bytes_max) {
        // A client that asks before it sends is told at once.
        if !headers.contains_key(EXPECT) {
            discard(body, bytes_max).await;
        }
        return Err(too_large(&format!("{length} bytes"), bytes_max));
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(data) = next_data(&mut body).await? {
        if first.len() + rest.len() + data.len() > bytes_max {
            discard(body, bytes_max).await;
            return Err(too_large(&format!("more than {bytes_max} bytes"), bytes_max));
        }
        if first.is_empty() && rest.is_empty() {
            // Most requests come in one piece, which then needs no copy.
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(declared.unwrap_or(0).min(RESERVED_BYTES_MAX).max(first.len() + data.len()));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// The next piece of data, or `None` at the end.
async fn next_data(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    while !body.is_end_stream() {
        match tokio::time::timeout(BODY_SILENCE_MAX, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
            Ok(Some(Err(error))) => {
                let message = format!("the request's body is cut off or malformed: {error}");
                return Err(InferError::InvalidInput(message).into());
            }
            Err(_silence) => {
                return Err(Refusal::new(
                    StatusCode::REQUEST_TIMEOUT,
                    format!("no part of the request's body came for {} s", BODY_SILENCE_MAX.as_secs()),
                ));
            }
        }
    }
    Ok(None)
}

async fn discard(mut body: Body, bytes_max: usize) {
    let mut left = bytes_max.saturating_mul(DISCARDED_TIMES_MAX);
    while let Ok(Some(data)) = next_data(&mut body).await {
        left = left.saturating_sub(data.len());
        if left == 0 {
            break;
        }
    }
}

fn too_large(size: &str, bytes_max: usize) -> Refusal {
    InferError::TooLarge(format!(
        "the request's body has {size}, the limit is {bytes_max} bytes: send less, or raise --http-body-bytes-max"
    ))
    .into()
}

fn content_coding(headers: &HeaderMap) -> Result<Option<Coding>, Refusal> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(None) };
    let name = value.to_str().unwrap_or("?").trim();
    if name.is_empty() || name.eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    Coding::parse(name).map(Some).ok_or_else(|| {
        let message = format!("Content-Encoding '{name}' is not supported: send gzip, deflate or none");
        Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    })
}

fn decompress(coding: Coding, body: &[u8], bytes_max: usize) -> Result<Bytes, Refusal> {
    match coding {
        Coding::Gzip => read_bounded(MultiGzDecoder::new(body), bytes_max),
        Coding::Deflate => read_bounded(ZlibDecoder::new(body), bytes_max),
    }
}

fn read_bounded(decoder: impl Read, bytes_max: usize) -> Result<Bytes, Refusal> {
    let mut data = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(limit).read_to_end(&mut data).map_err(|error| {
        InferError::InvalidInput(format!(
            "the request's body does not decompress as Content-Encoding says: {error}"
        ))
    })?;
    if data.len() > bytes_max {
        return Err(too_large(&format!("more than {bytes_max} bytes after decompression"), bytes_max));
    }
    Ok(data.into())
}

/// Reads a small JSON object; no body is an empty one.
///
/// # Errors
/// `InvalidInput` that says what was expected.
pub(super) fn parse_or_default<T: Default + for<'a> Deserialize<'a>>(
    body: &[u8],
    expected: &str,
) -> Result<T, InferError> {
    match without_byte_order_mark(body).trim_ascii() {
        b"" => Ok(T::default()),
        json => serde_json::from_slice(json).map_err(|error| {
            InferError::InvalidInput(format!("expected {expected}, {{}} or no body: {error}"))
        }),
    }
}
