//! How a body of TorchServe's becomes tensors: JSON, raw bytes, or a form with either.

use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::request::{ModelInfo, NamedTensor};

use super::texts;
use crate::codec::binary::raw_input;
use crate::codec::byte_order_mark::without_byte_order_mark;
use crate::codec::json::scan::{JsonError, Scanner};
use crate::codec::json::values::{BASE64_KEY, Values};
use crate::codec::json::write::write_string;
use crate::codec::multipart::{self, Field};
use crate::features::{Features, Reader, names};
use crate::handler::{Handler, JsonBodies};

/// What came, and so what goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One row, or all that a model without rows takes; answered with outputs as they are.
    One,
    /// A list of rows.
    Rows,
    /// `{"instances": […]}`, answered with `{"predictions": […]}`.
    Instances,
}

/// Keys, and fields of forms, in which TorchServe's handlers look for what came.
const ENVELOPES: [&str; 2] = ["data", "body"];

/// Decodes a body for `model`. Where its type is not said, it is JSON if it begins like a list or an object, else what
/// the model's `[input]` says, or the bytes of one row of the only input. Where that says text, JSON must be whole, and
/// what says of itself that it is text is never JSON.
///
/// # Errors
/// `InvalidInput` or `TooLarge` that says what is malformed and where, or which feature is wrong and how.
pub fn decode_prediction(
    model: &ModelInfo,
    handler: Option<&Handler>,
    content_type: Option<&str>,
    body: Bytes,
) -> Result<(Vec<NamedTensor>, Form), InferError> {
    if let Some(boundary) = content_type.and_then(multipart::boundary) {
        return decode_fields(model, handler, &multipart::fields(&body, boundary)?);
    }
    let media_type = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
    let text = without_byte_order_mark(&body);
    let json_bodies = handler.map_or(JsonBodies::Begun, Handler::json_bodies);
    let is_json = match (json_bodies, media_type) {
        (JsonBodies::All, _) => true,
        (_, Some(name)) if name.eq_ignore_ascii_case("application/json") => true,
        (JsonBodies::None, _) => false,
        (_, Some(name)) if name.eq_ignore_ascii_case("application/octet-stream") => false,
        (JsonBodies::Whole, Some(name)) if is_text(name) => false,
        // curl says `application/x-www-form-urlencoded` of everything that is sent with -d.
        _ if !matches!(text.trim_ascii_start().first(), Some(b'[' | b'{')) => false,
        (JsonBodies::Whole, _) => is_json_text(text),
        (JsonBodies::Begun, _) => std::str::from_utf8(text).is_ok(),
    };
    if !is_json {
        if let Some(read) = handler.and_then(|handler| handler.read(model, &body)) {
            let features = read?;
            let form = form_of(&features);
            return Ok((features.inputs, form));
        }
        let inputs = &model.signature.inputs;
        if inputs.len() != 1 {
            return Err(InferError::InvalidInput(format!(
                "the body is not JSON, and bytes can only be a row of a model with one input: model '{}' takes {}",
                model.name,
                names(inputs)
            )));
        }
        return Ok((vec![raw_input(&model.signature, body)?], Form::One));
    }
    let text = Scanner::check_text(&body)?;
    let mut scanner = Scanner::new(text);
    if handler.is_some_and(Handler::takes_texts) && texts::are_in(&scanner) {
        let (texts, form) = texts::read(&mut scanner).map_err(|error| error.into_infer_error(text))?;
        if let Some(inputs) = handler.and_then(|handler| handler.read_texts(&texts)) {
            return Ok((inputs?, form));
        }
    }
    let (features, form) = read(model, text).map_err(|error| error.into_infer_error(text))?;
    Ok((features.inputs, form))
}

/// Decodes a form, which has one field with everything, or one for each input with its value for one row, in JSON.
///
/// # Errors
/// As [`decode_prediction`].
pub(crate) fn decode_fields(
    model: &ModelInfo,
    handler: Option<&Handler>,
    fields: &[Field],
) -> Result<(Vec<NamedTensor>, Form), InferError> {
    let is_input = |name: &str| model.signature.inputs.iter().any(|spec| spec.name == name);
    match fields {
        [] => Err(InferError::InvalidInput("the form has no fields: expected one called 'data'".into())),
        [field] if !is_input(&field.name) => {
            let content_type =
                field.content_type.as_deref().filter(|text| multipart::boundary(text).is_none());
            decode_prediction(model, handler, content_type, field.content.clone())
        }
        fields => {
            let mut row = b"{".to_vec();
            for (index, field) in fields.iter().enumerate() {
                if index > 0 {
                    row.push(b',');
                }
                write_string(&field.name, &mut row);
                row.push(b':');
                let content = without_byte_order_mark(&field.content);
                if !is_json_text(content) {
                    return Err(InferError::InvalidInput(format!(
                        "the field '{}' of the form is not JSON: of several fields each must be",
                        field.name
                    )));
                }
                row.extend_from_slice(content);
            }
            row.push(b'}');
            let text = Scanner::check_text(&row)?;
            let mut scanner = Scanner::new(text);
            let features = Reader::new(model, Values::Base64).rows(&mut scanner, "data", false);
            Ok((features.map_err(|error| error.into_infer_error(text))?.inputs, Form::One))
        }
    }
}

/// For example `text/plain`.
fn is_text(media_type: &str) -> bool {
    media_type.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"))
}

fn is_json_text(content: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(content) else { return false };
    let mut scanner = Scanner::new(text);
    scanner.skip().and_then(|()| scanner.end()).is_ok()
}

fn read(model: &ModelInfo, text: &str) -> Result<(Features, Form), JsonError> {
    let mut scanner = Scanner::new(text);
    let reader = || Reader::new(model, Values::Base64);
    if !is_envelope(model, &scanner) {
        let features = reader().rows(&mut scanner, "data", false)?;
        scanner.end()?;
        let form = form_of(&features);
        return Ok((features, form));
    }
    let mut found = None;
    scanner.object("the body", |scanner, key| {
        if key != "instances" && !ENVELOPES.contains(&key) {
            return scanner.skip();
        }
        if found.is_some() {
            return Err(JsonError::Meaning(format!(
                "the body has '{key}' besides another key with features"
            )));
        }
        let features = reader().rows(scanner, key, key == "instances")?;
        let form = if key == "instances" { Form::Instances } else { form_of(&features) };
        found = Some((features, form));
        Ok(())
    })?;
    scanner.end()?;
    found.ok_or_else(|| {
        JsonError::Meaning(format!(
            "the body has none of 'instances', 'data', 'body' and the model's features {}",
            names(&model.signature.inputs)
        ))
    })
}

fn form_of(features: &Features) -> Form {
    if features.listed { Form::Rows } else { Form::One }
}

/// Whether the text is an object that does not begin with one of the model's inputs.
fn is_envelope(model: &ModelInfo, scanner: &Scanner<'_>) -> bool {
    let mut ahead = scanner.clone();
    if !ahead.take(b'{') || ahead.peek() != Some(b'"') {
        return false;
    }
    ahead
        .string()
        .is_ok_and(|key| key != BASE64_KEY && !model.signature.inputs.iter().any(|spec| spec.name == key))
}
