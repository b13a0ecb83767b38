//! `Query` is what a client said; `Request` is what passed `Request::new(&Signature, query)`; there is no other way to make one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::answer_limit::{AnswerLimit, least_bytes};
use crate::companions::Companions;
use crate::error::InferError;
use crate::prediction::Routed;
use crate::tensor::{Dim, ShapeText, Signature, Tensor, TensorSpec};
use crate::trace::{SpanRef, Trace};

/// What a client said, in any dialect, decoded and not yet checked against a model.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub model: String,
    pub version: VersionSelector,
    pub inputs: Vec<NamedTensor>,
    /// Outputs to answer with, in this order; empty asks for all.
    pub outputs: Vec<String>,
    /// When the caller stops waiting. The model or the server may set an earlier one.
    pub deadline: Option<Instant>,
    /// When the `timeout` that the caller wrote into the request ends: a deadline too, unless the model's queue
    /// policy says what else happens then.
    pub timeout: Option<Instant>,
    /// From 1, the most urgent; 0, and one that the model does not have, is the model's default.
    pub priority: u64,
    /// Where the request is traced.
    pub trace: Option<Box<Trace>>,
    /// How large the answer may be; without one, as large as it is.
    pub answer_limit: Option<AnswerLimit>,
}

/// Which version of a model is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VersionSelector {
    /// What the model serves by default: the label `stable` if there is one, else the newest.
    #[default]
    Default,
    Number(u64),
    Label(String),
}

#[derive(Clone, Debug)]
pub struct NamedTensor {
    pub name: String,
    pub tensor: Tensor,
}

// === impl VersionSelector ===

impl VersionSelector {
    /// Reads a version as clients write it: nothing, a number, or a label.
    ///
    /// # Errors
    /// A number that no version can have.
    pub fn parse(text: &str) -> Result<VersionSelector, InferError> {
        if text.is_empty() {
            return Ok(VersionSelector::Default);
        }
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(VersionSelector::Label(text.to_owned()));
        }
        match text.parse() {
            Ok(version) => Ok(VersionSelector::Number(version)),
            Err(_too_large) => Err(InferError::NotFound(format!(
                "version '{text}' cannot exist: expected a number up to {} or a label",
                u64::MAX
            ))),
        }
    }
}

/// A query that agrees with a signature.
#[derive(Debug)]
pub struct Request {
    inputs: Inputs,
    rows: usize,
    /// It is all that its caller sent, not a part.
    is_whole: bool,
    bytes: usize,
    shape_key: ShapeKey,
    outputs: Selection,
    deadline: Option<Instant>,
    trace: Option<Box<Trace>>,
}

/// A request's tensors in signature order; `None` where an optional input is left out.
pub(crate) type Inputs = SmallVec<[Option<Tensor>; 2]>;

/// Dimensions that must be equal for two requests to share a batch: every dynamic one but the batch
/// axis, and which optional inputs are there. Empty for a model whose rows all look alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ShapeKey(SmallVec<[usize; 4]>);

/// No dimension, and no marker of [`Request::new`], can equal it.
const ALONE: usize = usize::MAX - 1;

/// Which outputs a caller wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    All,
    Listed(SmallVec<[usize; 4]>),
}

/// What is known of a version that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    pub name: String,
    pub version: u64,
    pub signature: Signature,
    /// Triton's platform string, for example `onnxruntime_onnx`.
    pub platform: String,
    /// Most rows that run together; 1 without a batch axis.
    pub batch_rows_max: usize,
    /// How long a batch may wait for more rows.
    pub batch_delay: Duration,
    pub instances: usize,
    /// Threads inside one run of one instance.
    pub threads: usize,
    /// What was derived and why, one fact an entry, for people.
    pub notes: Vec<String>,
    /// What its backend gave with it.
    pub companions: Companions,
}

/// Output tensors, each with its index into `signature.outputs`, in the order asked for.
pub type Outputs = SmallVec<[(usize, Tensor); 2]>;

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Response {
    /// Who answered.
    pub model: Arc<ModelInfo>,
    /// Who was asked and would have refused, where that is another one.
    pub degraded_from: Option<Arc<ModelInfo>>,
    /// Where a route was asked, the arm that it chose.
    pub routed: Option<Routed>,
    /// How many rows were asked for: 1 where the model is not batched, and where the request had to run alone.
    pub rows: usize,
    pub outputs: Outputs,
    pub timing: Timing,
    /// Of a traced request, the batches that it was in.
    pub batches: Vec<SpanRef>,
    /// The query's, for whoever writes the answer down.
    pub answer_limit: Option<AnswerLimit>,
}

