//! The test bench: fixtures loaded on a chosen runtime, and gathered inputs for them.

use std::path::{Path, PathBuf};

use gristmill_engine::backend::{Artifact, InputView, Instance, Model, Placement};
use gristmill_engine::error::{LoadError, RunError};
use gristmill_engine::tensor::{DType, Tensor};
use gristmill_onnx::{BackendChoice, OnnxBackend, OnnxOptions, Runtime};

/// Where tests that need ONNX Runtime look for it, and what `make test` sets so that none passes without.
const REQUIRED: &str = "GRISTMILL_REQUIRE_ONNXRUNTIME";

/// ONNX Runtime, or `None` (said aloud) where it is not installed and nobody requires it.
pub(crate) fn onnx_runtime() -> Option<Runtime> {
    let runtime = Runtime::find(None).unwrap();
    if runtime.has_onnx_runtime() {
        return Some(runtime);
    }
    assert!(
        std::env::var_os(REQUIRED).is_none(),
        "{REQUIRED} is set, and there is only {}",
        runtime.describe()
    );
    eprintln!("only tract is tested: {}", runtime.describe());
    None
}

/// Every runtime there is, each with the choice that asks for it.
pub(crate) fn runtimes() -> Vec<(BackendChoice, Runtime)> {
    let mut runtimes = vec![(BackendChoice::Tract, Runtime::tract_only())];
    runtimes.extend(onnx_runtime().map(|runtime| (BackendChoice::OnnxRuntime, runtime)));
    runtimes
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.onnx"))
}

pub(crate) fn artifact(path: &Path) -> Artifact {
    Artifact { model: "fixture".into(), version: 1, path: path.to_path_buf(), threads: 1 }
}

pub(crate) fn load_path(
    runtime: &Runtime,
    choice: BackendChoice,
    path: &Path,
) -> Result<Box<dyn Model>, LoadError> {
    let options = OnnxOptions { backend: choice, ..OnnxOptions::default() };
    OnnxBackend::new(runtime, options).load(&artifact(path))
}

pub(crate) fn load(
    runtime: &Runtime,
    choice: BackendChoice,
    name: &str,
) -> Result<Box<dyn Model>, LoadError> {
    load_path(runtime, choice, &fixture(name))
}

/// A tensor of numbers, as a client would send it.
pub(crate) fn tensor<const N: usize>(dtype: DType, shape: &[usize], elements: &[[u8; N]]) -> Tensor {
    Tensor::new(dtype, shape, elements.concat().into()).unwrap()
}

pub(crate) fn fp32(shape: &[usize], values: &[f32]) -> Tensor {
    tensor(DType::Fp32, shape, &values.iter().map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

pub(crate) fn int64(shape: &[usize], values: &[i64]) -> Tensor {
    tensor(DType::Int64, shape, &values.iter().map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

pub(crate) fn texts(shape: &[usize], values: &[&[u8]]) -> Tensor {
    Tensor::from_elements(shape, values).unwrap()
}

/// What `tensor` holds, which must be FP32.
pub(crate) fn floats(tensor: &Tensor) -> Vec<f32> {
    assert_eq!(tensor.dtype(), DType::Fp32);
    tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// What `tensor` holds, which must be INT64.
pub(crate) fn integers(tensor: &Tensor) -> Vec<i64> {
    assert_eq!(tensor.dtype(), DType::Int64);
    tensor.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Inputs copied to a buffer aligned as the engine's, and run.
pub(crate) fn run(instance: &mut dyn Instance, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, RunError> {
    let buffers: Vec<Option<Aligned>> =
        inputs.iter().map(|input| input.as_ref().map(|input| Aligned::new(input.data()))).collect();
    let views: Vec<Option<InputView<'_>>> = inputs
        .iter()
        .zip(&buffers)
        .map(|(input, buffer)| {
            let (input, buffer) = (input.as_ref()?, buffer.as_ref()?);
            Some(InputView { dtype: input.dtype(), shape: input.shape(), data: buffer.data() })
        })
        .collect();
    instance.run(&views)
}

/// Runs a fixture once on a fresh instance.
pub(crate) fn run_fixture(
    runtime: &Runtime,
    choice: BackendChoice,
    name: &str,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>, RunError> {
    let model = load(runtime, choice, name).unwrap();
    let mut instance = model.instance(Placement::default()).unwrap();
    run(&mut *instance, &inputs.iter().cloned().map(Some).collect::<Vec<_>>())
}

/// Bytes at an address that is a multiple of 64, as a worker gathers them.
pub(crate) struct Aligned {
    lines: Vec<Line>,
    length: usize,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

impl Aligned {
    pub(crate) fn new(data: &[u8]) -> Aligned {
        let mut lines = vec![Line([0; 64]); data.len().div_ceil(64)];
        for (line, chunk) in lines.iter_mut().zip(data.chunks(64)) {
            line.0[..chunk.len()].copy_from_slice(chunk);
        }
        Aligned { lines, length: data.len() }
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.lines.as_flattened_bytes()[..self.length]
    }

    pub(crate) fn overwrite(&mut self, byte: u8) {
        self.lines.fill(Line([byte; 64]));
    }
}

trait AsFlattenedBytes {
    fn as_flattened_bytes(&self) -> &[u8];
}

impl AsFlattenedBytes for [Line] {
    #[expect(unsafe_code, reason = "a test's aligned buffer is read as bytes")]
    fn as_flattened_bytes(&self) -> &[u8] {
        // SAFETY: `Line` is 64 plain bytes, aligned to 64, without padding.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast::<u8>(), size_of_val(self)) }
    }
}
