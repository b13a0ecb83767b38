//! Triton's generate extension: one row of inputs by name in a flat JSON object, outputs by name in another; as an
//! answer, or as a stream of events, of which there is one.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::Response;
use gristmill_engine::error::InferError;
use gristmill_engine::request::{self, ModelInfo, Query};
use smallvec::smallvec;

use super::reply::{self, Refusal};
use super::v2::{deadline, header_timeout};
use super::{Door, Target, body};
use crate::codec::json::nested::{NestedWriter, Texts};
use crate::codec::json::outputs::Outputs;
use crate::codec::json::scan::{JsonError, Scanner};
use crate::codec::json::values::Values;
use crate::codec::json::write::{write_integer, write_string};
use crate::codec::json::{Encoded, InferBody, read_id, read_parameter};
use crate::features::Reader;
use crate::gateway::{Call, check_carried};
use crate::traces::Protocol;

pub(super) async fn once(State(door): State<Arc<Door>>, target: Target, request: Request) -> Response {
    respond(&door, target, request, |parts, json| {
        reply::encoded(&parts.headers, Encoded { parts: smallvec![json.into()], header_length: None })
    })
    .await
}

/// A refusal is an answer as any other, because nothing was sent before it.
pub(super) async fn stream(State(door): State<Arc<Door>>, target: Target, request: Request) -> Response {
    respond(&door, target, request, |_, json| event(&json)).await
}

async fn respond(
    door: &Door,
    target: Target,
    request: Request,
    write: impl FnOnce(&Parts, Vec<u8>) -> Response,
) -> Response {
    let (parts, body) = request.into_parts();
    let mut call = door.gateway.begin(&parts.headers, Protocol::Http);
    let answer = answer(door, target, &parts, body, &mut call).await;
    reply::annotated(answer.map(|json| write(&parts, json)), &mut call)
}

async fn answer(
    door: &Door,
    target: Target,
    parts: &Parts,
    body: Body,
    call: &mut Call<'_>,
) -> Result<Vec<u8>, Refusal> {
    let arrival = Instant::now();
    let patience = header_timeout(&parts.headers)?;
    let body = body::read(&parts.headers, body, &door.options).await?;
    let model = door.engine.model(&target.model, &target.version)?;
    check_carried(&model, "Triton's generate extension")?;
    let mut asked = decode(&model, &body)?;
    let query = Query {
        model: target.model,
        version: target.version,
        inputs: std::mem::take(&mut asked.inputs),
        deadline: deadline(arrival, patience),
        timeout: deadline(arrival, asked.timeout),
        priority: asked.priority,
        ..Query::default()
    };
    let response = call.infer_said(query, &asked).await?;
    Ok(encode(&asked, &response)?)
}

/// Members of the request, and of its `parameters`, are inputs where the model has one of that name, and parameters
/// of the request otherwise.
///
/// # Errors
/// `InvalidInput` that says what is malformed and where, or which input is wrong and how.
pub fn decode(model: &ModelInfo, body: &[u8]) -> Result<InferBody, InferError> {
    let text = Scanner::check_text(body)?;
    read(model, text).map_err(|error| error.into_infer_error(text))
}

fn read(model: &ModelInfo, text: &str) -> Result<InferBody, JsonError> {
    let mut asked = InferBody::default();
    let mut parameters = None;
    let mut reader = Reader::new(model, Values::Plain);
    let mut scanner = Scanner::new(text);
    reader.part_of_row(&mut scanner, "the request", |scanner, key| match key {
        "id" => {
            asked.id = read_id(scanner)?;
            Ok(())
        }
        "parameters" => {
            parameters = Some(scanner.clone());
            scanner.skip()
        }
        _ => read_parameter(scanner, key, &mut asked),
    })?;
    scanner.end()?;
    // `null` is none.
    if let Some(mut scanner) = parameters
        && scanner.peek() != Some(b'n')
    {
        reader.part_of_row(&mut scanner, "'parameters'", |scanner, key| {
            read_parameter(scanner, key, &mut asked)
        })?;
    }
    asked.inputs = reader.end()?.inputs;
    Ok(asked)
}

/// An output of one element is a value, any other a flat list, as Triton has it.
fn encode(asked: &InferBody, response: &request::Response) -> Result<Vec<u8>, InferError> {
    let model = &response.model;
    let mut json = Vec::with_capacity(128 + Outputs::estimate(response));
    json.push(b'{');
    if let Some(id) = &asked.id {
        json.extend_from_slice(b"\"id\":");
        write_string(id, &mut json);
        json.push(b',');
    }
    json.extend_from_slice(b"\"model_name\":");
    write_string(&model.name, &mut json);
    json.extend_from_slice(b",\"model_version\":\"");
    write_integer(model.version, &mut json);
    json.push(b'"');
    for (index, tensor) in &response.outputs {
        let name = &model.signature.outputs[*index].name;
        json.push(b',');
        write_string(name, &mut json);
        json.push(b':');
        let count = [tensor.element_count()];
        let shape: &[usize] = if count == [1] { &[] } else { count.as_slice() };
        NestedWriter::new(name, tensor, Texts::Strings)
            .within(response.answer_limit)
            .write(shape, &mut json)?;
    }
    json.push(b'}');
    Ok(json)
}

/// JSON has no line ends that are not escaped, so it is one line of an event.
fn event(json: &[u8]) -> Response {
    let mut response = Response::new(Body::from([b"data: ".as_slice(), json, b"\n\n"].concat()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