/// Where a request's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From admission until a worker took it.
    pub queue: Duration,
    /// Of the run of the batch that it was in.
    pub run: Duration,
    /// From admission until the answer left the worker.
    pub total: Duration,
    /// Rows of the batch that this request ran in.
    pub batch_rows: usize,
}

// === impl ShapeKey ===

impl ShapeKey {
    #[cfg(test)]
    pub(crate) fn of(dims: &[usize]) -> ShapeKey {
        ShapeKey(dims.into())
    }

    pub(crate) fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Of requests of a batched model that share no batch: they have no rows, or inputs with different numbers of
    /// them, which a runtime may broadcast.
    fn alone() -> ShapeKey {
        ShapeKey(smallvec::smallvec![ALONE])
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.0.as_slice() == [ALONE]
    }
}

// === impl Request ===

impl Request {
    /// Checks `query` against `signature` and puts its inputs in signature order.
    ///
    /// # Errors
    /// `InvalidInput` that names the tensor, what was expected and what came.
    pub fn new(signature: &Signature, query: Query) -> Result<Request, InferError> {
        let outputs = select_outputs(signature, &query.outputs)?;
        let deadline = query.deadline;
        let trace = query.trace;
        let inputs = order_inputs(signature, query.inputs)?;

        let batched = signature.is_batched();
        let mut rows: Option<usize> = None;
        let mut is_alone = false;
        let mut bytes = 0;
        let mut shape_key = SmallVec::new();
        for (spec, input) in signature.inputs.iter().zip(&inputs) {
            let Some(tensor) = input else {
                if !spec.optional {
                    return Err(missing_input(signature, spec));
                }
                // A marker that no dimension can equal: requests with and without the input differ.
                shape_key.push(usize::MAX);
                continue;
            };
            check_tensor(spec, tensor)?;
            bytes += tensor.data().len();
            let shape = tensor.shape();
            if batched {
                let expected = *rows.get_or_insert(shape[0]);
                is_alone |= shape[0] == 0 || shape[0] != expected;
            }
            let skip = usize::from(batched);
            match &spec.shape {
                None => {
                    shape_key.push(shape.len());
                    shape_key.extend_from_slice(&shape[skip.min(shape.len())..]);
                }
                Some(dims) => {
                    for (dim, &size) in dims.iter().zip(shape).skip(skip) {
                        if matches!(dim, Dim::Dynamic(_)) {
                            shape_key.push(size);
                        }
                    }
                }
            }
        }
        let (rows, shape_key) = match is_alone {
            true => (1, ShapeKey::alone()),
            false => (rows.unwrap_or(1), ShapeKey(shape_key)),
        };
        Ok(Request { inputs, rows, is_whole: true, bytes, shape_key, outputs, deadline, trace })
    }

    /// The bytes that its answer has at the least, where each row that it counts as is one of every output.
    pub(crate) fn least_answer_bytes(&self, signature: &Signature) -> usize {
        least_bytes(signature, self.outputs.of(signature), self.rows)
    }

    /// How many rows it counts as: 1 where the model is not batched, and where it has to run alone.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Has it run alone and count as one row from now on.
    pub(crate) fn keep_alone(&mut self) {
        self.rows = 1;
        self.shape_key = ShapeKey::alone();
    }

    /// How many rows it brings to a batch; `None` where its tensors cannot be stacked with others'.
    pub(crate) fn stackable_rows(&self, signature: &Signature) -> Option<usize> {
        (signature.is_batched() && !self.shape_key.is_alone()).then_some(self.rows)
    }

