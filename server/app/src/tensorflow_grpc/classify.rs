//! What examples are asked for: classes with scores, values, or both of one run.

use gristmill_engine::error::InferError;
use gristmill_engine::request::Response;
use gristmill_proto::tensorflow::serving as pb;
use gristmill_proto::tensorflow::serving::inference_result::Result as Found;

use super::{read_spec, write_spec};
use crate::codec::proto::tensorflow::floats;
use crate::oip_http::Target;
use crate::tensorflow_http::answer::{class_label, scores, values};

const CLASSIFY: &str = "tensorflow/serving/classify";
const REGRESS: &str = "tensorflow/serving/regress";

/// What a task of a MultiInference wants of the run that all share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Classify,
    Regress,
}

/// Every class of every row, in the order of the model.
///
/// # Errors
/// `InvalidInput` for a model without class scores.
pub(super) fn classes(response: &Response) -> Result<pb::ClassificationResult, InferError> {
    let scores = scores(response)?;
    let numbers = floats(scores.tensor);
    let row = |row: usize| {
        let class = |class: usize| pb::Class {
            label: class_label(scores.spec, class).into_owned(),
            score: numbers[row * scores.classes + class],
        };
        pb::Classifications { classes: (0..scores.classes).map(class).collect() }
    };
    Ok(pb::ClassificationResult { classifications: (0..scores.rows).map(row).collect() })
}

/// The one value of every row.
///
/// # Errors
/// `InvalidInput` for a model that gives anything but one number a row.
pub(super) fn regressions(response: &Response) -> Result<pb::RegressionResult, InferError> {
    let (_, tensor) = values(response)?;
    let regression = |value| pb::Regression { value };
    Ok(pb::RegressionResult { regressions: floats(tensor).into_iter().map(regression).collect() })
}

/// The model that all tasks ask, and what each wants.
///
/// # Errors
/// `InvalidInput` for no tasks, tasks of several models, and methods that there are not.
pub(super) fn read_tasks(tasks: Vec<pb::InferenceTask>) -> Result<(Target, Vec<Method>), InferError> {
    let mut shared: Option<Target> = None;
    let mut methods = Vec::with_capacity(tasks.len());
    for pb::InferenceTask { model_spec, method_name } in tasks {
        let target = read_spec(model_spec)?;
        match &shared {
            Some(first) if *first != target => {
                return Err(InferError::InvalidInput(format!(
                    "tasks ask '{}' and '{}': expected one version of one model in all",
                    first.model, target.model
                )));
            }
            _ => shared = Some(target),
        }
        methods.push(match method_name.as_str() {
            CLASSIFY => Method::Classify,
            REGRESS => Method::Regress,
            other => {
                return Err(InferError::InvalidInput(format!(
                    "method_name is '{other}': expected {CLASSIFY} or {REGRESS}"
                )));
            }
        });
    }
    let target = shared.ok_or_else(|| InferError::InvalidInput("tasks is empty: name what to run".into()))?;
    Ok((target, methods))
}

/// The results of tasks, in their order.
///
/// # Errors
/// As [`classes`] and [`regressions`].
pub(super) fn results(
    methods: &[Method],
    response: &Response,
) -> Result<pb::MultiInferenceResponse, InferError> {
    let result = |method: &Method| {
        let found = match method {
            Method::Classify => Found::ClassificationResult(classes(response)?),
            Method::Regress => Found::RegressionResult(regressions(response)?),
        };
        Ok(pb::InferenceResult { model_spec: Some(write_spec(&response.model)?), result: Some(found) })
    };
    Ok(pb::MultiInferenceResponse { results: methods.iter().map(result).collect::<Result<_, InferError>>()? })
}
