//! Scores of classes as an answer: the best with their labels, as TorchServe's classifiers give them, or the best label.

use std::borrow::Cow;

use gristmill_engine::error::InferError;
use gristmill_engine::request::Response;
use gristmill_engine::tensor::DType;

use crate::codec::json::write::{NonFinite, write_float, write_string};
use crate::codec::rows;

/// How the scores of a row become an answer.
#[derive(Debug)]
pub(super) struct Classes {
    /// The output that has them, by its place in the signature.
    pub(super) output: usize,
    /// Whether they are to become probabilities first.
    pub(super) softmax: bool,
    pub(super) answer: Answer,
    /// By class; a class without one is called by its number.
    pub(super) labels: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// An object with the scores of that many classes by their labels, the best first.
    Best(usize),
    /// The label of the best class.
    Label,
}

// === impl Classes ===

impl Classes {
    /// # Errors
    /// `InvalidInput` where the output does not have the rows that were asked for.
    pub(super) fn check_rows(&self, response: &Response) -> Result<(), InferError> {
        let name = &response.model.signature.outputs[self.output].name;
        match response.outputs.iter().find(|(index, _)| *index == self.output) {
            // Of one dimension: the classes of the only row.
            Some((_, tensor)) if tensor.shape().len() < 2 => rows::check(response.rows, name, &[1]),
            Some((_, tensor)) => rows::check(response.rows, name, tensor.shape()),
            None => Ok(()),
        }
    }

    /// Appends the answer to a row.
    ///
    /// # Errors
    /// `InvalidInput` where the output has no such row, or no class.
    pub(super) fn write(
        &self,
        response: &Response,
        row: usize,
        json: &mut Vec<u8>,
    ) -> Result<(), InferError> {
        let mut scores = self.scores(response, row)?;
        if self.softmax {
            to_probabilities(&mut scores);
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // Stable: of equal scores the lower class goes first. NaN counts as the lowest.
        let key = |class: usize| if scores[class].is_nan() { f32::NEG_INFINITY } else { scores[class] };
        order.sort_by(|&one, &other| key(other).total_cmp(&key(one)));
        match self.answer {
            Answer::Label => write_string(&self.label(order[0]), json),
            Answer::Best(count) => {
                json.push(b'{');
                let mut written: Vec<Cow<'_, str>> = Vec::with_capacity(count.min(order.len()));
                for &class in order.iter().take(count) {
                    let label = self.label(class);
                    // Of two classes with one name the better one is told.
                    if written.contains(&label) {
                        continue;
                    }
                    if !written.is_empty() {
                        json.push(b',');
                    }
                    write_string(&label, json);
                    json.push(b':');
                    write_float(scores[class], NonFinite::Token, json);
                    written.push(label);
                }
                json.push(b'}');
            }
        }
        Ok(())
    }

    fn label(&self, class: usize) -> Cow<'_, str> {
        match self.labels.get(class) {
            Some(label) => Cow::Borrowed(label),
            None => Cow::Owned(class.to_string()),
        }
    }

    fn scores(&self, response: &Response, row: usize) -> Result<Vec<f32>, InferError> {
        let found = response.outputs.iter().find(|(index, _)| *index == self.output);
        let scores = found.and_then(|(_, tensor)| {
            let classes = *tensor.shape().last()?;
            let data = tensor.data();
            let of_row = |size: usize| data.get(row * classes * size..(row + 1) * classes * size);
            let scores: Vec<f32> = match tensor.dtype() {
                DType::Fp32 => {
                    let bytes = of_row(size_of::<f32>())?.as_chunks::<4>().0;
                    bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
                }
                DType::Fp64 => {
                    let bytes = of_row(size_of::<f64>())?.as_chunks::<8>().0;
                    bytes.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32).collect()
                }
                _ => return None,
            };
            (!scores.is_empty()).then_some(scores)
        });
        scores.ok_or_else(|| {
            let name = &response.model.signature.outputs[self.output].name;
            InferError::InvalidInput(format!("output '{name}' has no scores of classes for row {row}"))
        })
    }
}

/// exp(x − max), by their sum.
fn to_probabilities(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - max).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}
