//! Which output of a model is the prediction, and what its probability is. Pure.

use gristmill_engine::error::InferError;
use gristmill_engine::request::Response;
use gristmill_engine::tensor::{DType, Dim, Signature, Tensor, TensorSpec};
use half::{bf16, f16};

use crate::codec::json::nested::{NestedWriter, Texts};
use crate::codec::json::write::{NonFinite, write_float, write_string};

/// How far a row of probabilities may be from 1 in sum.
const PROBABILITY_SUM_TOLERANCE: f64 = 1e-3;

/// What a prediction is, decided from the signature alone so that it is the same for every request.
///
/// 1. An output with one INT64, INT32 or BYTES value a row is a label, as scikit-learn's classifiers
///    give it: it is the prediction, by its name where the model carries names. Its probability is the
///    entry for it in the output of class scores, if there is one.
/// 2. Without a label, the only output of class scores decides: `[rows, classes]` floats with class names, or
///    called something with "prob" or "softmax". The class with the highest score is the prediction,
///    by its name where the model carries names, else by its index.
/// 3. Otherwise the only output is the prediction, a number or a list of numbers a row (a regression).
/// 4. With several such outputs, or scores for each of several targets, it is an object of them by name.
///
/// A probability is given only where the row's scores are probabilities: none below 0 and 1 in sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Indices into the signature's outputs.
    Label {
        label: usize,
        scores: Option<usize>,
    },
    HighestScore {
        scores: usize,
    },
    Values {
        output: usize,
    },
    Named,
}

/// JSON values, one a row.
pub(super) type Rows = Vec<Vec<u8>>;

/// The highest entry of a row of scores, or the one for a label.
struct Choice {
    class: usize,
    probability: Option<f64>,
}

// === impl Rule ===

impl Rule {
    pub(crate) fn of(signature: &Signature) -> Rule {
        let batched = signature.is_batched();
        let outputs = &signature.outputs;
        let scores = || {
            let scored = |strong: bool| outputs.iter().position(|spec| is_scores(spec, batched, strong));
            scored(true).or_else(|| scored(false))
        };
        if let Some(label) = outputs.iter().position(|spec| is_label(spec, batched)) {
            // Beside a label the only two-dimensional float output holds its scores, whatever its name.
            let tables: Vec<usize> =
                (0..outputs.len()).filter(|&index| is_table(&outputs[index], batched)).collect();
            let only_table = match tables.as_slice() {
                [only] => Some(*only),
                _ => None,
            };
            return Rule::Label { label, scores: scores().or(only_table) };
        }
        let scored = outputs.iter().filter(|spec| is_scored(spec, true)).count();
        match (scores(), outputs.len()) {
            (Some(scores), _) if scored < 2 => Rule::HighestScore { scores },
            (None, 1) => Rule::Values { output: 0 },
            _ => Rule::Named,
        }
    }

    /// Predictions, and probabilities unless no row has one; one prediction of all that there is unless `by_row`.
    ///
    /// # Errors
    /// A BYTES output is not UTF-8.
    pub(super) fn apply(self, response: &Response, by_row: bool) -> Result<(Rows, Option<Rows>), InferError> {
        let output = |index: usize| {
            let (_, tensor) = response
                .outputs
                .iter()
                .find(|(output, _)| *output == index)
                .expect("all outputs were asked for; this is a bug");
            Output::new(&response.model.signature.outputs[index], tensor, by_row)
        };
        match self {
            Rule::Values { output: index } => Ok((output(index).values()?, None)),
            Rule::Named => {
                let named: Vec<(&str, Rows)> = (0..response.model.signature.outputs.len())
                    .map(|index| {
                        let output = output(index);
                        Ok((output.spec.name.as_str(), output.values()?))
                    })
                    .collect::<Result<_, InferError>>()?;
                Ok((by_name(&named), None))
            }
            Rule::HighestScore { scores } => {
                let scores = output(scores);
                let choices: Vec<Choice> = (0..scores.rows).map(|row| scores.choose(row, None)).collect();
                let predictions = choices.iter().map(|choice| scores.class_json(choice.class)).collect();
                Ok((predictions, scores.probabilities(choices.iter().map(|choice| choice.probability))))
            }
            Rule::Label { label, scores } => {
                let label = output(label);
                let scores = scores.map(output).filter(|scores| scores.rows == label.rows);
                let values = label.values()?;
                let mut predictions = Vec::with_capacity(values.len());
                let mut probabilities = Vec::with_capacity(values.len());
                for (row, value) in values.into_iter().enumerate() {
                    let (prediction, class) = label.named_label(value, scores.as_ref());
                    predictions.push(prediction);
                    probabilities
                        .push(scores.as_ref().and_then(|scores| scores.choose(row, class).probability));
                }
                let probabilities = scores.and_then(|scores| scores.probabilities(probabilities.into_iter()));
                Ok((predictions, probabilities))
            }
        }
    }
}

