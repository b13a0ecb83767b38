//! A model as its configuration declares it: what clients see goes before what the file says.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gristmill_engine::backend::{
    Artifact, Backend, Device, InputView, Instance, Model, Placement, RowIndependence, Stopper,
};
use gristmill_engine::error::{LoadError, RunError};
use gristmill_engine::tensor::{BatchAxis, Dim, Shape, ShapeText, Signature, Tensor, TensorSpec};

use super::sample::Row;
use super::{Batching, DeclaredTensor, TritonConfig, WarmUpSample, check_signature};

/// Runs models on another backend, with the signature, labels, shapes and warm-up of a configuration.
pub(crate) struct DeclaredBackend {
    inner: Arc<dyn Backend>,
    config: Arc<TritonConfig>,
    /// The model's.
    directory: PathBuf,
}

struct DeclaredModel {
    inner: Box<dyn Model>,
    config: Arc<TritonConfig>,
    signature: Signature,
    notes: Vec<String>,
    warm_up: Vec<(WarmUpSample, Vec<Row>)>,
}

struct DeclaredInstance {
    inner: Box<dyn Instance>,
    config: Arc<TritonConfig>,
    rows: bool,
    /// Of the configuration, by the position of the model's input or output.
    inputs: Vec<Option<usize>>,
    outputs: Vec<Option<usize>>,
}

// === impl DeclaredBackend ===

impl DeclaredBackend {
    pub(crate) fn new(inner: Arc<dyn Backend>, config: TritonConfig, directory: PathBuf) -> DeclaredBackend {
        DeclaredBackend { inner, config: Arc::new(config), directory }
    }
}

impl Backend for DeclaredBackend {
    fn load(&self, artifact: &Artifact) -> Result<Box<dyn Model>, LoadError> {
        let config = Arc::clone(&self.config);
        let inner = self.inner.load(artifact)?;
        let at_fault = |why: String| LoadError::permanent(format!("config.pbtxt: {why}"));
        let checked = check_signature(&config, inner.signature()).map_err(at_fault)?;
        let mut signature = inner.signature().clone();
        if config.batching == Batching::Never {
            let reason = "max_batch_size is 0 in its configuration".into();
            signature.batch = BatchAxis::None { reason };
        }
        let rows = signature.is_batched();
        for spec in &mut signature.inputs {
            declare(spec, &config.inputs, rows);
        }
        for spec in &mut signature.outputs {
            let Some(declared) = declare(spec, &config.outputs, rows) else { continue };
            if let Some(file) = &declared.label_file {
                spec.labels = labels(&self.directory.join(file)).map_err(at_fault)?;
            }
        }
        let mut warm_up = Vec::with_capacity(config.warm_up.len());
        for sample in &config.warm_up {
            let read = |input| Row::read(input, sample.rows, &self.directory);
            let inputs = sample.inputs.iter().map(read).collect::<Result<_, _>>().map_err(at_fault)?;
            warm_up.push((sample.clone(), inputs));
        }
        let mut notes = inner.notes();
        notes.extend(config.notes.iter().chain(&checked).map(|note| format!("config.pbtxt: {note}")));
        Ok(Box::new(DeclaredModel { inner, config, signature, notes, warm_up }))
    }
}

/// Gives `spec` the shape that its declaration has beside a reshape.
fn declare<'a>(
    spec: &mut TensorSpec,
    declared: &'a [DeclaredTensor],
    rows: bool,
) -> Option<&'a DeclaredTensor> {
    let declared = declared.iter().find(|declared| declared.name == spec.name)?;
    if declared.reshape.is_some() {
        let first = spec.shape.as_ref().and_then(|shape| shape.first()).cloned();
        let batch = rows.then(|| first.unwrap_or(Dim::Dynamic(None)));
        let sizes = declared.dims.0.iter().map(|dim| dim.map_or(Dim::Dynamic(None), Dim::Fixed));
        spec.shape = Some(batch.into_iter().chain(sizes).collect());
    }
    Some(declared)
}

/// One label a line.
fn labels(path: &Path) -> Result<Vec<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(|line| line.trim_end().to_owned()).collect()),
        Err(error) => Err(format!("cannot read the label file {}: {error}", path.display())),
    }
}

// === impl DeclaredModel ===

impl Model for DeclaredModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn platform(&self) -> &str {
        self.inner.platform()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn devices(&self) -> Vec<Device> {
        self.inner.devices()
    }

    fn is_parallel(&self) -> bool {
        self.inner.is_parallel()
    }

    fn row_independence(&self) -> RowIndependence {
        self.inner.row_independence()
    }

