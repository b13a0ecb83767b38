//! Models on tract: one plan with symbolic dimensions, or, where a model does not allow that, one plan for each input shape.

mod defaults;
mod forest;
mod labels;
mod omissions;
mod operators;
mod panics;
mod sizes;
mod undecided_sizes;
mod values;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gristmill_engine::backend::{
    Artifact, InputView, Instance, Model, Placement, RowIndependence, Stop, Stopper,
};
use gristmill_engine::error::{LoadError, RunError};
use gristmill_engine::tensor::{Dim, Shape, Signature, Tensor, TensorSpec};
use tract_onnx::dim_expr::parse_onnx_dim;
use tract_onnx::prelude::{
    DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, TDim, TValue, TVec,
    ToDim, TractResult, TypedRunnableModel, TypedSimpleState,
};
use tract_onnx::tract_core::internal::{SpecialOps, bail, format_err};
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_core::plan::eval;

use crate::file_bytes::FileBytes;
use crate::graph::{Graph, ModelFile, Opset, model_directory};
use crate::library::one_line;
use crate::signature;

/// The release that the workspace depends on, for people.
pub(crate) const VERSION: &str = "0.23";
/// Plans that one instance keeps for models that need one for each combination of input shapes.
const SHAPE_PLANS_MAX: usize = 8;
/// What tract lacks is better said with a way out.
const WAY_OUT: &str = "serve it with ONNX Runtime (run `make`, or set ORT_DYLIB_PATH)";

pub(crate) struct TractModel {
    plan: Plan,
    signature: Arc<Signature>,
    independence: RowIndependence,
    labels: Arc<Labels>,
    notes: Vec<String>,
}

/// For each output of text labels that tract gives as indices: the labels.
type Labels = Vec<Option<Vec<String>>>;

/// What parsing and optimising gave.
struct Built {
    plan: Plan,
    /// Why the plan is not symbolic.
    obstacle: Option<String>,
    labels: Labels,
}

#[derive(Clone)]
enum Plan {
    /// Good for every shape.
    Symbolic(Arc<TypedRunnableModel>),
    /// The model as parsed, from which a plan is made when a new combination of shapes arrives.
    PerShape(Arc<InferenceModel>),
}

struct TractInstance {
    plan: Plan,
    signature: Arc<Signature>,
    labels: Arc<Labels>,
    /// Plans in use, the latest used last.
    prepared: Vec<Prepared>,
    stop: Arc<RunStop>,
}

/// A plan, and what its next run begins with.
struct Prepared {
    /// The input shapes that the plan is for. A symbolic plan is for all shapes: its list is empty.
    shapes: Vec<Shape>,
    plan: Arc<TypedRunnableModel>,
    /// Of the last run, for plans in which nothing is carried from one run to the next. Recurrent operators (LSTM, GRU,
    /// RNN, Scan, Loop) go on where they ended, so each of their runs begins with a state of its own: what they
    /// hold is another caller's.
    state: Option<TypedSimpleState>,
}

/// Read before each operator.
#[derive(Default)]
struct RunStop {
    is_set: AtomicBool,
}

// === impl TractModel ===

impl TractModel {
    /// Parses and optimises the artifact.
    ///
    /// # Errors
    /// See [`gristmill_engine::backend::Backend::load`]; operators that tract lacks are named.
    pub(crate) fn load(artifact: &Artifact, is_unbatched: bool) -> Result<TractModel, LoadError> {
        let path = &artifact.path;
        let file = ModelFile::read(path)?;
        let derived = signature::derive(path, &file, false, is_unbatched)?;
        check_support(path, &file.graph, &file.opsets, &derived.signature)?;

        let signature = &derived.signature;
        let undecided = undecided_sizes::find(&file.graph);
        let built = panics::as_errors(|| build(path, file.bytes, signature, undecided))
            .unwrap_or_else(|panic| Err(format_err!("{panic}")));
        let built = built.map_err(|error| {
            let why = chain(&error);
            let what = match omissions::node_at_fault(&file.graph, &why) {
                Some(node) => format!("{} of {}", omissions::title(node), path.display()),
                None => path.display().to_string(),
            };
            LoadError::permanent(format!("tract cannot run {what}: {why}; {WAY_OUT}"))
        })?;

        let mut notes = vec![format!("tract {VERSION} (embedded, pure Rust), one thread for each run")];
        notes.extend(
            built.obstacle.map(|why| format!("a plan for each combination of input shapes, because {why}")),
        );
        notes.extend(derived.notes);
        Ok(TractModel {
            plan: built.plan,
            signature: Arc::new(derived.signature),
            independence: derived.independence,
            labels: Arc::new(built.labels),
            notes,
        })
    }