/// One output tensor, seen row by row.
struct Output<'a> {
    spec: &'a TensorSpec,
    tensor: &'a Tensor,
    rows: usize,
    /// Sizes of one row.
    row_shape: &'a [usize],
}

impl<'a> Output<'a> {
    fn new(spec: &'a TensorSpec, tensor: &'a Tensor, by_row: bool) -> Output<'a> {
        match tensor.shape() {
            [rows, row_shape @ ..] if by_row => Output { spec, tensor, rows: *rows, row_shape },
            row_shape => Output { spec, tensor, rows: 1, row_shape },
        }
    }

    /// Each row as JSON: a value, or lists nested as the row is.
    fn values(&self) -> Result<Rows, InferError> {
        let row_elements: usize = self.row_shape.iter().product();
        if let Some(size) = self.tensor.dtype().size() {
            // Lists of one element, and those around them, are left out.
            let is_one = |axis: &usize| self.row_shape[*axis..].iter().product::<usize>() == 1;
            let rank = (0..self.row_shape.len()).find(is_one).unwrap_or(self.row_shape.len());
            let writer = NestedWriter::new(&self.spec.name, self.tensor, Texts::Strings);
            let mut writer = writer.with_non_finite(NonFinite::Null);
            let row = |_| {
                let mut json = Vec::with_capacity(8 + 3 * row_elements * size);
                writer.write(&self.row_shape[..rank], &mut json)?;
                Ok(json)
            };
            return (0..self.rows).map(row).collect();
        }
        let mut elements = Vec::with_capacity(self.tensor.element_count());
        // BYTES are walked once: finding one element in the middle means walking all before it.
        for (index, bytes) in self.tensor.bytes_elements().enumerate() {
            let text = std::str::from_utf8(bytes).map_err(|_| {
                InferError::InvalidInput(format!(
                    "output '{}': element {index} is not UTF-8: use /v2/models/…/infer with binary data",
                    self.spec.name
                ))
            })?;
            let mut json = Vec::new();
            write_string(text, &mut json);
            elements.push(json);
        }
        Ok((0..self.rows)
            .map(|row| {
                let mut json = Vec::new();
                write_nested(
                    &elements[row * row_elements..(row + 1) * row_elements],
                    self.row_shape,
                    &mut json,
                );
                json
            })
            .collect())
    }

    /// The prediction for a label's JSON value, and its class index where that is known.
    fn named_label(&self, value: Vec<u8>, scores: Option<&Output<'_>>) -> (Vec<u8>, Option<usize>) {
        let text = std::str::from_utf8(&value).unwrap_or_default();
        if !self.spec.labels.is_empty() {
            let class = text.parse().ok().filter(|&class: &usize| class < self.spec.labels.len());
            return (class.map_or(value, |class| self.class_json(class)), class);
        }
        let plain: Option<String> = serde_json::from_str(text).ok();
        let name = plain.as_deref().unwrap_or(text);
        let class = scores.and_then(|scores| scores.spec.labels.iter().position(|label| label == name));
        (value, class)
    }

    /// Class `class` by its name, or else by its index.
    fn class_json(&self, class: usize) -> Vec<u8> {
        let mut json = Vec::new();
        match self.spec.labels.get(class) {
            Some(label) => write_string(label, &mut json),
            None => json.extend_from_slice(class.to_string().as_bytes()),
        }
        json
    }

    /// The class with the highest score of a row, the first of several equal ones; or `class`.
    fn choose(&self, row: usize, class: Option<usize>) -> Choice {
        let scores = self.scores(row);
        let highest = || {
            let by_score = |a: &(usize, &f64), b: &(usize, &f64)| a.1.total_cmp(b.1).then(b.0.cmp(&a.0));
            scores
                .iter()
                .enumerate()
                .filter(|(_, score)| !score.is_nan())
                .max_by(by_score)
                .map_or(0, |(class, _)| class)
        };
        let class = class.filter(|&class| class < scores.len()).unwrap_or_else(highest);
        let sum: f64 = scores.iter().sum();
        let are_probabilities =
            scores.iter().all(|&score| score >= 0.0) && (sum - 1.0).abs() <= PROBABILITY_SUM_TOLERANCE;
        Choice { class, probability: are_probabilities.then(|| scores[class]) }
    }

    fn scores(&self, row: usize) -> Vec<f64> {
        let size = self.tensor.dtype().size().unwrap_or(1);
        let row_bytes = self.row_shape.iter().product::<usize>() * size;
        let data = &self.tensor.data()[row * row_bytes..(row + 1) * row_bytes];
        match self.tensor.dtype() {
            DType::Fp16 => each(data, |bytes| f16::from_le_bytes(bytes).to_f64()),
            DType::Bf16 => each(data, |bytes| bf16::from_le_bytes(bytes).to_f64()),
            DType::Fp32 => each(data, |bytes| f32::from_le_bytes(bytes).into()),
            DType::Fp64 => each(data, f64::from_le_bytes),
            _ => Vec::new(),
        }
    }

    /// `probabilities` as JSON in the precision of this output, or `None` if no row has one.
    fn probabilities(&self, probabilities: impl Iterator<Item = Option<f64>>) -> Option<Rows> {
        let mut some = false;
        let rows = probabilities
            .map(|probability| {
                let mut json = Vec::new();
                some |= probability.is_some();
                match probability {
                    None => json.extend_from_slice(b"null"),
                    Some(value) if self.tensor.dtype() == DType::Fp64 => {
                        write_float(value, NonFinite::Null, &mut json);
                    }
                    Some(value) => write_float(value as f32, NonFinite::Null, &mut json),
                }
                json
            })
            .collect();
        some.then_some(rows)
    }
}

