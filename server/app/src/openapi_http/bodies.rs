//! What a model takes and answers by media type: JSON from its signature, and more where its `model.toml` says so.

use gristmill_engine::request::ModelInfo;
use serde_json::{Value, json};

use super::operations::Takes;
use super::tensors;
use crate::handler::Handler;

/// By media type what a body is: `json`, or one of the others.
pub(super) fn content(json: Value, others: &[&str]) -> Value {
    let mut content = json!({"application/json": json});
    for media_type in others {
        content[*media_type] = match media_type.starts_with("text/") {
            true => json!({"schema": {"type": "string"}}),
            false => json!({"schema": {}}),
        };
    }
    content
}

/// The media types of bodies that some models take besides JSON.
pub(super) fn besides_json(takes: Takes) -> &'static [&'static str] {
    match takes {
        Takes::Tensors | Takes::Rows => &["application/octet-stream"],
        Takes::Frame => &["text/csv"],
        _ => &[],
    }
}

/// The bodies that `model` takes; of JSON with an example where one is short enough.
pub(super) fn content_of(model: &ModelInfo, takes: Takes) -> Value {
    let handler = Handler::of(model).filter(|_| takes == Takes::Rows);
    let body = match handler.is_some_and(Handler::takes_texts) {
        true => json!({"schema": texts_schema(), "example": "A text."}),
        false => {
            let mut body = json!({"schema": tensors::schema(model, takes)});
            if let Some(example) = tensors::example(model, takes) {
                body["example"] = example;
            }
            body
        }
    };
    let others = match (handler.and_then(Handler::media_types), takes) {
        (Some(said), _) => said,
        // Bytes are those of the only input.
        (None, Takes::Tensors | Takes::Rows) if model.signature.inputs.len() != 1 => &[],
        (None, takes) => besides_json(takes),
    };
    content(body, others)
}

/// What `model` answers, in JSON.
pub(super) fn answer_schema(model: &ModelInfo, takes: Takes) -> Value {
    match takes {
        Takes::Tensors => tensors::answer_schema(model),
        Takes::Rows => match Handler::of(model).and_then(Handler::answers_scores) {
            Some(true) => {
                of_one_or_more(&json!({"type": "object", "additionalProperties": {"type": "number"}}))
            }
            Some(false) => of_one_or_more(&json!({"type": "string"})),
            None => json!({}),
        },
        _ => json!({}),
    }
}

/// The answer to a row, to a list of rows, or to `instances`.
fn of_one_or_more(row: &Value) -> Value {
    let rows = json!({"type": "array", "items": row});
    let named = json!({"type": "object", "properties": {"predictions": rows}, "required": ["predictions"]});
    json!({"anyOf": [row, rows, named]})
}

fn texts_schema() -> Value {
    let member = |name: &str, schema: &Value| json!({"type": "object", "properties": {name: schema}, "required": [name]});
    let text = json!({"type": "string"});
    let one = json!({"anyOf": [text, member("text", &text), member("data", &text), member("body", &text)]});
    let list = json!({"type": "array", "items": one, "minItems": 1});
    json!({"anyOf": [one, list, member("instances", &list)]})
}