    /// What is unlike other requests in the rows of one that shares no batch, for people.
    pub(crate) fn unlike_rows(&self, signature: &Signature) -> Option<String> {
        if !self.shape_key.is_alone() {
            return None;
        }
        let mut counts = signature.inputs.iter().zip(&self.inputs).filter_map(|(spec, input)| {
            let rows = *input.as_ref()?.shape().first()?;
            Some((&spec.name, rows))
        });
        let (first, rows) = counts.next()?;
        match counts.find(|(_, others)| *others != rows) {
            Some((name, others)) => {
                Some(format!("input '{first}' has {rows} rows and '{name}' has {others}"))
            }
            None => (rows == 0).then(|| format!("input '{first}' has no rows")),
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Bytes of all input tensors together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn trace(&self) -> Option<&Trace> {
        self.trace.as_deref()
    }

    pub(crate) fn trace_mut(&mut self) -> Option<&mut Trace> {
        self.trace.as_deref_mut()
    }

    pub(crate) fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    pub(crate) fn shape_key(&self) -> &ShapeKey {
        &self.shape_key
    }

    pub(crate) fn outputs(&self) -> &Selection {
        &self.outputs
    }

    /// Cuts a batched request into parts of at most `rows_max` rows, sharing its memory.
    pub(crate) fn split(self, rows_max: usize) -> Vec<Request> {
        let mut parts = Vec::with_capacity(self.rows.div_ceil(rows_max));
        let mut start = 0;
        while start < self.rows {
            let end = self.rows.min(start + rows_max);
            let inputs: Inputs = self
                .inputs
                .iter()
                .map(|input| input.as_ref().map(|tensor| tensor.rows(start..end)))
                .collect();
            let bytes = inputs.iter().flatten().map(|tensor| tensor.data().len()).sum();
            parts.push(Request {
                inputs,
                rows: end - start,
                is_whole: false,
                bytes,
                shape_key: self.shape_key.clone(),
                outputs: self.outputs.clone(),
                deadline: self.deadline,
                trace: self.trace.clone(),
            });
            start = end;
        }
        parts
    }
}

impl Selection {
    /// Those that are wanted, as the signature has them.
    fn of<'s>(&'s self, signature: &'s Signature) -> impl Iterator<Item = &'s TensorSpec> {
        let (all, listed): (&[TensorSpec], &[usize]) = match self {
            Selection::All => (&signature.outputs, &[]),
            Selection::Listed(indices) => (&[], indices),
        };
        all.iter().chain(listed.iter().map(|index| &signature.outputs[*index]))
    }

    pub(crate) fn pick(&self, outputs: Vec<Tensor>) -> Outputs {
        match self {
            Selection::All => outputs.into_iter().enumerate().collect(),
            Selection::Listed(indices) => {
                indices.iter().map(|&index| (index, outputs[index].clone())).collect()
            }
        }
    }
}

fn select_outputs(signature: &Signature, names: &[String]) -> Result<Selection, InferError> {
    if names.is_empty() {
        return Ok(Selection::All);
    }
    let mut indices = SmallVec::new();
    for name in names {
        let Some(index) = signature.outputs.iter().position(|spec| spec.name == *name) else {
            return Err(InferError::InvalidInput(format!(
                "unexpected output '{name}': the model gives {}",
                names_of(&signature.outputs)
            )));
        };
        if indices.contains(&index) {
            return Err(InferError::InvalidInput(format!("output '{name}' is requested twice")));
        }
        indices.push(index);
    }
    Ok(Selection::Listed(indices))
}

fn order_inputs(signature: &Signature, given: Vec<NamedTensor>) -> Result<Inputs, InferError> {
    let mut ordered: Inputs = smallvec::smallvec![None; signature.inputs.len()];
    for NamedTensor { name, tensor } in given {
        let Some(index) = signature.inputs.iter().position(|spec| spec.name == name) else {
            return Err(InferError::InvalidInput(format!(
                "unexpected input '{name}': the model takes {}",
                names_of(&signature.inputs)
            )));
        };
        if ordered[index].replace(tensor).is_some() {
            return Err(InferError::InvalidInput(format!("input '{name}' is given twice")));
        }
    }
    Ok(ordered)
}

fn check_tensor(spec: &TensorSpec, tensor: &Tensor) -> Result<(), InferError> {
    if tensor.dtype() != spec.dtype {
        return Err(InferError::InvalidInput(format!(
            "input '{}': expected datatype {}, got {}",
            spec.name,
            spec.dtype,
            tensor.dtype()
        )));
    }
    let Some(dims) = &spec.shape else { return Ok(()) };
    let agrees = dims.len() == tensor.shape().len()
        && dims.iter().zip(tensor.shape()).all(|(dim, size)| match dim {
            Dim::Fixed(expected) => expected == size,
            Dim::Dynamic(_) => true,
        });
    if agrees {
        return Ok(());
    }
    Err(InferError::InvalidInput(format!(
        "input '{}': expected shape {:?}, got {}",
        spec.name,
        spec.protocol_shape(),
        ShapeText(tensor.shape())
    )))
}

fn missing_input(signature: &Signature, spec: &TensorSpec) -> InferError {
    InferError::InvalidInput(format!(
        "missing input '{}' ({} {:?}): the model takes {}",
        spec.name,
        spec.dtype,
        spec.protocol_shape(),
        names_of(&signature.inputs)
    ))
}

fn names_of(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| format!("'{}'", spec.name)).collect::<Vec<_>>().join(", ")
}
