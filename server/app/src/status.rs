//! The one table from what went wrong (`InferError`) to the code that each protocol answers with.

use std::time::Duration;

use gristmill_engine::error::InferError;
use gristmill_proto::rpc;
use http::StatusCode;
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Longest text of a gRPC status. It travels in a header, percent-encoded to at most three times its
/// length, and clients on gRPC's C core drop a response with more than 8 KiB of headers.
const STATUS_TEXT_BYTES_MAX: usize = 2048;

/// The HTTP status for `error`.
pub fn http_status(error: &InferError) -> StatusCode {
    codes(error).1
}

/// The gRPC code for `error`.
pub fn grpc_code(error: &InferError) -> Code {
    codes(error).0
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// The gRPC status for `error`, with its text and, where the client should come back later,
/// `retry-after` (whole seconds, at least 1) and `grpc-retry-pushback-ms` as metadata and a
/// `google.rpc.RetryInfo` among its details.
pub fn grpc_status(error: InferError) -> Status {
    let retry_after = retry_after(&error);
    let mut status = bounded_status(grpc_code(&error), error.to_string());
    if let Some(delay) = retry_after {
        let details = retry_details(&status, delay);
        status = Status::with_details(status.code(), status.message(), details.into());
        let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        status.metadata_mut().insert("retry-after", MetadataValue::from(retry_after_s(delay)));
        status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from(milliseconds));
    }
    status
}

/// An encoded `google.rpc.Status` that says how long to wait.
fn retry_details(status: &Status, delay: Duration) -> Vec<u8> {
    let seconds = i64::try_from(delay.as_secs()).unwrap_or(i64::MAX);
    // Below a thousand million, which an i32 holds.
    let retry_delay = prost_types::Duration { seconds, nanos: delay.subsec_nanos() as i32 };
    let info = RetryInfo { retry_delay: Some(retry_delay) };
    let any = prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
        value: info.encode_to_vec(),
    };
    let code = i32::from(status.code());
    rpc::Status { code, message: status.message().to_owned(), details: vec![any] }.encode_to_vec()
}

/// The text of an error as people read it: what has no shape of its own, such as a byte order mark or a space of no
/// width in a name that a client made up, is an escape of Rust's. Line ends stay.
pub(crate) fn visible(text: String) -> String {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')) {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' | '"' | '\'' | '\\' => shown.push(character),
            // A mark that joins the character before it is seen with it: only at the start is it an escape.
            _ => shown.extend(String::from_iter(['a', character]).escape_debug().skip(1)),
        }
    }
    shown
}

/// A status whose text fits into a header, also when it quotes a name that a client made up.
pub(crate) fn bounded_status(code: Code, text: String) -> Status {
    let mut text = visible(text);
    if text.len() > STATUS_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(STATUS_TEXT_BYTES_MAX));
        text.push_str(" ...");
    }
    Status::new(code, text)
}

/// How long the client should wait before it tries again, where the error says so.
pub fn retry_after(error: &InferError) -> Option<Duration> {
    match error {
        InferError::Overloaded { retry_after, .. } => Some(*retry_after),
        _ => None,
    }
}

/// `delay` as the value of a `Retry-After` header: whole seconds, rounded up, at least 1.
pub fn retry_after_s(delay: Duration) -> u64 {
    (delay.as_secs() + u64::from(delay.subsec_nanos() > 0)).max(1)
}

fn codes(error: &InferError) -> (Code, StatusCode) {
    match error {
        InferError::NotFound(_) => (Code::NotFound, StatusCode::NOT_FOUND),
        InferError::InvalidInput(_) => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
        InferError::TooLarge(_) => (Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE),
        InferError::Overloaded { .. } => (Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS),
        InferError::DeadlineExceeded { .. } => (Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT),
        InferError::Unavailable(_) => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        InferError::Backend(_) => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use expect_test::expect;
    use gristmill_engine::error::Stage;

    use super::*;

    #[test]
    fn the_table() {
        let errors = [
            InferError::NotFound("no model 'a'".into()),
            InferError::InvalidInput("input 'x': expected FP32".into()),
            InferError::TooLarge("message of 65 MiB".into()),
            InferError::Overloaded {
                message: "queue is full".into(),
                retry_after: Duration::from_millis(250),
            },
            InferError::DeadlineExceeded { stage: Stage::Queue },
            InferError::Unavailable("shutting down".into()),
            InferError::Backend("session failed".into()),
        ];
        let mut table = String::new();
        for error in errors {
            let http = http_status(&error).as_u16();
            let status = grpc_status(error);
            write!(table, "{http} {:?}: {}", status.code(), status.message()).unwrap();
            for name in ["retry-after", "grpc-retry-pushback-ms"] {
                if let Some(value) = status.metadata().get(name) {
                    write!(table, ", {name} {}", value.to_str().unwrap()).unwrap();
                }
            }
            table.push('\n');
        }
        expect![[r#"
            404 NotFound: no model 'a'
            400 InvalidArgument: input 'x': expected FP32
            413 ResourceExhausted: message of 65 MiB
            429 ResourceExhausted: queue is full, retry-after 1, grpc-retry-pushback-ms 250
            504 DeadlineExceeded: deadline exceeded while the request was in the queue stage
            503 Unavailable: shutting down
            500 Internal: session failed
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn the_delay_is_in_the_details_too() {
        let error = InferError::Overloaded {
            message: "queue is full".into(),
            retry_after: Duration::from_millis(1250),
        };
        let details = rpc::Status::decode(grpc_status(error).details()).unwrap();
        assert_eq!((details.code, details.message.as_str()), (8, "queue is full"));
        assert_eq!(details.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
        let info = RetryInfo::decode(details.details[0].value.as_slice()).unwrap();
        assert_eq!(info.retry_delay, Some(prost_types::Duration { seconds: 1, nanos: 250_000_000 }));
        assert!(grpc_status(InferError::Unavailable("gone".into())).details().is_empty());
    }

    #[test]
    fn what_is_not_seen_is_an_escape() {
        let check = |text: &str, expected: &str| assert_eq!(visible(text.to_owned()), expected);
        check("no model 'a\\b'\n\"c\"", "no model 'a\\b'\n\"c\"");
        check("expected a value, found \u{feff}{", "expected a value, found \\u{feff}{");
        check("'a\u{200b}\u{a0}\u{202e}\t\0'", "'a\\u{200b}\\u{a0}\\u{202e}\\t\\0'");
        check("'é, e\u{301}, 猫 …'", "'é, e\u{301}, 猫 …'");
        let status = grpc_status(InferError::NotFound("no model '\u{200b}'".into()));
        assert_eq!(status.message(), "no model '\\u{200b}'");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let status = grpc_status(InferError::NotFound(format!("a{}", "é".repeat(5000))));
        assert!(status.message().len() <= STATUS_TEXT_BYTES_MAX + 4);
        assert!(status.message().ends_with("é ..."));
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let seconds = |milliseconds| retry_after_s(Duration::from_millis(milliseconds));
        assert_eq!([seconds(0), seconds(1), seconds(1000), seconds(1001)], [1, 1, 1, 2]);
    }
}