fn each<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    data.as_chunks::<N>().0.iter().map(|&bytes| read(bytes)).collect()
}

/// Row sizes of an output, without the batch axis.
fn row_dims(spec: &TensorSpec, batched: bool) -> Option<&[Dim]> {
    spec.shape.as_deref().map(|dims| dims.get(usize::from(batched)..).unwrap_or(&[]))
}

fn is_label(spec: &TensorSpec, batched: bool) -> bool {
    matches!(spec.dtype, DType::Int64 | DType::Int32 | DType::Bytes)
        && row_dims(spec, batched).is_some_and(|dims| dims.iter().all(|dim| *dim == Dim::Fixed(1)))
}

/// Floats, several a row in one dimension.
fn is_table(spec: &TensorSpec, batched: bool) -> bool {
    let is_float = matches!(spec.dtype, DType::Fp16 | DType::Bf16 | DType::Fp32 | DType::Fp64);
    is_float
        && match row_dims(spec, batched) {
            Some([dim]) => *dim != Dim::Fixed(1) && *dim != Dim::Fixed(0),
            // A model without a batch axis may still have its one row in an axis of size 1.
            Some([Dim::Fixed(1), dim]) if !batched => *dim != Dim::Fixed(1) && *dim != Dim::Fixed(0),
            _ => false,
        }
}

/// A table with a score for each class.
fn is_scores(spec: &TensorSpec, batched: bool, strong: bool) -> bool {
    is_table(spec, batched) && is_scored(spec, strong)
}