    pub(crate) fn add_notes(&mut self, notes: Vec<String>) {
        self.notes.extend(notes);
    }
}

fn check_support(
    path: &Path,
    graph: &Graph,
    opsets: &[Opset],
    signature: &Signature,
) -> Result<(), LoadError> {
    let known = operators::onnx().op_register;
    let mut missing = BTreeSet::new();
    let mut first = None;
    for node in graph.all_nodes() {
        let is_known = omissions::is_of_a_known_domain(node) && known.0.contains_key(&node.operator);
        if !is_known && missing.insert(&node.operator) {
            first.get_or_insert_with(|| node.title());
        }
    }
    if let Some(node) = first {
        let operators: Vec<&str> = missing.into_iter().map(String::as_str).collect();
        let noun = if operators.len() == 1 { "operator" } else { "operators" };
        return Err(LoadError::permanent(format!(
            "tract cannot run {noun} {} of {} (first at node '{node}'); {WAY_OUT}",
            operators.join(", "),
            path.display()
        )));
    }
    for node in graph.all_nodes() {
        if let Some(what) = omissions::passed_over(node, graph, opsets) {
            return Err(LoadError::permanent(format!(
                "tract cannot run {} of {} with {what}; {WAY_OUT}",
                omissions::title(node),
                path.display()
            )));
        }
    }
    let tensors = signature.inputs.iter().chain(&signature.outputs);
    if let Some(spec) = tensors.into_iter().find(|spec| values::datum_type(spec.dtype).is_none()) {
        return Err(LoadError::permanent(format!(
            "tract cannot run {}: tensor '{}' is {}, which tract lacks; {WAY_OUT}",
            path.display(),
            spec.name,
            spec.dtype
        )));
    }
    Ok(())
}

/// `obstacle` says why no plan for all sizes can be right.
fn build(
    path: &Path,
    bytes: FileBytes,
    signature: &Signature,
    obstacle: Option<String>,
) -> TractResult<Built> {
    let onnx = operators::onnx();
    let mut proto = onnx.proto_model_for_read(&mut &bytes[..])?;
    drop(bytes);
    let mut labels = proto.graph.as_mut().map_or_else(HashMap::new, labels::number);
    proto.graph.iter_mut().for_each(defaults::write_out);
    let labels = signature.outputs.iter().map(|output| labels.remove(&output.name)).collect();
    let directory = model_directory(path);
    let parsed = onnx.parse(&proto, directory.to_str())?;
    drop(proto);
    if !parsed.unresolved_inputs.is_empty() {
        bail!("nothing computes the tensors {}", parsed.unresolved_inputs.join(", "));
    }

    // Some operators, recurrent ones among them, panic where a size is a symbol.
    let symbolic = || {
        panics::as_errors(|| with_symbols(parsed.model.clone(), signature).and_then(plan))
            .unwrap_or_else(|panic| Err(format_err!("{panic}")))
    };
    let error = match obstacle.map_or_else(symbolic, |why| Err(format_err!("{why}"))) {
        Ok(plan) => return Ok(Built { plan: Plan::Symbolic(plan), obstacle: None, labels }),
        Err(error) => error,
    };
    // Smallest shapes stand in for all: a model that no plan can be made for is refused now.
    let shapes: Vec<Shape> = signature.inputs.iter().map(smallest_shape).collect();
    concrete_plan(&parsed.model, signature, &shapes)?;
    Ok(Built { plan: Plan::PerShape(Arc::new(parsed.model)), obstacle: Some(chain(&error)), labels })
}

