//! Decides what a request to a model holds: its metadata, the free dimensions, the rows.

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::SmallRng;
use serde::Deserialize;
use serde_json::Value;

use crate::datatype::Datatype;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// What a server says about a model.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) inputs: Vec<InputMetadata>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct InputMetadata {
    pub(crate) name: String,
    pub(crate) datatype: String,
    /// -1 where the dimension is free.
    pub(crate) shape: Vec<i64>,
}

/// The inputs of one request, and the rows that they hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Inputs {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) rows: usize,
}

/// Values for free dimensions after axis 0, by input name, in the order of the dimensions.
pub(crate) type Dimensions = BTreeMap<String, Vec<i64>>;

#[derive(Deserialize)]
struct GivenInputs {
    inputs: Value,
}

#[derive(Deserialize)]
struct GivenTensor {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    data: Value,
}

// === impl Metadata ===

impl Metadata {
    /// Whether axis 0 of every input counts rows, so that a request may hold any number of them.
    pub(crate) fn is_batched(&self) -> bool {
        !self.inputs.is_empty() && self.inputs.iter().all(|input| input.shape.first() == Some(&-1))
    }

    /// Inputs with random values. Free dimensions other than axis 0 are 1 unless `dimensions` says more.
    pub(crate) fn random_inputs(
        &self,
        rows: usize,
        dimensions: &Dimensions,
        rng: &mut SmallRng,
    ) -> Result<Inputs> {
        if rows != 1 && !self.is_batched() {
            return Err(self.input_error("", format!("has no batch axis: {rows} rows do not fit a request")));
        }
        if let Some(unknown) = dimensions.keys().find(|name| self.inputs.iter().all(|i| i.name != **name)) {
            let known: Vec<_> = self.inputs.iter().map(|input| input.name.as_str()).collect();
            let why = format!("there is no such input to set dimensions of; there is {}", known.join(", "));
            return Err(self.input_error(unknown, why));
        }
        let tensors = self.inputs.iter().map(|input| {
            let datatype = self.datatype(&input.name, &input.datatype)?;
            let mut given = dimensions.get(&input.name).into_iter().flatten();
            let mut shape = input.shape.clone();
            for (axis, dimension) in shape.iter_mut().enumerate() {
                match *dimension {
                    -1 if axis == 0 && self.is_batched() => *dimension = rows as i64,
                    -1 => *dimension = *given.next().unwrap_or(&1),
                    _ => {}
                }
            }
            if given.next().is_some() {
                let why =
                    format!("`--dim` gives more values than shape {:?} has free dimensions", input.shape);
                return Err(self.input_error(&input.name, why));
            }
            Ok(Tensor::random(&input.name, datatype, shape, rng))
        });
        Ok(Inputs { tensors: tensors.collect::<Result<_>>()?, rows })
    }

    /// Reads inputs from JSON: either the body of an infer request (`{"inputs": [{"name", "datatype",
    /// "shape", "data"}]}`) or values by name (`{"inputs": {"name": nested list}}`, as in `golden.json`).
    pub(crate) fn given_inputs(&self, path: &Path) -> Result<Inputs> {
        let file_error = |why: String| Error::File { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|error| file_error(error.to_string()))?;
        let given: GivenInputs = serde_json::from_str(&text)
            .map_err(|error| file_error(format!("expected a JSON object with `inputs`: {error}")))?;
        let tensors: Vec<Tensor> = match given.inputs {
            Value::Array(items) => {
                items.into_iter().map(|item| self.given_tensor(item)).collect::<Result<_>>()
            }
            Value::Object(values) => {
                values.iter().map(|(name, data)| self.named_values(name, data)).collect()
            }
            _ => return Err(file_error("`inputs` is neither a list nor an object".to_owned())),
        }?;
        let tensors = self.in_order(tensors)?;
        let rows = if self.is_batched() { self.common_rows(&tensors)? } else { 1 };
        Ok(Inputs { tensors, rows })
    }

    fn given_tensor(&self, item: Value) -> Result<Tensor> {
        let tensor: GivenTensor = serde_json::from_value(item)
            .map_err(|error| self.input_error("", format!("not an input tensor: {error}")))?;
        let datatype = self.datatype(&tensor.name, &tensor.datatype)?;
        Tensor::from_json(&tensor.name, datatype, Some(tensor.shape), &tensor.data)
            .map_err(|why| self.input_error(&tensor.name, why))
    }

    fn named_values(&self, name: &str, data: &Value) -> Result<Tensor> {
        let input = self.inputs.iter().find(|input| input.name == name);
        let input = input.ok_or_else(|| self.input_error(name, "the model has no such input".to_owned()))?;
        let datatype = self.datatype(name, &input.datatype)?;
        Tensor::from_json(name, datatype, None, data).map_err(|why| self.input_error(name, why))
    }

    /// The order of the metadata, in which `raw_input_contents` and `/predict` rows are laid out. Names
    /// that the model does not know go last: the server shall judge them.
    fn in_order(&self, mut tensors: Vec<Tensor>) -> Result<Vec<Tensor>> {
        if tensors.is_empty() {
            return Err(self.input_error("", "the file gives no inputs".to_owned()));
        }
        tensors.sort_by_key(|tensor| {
            let position = self.inputs.iter().position(|input| input.name == tensor.name);
            position.unwrap_or(self.inputs.len())
        });
        Ok(tensors)
    }

