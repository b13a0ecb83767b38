//! What TensorFlow Serving's clients write: rows or columns to predict, or examples to classify.

use gristmill_engine::error::InferError;
use gristmill_engine::request::{ModelInfo, NamedTensor};

use crate::codec::json::scan::{JsonError, Scalar, Scanner};
use crate::codec::json::values::Values;
use crate::features::{Features, Reader};

/// How inputs came and outputs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `instances` and `predictions`.
    Rows,
    /// `inputs` and `outputs`.
    Columns,
}

/// The only signature that a model has here.
pub(crate) const SIGNATURE: &str = "serving_default";

/// Decodes `{"instances": […]}` or `{"inputs": …}` for `model`.
///
/// # Errors
/// `InvalidInput` that says what is malformed and where, or which feature is wrong and how.
pub fn decode_predict(model: &ModelInfo, body: &[u8]) -> Result<(Vec<NamedTensor>, Format), InferError> {
    let text = Scanner::check_text(body)?;
    let (features, format) = predict(model, text).map_err(|error| error.into_infer_error(text))?;
    Ok((features.inputs, format))
}

/// Decodes `{"context": {…}, "examples": [{…}, …]}` for `model`: an object of features for each row.
///
/// # Errors
/// As [`decode_predict`].
pub fn decode_examples(model: &ModelInfo, body: &[u8]) -> Result<Vec<NamedTensor>, InferError> {
    let text = Scanner::check_text(body)?;
    let features = examples(model, text).map_err(|error| error.into_infer_error(text))?;
    Ok(features.inputs)
}

fn predict(model: &ModelInfo, text: &str) -> Result<(Features, Format), JsonError> {
    let mut found = None;
    let mut scanner = Scanner::new(text);
    scanner.object("the request", |scanner, key| match key {
        "instances" | "inputs" if found.is_some() => {
            Err(JsonError::meaning("the request has more than one of 'instances' and 'inputs'"))
        }
        "instances" => {
            let reader = Reader::new(model, Values::Base64);
            found = Some((reader.rows(scanner, key, true)?, Format::Rows));
            Ok(())
        }
        "inputs" => {
            let reader = Reader::new(model, Values::Base64);
            found = Some((reader.inputs(scanner, key)?, Format::Columns));
            Ok(())
        }
        "signature_name" => check_signature(scanner),
        _ => scanner.skip(),
    })?;
    scanner.end()?;
    found.ok_or_else(|| {
        JsonError::meaning("the request has neither 'instances' (a list of rows) nor 'inputs' (columns)")
    })
}

fn examples(model: &ModelInfo, text: &str) -> Result<Features, JsonError> {
    let (mut context, mut examples) = (None, None);
    let mut scanner = Scanner::new(text);
    scanner.object("the request", |scanner, key| {
        match key {
            "signature_name" => return check_signature(scanner),
            "context" => context = Some(scanner.clone()),
            "examples" => examples = Some(scanner.clone()),
            _ => {}
        }
        scanner.skip()
    })?;
    scanner.end()?;
    let Some(mut examples) = examples else {
        return Err(JsonError::meaning("the request has no 'examples': expected a list of objects"));
    };
    Reader::new(model, Values::Base64).examples(&mut examples, "examples", context.as_ref())
}

fn check_signature(scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
    match scanner.clone().scalar()? {
        Scalar::Text(name) => {
            check_signature_name(&name).map_err(|error| JsonError::Meaning(error.to_string()))?;
            scanner.skip()
        }
        _ => Err(scanner.unexpected("'signature_name' must be a string")),
    }
}

/// # Errors
/// `InvalidInput` for the name of a signature that is not there.
pub(crate) fn check_signature_name(name: &str) -> Result<(), InferError> {
    if name.is_empty() || name == SIGNATURE {
        return Ok(());
    }
    Err(InferError::InvalidInput(format!(
        "signature '{name}' is not found: every model has one, called '{SIGNATURE}'"
    )))
}