/// Fixes the inputs' shapes, each dimension of any size by a symbol: the one in the file, one for the
/// rows of a batch, or one of its own.
fn with_symbols(mut model: InferenceModel, signature: &Signature) -> TractResult<InferenceModel> {
    let rows = signature::rows_symbol(&signature.inputs).unwrap_or("rows");
    for (index, spec) in signature.inputs.iter().enumerate() {
        let Some(shape) = &spec.shape else {
            bail!("input '{}' has no stated number of dimensions", spec.name);
        };
        let symbols = &model.symbols;
        let apart = || symbols.new_with_prefix("dim").to_dim();
        let dims: TVec<TDim> = shape
            .iter()
            .enumerate()
            .map(|(axis, dim)| match dim {
                Dim::Fixed(size) => size.to_dim(),
                // The text may be an expression, such as `seq + 1`.
                Dim::Dynamic(Some(symbol)) => parse_onnx_dim(symbols, symbol).unwrap_or_else(|_| apart()),
                Dim::Dynamic(None) if axis == 0 && signature.is_batched() => symbols.sym(rows).to_dim(),
                Dim::Dynamic(None) => apart(),
            })
            .collect();
        model.set_input_fact(index, InferenceFact::dt_shape(input_type(spec), dims))?;
    }
    Ok(model)
}

/// Optimises a model whose inputs have their shapes.
fn plan(model: InferenceModel) -> TractResult<Arc<TypedRunnableModel>> {
    let mut model = model.into_typed()?;
    // Sizes are computed as expressions of symbols, to which a run gives values only inside the graph.
    let mut outputs = model.output_outlets()?.to_vec();
    for (index, output) in outputs.iter_mut().enumerate() {
        if model.outlet_fact(*output)?.datum_type == DatumType::TDim {
            *output =
                model.wire_node(format!("output-{index}-as-int64"), cast(DatumType::I64), &[*output])?[0];
        }
    }
    model.select_output_outlets(&outputs)?;
    model.into_optimized()?.into_runnable()
}

fn concrete_plan(
    model: &InferenceModel,
    signature: &Signature,
    shapes: &[Shape],
) -> TractResult<Arc<TypedRunnableModel>> {
    let mut model = model.clone();
    for (index, (spec, shape)) in signature.inputs.iter().zip(shapes).enumerate() {
        model.set_input_fact(index, InferenceFact::dt_shape(input_type(spec), shape.as_slice()))?;
    }
    plan(model)
}

fn input_type(spec: &TensorSpec) -> DatumType {
    values::datum_type(spec.dtype).expect("check_support refused the dtypes that tract lacks; this is a bug")
}

fn smallest_shape(spec: &TensorSpec) -> Shape {
    let dims = spec.shape.iter().flatten();
    dims.map(|dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Dynamic(_) => 1,
    })
    .collect()
}

/// An error and its causes as one line.
fn chain(error: &tract_onnx::prelude::TractError) -> String {
    one_line(&format!("{error:#}"))
}

/// What tract says of the sizes of its own plans says nothing to others.
fn plainly(error: &str) -> String {
    match error.contains("SymbolScope") {
        true => format!("a size depends on values of the request, and tract cannot tell it; {WAY_OUT}"),
        false => error.to_owned(),
    }
}

impl Model for TractModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn platform(&self) -> &str {
        "tract_onnx"
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn is_parallel(&self) -> bool {
        false
    }

    fn row_independence(&self) -> RowIndependence {
        self.independence.clone()
    }

