//! The example models in `models/`, and a request for one row of each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use gristmill_engine::tensor::DType;
use gristmill_proto::inference::ModelInferRequest;
use gristmill_proto::inference::model_infer_request::InferInputTensor;
use serde_json::Value;

/// A model of the example repository.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    pub name: &'static str,
    version: &'static str,
}

/// Each with its newest version.
pub const EXAMPLES: [Example; 3] = [
    Example { name: "breast_cancer", version: "1" },
    Example { name: "diabetes", version: "2" },
    Example { name: "digits", version: "1" },
];

// === impl Example ===

impl Example {
    /// Puts the version into a repository.
    ///
    /// # Errors
    /// The file system's.
    pub fn copy_to(&self, repository: &Path) -> anyhow::Result<()> {
        let version = repository.join(self.name).join(self.version);
        fs::create_dir_all(&version)?;
        let path = self.directory().join("model.onnx");
        fs::copy(&path, version.join("model.onnx"))
            .with_context(|| format!("cannot copy {}", path.display()))?;
        Ok(fs::write(version.join(".complete"), "")?)
    }

    /// The first of the rows whose answers are written down beside the model; all inputs are FP32.
    ///
    /// # Errors
    /// The file is not there or reads otherwise.
    pub fn request(&self) -> anyhow::Result<ModelInferRequest> {
        let path = self.directory().join("golden.json");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let golden: Value = serde_json::from_str(&text)?;
        let given = golden["inputs"].as_object().context("golden.json has inputs")?;
        let mut request = ModelInferRequest { model_name: self.name.into(), ..ModelInferRequest::default() };
        for (name, rows) in given {
            let (mut shape, mut data) = (vec![1], Vec::new());
            flatten(&rows[0], 1, &mut shape, &mut data)
                .with_context(|| format!("input {name} of {}", path.display()))?;
            request.inputs.push(InferInputTensor {
                name: name.clone(),
                datatype: DType::Fp32.name().into(),
                shape,
                ..InferInputTensor::default()
            });
            request.raw_input_contents.push(data.into());
        }
        Ok(request)
    }

    fn directory(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(self.name).join(self.version)
    }
}

/// Appends the numbers of nested lists to `data`, and to `shape` the lengths of those of which the first are.
fn flatten(value: &Value, depth: usize, shape: &mut Vec<i64>, data: &mut Vec<u8>) -> anyhow::Result<()> {
    let Some(list) = value.as_array() else {
        let number = value.as_f64().context("a number was expected")?;
        data.extend((number as f32).to_le_bytes());
        return Ok(());
    };
    if shape.len() == depth {
        shape.push(list.len() as i64);
    }
    ensure!(shape[depth] == list.len() as i64, "lists of one length were expected");
    list.iter().try_for_each(|item| flatten(item, depth + 1, shape, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_rows_of_their_models() {
        let shapes = EXAMPLES.map(|example| {
            let request = example.request().unwrap();
            let bytes: usize = request.raw_input_contents.iter().map(|data| data.len()).sum();
            (request.inputs.len(), request.inputs[0].shape.clone(), bytes)
        });
        assert_eq!(shapes, [(30, vec![1, 1], 120), (1, vec![1, 10], 40), (1, vec![1, 1, 8, 8], 256)]);
    }
}
