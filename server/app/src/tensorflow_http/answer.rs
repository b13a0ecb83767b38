//! What TensorFlow Serving's clients read: predictions by row or column, classes with scores, values.

use std::borrow::Cow;

use gristmill_engine::error::InferError;
use gristmill_engine::request::Response;
use gristmill_engine::tensor::{DType, Tensor, TensorSpec};

use super::request::Format;
use crate::codec::json::nested::{NestedWriter, Texts};
use crate::codec::json::outputs::Outputs;
use crate::codec::json::write::write_string;
use crate::codec::rows;
use crate::predict_http::rule::Rule;

/// Outputs of strings whose names end so are bytes and go in base64, as TensorFlow Serving has it.
const BYTES_SUFFIX: &str = "_bytes";

/// Scores of every class, row by row.
pub(crate) struct Scores<'a> {
    pub(crate) spec: &'a TensorSpec,
    pub(crate) tensor: &'a Tensor,
    pub(crate) rows: usize,
    pub(crate) classes: usize,
}

/// `{"predictions": […]}` with one entry for each row, or `{"outputs": …}` with whole outputs; objects where the
/// model has several outputs.
///
/// # Errors
/// `InvalidInput` for strings that are not UTF-8, and for rows of outputs that have none or not the same number.
pub fn encode_predictions(format: Format, response: &Response) -> Result<Vec<u8>, InferError> {
    let texts = |name: &str| if name.ends_with(BYTES_SUFFIX) { Texts::Base64 } else { Texts::Strings };
    let outputs = Outputs::new(response, texts);
    let mut json = Vec::with_capacity(Outputs::estimate(response));
    match format {
        Format::Columns => {
            json.extend_from_slice(b"{\"outputs\":");
            outputs.whole(&mut json)?;
        }
        Format::Rows => {
            json.extend_from_slice(b"{\"predictions\":");
            outputs.rows(&mut json)?;
        }
    }
    json.push(b'}');
    Ok(json)
}

/// `{"results": [[["label", score], …], …]}`: every class of every row.
///
/// # Errors
/// `InvalidInput` for a model without an output of class scores.
pub(super) fn encode_classes(response: &Response) -> Result<Vec<u8>, InferError> {
    let Scores { spec, tensor, rows, classes } = scores(response)?;
    let mut writer = NestedWriter::new(&spec.name, tensor, Texts::Strings);
    let mut json = b"{\"results\":[".to_vec();
    for row in 0..rows {
        json.extend_from_slice(if row > 0 { b",[" } else { b"[" });
        for class in 0..classes {
            json.extend_from_slice(if class > 0 { b",[" } else { b"[" });
            write_string(&class_label(spec, class), &mut json);
            json.push(b',');
            writer.write(&[], &mut json)?;
            json.push(b']');
        }
        json.push(b']');
    }
    json.extend_from_slice(b"]}");
    Ok(json)
}

/// `{"results": [value, …]}`: the one value of every row.
///
/// # Errors
/// `InvalidInput` for a model that gives anything but one number a row.
pub(super) fn encode_values(response: &Response) -> Result<Vec<u8>, InferError> {
    let (spec, tensor) = values(response)?;
    let mut json = b"{\"results\":".to_vec();
    NestedWriter::new(&spec.name, tensor, Texts::Strings).write(&[tensor.element_count()], &mut json)?;
    json.push(b'}');
    Ok(json)
}

/// The output of class scores.
///
/// # Errors
/// `InvalidInput` for a model without one, and where it has another number of rows than was asked for.
pub(crate) fn scores(response: &Response) -> Result<Scores<'_>, InferError> {
    let model = &response.model;
    let (Rule::HighestScore { scores } | Rule::Label { scores: Some(scores), .. }) =
        Rule::of(&model.signature)
    else {
        return Err(InferError::InvalidInput(format!(
            "model '{}' has no output of class scores: predict instead",
            model.name
        )));
    };
    let (spec, tensor) = (&model.signature.outputs[scores], output(response, scores));
    if model.signature.is_batched() {
        rows::check(response.rows, &spec.name, tensor.shape())?;
    }
    let classes = tensor.element_count() / response.rows;
    Ok(Scores { spec, tensor, rows: response.rows, classes })
}

/// The output of one number for each row.
///
/// # Errors
/// `InvalidInput` for a model that gives anything else.
pub(crate) fn values(response: &Response) -> Result<(&TensorSpec, &Tensor), InferError> {
    let model = &response.model;
    let refused = || {
        InferError::InvalidInput(format!(
            "model '{}' does not give one number a row: predict instead",
            model.name
        ))
    };
    let Rule::Values { output: index } = Rule::of(&model.signature) else { return Err(refused()) };
    let tensor = output(response, index);
    let rows = tensor.shape().first().copied().unwrap_or(1);
    if tensor.element_count() != rows || tensor.dtype() == DType::Bytes {
        return Err(refused());
    }
    let spec = &model.signature.outputs[index];
    if model.signature.is_batched() {
        rows::check(response.rows, &spec.name, tensor.shape())?;
    }
    Ok((spec, tensor))
}

/// A class by its name, or by its index where the model carries no names.
pub(crate) fn class_label(spec: &TensorSpec, class: usize) -> Cow<'_, str> {
    spec.labels.get(class).map_or_else(|| class.to_string().into(), |label| label.as_str().into())
}

/// The output at `index` of the signature.
fn output(response: &Response, index: usize) -> &Tensor {
    let found = response.outputs.iter().find(|(output, _)| *output == index);
    &found.expect("all outputs were asked for; this is a bug").1
}
