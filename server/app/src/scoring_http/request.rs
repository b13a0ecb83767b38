//! What MLflow's clients write: a data frame in JSON or CSV, or tensors by row or column.

use gristmill_engine::error::InferError;
use gristmill_engine::request::{ModelInfo, NamedTensor};

use crate::codec::json::scan::{JsonError, Scanner};
use crate::codec::json::values::Values;
use crate::features::{Features, Reader};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    Json,
    Csv { has_header: bool },
}

// === impl MediaType ===

impl MediaType {
    /// `None` for what is not taken.
    pub(super) fn parse(content_type: &str) -> Option<MediaType> {
        let mut parts = content_type.split(';').map(str::trim);
        let mut media_type = match parts.next()? {
            name if name.eq_ignore_ascii_case("application/json") => MediaType::Json,
            name if name.eq_ignore_ascii_case("text/csv") => MediaType::Csv { has_header: true },
            _ => return None,
        };
        for part in parts.filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=')?;
            let value = value.trim().trim_matches('"');
            match (name.trim().to_ascii_lowercase().as_str(), &mut media_type) {
                ("charset", _) if value.eq_ignore_ascii_case("utf-8") => {}
                // RFC 4180's parameter.
                ("header", MediaType::Csv { has_header }) => {
                    *has_header = match value {
                        "present" => true,
                        "absent" => false,
                        _ => return None,
                    };
                }
                _ => return None,
            }
        }
        Some(media_type)
    }
}

/// Decodes a body for `model`. Columns are matched to inputs by name, and those that the model does not take are
/// passed over; for a model of one input whose name no column has, a row's values stand side by side.
///
/// # Errors
/// `InvalidInput` that says what is malformed and where, or which feature is wrong and how.
pub fn decode_scoring(
    model: &ModelInfo,
    media_type: MediaType,
    body: &[u8],
) -> Result<Vec<NamedTensor>, InferError> {
    let features = match media_type {
        MediaType::Json => {
            let text = Scanner::check_text(body)?;
            read(model, text).map_err(|error| error.into_infer_error(text))
        }
        MediaType::Csv { has_header } => {
            let text = std::str::from_utf8(body).map_err(|error| {
                let place = error.valid_up_to();
                InferError::InvalidInput(format!("the CSV is not UTF-8 at byte {place}"))
            })?;
            Reader::new(model, Values::Frame)
                .csv(text, has_header)
                .map_err(|error| error.into_infer_error(text))
        }
    };
    Ok(features?.inputs)
}

fn read(model: &ModelInfo, text: &str) -> Result<Features, JsonError> {
    const EXPECTED: &str = "exactly one of 'dataframe_split', 'dataframe_records', 'instances' and 'inputs'";
    let mut features = None;
    let mut scanner = Scanner::new(text);
    scanner.object("the request", |scanner, key| {
        match key {
            "dataframe_split" | "dataframe_records" | "instances" | "inputs" => {}
            // Models have no parameters: like MLflow, we pass over what they do not know.
            _ => return scanner.skip(),
        }
        if features.is_some() {
            return Err(JsonError::Meaning(format!(
                "the request must have {EXPECTED}: it has '{key}' besides"
            )));
        }
        let reader = Reader::new(model, Values::Frame);
        features = Some(match key {
            "dataframe_split" => reader.split(scanner, key)?,
            "dataframe_records" => reader.records(scanner, key)?,
            "instances" => reader.rows(scanner, key, true)?,
            _ => reader.inputs(scanner, key)?,
        });
        Ok(())
    })?;
    scanner.end()?;
    features.ok_or_else(|| JsonError::Meaning(format!("the request must have {EXPECTED}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        let csv = |has_header| Some(MediaType::Csv { has_header });
        assert_eq!(MediaType::parse("application/json"), Some(MediaType::Json));
        assert_eq!(MediaType::parse("Application/JSON; charset=UTF-8"), Some(MediaType::Json));
        assert_eq!(MediaType::parse("text/csv"), csv(true));
        assert_eq!(MediaType::parse("text/csv; charset=utf-8; header=absent"), csv(false));
        assert_eq!(MediaType::parse("text/csv;header=present"), csv(true));
        for other in
            ["text/plain", "", "application/json; charset=latin1", "text/csv; header=2", "text/csv; x"]
        {
            assert_eq!(MediaType::parse(other), None, "{other}");
        }
    }
}
