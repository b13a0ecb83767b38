//! The operators of `ai.onnx.ml`: trees, linear models, vector machines, and what prepares features for them.

use super::super::call::{Call, Outcome};
use super::super::size::{Size, Unknowns};
use super::super::value::{Dependence, Value, Verdict, length};

/// # Errors
/// The input is not a table with a row for each row.
fn table<'c>(call: &'c Call<'_, '_>, index: usize) -> Result<&'c Value, Verdict> {
    let value = call.operand(index)?;
    match (value.row_axis(), value.rank()) {
        (Some(0), Some(2)) | (None, _) => Ok(value),
        (Some(0), Some(1)) => Err(call.mixes("takes a vector of rows for the features of one")),
        (Some(_), None) => Err(call.unranked()),
        (Some(0), Some(_)) => Err(call.undecided("takes a tensor of more than two dimensions")),
        (Some(axis), _) => {
            Err(call.mixes(&format!("takes axis {axis}, which counts the rows, for features")))
        }
    }
}

fn rows_of(value: &Value, shape: Option<Vec<Size>>) -> Value {
    match &value.dependence {
        Dependence::Rows { each, .. } => Value::rows(0, each.clone(), shape),
        other => Value { dependence: other.clone(), shape: None, content: None },
    }
}

/// A label and a score for each class.
pub(super) fn classifier(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = table(call, 0)?;
    let labels = rows_of(value, Some(vec![Size::rows()]));
    let scores = rows_of(value, Some(vec![Size::rows(), unknowns.size()]));
    Ok(vec![labels, scores])
}

pub(super) fn regressor(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = table(call, 0)?;
    let targets = call.integer("n_targets").or(call.integer("targets"));
    let targets = targets.map_or_else(|| unknowns.size(), Size::known);
    Ok(vec![rows_of(value, Some(vec![Size::rows(), targets]))])
}

/// `Scaler`, `Imputer` and `Normalizer`: as many features out as in.
pub(super) fn features(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    Ok(vec![table(call, 0)?.without_content()])
}

pub(super) fn feature_vectorizer(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let mut width = Some(0_i64);
    let mut dependence = None;
    for index in 0..call.operands.len() {
        let value = table(call, index)?;
        if dependence.get_or_insert(&value.dependence) != &&value.dependence {
            return Err(call.undecided("joins rows with what is the same for all"));
        }
        let here = value.shape.as_ref().and_then(|shape| shape.get(1)?.value());
        width = width.zip(here).and_then(|(width, here)| width.checked_add(here));
    }
    let width = width.map_or_else(|| unknowns.size(), Size::known);
    Ok(vec![rows_of(call.operand(0)?, Some(vec![Size::rows(), width]))])
}

/// `OneHotEncoder`: one more axis, the last.
pub(super) fn one_hot_encoder(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    let categories = call.texts("cats_strings").len() + call.integers("cats_int64s").map_or(0, <[i64]>::len);
    let categories = if categories > 0 { length(categories) } else { unknowns.size() };
    let mut result = value.without_content();
    if let Some(shape) = &mut result.shape {
        shape.push(categories);
    }
    Ok(vec![result])
}

/// `ArrayFeatureExtractor`: entries of the last axis, which the second operand numbers.
pub(super) fn array_feature_extractor(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let (value, indices) = (call.operand(0)?, call.operand(1)?);
    let count = indices.shape.as_ref().and_then(Size::product).unwrap_or_else(|| unknowns.size());
    let rank = value.rank();
    let mut shape = match (&value.shape, rank) {
        (Some(_), Some(1)) => Some(vec![Size::one(), count.clone()]),
        (Some(shape), _) => {
            let mut shape = shape.clone();
            if let Some(last) = shape.last_mut() {
                *last = count.clone();
            }
            Some(shape)
        }
        (None, _) => None,
    };
    match (&value.dependence, &indices.dependence) {
        (Dependence::Shared, Dependence::Shared) => Ok(vec![Value::shared(shape)]),
        (Dependence::Rows { axis, each }, Dependence::Shared) => match rank {
            Some(rank) if axis + 1 == rank => {
                Err(call.mixes(&format!("picks from axis {axis}, which counts the rows")))
            }
            Some(_) => Ok(vec![Value::rows(*axis, each.clone(), shape)]),
            None => Err(call.unranked()),
        },
        // The indices are read one after another, whatever their shape.
        (Dependence::Shared, Dependence::Rows { axis: 0, .. }) => {
            let Some(shape) = shape.take() else { return Err(call.unranked()) };
            Ok(vec![call.rows_at(shape.len() - 1, shape)?])
        }
        _ => Err(call.mixes("picks entries of all rows for each row")),
    }
}

/// `StringNormalizer` drops the words that it is told to, and so axes may shrink.
pub(super) fn string_normalizer(call: &Call<'_, '_>, _: &mut Unknowns) -> Outcome {
    let value = call.operand(0)?;
    match value.rank() {
        _ if !call.texts("stopwords").is_empty() => {
            Err(call.mixes("drops stop words, and so gives other numbers of rows"))
        }
        Some(1) => Ok(vec![value.without_content()]),
        _ => Err(call.undecided("takes one row of words")),
    }
}

/// `TfIdfVectorizer`: a document a row.
pub(super) fn tf_idf(call: &Call<'_, '_>, unknowns: &mut Unknowns) -> Outcome {
    let value = table(call, 0)?;
    Ok(vec![rows_of(value, Some(vec![Size::rows(), unknowns.size()]))])
}
