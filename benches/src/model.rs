//! The models of the measurements and the requests that are sent to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use gristmill_engine::companions::Companions;
use gristmill_engine::request::{ModelInfo, NamedTensor, Query, Response, Timing};
use gristmill_engine::tensor::{DType, Tensor, element_count};
use gristmill_engine::testing::batched_signature;
use gristmill_proto::inference::ModelInferRequest;
use gristmill_proto::inference::model_infer_request::InferInputTensor;

/// FP32 `x` in, FP32 `y` out. The ones here are the files in `fixtures/`.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub name: &'static str,
    /// One row of `x`.
    pub row: &'static [usize],
}

pub const IDENTITY: Model = Model { name: "identity", row: &[30] };
/// Two hidden layers of 64, two outputs.
pub const MLP: Model = Model { name: "mlp", row: &[30] };
/// Four convolutions: 1 ms or more a row on one thread.
pub const CONVOLUTIONS: Model = Model { name: "convolutions", row: &[3, 32, 32] };

// === impl Model ===

impl Model {
    pub fn path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("{}.onnx", self.name))
    }

    /// Puts the file into a repository, as version 1.
    ///
    /// # Errors
    /// The file system's.
    pub fn copy_to(&self, repository: &Path) -> anyhow::Result<()> {
        self.copy_as(self.name, repository)
    }

    /// The same under another name.
    ///
    /// # Errors
    /// The file system's.
    pub fn copy_as(&self, name: &str, repository: &Path) -> anyhow::Result<()> {
        let version = repository.join(name).join("1");
        std::fs::create_dir_all(&version)?;
        std::fs::copy(self.path(), version.join("model.onnx"))
            .with_context(|| format!("cannot copy {}", self.path().display()))?;
        // The server need not wait and see whether more is written.
        std::fs::write(version.join(".complete"), "")?;
        Ok(())
    }

    pub fn row_elements(&self) -> usize {
        element_count(self.row).expect("rows of the fixtures are small; this is a bug")
    }

    /// A request for one row.
    pub fn request(&self) -> ModelInferRequest {
        self.request_of(1)
    }

    /// A request for `rows` rows.
    pub fn request_of(&self, rows: usize) -> ModelInferRequest {
        let x = fp32(&self.shape(rows));
        ModelInferRequest {
            model_name: self.name.into(),
            inputs: vec![InferInputTensor {
                name: "x".into(),
                datatype: x.dtype().name().into(),
                shape: x.shape().iter().map(|&size| size as i64).collect(),
                ..InferInputTensor::default()
            }],
            raw_input_contents: vec![x.into_data()],
            ..ModelInferRequest::default()
        }
    }

    /// The same, decoded.
    pub fn query(&self) -> Query {
        let x = NamedTensor { name: "x".into(), tensor: fp32(&self.shape(1)) };
        Query { model: self.name.into(), inputs: vec![x], ..Query::default() }
    }

    pub fn shape(&self, rows: usize) -> Vec<usize> {
        [&[rows], self.row].concat()
    }
}

/// A tensor of plain numbers between 0 and 1.
///
/// # Panics
/// When the shape's product overflows.
pub fn fp32(shape: &[usize]) -> Tensor {
    let elements = element_count(shape).expect("the caller's shape is small");
    let data: Vec<u8> =
        (0..elements).flat_map(|index| (index as f32 * 0.618).fract().to_le_bytes()).collect();
    Tensor::new(DType::Fp32, shape, Bytes::from(data)).expect("four bytes an element; this is a bug")
}

/// The library that `ORT_DYLIB_PATH` names or that `make` has fetched.
///
/// # Errors
/// There is none; the text says how to get it.
pub fn onnx_runtime_library() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
        return Ok(path.into());
    }
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/onnxruntime");
    let fetch = "run .ci/get-onnxruntime first, or set ORT_DYLIB_PATH";
    let files = std::fs::read_dir(&cache).with_context(|| format!("no {}: {fetch}", cache.display()))?;
    for file in files {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("libonnxruntime.so") {
            return Ok(path);
        }
    }
    bail!("no libonnxruntime.so in {}: {fetch}", cache.display())
}

/// What a model that gave `y` as its only output answers.
pub fn response(y: &Tensor) -> Response {
    let model = ModelInfo {
        name: "model".into(),
        version: 1,
        signature: batched_signature(y.dtype(), &y.shape()[1..]),
        platform: "none".into(),
        batch_rows_max: 1,
        batch_delay: Duration::ZERO,
        instances: 1,
        threads: 1,
        companions: Companions::default(),
        notes: Vec::new(),
    };
    Response {
        model: Arc::new(model),
        degraded_from: None,
        routed: None,
        rows: y.shape()[0],
        outputs: [(0, y.clone())].into_iter().collect(),
        timing: Timing::default(),
        batches: Vec::new(),
        answer_limit: None,
    }
}