    /// Runs the configuration's warm-up samples before it hands the instance out.
    fn instance(&self, placement: Placement) -> Result<Box<dyn Instance>, LoadError> {
        let position = |spec: &TensorSpec, declared: &[DeclaredTensor]| {
            declared.iter().position(|declared| declared.name == spec.name && declared.reshape.is_some())
        };
        let inputs = self.signature.inputs.iter().map(|spec| position(spec, &self.config.inputs)).collect();
        let outputs =
            self.signature.outputs.iter().map(|spec| position(spec, &self.config.outputs)).collect();
        let mut instance = DeclaredInstance {
            inner: self.inner.instance(placement)?,
            config: Arc::clone(&self.config),
            rows: self.signature.is_batched(),
            inputs,
            outputs,
        };
        for (sample, rows) in &self.warm_up {
            self.warm(&mut instance, sample, rows).map_err(|error| {
                LoadError::transient(format!(
                    "config.pbtxt: model_warmup '{}' does not run: {error}",
                    sample.name
                ))
            })?;
        }
        Ok(Box::new(instance))
    }
}

impl DeclaredModel {
    fn warm(
        &self,
        instance: &mut DeclaredInstance,
        sample: &WarmUpSample,
        rows: &[Row],
    ) -> Result<(), RunError> {
        let counted = self.signature.is_batched().then_some(sample.rows);
        let stacked: Vec<_> = self
            .signature
            .inputs
            .iter()
            .map(|spec| {
                let row = rows.iter().find(|row| row.name == spec.name)?;
                Some(row.repeated(counted))
            })
            .collect();
        let views: Vec<_> = stacked.iter().map(|batch| batch.as_ref().map(|batch| batch.view())).collect();
        for _ in 0..sample.runs {
            instance.run(&views)?;
        }
        Ok(())
    }
}

// === impl DeclaredInstance ===

impl Instance for DeclaredInstance {
    fn run(&mut self, inputs: &[Option<InputView<'_>>]) -> Result<Vec<Tensor>, RunError> {
        if self.inputs.iter().chain(&self.outputs).all(Option::is_none) {
            return self.inner.run(inputs);
        }
        let shapes = self.model_shapes(inputs)?;
        let outputs = self.inner.run(&reshaped(inputs, &shapes))?;
        outputs.into_iter().enumerate().map(|(index, output)| self.reshape_output(index, output)).collect()
    }

    fn give_back_memory(&mut self, inputs: &[Option<InputView<'_>>]) -> Result<(), RunError> {
        let shapes = self.model_shapes(inputs)?;
        self.inner.give_back_memory(&reshaped(inputs, &shapes))
    }

    fn stopper(&self) -> Stopper {
        self.inner.stopper()
    }
}

fn reshaped<'a>(inputs: &[Option<InputView<'a>>], shapes: &'a [Option<Shape>]) -> Vec<Option<InputView<'a>>> {
    let of_model = |(view, shape): (&Option<InputView<'a>>, &'a Option<Shape>)| {
        let view = view.as_ref()?;
        Some(InputView { shape: shape.as_deref().unwrap_or(view.shape), ..*view })
    };
    inputs.iter().zip(shapes).map(of_model).collect()
}

impl DeclaredInstance {
    /// The shapes that the model is to have for inputs of these.
    fn model_shapes(&self, inputs: &[Option<InputView<'_>>]) -> Result<Vec<Option<Shape>>, RunError> {
        let of_model = |(view, declared): (&Option<InputView<'_>>, &Option<usize>)| {
            let (Some(view), Some(declared)) = (view, declared) else { return Ok(None) };
            let declared = &self.config.inputs[*declared];
            match declared.model_shape(view.shape, self.rows) {
                Some(shape) => Ok(Some(shape)),
                None => Err(RunError::Input(format!(
                    "input '{}' has shape {}: it cannot be reshaped as the configuration says",
                    declared.name,
                    ShapeText(view.shape)
                ))),
            }
        };
        inputs.iter().zip(&self.inputs).map(of_model).collect()
    }

    fn reshape_output(&self, index: usize, output: Tensor) -> Result<Tensor, RunError> {
        let Some(declared) = self.outputs.get(index).copied().flatten() else { return Ok(output) };
        let declared = &self.config.outputs[declared];
        let shape = declared.client_shape(output.shape(), self.rows);
        shape.and_then(|shape| Tensor::new(output.dtype(), shape, output.data().clone()).ok()).ok_or_else(
            || {
                RunError::Failed(format!(
                    "output '{}' has shape {}: it cannot be reshaped as the configuration says",
                    declared.name,
                    ShapeText(output.shape())
                ))
            },
        )
    }
}