/// Called like scores; `strong` asks for class names or "prob" in its name.
fn is_scored(spec: &TensorSpec, strong: bool) -> bool {
    let name = spec.name.to_lowercase();
    !spec.labels.is_empty() || name.contains("prob") || (!strong && name.contains("softmax"))
}

fn by_name(outputs: &[(&str, Rows)]) -> Rows {
    let rows = outputs.iter().map(|(_, rows)| rows.len()).max().unwrap_or(0);
    (0..rows)
        .map(|row| {
            let mut json = vec![b'{'];
            for (index, (name, rows)) in outputs.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                write_string(name, &mut json);
                json.push(b':');
                json.extend_from_slice(rows.get(row).map_or(b"null", Vec::as_slice));
            }
            json.push(b'}');
            json
        })
        .collect()
}

/// Appends `elements` nested as `shape`; a single element is written bare.
fn write_nested(elements: &[Vec<u8>], shape: &[usize], json: &mut Vec<u8>) {
    if let [only] = elements {
        json.extend_from_slice(only);
        return;
    }
    let [size, inner @ ..] = shape else { return };
    json.push(b'[');
    let step: usize = inner.iter().product();
    for index in 0..*size {
        if index > 0 {
            json.push(b',');
        }
        let part = &elements[index * step..(index + 1) * step];
        if inner.is_empty() {
            json.extend_from_slice(&part[0]);
        } else {
            write_nested(part, inner, json);
        }
    }
    json.push(b']');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use expect_test::{Expect, expect};
    use gristmill_engine::companions::Companions;
    use gristmill_engine::request::{ModelInfo, Timing};
    use gristmill_engine::tensor::BatchAxis;

    use super::*;

    fn spec(name: &str, dtype: DType, shape: &[i64], labels: &[&str]) -> TensorSpec {
        let dim = |&size: &i64| usize::try_from(size).map_or(Dim::Dynamic(None), Dim::Fixed);
        TensorSpec {
            name: name.into(),
            dtype,
            shape: Some(shape.iter().map(dim).collect()),
            optional: false,
            labels: labels.iter().map(ToString::to_string).collect(),
        }
    }

    fn signature(outputs: &[TensorSpec]) -> Signature {
        Signature { inputs: Vec::new(), outputs: outputs.to_vec(), batch: BatchAxis::Rows }
    }

    fn fp32(shape: &[usize], values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DType::Fp32, shape, data.into()).unwrap()
    }

    fn int64(values: &[i64]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DType::Int64, [values.len()].as_slice(), data.into()).unwrap()
    }

    /// The rule for `outputs`, and what it makes of each of their rows.
    fn check(outputs: &[(TensorSpec, Tensor)], expected: Expect) {
        let specs: Vec<TensorSpec> = outputs.iter().map(|(spec, _)| spec.clone()).collect();
        let model = ModelInfo {
            name: "m".into(),
            version: 1,
            signature: signature(&specs),
            platform: "none".into(),
            batch_rows_max: 1,
            batch_delay: Duration::ZERO,
            instances: 1,
            threads: 1,
            companions: Companions::default(),
            notes: Vec::new(),
        };
        let rule = Rule::of(&model.signature);
        let outputs =
            outputs.iter().enumerate().map(|(index, (_, tensor))| (index, tensor.clone())).collect();
        let response = Response {
            model: Arc::new(model),
            degraded_from: None,
            routed: None,
            rows: 1,
            outputs,
            timing: Timing::default(),
            batches: Vec::new(),
            answer_limit: None,
        };
        let text =
            |rows: Rows| rows.into_iter().map(|row| String::from_utf8(row).unwrap()).collect::<Vec<_>>();
        let (predictions, probabilities) =
            rule.apply(&response, response.model.signature.is_batched()).unwrap();
        let shown = format!("{rule:?}: {}", text(predictions).join(" "));
        expected.assert_eq(&match probabilities {
            Some(probabilities) => format!("{shown}, probability {}", text(probabilities).join(" ")),
            None => shown,
        });
    }

    #[test]
    fn a_label_is_the_prediction() {
        let names = || Tensor::from_elements([2usize].as_slice(), ["benign", "malignant"]).unwrap();
        // The label decides, even where another class has a higher score.
        check(
            &[
                (spec("label", DType::Bytes, &[-1], &[]), names()),
                (
                    spec("p", DType::Fp32, &[-1, 2], &["benign", "malignant"]),
                    fp32(&[2, 2], &[0.4, 0.6, 0.1, 0.9]),
                ),
            ],
            expect![[r#"Label { label: 0, scores: Some(1) }: "benign" "malignant", probability 0.4 0.9"#]],
        );
        check(
            &[
                (spec("scores", DType::Fp32, &[-1, 2], &[]), fp32(&[2, 2], &[-3.0, 3.0, 2.0, -2.0])),
                (spec("label", DType::Int64, &[-1], &[]), int64(&[1, 0])),
            ],
            expect!["Label { label: 1, scores: Some(0) }: 1 0"],
        );
        check(
            &[(spec("class", DType::Int64, &[-1], &["cat", "dog"]), int64(&[1, 7]))],
            expect![[r#"Label { label: 0, scores: None }: "dog" 7"#]],
        );
    }

    #[test]
    fn class_scores_decide_where_there_is_no_label() {
        let rows = || fp32(&[2, 3], &[0.2, 0.5, 0.3, 1.0, 0.0, 0.0]);
        check(
            &[(spec("output", DType::Fp32, &[-1, 3], &["a", "b", "c"]), rows())],
            expect![[r#"HighestScore { scores: 0 }: "b" "a", probability 0.5 1.0"#]],
        );
        check(
            &[(spec("Softmax_3", DType::Fp32, &[-1, 3], &[]), rows())],
            expect!["HighestScore { scores: 0 }: 1 0, probability 0.5 1.0"],
        );
        let nan = fp32(&[2, 3], &[f32::NAN, 0.5, 0.3, 5.0, 5.0, 1.0]);
        check(
            &[(spec("probabilities", DType::Fp32, &[-1, 3], &[]), nan)],
            expect!["HighestScore { scores: 0 }: 1 0"],
        );
        check(
            &[
                (spec("embedding", DType::Fp32, &[-1, 3], &[]), rows()),
                (spec("prob", DType::Fp32, &[-1, 3], &[]), rows()),
            ],
            expect!["HighestScore { scores: 1 }: 1 0, probability 0.5 1.0"],
        );
    }

    #[test]
    fn everything_else_is_given_as_it_is() {
        check(
            &[(spec("y", DType::Fp32, &[-1, 1], &[]), fp32(&[2, 1], &[0.1, f32::INFINITY]))],
            expect!["Values { output: 0 }: 0.1 null"],
        );
        check(
            &[(spec("prob", DType::Fp32, &[-1, 1], &[]), fp32(&[1, 1], &[0.7]))],
            expect!["Values { output: 0 }: 0.7"],
        );
        check(
            &[(spec("y", DType::Fp32, &[-1, 3], &[]), fp32(&[1, 3], &[0.2, 0.5, 0.3]))],
            expect!["Values { output: 0 }: [0.2,0.5,0.3]"],
        );
        check(
            &[(spec("y", DType::Fp32, &[-1, 2, 2], &[]), fp32(&[1, 2, 2], &[1., 2., 3., 4.]))],
            expect!["Values { output: 0 }: [[1.0,2.0],[3.0,4.0]]"],
        );
        check(
            &[(spec("y", DType::Fp32, &[-1, 2, -1], &[]), fp32(&[1, 2, 0], &[]))],
            expect!["Values { output: 0 }: [[],[]]"],
        );
        check(
            &[
                (spec("a", DType::Fp32, &[-1, 1], &[]), fp32(&[2, 1], &[1.0, 2.0])),
                (spec("b", DType::Fp32, &[-1, 2], &[]), fp32(&[2, 2], &[3.0, 4.0, 5.0, 6.0])),
            ],
            expect![[r#"Named: {"a":1.0,"b":[3.0,4.0]} {"a":2.0,"b":[5.0,6.0]}"#]],
        );
    }
}