    fn common_rows(&self, tensors: &[Tensor]) -> Result<usize> {
        let rows = |tensor: &Tensor| tensor.shape.first().copied().unwrap_or(0);
        let expected = rows(&tensors[0]);
        match tensors.iter().find(|tensor| rows(tensor) != expected || rows(tensor) < 1) {
            None => Ok(expected as usize),
            Some(odd) => {
                let why = format!("holds {} rows, expected {expected} as in the first input", rows(odd));
                Err(self.input_error(&odd.name, why))
            }
        }
    }

    fn datatype(&self, input: &str, name: &str) -> Result<Datatype> {
        Datatype::parse(name).ok_or_else(|| self.input_error(input, format!("unknown datatype `{name}`")))
    }

    fn input_error(&self, input: &str, why: String) -> Error {
        Error::Input { model: self.name.clone(), input: input.to_owned(), why }
    }
}

// === impl Inputs ===

impl Inputs {
    /// `count` rows from row `first` on, starting over after the last.
    pub(crate) fn rows(&self, first: usize, count: usize) -> Inputs {
        Inputs { tensors: self.tensors.iter().map(|tensor| tensor.rows(first, count)).collect(), rows: count }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn metadata(shapes: &[(&str, &[i64])]) -> Metadata {
        let inputs = shapes.iter().map(|(name, shape)| InputMetadata {
            name: (*name).to_owned(),
            datatype: "INT64".to_owned(),
            shape: shape.to_vec(),
        });
        Metadata { name: "m".to_owned(), inputs: inputs.collect() }
    }

    fn shapes(metadata: &Metadata, rows: usize, dimensions: &[(&str, &[i64])]) -> Result<Vec<Vec<i64>>> {
        let dimensions =
            dimensions.iter().map(|(name, sizes)| ((*name).to_owned(), sizes.to_vec())).collect();
        let inputs = metadata.random_inputs(rows, &dimensions, &mut SmallRng::seed_from_u64(0))?;
        let sizes = inputs.tensors.iter().map(|tensor| 8 * tensor.shape.iter().product::<i64>() as usize);
        assert!(sizes.eq(inputs.tensors.iter().map(|tensor| tensor.data.len())));
        Ok(inputs.tensors.into_iter().map(|tensor| tensor.shape).collect())
    }

    #[test]
    fn rows_fill_the_batch_axis_and_dimensions_the_other_free_ones_in_order() {
        let batched = metadata(&[("ids", &[-1, -1, 3, -1]), ("mask", &[-1, -1])]);
        assert_eq!(shapes(&batched, 4, &[]).unwrap(), [vec![4, 1, 3, 1], vec![4, 1]]);
        let given = shapes(&batched, 4, &[("ids", &[7, 9])]).unwrap();
        assert_eq!(given, [vec![4, 7, 3, 9], vec![4, 1]]);
        let unbatched = metadata(&[("a", &[-1, 2]), ("b", &[2])]);
        assert_eq!(shapes(&unbatched, 1, &[("a", &[5])]).unwrap(), [vec![5, 2], vec![2]]);
        assert_eq!(shapes(&metadata(&[("scalar", &[])]), 1, &[]).unwrap(), [Vec::<i64>::new()]);
    }

    #[test]
    fn what_does_not_fit_the_metadata_is_named() {
        let check = |metadata: &Metadata, rows, dimensions: &[(&str, &[i64])], expected: &str| {
            let message = shapes(metadata, rows, dimensions).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        let batched = metadata(&[("ids", &[-1, -1])]);
        check(&batched, 1, &[("ids", &[1, 2])], "`ids`: `--dim` gives more values than shape [-1, -1]");
        check(&batched, 1, &[("idz", &[1])], "there is ids");
        check(&metadata(&[("a", &[3])]), 2, &[], "no batch axis: 2 rows do not fit");
        let mut odd = batched.clone();
        odd.inputs[0].datatype = "FP8".to_owned();
        check(&odd, 1, &[], "unknown datatype `FP8`");
    }

    #[test]
    fn given_rows_start_over_after_the_last_whatever_their_length() {
        let words = serde_json::json!([["a"], ["bb"], [""]]);
        let tensor = Tensor::from_json("w", Datatype::Bytes, None, &words).unwrap();
        let inputs = Inputs { tensors: vec![tensor], rows: 3 };
        let part = inputs.rows(2, 3);
        assert_eq!(part.rows, 3);
        assert_eq!(part.tensors[0].shape, [3, 1]);
        assert_eq!(part.tensors[0].values().unwrap(), ["", "a", "bb"]);
    }

    #[test]
    fn faults_in_given_inputs_are_named() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("inputs.json");
        for (text, expected) in [
            ("[]", "expected a JSON object with `inputs`"),
            (r#"{"inputs": 3}"#, "`inputs` is neither a list nor an object"),
            (r#"{"inputs": []}"#, "the file gives no inputs"),
            (r#"{"inputs": {"idz": [[1]]}}"#, "`idz`: the model has no such input"),
            (r#"{"inputs": {"ids": [[1], [2, 3, 4]]}}"#, "shape [2, 1] takes 2 elements, `data` has 4"),
            (r#"{"inputs": {"ids": [[1], [0.5]]}}"#, "element 1 is 0.5, which is no INT64"),
            (r#"{"inputs": {"ids": [[1], [2]], "mask": [[1]]}}"#, "`mask`: holds 1 rows, expected 2"),
        ] {
            std::fs::write(&path, text).unwrap();
            let metadata = metadata(&[("ids", &[-1, -1]), ("mask", &[-1, -1])]);
            let message = metadata.given_inputs(&path).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
