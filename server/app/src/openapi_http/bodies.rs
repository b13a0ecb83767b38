//! What a model takes and answers by media type: JSON from its signature, and more where its `model.toml` says so.

use gristmill_engine::request::ModelInfo;
use serde_json::{Value, json};

use super::operations::Takes;
use super::tensors;
use crate::handler::Handler;

/// By media type, the schemas of bodies, and of JSON an example where one is short enough.
pub(super) fn content(model: &ModelInfo, takes: Takes) -> Value {
    let mut body = json!({"schema": tensors::schema(model, takes)});
    if let Some(example) = tensors::example(model, takes) {
        body["example"] = example;
    }
    let bytes = || json!({"schema": {}});
    let text = || json!({"schema": {"type": "string"}});
    let has_one_input = model.signature.inputs.len() == 1;
    let mut content = json!({});
    match takes {
        Takes::Tensors if has_one_input => content["application/octet-stream"] = bytes(),
        Takes::Frame => content["text/csv"] = text(),
        Takes::Rows => {
            let handler = Handler::of(model);
            if handler.is_some_and(Handler::takes_texts) {
                body = json!({"schema": texts_schema(), "example": "A text."});
            }
            let plain: &[&str] = if has_one_input { &["application/octet-stream"] } else { &[] };
            for media_type in handler.map_or(plain, Handler::media_types) {
                content[*media_type] = if media_type.starts_with("text/") { text() } else { bytes() };
            }
        }
        _ => {}
    }
    content["application/json"] = body;
    content
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