    fn instance(&self, _placement: Placement) -> Result<Box<dyn Instance>, LoadError> {
        // The plan is immutable, weights included; what a run changes is in its state.
        Ok(Box::new(TractInstance {
            plan: self.plan.clone(),
            signature: Arc::clone(&self.signature),
            labels: Arc::clone(&self.labels),
            prepared: Vec::new(),
            stop: Arc::default(),
        }))
    }
}

// === impl TractInstance ===

impl TractInstance {
    /// The plan for inputs of these shapes, taken out of the list: a run that fails leaves its state half way, and
    /// then it is not put back.
    fn take_prepared(&mut self, inputs: &[Option<InputView<'_>>]) -> TractResult<Prepared> {
        let shapes = match &self.plan {
            Plan::Symbolic(_) => Vec::new(),
            Plan::PerShape(_) => inputs.iter().flatten().map(|view| Shape::from_slice(view.shape)).collect(),
        };
        if let Some(index) = self.prepared.iter().position(|known| known.shapes == shapes) {
            return Ok(self.prepared.remove(index));
        }
        let plan = match &self.plan {
            Plan::Symbolic(plan) => Arc::clone(plan),
            Plan::PerShape(model) => concrete_plan(model, &self.signature, &shapes)?,
        };
        Ok(Prepared { shapes, plan, state: None })
    }

    fn run_plan(
        &mut self,
        views: &[Option<InputView<'_>>],
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let Prepared { shapes, plan, state } = self.take_prepared(views)?;
        let mut state = state.map_or_else(|| plan.spawn(), Ok)?;
        let outputs = state.run_plan_with_eval(inputs, |context, state, node, inputs| {
            if self.stop.is_set.load(Ordering::Acquire) {
                bail!("stopped before {node}");
            }
            eval(context, state, node, inputs)
        })?;
        if self.prepared.len() == SHAPE_PLANS_MAX {
            self.prepared.remove(0);
        }
        let is_stateless = state.op_states.iter().all(Option::is_none);
        self.prepared.push(Prepared { shapes, plan, state: is_stateless.then_some(state) });
        Ok(outputs)
    }
}

impl Instance for TractInstance {
    fn run(&mut self, inputs: &[Option<InputView<'_>>]) -> Result<Vec<Tensor>, RunError> {
        let signature = Arc::clone(&self.signature);
        sizes::check(&signature, inputs)?;
        let mut values = TVec::new();
        for (spec, view) in signature.inputs.iter().zip(inputs) {
            let view = view.as_ref().ok_or_else(|| {
                RunError::Failed(format!("input '{}' is missing; this is a bug", spec.name))
            })?;
            values.push(values::input(spec, view)?);
        }
        // After a panic too the batch can be split to find the request at fault. The state in use is
        // lost with the panic, and a new one made.
        let outputs = panics::as_errors(|| self.run_plan(inputs, values))
            .map_err(|panic| RunError::Failed(format!("tract failed: {panic}")))?
            .map_err(|error| match self.stop.is_set.load(Ordering::Acquire) {
                true => RunError::Stopped,
                false => RunError::Failed(format!("tract failed: {}", plainly(&chain(&error)))),
            })?;
        if outputs.len() != signature.outputs.len() {
            return Err(RunError::Failed(format!(
                "tract gave {} outputs where the model file promises {}",
                outputs.len(),
                signature.outputs.len()
            )));
        }
        let specs = signature.outputs.iter().zip(self.labels.iter());
        specs
            .zip(outputs)
            .map(|((spec, labels), value)| match labels {
                Some(labels) => values::labels(spec, labels, &value),
                None => values::output(spec, value),
            })
            .collect()
    }

    fn stopper(&self) -> Stopper {
        Stopper::new(Arc::<RunStop>::clone(&self.stop))
    }
}

impl Stop for RunStop {
    fn stop(&self) {
        self.is_set.store(true, Ordering::Release);
    }

    fn rearm(&self) {
        self.is_set.store(false, Ordering::Release);
    }
}
