//! The REST dialect: `/models` and what is below it. SageMaker's multi-model calls are the same by name and answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fault::{Fault, Kind};
use super::{Management, Registration, Scale};
use crate::codec::byte_order_mark::without_byte_order_mark;
use crate::oip_http::reply;
use crate::oip_http::{Door, body};

type Answer = Result<Response, Fault>;

#[derive(Deserialize)]
struct Segments {
    model: String,
    version: Option<String>,
}

/// What stands behind the `?` of a path, or in a JSON object in the body.
struct Parameters(BTreeMap<String, String>);

pub(crate) fn routes() -> Router<Arc<Door>> {
    let model = get(describe).put(scale).delete(unregister).fallback(wrong_method);
    Router::new()
        .route("/models", get(list).post(register).fallback(wrong_method))
        .route("/models/{model}", model.clone())
        .route("/models/{model}/{version}", model)
        .route("/models/{model}/{version}/set-default", put(set_default).fallback(wrong_method))
        .route("/token", get(token).fallback(wrong_method))
}

async fn list(State(door): State<Arc<Door>>, uri: Uri) -> Answer {
    let parameters = Parameters::of_query(&uri)?;
    let models = management(&door).list(parameters.number("limit")?, parameters.number("next_page_token")?);
    Ok(reply::json(StatusCode::OK, &models))
}

async fn describe(
    State(door): State<Arc<Door>>,
    Path(Segments { model, version }): Path<Segments>,
) -> Answer {
    let versions = management(&door).describe(&model, &version.unwrap_or_default()).await?;
    Ok(reply::json(StatusCode::OK, &versions))
}

async fn scale(
    State(door): State<Arc<Door>>,
    Path(Segments { model, version }): Path<Segments>,
    uri: Uri,
) -> Answer {
    let parameters = Parameters::of_query(&uri)?;
    let version = version.or_else(|| parameters.text("model_version")).unwrap_or_default();
    let scale =
        Scale { min_worker: parameters.number("min_worker")?, max_worker: parameters.number("max_worker")? };
    status(management(&door).scale(&model, &version, scale).await?)
}

async fn set_default(
    State(door): State<Arc<Door>>,
    Path((model, version)): Path<(String, String)>,
) -> Answer {
    status(management(&door).set_default(&model, &version).await?)
}

async fn unregister(
    State(door): State<Arc<Door>>,
    Path(Segments { model, version }): Path<Segments>,
) -> Answer {
    status(management(&door).unregister(&model, &version.unwrap_or_default()).await?)
}

async fn register(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match body::read(&parts.headers, body, &door.options).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    let answer = async {
        let parameters = Parameters::of_body(&parts, &body)?;
        let registration = Registration {
            url: parameters.text("url"),
            model_name: parameters.text("model_name"),
            batch_size: parameters.number("batch_size")?,
            max_batch_delay_ms: parameters.number("max_batch_delay")?,
            initial_workers: parameters.number("initial_workers")?,
        };
        status(management(&door).register(registration).await?)
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

/// As TorchServe answers where token authorization is off.
async fn token() -> Fault {
    let text = "Requested resource is not found: token authorization is off, so there are no tokens to make; requests \
                are answered without one";
    Fault::new(Kind::NoSuchResource, text)
}

async fn wrong_method(method: Method, uri: Uri) -> Fault {
    let text = format!("{method} is not allowed for '{}': the Allow header says what is", uri.path());
    Fault::new(Kind::MethodNotAllowed, text)
}

fn management(door: &Door) -> Management {
    Management::new(Arc::clone(&door.engine), door.control.clone(), door.options.model_sources.clone())
}

fn status(text: String) -> Answer {
    Ok(reply::json(StatusCode::OK, &json!({"status": text})))
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let (code, (_package, class)) = (self.status_code(), self.class());
        reply::json(code, &json!({"code": code.as_u16(), "type": class, "message": self.message}))
    }
}

// === impl Parameters ===

impl Parameters {
    fn of_query(uri: &Uri) -> Result<Parameters, Fault> {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(name).zip(decode(value));
            decoded.ok_or_else(|| {
                let text = format!("'{pair}' behind the '?' is malformed: expected UTF-8, percent-encoded");
                Fault::new(Kind::BadRequest, text)
            })
        });
        Ok(Parameters(pairs.collect::<Result<_, Fault>>()?))
    }

    fn of_body(parts: &Parts, body: &[u8]) -> Result<Parameters, Fault> {
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Parameters::of_query(&parts.uri);
        }
        let object: BTreeMap<String, Value> =
            serde_json::from_slice(without_byte_order_mark(body)).map_err(|error| {
                let text =
                    format!("the body is not as its content type says: expected a JSON object: {error}");
                Fault::new(Kind::BadRequest, text)
            })?;
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let given = object.into_iter().filter(|(_, value)| !value.is_null());
        Ok(Parameters(given.map(|(name, value)| (name, text(value))).collect()))
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Fault> {
        let Some(text) = self.0.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Fault::new(Kind::BadRequest, format!("{name} is '{text}': expected a number in its range"))
        })
    }
}

/// The text that is percent-encoded, with '+' for a space.
fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let number = |query: &str| {
            let uri: Uri = format!("/models?{query}").parse().unwrap();
            let parameters = Parameters::of_query(&uri).map_err(|fault| fault.message)?;
            parameters.number::<i64>("a b").map_err(|fault| fault.message)
        };
        assert_eq!(number("x=1&a%20b=2"), Ok(Some(2)));
        assert_eq!(number("a+b=-3"), Ok(Some(-3)));
        assert_eq!(number("a+b"), Ok(None));
        assert_eq!(number(""), Ok(None));
        assert_eq!(number("a+b=1e3"), Err("a b is '1e3': expected a number in its range".into()));
        let malformed = "'a=%f' behind the '?' is malformed: expected UTF-8, percent-encoded";
        assert_eq!(number("a=%f"), Err(malformed.into()));
        assert_eq!(number("a=%ff"), Err(malformed.replace("%f'", "%ff'")));
    }
}
